"""What a run of cycles amounts to, in one table."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

from tests.faults.evidence import Evidence
from tests.faults.operations import joined

FIRST_ANSWER_GOAL_S = 2.0
AGREEMENT_GOAL_S = 5.0


@dataclass(frozen=True, slots=True)
class Tally:
    """Requests by what came back (`meanwhile`: answered before the fault was healed), and credits: `told` to clients, `booked`,
    `reserve` the part of it that was booked without Redis, set aside `late`, `given`: told and lost with Redis' data."""

    requests: int = 0
    answered: int = 0
    meanwhile: int = 0
    refused: int = 0
    lost: int = 0
    told: int = 0
    booked: int = 0
    reserve: int = 0
    late: int = 0
    given: int = 0

    def __sub__(self, other: "Tally") -> "Tally":
        mine, theirs = asdict(self), asdict(other)
        return Tally(**{name: mine[name] - theirs[name] for name in mine})

    def __add__(self, other: "Tally") -> "Tally":
        mine, theirs = asdict(self), asdict(other)
        return Tally(**{name: mine[name] + theirs[name] for name in mine})


@dataclass(frozen=True, slots=True)
class Figures:
    """One cycle: the first answer after the fault struck (None: there was none), agreement after it was healed."""

    fault: str
    tally: Tally
    first_answer_s: float | None
    agreement_s: float

    def __str__(self) -> str:
        counts = ", ".join(f"{name} {value}" for name, value in asdict(self.tally).items())
        return (
            f"{self.fault}: {counts}; first answer {_seconds(self.first_answer_s)}, agreement {self.agreement_s:.1f} s"
        )


def tally(evidence: Evidence) -> Tally:
    """The sums of everything seen until now."""
    operations, _ = joined(evidence)
    outcomes = [asked.outcome for asked in evidence.asked]
    return Tally(
        requests=len(outcomes),
        answered=outcomes.count("answered"),
        refused=outcomes.count("refused"),
        lost=outcomes.count("lost"),
        told=sum(operation.lowest for operation in operations),
        booked=sum(entry.amount for entry in evidence.entries if entry.kind == "usage"),
        reserve=sum(entry.amount for entry in evidence.entries if entry.kind == "usage" and entry.seq is None),
        late=sum(aside.debit for aside in evidence.set_aside if aside.reason == "late"),
        given=sum(max(0, operation.lowest - operation.booked - operation.late) for operation in operations),
    )


def summary(figures: Sequence[Figures]) -> Iterator[str]:
    """A table: one line a fault."""
    columns = list(asdict(Tally()))
    head = ["fault", "cycles", *columns, "first answer", "agreement"]
    rows = [head]
    for fault in dict.fromkeys(one.fault for one in figures):
        of_it = [one for one in figures if one.fault == fault]
        total = sum((one.tally for one in of_it), Tally())
        first = [one.first_answer_s for one in of_it if one.first_answer_s is not None]
        rows.append(
            [
                fault,
                str(len(of_it)),
                *(f"{value:,}" for value in asdict(total).values()),
                _seconds(max(first, default=None)),
                _seconds(max(one.agreement_s for one in of_it)),
            ]
        )
    widths = [max(len(row[place]) for row in rows) for place in range(len(head))]
    for name, *values in rows:
        cells = [value.rjust(width) for value, width in zip(values, widths[1:], strict=True)]
        yield "  ".join([name.ljust(widths[0]), *cells])
    yield "first answer and agreement: the worst, from the fault and from its end"
    killed = [one for one in figures if one.fault == "redis-kill"]
    if killed:
        in_time = sum(one.first_answer_s is not None and one.first_answer_s <= FIRST_ANSWER_GOAL_S for one in killed)
        agreed = sum(one.agreement_s <= AGREEMENT_GOAL_S for one in killed)
        yield (
            f"Redis killed {len(killed)} times: first answer within {FIRST_ANSWER_GOAL_S:.0f} s {in_time} times, "
            f"agreement within {AGREEMENT_GOAL_S:.0f} s {agreed} times"
        )


def _seconds(value: float | None) -> str:
    return "none" if value is None else f"{value:.1f} s"
