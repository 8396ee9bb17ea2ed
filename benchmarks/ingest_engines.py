"""P12: the Spark engine on this machine against the local one."""

import os
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from shutil import which

from benchmarks.figures import Finding, NotMeasured, median_ratio, spread
from benchmarks.ingest_files import ROWS, fresh_database, generated, ingest
from benchmarks.installation import Installation

GOAL = 0.4
ROUNDS = 3
MASTER = "local[2]"


def measure(installation: Installation, say: Callable[[str], None]) -> Finding:
    """Rows a second of the same file by either engine. Raises NotMeasured where Spark cannot run."""
    from ingestion.engines import ENGINES

    if "spark" not in ENGINES:
        raise NotMeasured("P12: this version has no Spark engine.")
    if find_spec("pyspark") is None or not (which("java") or os.environ.get("JAVA_HOME")):
        raise NotMeasured("P12 needs PySpark (requirements/spark.txt) and Java 17 on PATH.")
    path = generated(installation, "csv", ROWS)
    on_spark = replace(installation, environment={**installation.environment, "SPARK_MASTER": MASTER})
    rates: dict[str, list[float]] = {"local": [], "spark": []}
    for number in range(ROUNDS):
        for engine, values in rates.items():
            with fresh_database(on_spark) as fresh:
                values.append(ingest(fresh, path, "--engine", engine).rate)
        say(f"P12: round {number + 1}/{ROUNDS} done")
    return Finding(
        "P12",
        f"Spark engine, {MASTER}, against the local engine",
        ["", "rows/s, median (lowest–highest round)", "ratio", "goal"],
        [
            ["local", spread(rates["local"]), "1.00", ""],
            ["spark", spread(rates["spark"]), f"{median_ratio(rates['spark'], rates['local']):.2f}", f"≥ {GOAL}"],
        ],
        f"the CSV file of P7 ({ROWS:,} records), {ROUNDS} rounds in turns, each in a new process and into a new, empty table; "
        "the start of Django and of the Spark session is left out.",
    )
