"""Cycles of faults under load: `python -m tests.faults.cycles --cycles 30 --seed 1 [--only redis-kill,web-stop]`.

Each cycle lets customers ask, strikes one thing, heals it, waits until nothing moves, and has the independent checker judge
everything since the beginning. The first violation ends the run with its seed and evidence: exit code 1.
"""

import argparse
import json
import random
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

from tests.faults.checker import check
from tests.faults.evidence import Evidence, Loss, Violation
from tests.faults.ground import HOLD_S, Ground
from tests.faults.observed import Observer, Watch
from tests.faults.strikes import STRIKES, Course
from tests.faults.tallies import Figures, Tally, summary, tally

ROOT = Path(__file__).resolve().parent.parent.parent
KEPT = ROOT / ".local" / "cycles"
THREADS = 6
BEFORE_S, AFTER_S = 1.5, 1.5
REST_S = 60.0
AGREE_S = 30.0
POLL_S = 0.1
ACTS = 4


class Run:
    """One run on ground of its own: load, operators, and what was seen until now."""

    def __init__(self, ground: Ground, *, seed: int, say: Callable[[str], None]) -> None:
        from tests.faults.customers import Load
        from tests.faults.operators import Operators

        self._ground = ground
        self._say = say
        self._chance = random.Random(seed)
        self._operators = Operators()
        self._customers = self._operators.make_customers()
        self._observer: Observer = ground.observer()
        self._losses: list[Loss] = []
        self._before = Tally()
        self._meanwhile = 0
        self.figures: list[Figures] = []
        self.evidence = Evidence()
        self._load = Load(
            self._customers, lambda: ground.urls, threads=THREADS, seed=seed, said=ground.folder / "requests.jsonl"
        )
        self._watch = Watch(self._observer, [customer.number for customer in self._customers])

    def close(self) -> None:
        self._watch.close()
        self._load.close()

    def cycle(self, name: str) -> list[Violation]:
        """Strikes once; the violations found afterwards."""
        course = Course(self._ground, self._observer, self._chance)
        self._load.go()
        time.sleep(BEFORE_S)
        operating = threading.Thread(target=self._operate, args=[random.Random(self._chance.random())], daemon=True)
        operating.start()
        STRIKES[name](course)
        time.sleep(AFTER_S)
        operating.join(timeout=REST_S)
        self._load.rest(timeout_s=REST_S)
        agreed_at = self._wait(self._observer.agrees, AGREE_S)
        self._wait(self._observer.nothing_is_held, HOLD_S + 5)
        self._wait(self._observer.agrees, AGREE_S)
        loss = course.loss(name)
        self._operators.settle_pending(redis_lost_data=loss is not None)
        if loss is not None:
            self._losses.append(loss)
        violations = self._judge()
        self._note(name, course, agreed_at)
        return violations

    def _operate(self, chance: random.Random) -> None:
        """What operators do while the fault strikes and holds."""
        for _ in range(ACTS):
            self._operators.do_something(self._customers, chance)
            time.sleep(chance.uniform(0.1, 1))

    def _wait(self, reached: Callable[[], bool], timeout_s: float) -> float:
        """When it was reached, or now when it was not in time: the checker will say why."""
        deadline = time.monotonic() + timeout_s
        while not reached() and time.monotonic() < deadline:
            time.sleep(POLL_S)
        return time.time()

    def _judge(self) -> list[Violation]:
        evidence = Evidence(revoked=list(self._operators.revoked), seen=list(self._watch.seen), losses=self._losses)
        self._load.fill(evidence)
        evidence.topped_up += self._operators.topped_up
        self._observer.fill(evidence)
        self.evidence = evidence
        found = [Violation("process", "has ended by itself", None, said) for said in self._ground.ended()]
        found += [
            Violation("request", "met a defect", asked.account, str(asked))
            for asked in evidence.asked
            if asked.status == 500
        ]
        return found + check(evidence)

    def _note(self, name: str, course: Course, agreed_at: float) -> None:
        self._meanwhile += sum(
            asked.outcome == "answered" and course.struck_at <= asked.started and asked.ended <= course.returned_at
            for asked in self.evidence.asked
        )
        now = replace(tally(self.evidence), meanwhile=self._meanwhile)
        first = self._load.first_answer_since(course.struck_at)
        figures = Figures(
            name,
            now - self._before,
            first_answer_s=None if first is None else first - course.struck_at,
            agreement_s=agreed_at - course.returned_at,
        )
        self._before = now
        self.figures.append(figures)
        self._say(f"cycle {len(self.figures)}: {figures}")


def run(*, cycles: int, seed: int, only: list[str], say: Callable[[str], None]) -> int:
    """Runs the cycles; the exit code is 0 when there was no violation and the product's own proof agrees."""
    chance = random.Random(seed)
    order: list[str] = []
    while len(order) < cycles:
        order += chance.sample(only, len(only))
    say(f"seed {seed}: starting engines, {cycles} cycles …")
    with Ground() as ground:
        work = Run(ground, seed=seed, say=say)
        try:
            for name in order[:cycles]:
                violations = work.cycle(name)
                if violations:
                    _keep(ground, work, violations, seed=seed, say=say)
                    return 1
        finally:
            work.close()
        proven = _verified(say)
    for line in summary(work.figures):
        print(line)
    say(f"{cycles} of {cycles} cycles, seed {seed}: no violation" if proven else "verify_ledger has found differences")
    return 0 if proven else 1


def _verified(say: Callable[[str], None]) -> bool:
    """The product's own proof, at the end."""
    from django.db import connection
    from django.utils import timezone

    from credits import verify

    connection.close()  # PostgreSQL was killed since this thread used it
    result = verify.verify(now=timezone.now())
    say(
        f"verify_ledger: {result.accounts} accounts, {len(result.differences)} differences, {len(result.behind)} behind"
    )
    for difference in result.differences:
        say(str(difference))
    return result.ok


def _keep(ground: Ground, work: Run, violations: list[Violation], *, seed: int, say: Callable[[str], None]) -> None:
    """Prints the violations and puts the evidence aside."""
    folder = KEPT / f"seed-{seed}-cycle-{len(work.figures)}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for violation in violations[:20]:
        say(str(violation))
    say(f"{len(violations)} violations in cycle {len(work.figures)} of seed {seed}; evidence in {folder}")
    (folder / "violations.txt").write_text("\n".join(map(str, violations)) + "\n")
    (folder / "evidence.json").write_text(json.dumps(asdict(work.evidence)))
    for path in [ground.folder / "requests.jsonl", *ground.folder.glob("*.unreadable")]:
        shutil.copy(path, folder)
    for name, log in ground.logs().items():
        (folder / name).write_text(log)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.cycles", description=__doc__)
    parser.add_argument("--cycles", type=int, default=30)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default=",".join(STRIKES), help=f"some of {', '.join(STRIKES)}")
    options = parser.parse_args(arguments)
    only = [name.strip() for name in options.only.split(",") if name.strip()]
    if unknown := sorted(set(only) - set(STRIKES)):
        parser.error(f"there is no fault {', '.join(unknown)}; there are {', '.join(STRIKES)}")
    begun = time.monotonic()
    signal.signal(signal.SIGTERM, signal.default_int_handler)

    def say(text: str) -> None:
        print(f"{time.monotonic() - begun:6.1f} s  {text}", flush=True)

    try:
        return run(cycles=options.cycles, seed=options.seed, only=only, say=say)
    except KeyboardInterrupt:
        print("\nStopped.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
