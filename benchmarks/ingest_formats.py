"""P8: what the pipeline adds to reading a file, for every format but CSV."""

from collections.abc import Callable

from benchmarks.figures import Finding, median_ratio, spread
from benchmarks.ingest_files import ROWS, fresh_database, generated, ingest, read
from benchmarks.installation import Installation
from benchmarks.one_read import BARE

GOAL = 0.4
ROUNDS = 3
# The slower a format is to read, the smaller its part of ROWS.
SHARES = {"jsonl": 0.25, "parquet": 0.5, "xml": 0.1, "mysql": 0.15, "xlsx": 0.1}
TITLES = {
    "jsonl": "JSON Lines",
    "parquet": "Parquet",
    "xml": "XML",
    "mysql": "SQL dump (MySQL)",
    "xlsx": "Excel (xlsx)",
}


def measure(installation: Installation, say: Callable[[str], None]) -> Finding:
    """Rows a second of `ingest`, of our reader alone, and of the bare library where there is one."""
    rows = []
    sizes = []
    for file_format, share in SHARES.items():
        count = max(1_000, round(ROWS * share))
        say(f"P8: {TITLES[file_format]}, {count:,} records …")
        path = generated(installation, file_format, count)
        sizes.append(f"{TITLES[file_format]} {count:,} ({path.stat().st_size / 1e6:,.0f} MB)")
        name, _ = BARE.get(path.suffix.removeprefix("."), ("", None))
        ours: list[float] = []
        alone: list[float] = []
        bare: list[float] = []
        for _ in range(ROUNDS):
            with fresh_database(installation) as fresh:
                ours.append(ingest(fresh, path).rate)
            alone.append(read(installation, path, "reader"))
            if name:
                bare.append(read(installation, path, "bare"))
        ratio = median_ratio(ours, alone)
        rows.append(
            [
                TITLES[file_format], spread(ours), spread(alone), f"{ratio:.2f}", f"≥ {GOAL}",
                f"{spread(bare)}, {name}" if name else "—", f"{median_ratio(ours, bare):.2f}" if name else "—",
            ]
        )  # fmt: skip
        say(f"P8: {TITLES[file_format]}: {ratio:.2f}")
    return Finding(
        "P8",
        "other formats against reading alone",
        ["", "ingest, rows/s", "our reader alone, rows/s", "ratio", "goal", "bare library, rows/s", "ratio"],
        rows,
        f"{'; '.join(sizes)} generated records; {ROUNDS} rounds in turns, each in a new process, without Django's "
        f"start, ingest into "
        "a new, empty table each time. 'Reader alone' is the reader of `ingestion.formats` to the end of the file, "
        "its batches of "
        "text columns dropped. 'Bare library' makes no columns and knows nothing of broken rows (expat stops at the "
        "first one); "
        "Python has none for SQL dumps, and none for xlsx is installed.",
    )
