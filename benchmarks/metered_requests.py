"""P1: what metering, Django and HTTP leave of the throughput of the bare ClickHouse query."""

import time
from collections.abc import Callable

from benchmarks.figures import Finding, median_ratio, spread
from benchmarks.installation import THREADS, Installation
from benchmarks.load import Load, run_load
from benchmarks.subjects import (
    check_same_rows,
    clickhouse_port,
    load_records,
    make_subject,
    person_comparison,
    query_comparison,
)

GOALS = {"POST /api/v1/query": 0.95, "GET /person/{id}": 0.6}
CONNECTIONS = 8
ROUNDS = 7
ROUND_S = 4.0
REST_S = 0.5


def measure(installation: Installation, say: Callable[[str], None]) -> Finding:
    """Requests a second of both questions, metered and direct."""
    records = load_records(installation, say)
    subject = make_subject(installation)
    rows = []
    with installation.drain(), installation.web() as port:
        for comparison in (query_comparison(subject), person_comparison(subject)):
            check_same_rows(comparison, port)
            metered, direct = [], []
            for number in range(ROUNDS):
                direct.append(_load(clickhouse_port(), comparison.direct))
                metered.append(_load(port, comparison.metered))
                say(
                    f"P1 {comparison.name} {number + 1}/{ROUNDS}: "
                    f"{metered[-1].rate:.0f}/s metered, {direct[-1].rate:.0f}/s direct"
                )
            rates = [load.rate for load in metered], [load.rate for load in direct]
            ratio = median_ratio(*rates)
            rows.append(
                [
                    comparison.name,
                    *map(spread, rates),
                    _times(metered),
                    _times(direct),
                    f"{ratio:.2f}",
                    f"≥ {GOALS[comparison.name]}",
                ]
            )
    return Finding(
        "P1",
        "metered requests against the same SQL on the same ClickHouse",
        ["", "metered/s", "direct/s", "metered p50 / p95, ms", "direct p50 / p95, ms", "ratio", "goal"],
        rows,
        f"{records:,} generated records in the embedded ClickHouse; granian, 1 process, {THREADS} threads, as `make up` "
        f"runs it; the drain at work. {CONNECTIONS} connections that stay open, {ROUNDS} rounds of {ROUND_S:.0f} s a side, in "
        "turns. "
        "The client is one process with non-blocking sockets (`benchmarks/load.py`), the same for both sides, and shares the "
        "machine with them. The direct side posts the SQL that the product compiles, with the same bound values and settings, "
        "as the user `reader`; both sides were seen to answer with the same records.",
    )


def _load(port: int, requests: list[bytes]) -> Load:
    time.sleep(REST_S)
    return run_load(port, requests, connections=CONNECTIONS, seconds=ROUND_S)


def _times(loads: list[Load]) -> str:
    middle = sorted(loads, key=lambda load: load.rate)[len(loads) // 2]
    return f"{middle.p50_ms:.1f} / {middle.p95_ms:.1f}"
