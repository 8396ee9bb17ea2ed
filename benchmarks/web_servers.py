"""W: which web server runs the product, decided by what it serves on the same machine."""

import time
from collections.abc import Callable

from benchmarks.figures import Finding, median_ratio, spread
from benchmarks.installation import THREADS, Installation
from benchmarks.load import http_request, run_load
from benchmarks.subjects import load_records, make_subject, person_comparison

CONNECTIONS = 8
ROUNDS = 5
ROUND_S = 3.0
CHOICES = (
    ("granian", 1, THREADS),
    ("gunicorn", 1, THREADS),
    ("granian", 2, THREADS // 2),
    ("gunicorn", 2, THREADS // 2),
)


def measure(installation: Installation, say: Callable[[str], None]) -> Finding:
    """Person lookups, and answers that need no store, a second with each server."""
    load_records(installation, say)
    subject = make_subject(installation)
    targets = {
        "GET /person/{id}": person_comparison(subject).metered,
        "GET /api/v1/health": [http_request("GET", "/api/v1/health", headers={})],
    }
    rates: dict[tuple[str, int, int], dict[str, list[float]]] = {
        choice: {target: [] for target in targets} for choice in CHOICES
    }
    with installation.drain():
        for number in range(ROUNDS):
            for choice in CHOICES:
                server, processes_count, threads = choice
                with installation.web(server, processes_count=processes_count, threads=threads) as port:
                    time.sleep(1)  # workers that start beside the one that answered
                    for target, requests in targets.items():
                        found = run_load(port, requests, connections=CONNECTIONS, seconds=ROUND_S)
                        rates[choice][target].append(found.rate)
            say(f"W: round {number + 1}/{ROUNDS} done")
    first = rates[CHOICES[0]]
    rows = []
    for (server, processes_count, threads), found_rates in rates.items():
        cells = [f"{server}, {processes_count} × {threads} threads"]
        for target, values in found_rates.items():
            cells += [spread(values), f"{median_ratio(values, first[target]):.2f}"]
        rows.append(cells)
    return Finding(
        "W",
        "web servers",
        ["", *(title for target in targets for title in (f"{target}, /s", "ratio"))],
        rows,
        f"as P1's, {CONNECTIONS} connections, {ROUNDS} rounds of {ROUND_S:.0f} s each in turns, every server started afresh "
        "for its round; ratios to the first line, which is what `make up` runs.",
    )
