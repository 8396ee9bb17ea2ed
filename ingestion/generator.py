"""Test data: any number of records, the same for the same seed, in constant memory. Pure.

Row k does not depend on how many rows are asked for. The first rows hold, whatever the number from HEAD_ROWS up, the people of
Acme and the one record whose id is KNOWN_ID.
"""

from collections.abc import Iterator
from datetime import date
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from ingestion import generator_words as words
from ingestion.generator_formats import WRITERS, XLSX_ROWS_MAX
from ingestion.generator_packing import compression_by_name, packed

KNOWN_ID = "54a4f3f67468693b8cd7b470"
HEAD_ROWS = 60
BLOCK_ROWS = 50_000
DIRT = 0.001
DUPLICATES = 0.01
# Besides, rows of later blocks that repeat one of the first block: duplicates that lie far apart.
FAR_DUPLICATES = 0.002
COLUMNS = (
    "id", "full_name", "email", "phone", "address", "city", "country", "created_date", "status",
    "company", "zip", "plan", "signup_source", "score",
)  # fmt: skip

_FIRST_DAY, _LAST_DAY = date(2016, 1, 1), date(2025, 12, 31)
# Of the damaged rows this share cannot be loaded at all; the others have one bad value.
_BROKEN_OF_DIRT = 0.2


def write(
    path: Path,
    *,
    rows: int,
    file_format: str = "csv",
    seed: int = 1,
    dirt: float = DIRT,
    compression: str | None = None,
) -> int:
    """Writes `rows` records to `path` and returns the bytes written. `dirt` is the share of damaged rows, 0 to 1.

    `compression`: one of COMPRESSIONS, "" for none; None: what the suffix of `path` says.
    """
    if file_format not in WRITERS:
        raise ValueError(f"unknown format {file_format!r}")
    if file_format == "xlsx" and rows > XLSX_ROWS_MAX:
        raise ValueError(f"a sheet of a workbook holds {XLSX_ROWS_MAX:,} records at most")
    with packed(path, compression_by_name(path) if compression is None else compression) as file:
        WRITERS[file_format](file, COLUMNS, blocks(rows=rows, seed=seed, dirt=dirt))
    return path.stat().st_size


def blocks(*, rows: int, seed: int, dirt: float) -> Iterator[tuple[pl.DataFrame, pl.Series]]:
    """Frames of at most BLOCK_ROWS records, all columns text, each with the mask of the rows that are to be broken."""
    first = None
    for number, start in enumerate(range(0, rows, BLOCK_ROWS)):
        rng = np.random.default_rng([seed, number])
        frame = _records(rng, BLOCK_ROWS)
        frame = _repeat_some(rng, frame)
        if first is None:
            first = frame = _with_head(frame)
        else:
            frame = _repeat_first(np.random.default_rng([seed, number, 1]), frame, first)
        frame, broken = _soil(rng, frame, dirt, spared=HEAD_ROWS if number == 0 else 0)
        wanted = min(BLOCK_ROWS, rows - start)
        yield frame.head(wanted), broken.head(wanted)


def _pick(rng: np.random.Generator, choices: tuple[str, ...] | list[str], rows: int, *, skew: float = 1.0) -> pl.Series:
    """Texts at random; with a skew above 1 the first of them come more often."""
    place = (len(choices) * rng.random(rows) ** skew).astype(np.uint32)
    return pl.Series(list(choices)).gather(place)


def _records(rng: np.random.Generator, rows: int) -> pl.DataFrame:
    weights = np.array([country[1] for country in words.COUNTRIES], dtype=np.float64)
    where = np.searchsorted(np.cumsum(weights / weights.sum()), rng.random(rows), side="right").clip(
        0, len(weights) - 1
    )
    first, last = _pick(rng, words.FIRST_NAMES, rows, skew=1.5), _pick(rng, words.LAST_NAMES, rows, skew=1.5)
    company = _pick(rng, words.COMPANIES[::-1], rows, skew=1.3)
    number = pl.Series(rng.integers(1, 10_000, rows)).cast(pl.String)
    at_work = pl.Series(rng.random(rows) < 0.4)
    domain = (company.str.to_lowercase() + ".example.com").zip_with(at_work, _pick(rng, words.FREE_MAIL, rows))
    plain = (first + "." + last).str.normalize("NFKD").str.replace_all(r"[^A-Za-z.]", "").str.to_lowercase()
    days = (_LAST_DAY - _FIRST_DAY).days
    created = pl.Series((days * rng.random(rows) ** 0.6).astype(np.int32)) + (_FIRST_DAY - date(1970, 1, 1)).days
    shares = np.array([share for _, share in words.STATUSES], dtype=np.float64)
    status = np.searchsorted(np.cumsum(shares / shares.sum()), rng.random(rows), side="right").clip(0, len(shares) - 1)
    return pl.DataFrame(
        {
            "id": _hex_ids(rng, rows),
            "full_name": first + " " + last,
            "email": plain + number + "@" + domain,
            "phone": _phones(rng, where),
            "address": _addresses(rng, rows),
            "city": _cities(rng, where),
            "country": pl.Series([country[0] for country in words.COUNTRIES]).gather(where),
            "created_date": created.cast(pl.Int32).cast(pl.Date).cast(pl.String),
            "status": pl.Series([name for name, _ in words.STATUSES]).gather(status),
            "company": company,
            "zip": pl.Series(rng.integers(501, 99951, rows)).cast(pl.String).str.zfill(5),
            "plan": _pick(rng, words.PLANS, rows, skew=2.0),
            "signup_source": _pick(rng, words.SOURCES, rows),
            "score": pl.Series(rng.integers(0, 1000, rows)).cast(pl.String),
        }
    )


def _hex_ids(rng: np.random.Generator, rows: int) -> pl.Series:
    text = rng.bytes(12 * rows).hex().encode()
    offsets = pa.py_buffer(np.arange(0, 24 * rows + 1, 24, dtype=np.int32).tobytes())
    return pl.Series(pl.from_arrow(pa.StringArray.from_buffers(rows, offsets, pa.py_buffer(text))))


def _phones(rng: np.random.Generator, where: npt.NDArray[np.int64]) -> pl.Series:
    """US numbers as people write them at home, the others with their country's code; a tenth is not given."""
    rows = len(where)
    subscriber = pl.Series(rng.integers(2_000_000_000, 10_000_000_000, rows)).cast(pl.String)
    # The exchange of a US number begins with 2 to 9, as does its area.
    area, exchange, line = subscriber.str.slice(0, 3), rng.integers(200, 1000, rows), subscriber.str.slice(6, 4)
    home = "(" + area + ") " + pl.Series(exchange).cast(pl.String) + "-" + line
    codes = pl.Series([f"+{country[2]} " for country in words.COUNTRIES]).gather(where)
    length = pl.Series([country[3] for country in words.COUNTRIES]).gather(where)
    abroad = codes + pl.select(subscriber.to_frame("s").select(pl.col("s").str.head(length)).to_series()).to_series()
    phones = home.zip_with(pl.Series(where == 0), abroad)
    return phones.zip_with(pl.Series(rng.random(rows) > 0.1), pl.Series([""]).new_from_index(0, rows))


def _addresses(rng: np.random.Generator, rows: int) -> pl.Series:
    number = pl.Series(rng.integers(1, 3000, rows)).cast(pl.String)
    street = (
        number + " " + _pick(rng, words.STREETS, rows, skew=1.5) + " " + _pick(rng, words.STREET_KINDS, rows, skew=1.5)
    )
    flat = ", Apt " + pl.Series(rng.integers(1, 400, rows)).cast(pl.String)
    return (street + flat).zip_with(pl.Series(rng.random(rows) < 0.15), street)


def _cities(rng: np.random.Generator, where: npt.NDArray[np.int64]) -> pl.Series:
    counts = np.array([len(country[4]) for country in words.COUNTRIES])
    starts = np.concatenate(([0], np.cumsum(counts)[:-1]))
    place = starts[where] + (counts[where] * rng.random(len(where)) ** 2).astype(np.int64)
    return pl.Series([city for country in words.COUNTRIES for city in country[4]]).gather(place)


def _repeat_some(rng: np.random.Generator, frame: pl.DataFrame) -> pl.DataFrame:
    """Some rows become copies of an earlier one of the block."""
    rows = frame.height
    source = np.arange(rows)
    later = np.flatnonzero((rng.random(rows) < DUPLICATES) & (source > 2 * HEAD_ROWS))
    source[later] = HEAD_ROWS + (rng.random(len(later)) * (later - HEAD_ROWS)).astype(np.int64)
    return frame[source]


def _repeat_first(rng: np.random.Generator, frame: pl.DataFrame, first: pl.DataFrame) -> pl.DataFrame:
    """Some rows become copies of rows of the first block, its head aside."""
    rows = frame.height
    source = np.arange(rows)
    far = np.flatnonzero(rng.random(rows) < FAR_DUPLICATES)
    source[far] = rows + rng.integers(HEAD_ROWS, first.height, len(far))
    return pl.concat([frame, first])[source]


def _with_head(frame: pl.DataFrame) -> pl.DataFrame:
    """The first rows made the people of Acme, most of them in the USA and created in 2024; the very first has KNOWN_ID."""
    head = frame.head(HEAD_ROWS).with_row_index("at")
    local = pl.col("email").str.split("@").list.first()
    head = head.with_columns(
        company=pl.lit("Acme"),
        email=local + pl.lit("@acme.example.com"),
        country=pl.lit("USA"),
        city=pl.lit("New York"),
        phone=pl.lit("(212) 555-01") + pl.col("at").cast(pl.String).str.zfill(2),
        created_date=pl.lit("2024-") + (pl.col("at") % 12 + 1).cast(pl.String).str.zfill(2) + pl.lit("-15"),
        status=pl.when(pl.col("at") % 3 == 0).then(pl.lit("pending")).otherwise(pl.lit("active")),
        id=pl.when(pl.col("at") == 0).then(pl.lit(KNOWN_ID)).otherwise(pl.col("id")),
    )
    return pl.concat([head.drop("at"), frame.tail(frame.height - HEAD_ROWS)])


def _soil(rng: np.random.Generator, frame: pl.DataFrame, dirt: float, *, spared: int) -> tuple[pl.DataFrame, pl.Series]:
    """Damages a share of the rows: one bad value, or a mark that the row is to be broken when it is written."""
    rows = frame.height
    damaged = (rng.random(rows) < dirt) & (np.arange(rows) >= spared)
    broken = damaged & (rng.random(rows) < _BROKEN_OF_DIRT)
    kind = np.where(damaged & ~broken, rng.integers(0, 4, rows), -1)
    spoilt = {"email": "not-an-address", "phone": "call me", "created_date": "31/31/2024", "country": "Atlantis"}
    columns = [
        frame[name].zip_with(pl.Series(kind != place), pl.Series([value]).new_from_index(0, rows))
        for place, (name, value) in enumerate(spoilt.items())
    ]
    return frame.with_columns(columns), pl.Series(broken)
