"""P4: what the credit protocol adds to a request, in units of Redis' own round trips."""

import time
from collections.abc import Callable

from benchmarks.figures import Finding, median_ratio, spread
from benchmarks.installation import Installation
from benchmarks.subjects import Subject, make_subject

GOAL = 1.6
ROUNDS = 15
PAIRS = 400


def measure(installation: Installation, say: Callable[[str], None]) -> Finding:
    """Microseconds of admit + settle and of two PINGs, by one thread on one connection."""
    from config.redis import money
    from credits import drain

    subject = make_subject(installation)
    client = money()
    kinds: dict[str, Callable[[], object]] = {
        "two PINGs": lambda: (client.ping(), client.ping()),
        "admit + settle": _metered_call(subject),
    }
    figures: dict[str, list[float]] = {name: [] for name in kinds}
    for number in range(ROUNDS + 1):
        for name, call in kinds.items():
            taken_us = _time_us(call)
            if number:  # the first round warms connections, scripts and caches
                figures[name].append(taken_us)
        drain.drain_once()
    say(f"P4: {ROUNDS} rounds done")
    pings = figures["two PINGs"]
    rows = [
        [name, spread(values), f"{median_ratio(values, pings):.2f}", f"≤ {GOAL}" if name == "admit + settle" else ""]
        for name, values in figures.items()
    ]
    return Finding(
        "P4",
        "admit + settle against two PINGs",
        ["", "µs, median (lowest–highest round)", "ratio", "goal"],
        rows,
        f"one thread calls one after the other, {PAIRS} times a round, {ROUNDS} rounds in turns, the drain at rest while it is "
        "timed. 'admit + settle' is `credits.metering` whole (key check, scripts, usage event); the PINGs are redis-py's own, "
        "on a pool with the same settings.",
    )


def _time_us(call: Callable[[], object]) -> float:
    begun = time.perf_counter()
    for _ in range(PAIRS):
        call()
    return (time.perf_counter() - begun) / PAIRS * 1e6


def _metered_call(subject: Subject) -> Callable[[], object]:
    from credits import metering
    from credits.reported import Usage

    def call() -> object:
        hold = metering.admit(api_key=subject.api_key, endpoint="query", amount=2)
        usage = Usage(request_id=hold.operation, endpoint="query", status=200, rows=100, duration_ms=12, query="{}")
        return metering.settle(hold, total=2, usage=usage)

    return call
