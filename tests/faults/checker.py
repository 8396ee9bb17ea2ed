"""The independent checker: joins what clients saw with ledger, journal, counters and usage rows, and names what is wrong.

It shares no code with the product, so that both cannot err in the same way: the price, the sums and the joins are written
here again. Everything is judged at rest, when no request runs and the drain has nothing left to do.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator

from tests.faults.evidence import Asked, Command, Evidence, SetAside, UsageRow, Violation
from tests.faults.operations import Operation, in_a_loss, joined


def check(evidence: Evidence) -> list[Violation]:
    """Every violation of C1 to C10 that can be seen from outside, in their order."""
    operations, unclaimed = joined(evidence)
    found: list[Violation] = []
    for finding in (
        _books(evidence),
        _counters(evidence),
        _available(evidence),
        _charges(evidence, operations),
        _nobody_asked(unclaimed),
        _sequences(evidence),
        _commands(evidence),
        _top_ups(evidence),
        _usage_rows(evidence),
        _losses(evidence),
        _revocations(evidence),
    ):
        found += finding
    return sorted(found, key=lambda violation: int(violation.invariant[1:]))


def _books(evidence: Evidence) -> Iterator[Violation]:
    """C1: entries, grants and draws add up to the balance; nothing is below zero."""
    sums: Counter[int] = Counter()
    for entry in evidence.entries:
        sums[entry.account] += entry.amount if entry.type == "credit" else -entry.amount
        if entry.amount <= 0:
            yield Violation("C1", "an entry is not positive", entry.account, str(entry))
        if entry.type == "debit" and entry.drawn != entry.amount:
            yield Violation("C1", "the draws of a debit are not its amount", entry.account, str(entry))
    remaining: Counter[int] = Counter()
    for grant in evidence.grants:
        remaining[grant.account] += grant.remaining
        if grant.remaining < 0 or grant.remaining != grant.amount - grant.drawn:
            yield Violation("C1", "a grant's rest is not its amount less its draws", grant.account, str(grant))
    for account in evidence.accounts:
        number = account.number
        if sums[number] != account.balance:
            seen = f"ledger {sums[number]}, balance {account.balance}"
            yield Violation("C1", "the ledger does not add up to the balance", number, seen)
        if remaining[number] != account.balance:
            seen = f"grants {remaining[number]}, balance {account.balance}"
            yield Violation("C1", "what grants have left is not the balance", number, seen)
        if account.balance < 0 or not 0 <= account.reserve <= max(0, account.balance):
            yield Violation("C3", "more was spent than there was", number, str(account))


def _counters(evidence: Evidence) -> Iterator[Violation]:
    """C2, C4, C8 at rest: the live balance is the ledger's, nothing is held, nothing waits to be booked."""
    accounts = {account.number: account for account in evidence.accounts}
    if evidence.undrained:
        yield Violation("C6", "journal events were not drained", None, f"{evidence.undrained} events")
    if evidence.open_holds:
        yield Violation("C4", "holds outlive their time", None, f"{evidence.open_holds} in the lists of deadlines")
    for live in evidence.live:
        if not live.usable:
            continue  # the next call loads it from the ledger
        account = accounts.get(live.account)
        if account is None:
            yield Violation("C2", "Redis knows an account that Postgres does not", live.account, str(live))
            continue
        if live.epoch != account.epoch:
            yield Violation("C8", "Redis counts under another epoch", live.account, f"{live}, {account}")
        if live.balance + account.reserve != account.balance:
            seen = f"live {live.balance} + reserve {account.reserve}, balance {account.balance}"
            yield Violation("C2", "the live balance is not the ledger's", live.account, seen)
        if live.held != 0 or live.holds:
            yield Violation("C4", "credits are held after the load", live.account, str(live))
        if live.applied != account.credit_seq:
            yield Violation("C2", "commands were not applied", live.account, f"{live}, {account}")


def _available(evidence: Evidence) -> Iterator[Violation]:
    """C3: at no moment seen was less than nothing available."""
    for seen in evidence.seen:
        if seen.balance - seen.held < 0 or seen.held < 0:
            yield Violation("C3", "less than nothing was available", seen.account, str(seen))
    for asked in evidence.asked:
        if asked.remaining is not None and asked.remaining < 0:
            yield Violation("C3", "a client was told a negative balance", asked.account, str(asked))


def price(rows: int) -> int:
    """What an answer with that many records costs."""
    return 1 + rows // 100


def _told_wrong(asked: Asked) -> bool:
    if asked.outcome != "answered" or asked.used is None:
        return asked.outcome == "answered"
    if asked.replayed:
        return asked.used != 0
    if asked.endpoint == "download":
        return not 1 <= asked.used <= price(asked.rows)  # its header was sent with the first part
    return asked.used != price(asked.rows)


def _charges(evidence: Evidence, operations: list[Operation]) -> Iterator[Violation]:
    """C4, C5, C7, C10: each operation is charged once, what its clients were told, and nothing where they were refused."""
    for asked in evidence.asked:
        if asked.rows < 0:
            yield Violation("C7", "an answer cannot be read", asked.account, str(asked))
        elif _told_wrong(asked):
            yield Violation("C7", "an answer does not say its price", asked.account, str(asked))
    for operation in operations:
        asked = operation.asked[0]
        evident = operation.text()
        if len(operation.ids) > 1:
            again = "an idempotency key was" if asked.idempotency else "a request was"
            yield Violation("C10", f"{again} charged as several operations", asked.account, evident)
        if operation.booked > operation.highest:
            if all(one.outcome == "refused" for one in operation.asked):
                what = "a refused request was charged"
            elif asked.idempotency and len(operation.asked) > 1:
                yield Violation("C10", "an idempotency key was charged more than once", asked.account, evident)
                continue
            else:
                what = "more was charged than was told"
            yield Violation("C7", what, asked.account, evident)
        if operation.booked + operation.late < operation.lowest and not in_a_loss(
            evidence.losses, operation.started, operation.ended
        ):
            what = "an answer was not charged in full" if operation.booked else "an answer's charge is nowhere"
            yield Violation("C7", what, asked.account, evident)
    totals: dict[tuple[int, str], list[int]] = defaultdict(lambda: [0, 0])
    for entry in evidence.entries:
        if entry.type == "debit" and entry.charged_total is not None:
            total = totals[entry.account, entry.operation]
            total[0] += entry.amount
            total[1] = max(total[1], entry.charged_total)
    for (account, operation_id), (booked, greatest) in totals.items():
        if booked != greatest:
            seen = f"operation {operation_id}: booked {booked}, greatest total {greatest}"
            yield Violation("C4", "an operation is not charged its greatest total once", account, seen)


def _nobody_asked(unclaimed: list[Operation]) -> Iterator[Violation]:
    """C7: every charge belongs to a request that somebody made."""
    for operation in unclaimed:
        yield Violation("C7", "a charge belongs to no request", operation.account, operation.text())


def _sequences(evidence: Evidence) -> Iterator[Violation]:
    """C6: the debits of an account, 1 to `drained_seq`, stand exactly once each in the ledger or set aside.

    A load goes on counting where the last epoch's bookings ended, so the numbers have no gap across epochs. What is late
    was of an epoch that had ended, whose numbers may have been given out again.
    """
    numbered: dict[int, Counter[int]] = defaultdict(Counter)
    events: Counter[tuple[int | None, int | None, int]] = Counter()
    for entry in evidence.entries:
        if entry.seq is not None:
            numbered[entry.account][entry.seq] += 1
            events[entry.account, entry.epoch, entry.seq] += 1
    for aside in evidence.set_aside:
        if aside.reason == "bad":
            yield Violation("C6", "an event could not be booked", aside.account, str(aside))
        if aside.seq is not None and aside.account is not None:
            events[aside.account, aside.epoch, aside.seq] += 1
            if aside.reason != "late":
                numbered[aside.account][aside.seq] += 1
    for (number, epoch, seq), count in events.items():
        if count > 1:
            yield Violation("C6", "an event is recorded twice", number, f"epoch {epoch}, seq {seq}: {count} times")
    for account in evidence.accounts:
        seqs = numbered[account.number]
        missing = [seq for seq in range(1, account.drained_seq + 1) if seq not in seqs]
        if missing:
            yield Violation("C6", "events are recorded nowhere", account.number, f"seq {_some(missing)}")
        beyond = [seq for seq in seqs if not 1 <= seq <= account.drained_seq]
        twice = [seq for seq, count in seqs.items() if count > 1]
        if beyond or twice:
            seen = f"drained {account.drained_seq}, beyond it {_some(beyond)}, twice {_some(twice)}"
            yield Violation("C6", "events are recorded that should not be", account.number, seen)


def _commands(evidence: Evidence) -> Iterator[Violation]:
    """C5, C6: an account's commands are numbered without a gap; an add for a debit returns just what was not booked."""
    numbered: dict[int, list[int]] = defaultdict(list)
    returned: list[Command] = []
    for command in evidence.commands:
        numbered[command.account].append(command.credit_seq)
        if command.seq is not None:
            returned.append(command)
    for account in evidence.accounts:
        if sorted(numbered[account.number]) != list(range(1, account.credit_seq + 1)):
            seen = f"{len(numbered[account.number])} commands, last {account.credit_seq}"
            yield Violation("C6", "commands are missing or double", account.number, seen)
    booked = {(e.account, e.epoch, e.seq) for e in evidence.entries if e.seq is not None}
    paid = {(s.account, s.epoch, s.seq): s for s in evidence.set_aside if s.reason == "paid"}
    for (number, epoch, seq), count in Counter((c.account, c.epoch, c.seq) for c in returned).items():
        if count > 1:
            yield Violation("C5", "a debit was returned twice", number, f"epoch {epoch}, seq {seq}")
    for command in returned:
        place = (command.account, command.epoch, command.seq)
        aside: SetAside | None = paid.pop(place, None)
        if (aside is None and place not in booked) or (aside is not None and aside.debit != command.amount):
            yield Violation("C6", "a debit was returned that was not set aside", command.account, str(command))
    for aside in paid.values():
        yield Violation("C6", "a debit that was paid already was not returned", aside.account, str(aside))


def _top_ups(evidence: Evidence) -> Iterator[Violation]:
    """C5: a top-up that was confirmed is booked once, one that was refused is not, and nothing else is."""
    booked = Counter(
        (e.account, e.reason, e.amount) for e in evidence.entries if e.type == "credit" and e.kind == "top_up"
    )
    outcomes: dict[tuple[int, str, int], set[str]] = defaultdict(set)
    for tried in evidence.topped_up:
        outcomes[tried.account, tried.reference, tried.amount].add(tried.outcome)
    for place, seen in outcomes.items():
        count = booked.pop(place, 0)
        if count > 1:
            yield Violation("C5", "a top-up was booked more than once", place[0], f"{place[1]}: {count} times")
        elif count == 0 and "answered" in seen:
            yield Violation("C5", "a confirmed top-up is not in the ledger", place[0], f"{place[1]}: {place[2]}")
        elif count == 1 and seen == {"refused"}:
            yield Violation("C5", "a refused top-up is in the ledger", place[0], f"{place[1]}: {place[2]}")
    for (account, reference, amount), count in booked.items():
        yield Violation("C5", "nobody made this top-up", account, f"{reference}: {amount}, {count} times")


def _usage_rows(evidence: Evidence) -> Iterator[Violation]:
    """C5, C7: the usage log shows each operation once, with what the ledger booked."""
    booked: Counter[tuple[int, str]] = Counter()
    when: dict[tuple[int, str], tuple[float, float]] = {}
    for entry in evidence.entries:
        if entry.kind == "usage":
            place = (entry.account, entry.operation)
            booked[place] += entry.amount
            first, last = when.get(place, (entry.at, entry.at))
            when[place] = (min(first, entry.at), max(last, entry.at))
    rows: dict[tuple[int, str], list[UsageRow]] = defaultdict(list)
    for row in evidence.usage:
        rows[row.account, row.operation].append(row)
    for place, found in rows.items():
        # What Redis has charged stands whole on each row of the operation, what the reserve has paid on rows of its own.
        of_reserve = [row.credits for row in found if row.event_id.startswith("reserve-")]
        shown = sum(of_reserve) + max((r.credits for r in found if not r.event_id.startswith("reserve-")), default=0)
        if shown != booked[place]:
            seen = f"operation {place[1]}: shows {shown}, booked {booked[place]}"
            yield Violation("C7", "the usage log shows another charge than the ledger", place[0], seen)
    ids = Counter((row.account, row.event_id) for row in evidence.usage)
    for (account, event_id), count in ids.items():
        if count > 1:
            yield Violation("C5", "the usage log shows an event twice", account, f"event {event_id}: {count} times")
    for place, amount in booked.items():
        if place not in rows and not in_a_loss(evidence.losses, *when[place]):
            seen = f"operation {place[1]}: booked {amount}"
            yield Violation("C7", "the usage log lacks a charge", place[0], seen)


def _losses(evidence: Evidence) -> Iterator[Violation]:
    """C8: what was set aside as late was journalled about when Redis lost data; at other times nothing may get lost."""
    for aside in evidence.set_aside:
        if aside.reason == "late" and not in_a_loss(evidence.losses, aside.at, aside.at):
            yield Violation("C8", "a charge was lost although Redis lost nothing", aside.account, str(aside))


def _revocations(evidence: Evidence) -> Iterator[Violation]:
    """C9: a key whose revocation was confirmed is refused."""
    ended = {revoked.key: revoked.at for revoked in evidence.revoked}
    for asked in evidence.asked:
        if asked.outcome == "answered" and asked.started > ended.get(asked.key, float("inf")):
            yield Violation("C9", "a revoked key was answered", asked.account, str(asked))


def _some(numbers: list[int]) -> str:
    """The first few, and how many there are."""
    return f"{sorted(numbers)[:10]} ({len(numbers)})"
