"""The checker names exactly the one thing that is wrong in rows made by hand, and finds nothing in rows that are right."""

from dataclasses import replace
from typing import Any

from tests.faults.checker import check
from tests.faults.evidence import (
    Account,
    Asked,
    Command,
    Entry,
    Evidence,
    Grant,
    Live,
    Loss,
    Revoked,
    Seen,
    SetAside,
    ToppedUp,
    UsageRow,
)

ASKED = Asked("r1", 7, "k1", "query", 200, 10.0, 11.0, "answered", 200, rows=200, used=3, remaining=997)
DEBIT = Entry(2, 7, "debit", "usage", 3, 3, 10.5, operation="o1", charged_total=3, epoch=1, seq=1, key="k1")
USAGE = UsageRow(7, "o1", "r1", "1-10500-0", 200, 200, 3)
LIVE = Live(7, usable=True, balance=997, held=0, applied=1, epoch=1, holds=0)
LATE = SetAside(7, 1, 2, "late", 3, 20.5, "o2", "r2")
PAID = SetAside(7, 1, 2, "paid", 3, 20.5, "o2", "r2")
LOSS = Loss(20.0, 22.0, "FLUSHALL")


def right(**changes: Any) -> Evidence:
    """A top-up of 1,000 and one request for 3 credits, all books in order; `changes` replace some rows."""
    evidence = Evidence(
        asked=[ASKED],
        topped_up=[ToppedUp("t1", 7, 1000, "answered")],
        accounts=[Account(7, balance=997, reserve=0, epoch=1, drained_seq=1, credit_seq=1)],
        entries=[Entry(1, 7, "credit", "top_up", 1000, 0, 5.0, reason="t1", operation="g1", credit_seq=1), DEBIT],
        grants=[Grant("g1", 7, 1000, 997, 3)],
        commands=[Command(7, 1, "add", 1000)],
        usage=[USAGE],
        live=[LIVE],
    )
    for name, rows in changes.items():
        setattr(evidence, name, rows)
    return evidence


def spent(*debits: Entry, asked: list[Asked], usage: list[UsageRow], **changes: Any) -> Evidence:
    """As `right`, with these debits; balances, grants, draws and seqs follow them."""
    rest = 1000 - sum(debit.amount for debit in debits)
    evidence = right(asked=asked, usage=usage)
    evidence.entries = [evidence.entries[0], *debits]
    evidence.accounts = [replace(evidence.accounts[0], balance=rest, drained_seq=len(debits))]
    evidence.grants = [replace(evidence.grants[0], remaining=rest, drawn=1000 - rest)]
    evidence.live = [replace(LIVE, balance=rest)]
    for name, rows in changes.items():
        setattr(evidence, name, rows)
    return evidence


def second(**changes: Any) -> Asked:
    """Another request, at 20 s."""
    return replace(ASKED, request_id="r2", started=20.0, ended=21.0, **changes)


def debit(operation: str, amount: int = 3, **changes: Any) -> Entry:
    """A second debit, of `operation`."""
    fields = {"id": 3, "operation": operation, "amount": amount, "drawn": amount, "charged_total": amount, "seq": 2}
    return replace(DEBIT, **{**fields, "at": 20.5, **changes})


def named(evidence: Evidence) -> list[tuple[str, str]]:
    return [(violation.invariant, violation.what) for violation in check(evidence)]


def test_rows_that_are_right_have_no_violation() -> None:
    assert named(right()) == []


def test_a_request_without_an_answer_may_be_charged() -> None:
    assert named(right(asked=[replace(ASKED, outcome="lost", status=0, rows=0, used=None, remaining=None)])) == []


def test_a_request_without_an_answer_may_cost_nothing() -> None:
    lost = second(outcome="lost", rows=0, used=None)
    assert named(right(asked=[ASKED, lost])) == []


def test_a_charge_whose_usage_row_names_no_request_belongs_to_one_that_got_no_answer() -> None:
    lost = replace(ASKED, outcome="lost", rows=0, used=None)
    assert named(right(asked=[lost], usage=[replace(USAGE, request_id="", status=0)])) == []


def test_the_first_parts_of_a_stream_whose_end_redis_lost_belong_to_it() -> None:
    stream = replace(ASKED, endpoint="download", limit=900, rows=500, used=3)
    assert named(right(asked=[stream], usage=[], losses=[Loss(10.6, 11.0, "FLUSHALL")])) == []


def test_a_balance_beside_its_ledger_is_named() -> None:
    evidence = right(accounts=[Account(7, 990, 0, 1, 1, 1)], live=[replace(LIVE, balance=990)])
    evidence.grants = [replace(evidence.grants[0], amount=993, remaining=990)]
    assert named(evidence) == [("C1", "the ledger does not add up to the balance")]


def test_grants_beside_the_balance_are_named() -> None:
    assert named(right(grants=[Grant("g1", 7, 1000, 998, 2)])) == [("C1", "what grants have left is not the balance")]


def test_a_grant_that_lost_more_than_its_draws_is_named() -> None:
    assert named(right(grants=[Grant("g1", 7, 1000, 997, 2)])) == [
        ("C1", "a grant's rest is not its amount less its draws")
    ]


def test_a_debit_without_its_draws_is_named() -> None:
    evidence = right()
    evidence.entries[1] = replace(DEBIT, drawn=2)
    assert named(evidence) == [("C1", "the draws of a debit are not its amount")]


def test_a_live_balance_beside_the_ledger_is_named() -> None:
    assert named(right(live=[replace(LIVE, balance=998)])) == [("C2", "the live balance is not the ledger's")]


def test_the_reserve_is_part_of_the_balance() -> None:
    account = Account(7, 997, 19, 1, 1, 1)
    assert named(right(accounts=[account], live=[replace(LIVE, balance=978)])) == []


def test_a_reserve_that_redis_has_too_is_named() -> None:
    assert named(right(accounts=[Account(7, 997, 19, 1, 1, 1)])) == [("C2", "the live balance is not the ledger's")]


def test_an_account_that_is_not_loaded_is_not_compared() -> None:
    assert named(right(live=[replace(LIVE, usable=False, balance=0)])) == []


def test_an_add_that_was_not_applied_is_named() -> None:
    assert named(right(live=[replace(LIVE, applied=0)])) == [("C2", "commands were not applied")]


def test_a_negative_available_that_was_seen_is_named() -> None:
    assert named(right(seen=[Seen(7, 9.0, 5, 6)])) == [("C3", "less than nothing was available")]


def test_a_reserve_above_the_balance_is_named() -> None:
    account = Account(7, 997, 998, 1, 1, 1)
    assert named(right(accounts=[account], live=[replace(LIVE, balance=-1)])) == [
        ("C3", "more was spent than there was")
    ]


def test_credits_held_after_the_load_are_named() -> None:
    assert named(right(live=[replace(LIVE, held=3, holds=1)])) == [("C4", "credits are held after the load")]


def test_an_operation_charged_beyond_its_total_is_named() -> None:
    twice = spent(
        DEBIT,
        debit("o1", 3, charged_total=3),
        asked=[replace(ASKED, outcome="lost", limit=600, used=None, rows=0)],
        usage=[replace(USAGE, credits=6)],
    )
    assert named(twice) == [("C4", "an operation is not charged its greatest total once")]


def test_a_request_charged_more_than_it_was_told_is_named() -> None:
    dearer = spent(replace(DEBIT, amount=4, drawn=4, charged_total=4), asked=[ASKED], usage=[replace(USAGE, credits=4)])
    assert named(dearer) == [("C7", "more was charged than was told")]


def test_an_answer_charged_less_than_it_was_told_is_named() -> None:
    cheaper = spent(
        replace(DEBIT, amount=2, drawn=2, charged_total=2), asked=[ASKED], usage=[replace(USAGE, credits=2)]
    )
    assert named(cheaper) == [("C7", "an answer was not charged in full")]


def test_an_answer_without_a_charge_is_named() -> None:
    assert named(right(asked=[ASKED, second()])) == [("C7", "an answer's charge is nowhere")]


def test_an_answer_without_a_charge_is_forgiven_while_redis_lost_data() -> None:
    assert named(right(asked=[ASKED, second()], losses=[LOSS])) == []


def test_an_answer_whose_charge_was_set_aside_late_is_accounted_for() -> None:
    assert named(right(asked=[ASKED, second()], set_aside=[LATE], losses=[LOSS])) == []


def test_a_charge_set_aside_late_without_a_loss_is_named() -> None:
    assert named(right(asked=[ASKED, second()], set_aside=[LATE])) == [
        ("C8", "a charge was lost although Redis lost nothing")
    ]


def test_a_refused_request_that_was_charged_is_named() -> None:
    refused = replace(ASKED, outcome="refused", status=504, code="QUERY_TIMEOUT", rows=0, used=0)
    assert named(right(asked=[refused])) == [("C7", "a refused request was charged")]


def test_a_charge_that_nobody_asked_for_is_named() -> None:
    both = spent(DEBIT, debit("o2"), asked=[ASKED], usage=[USAGE, UsageRow(7, "o2", "", "1-20500-0", 0, 0, 3)])
    assert named(both) == [("C7", "a charge belongs to no request")]


def test_a_price_that_does_not_fit_the_rows_is_named() -> None:
    assert named(right(asked=[replace(ASKED, used=2)])) == [("C7", "an answer does not say its price")]


def test_an_answer_that_cannot_be_read_is_named() -> None:
    unreadable = replace(ASKED, rows=-1, used=1)
    one = spent(
        replace(DEBIT, amount=1, drawn=1, charged_total=1), asked=[unreadable], usage=[replace(USAGE, credits=1)]
    )
    assert named(one) == [("C7", "an answer cannot be read")]


def test_an_idempotency_key_may_be_sent_twice() -> None:
    first = replace(ASKED, idempotency="i1", outcome="lost", rows=0, used=None)
    again = second(idempotency="i1", replayed=True)
    assert named(right(asked=[first, replace(again, used=0)])) == []


def test_an_idempotency_key_charged_as_two_operations_is_named() -> None:
    first, again = replace(ASKED, idempotency="i1"), second(idempotency="i1")
    both = spent(
        DEBIT, debit("o2"), asked=[first, again], usage=[USAGE, UsageRow(7, "o2", "r2", "1-20500-0", 200, 200, 3)]
    )
    assert named(both) == [
        ("C10", "an idempotency key was charged as several operations"),
        ("C10", "an idempotency key was charged more than once"),
    ]


def test_an_idempotency_key_charged_twice_in_one_operation_is_named() -> None:
    first, again = replace(ASKED, idempotency="i1"), second(idempotency="i1")
    usage = [USAGE, UsageRow(7, "o1", "r2", "1-20500-0", 200, 200, 6)]
    both = spent(DEBIT, debit("o1", 3, charged_total=6), asked=[first, again], usage=usage)
    assert named(both) == [("C10", "an idempotency key was charged more than once")]


def test_a_replay_of_what_was_never_charged_is_named() -> None:
    free = second(idempotency="i1", replayed=True)
    assert named(right(asked=[ASKED, replace(free, used=0)])) == [("C7", "an answer's charge is nowhere")]


def test_a_download_that_broke_off_is_paid_up_to_what_arrived() -> None:
    broken = replace(ASKED, endpoint="download", outcome="lost", limit=5000, rows=350, used=3)
    assert named(right(asked=[broken])) == [("C7", "an answer was not charged in full")]


def test_an_event_that_is_recorded_nowhere_is_named() -> None:
    assert named(right(accounts=[Account(7, 997, 0, 1, 2, 1)])) == [("C6", "events are recorded nowhere")]


def test_an_event_recorded_twice_is_named() -> None:
    aside = replace(LATE, seq=1, at=21.0, operation="o1", request_id="r1")
    assert named(right(set_aside=[aside], losses=[LOSS])) == [("C6", "an event is recorded twice")]


def test_an_event_beyond_what_was_drained_is_named() -> None:
    evidence = right()
    evidence.entries[1] = replace(DEBIT, seq=2)
    assert named(evidence) == [
        ("C6", "events are recorded nowhere"),
        ("C6", "events are recorded that should not be"),
    ]


def test_a_bad_event_is_named() -> None:
    assert named(right(set_aside=[SetAside(None, None, None, "bad", 0, 20.0)])) == [
        ("C6", "an event could not be booked")
    ]


def test_events_left_in_the_journal_are_named() -> None:
    assert named(right(undrained=2)) == [("C6", "journal events were not drained")]


def test_a_debit_that_was_paid_before_goes_back() -> None:
    evidence = right(set_aside=[replace(PAID, operation="o1", request_id="r1")], live=[replace(LIVE, applied=2)])
    evidence.accounts = [Account(7, 997, 0, 1, 2, 2)]
    evidence.commands.append(Command(7, 2, "add", 3, 1, 2))
    assert named(evidence) == []


def test_a_debit_that_was_paid_before_and_did_not_go_back_is_named() -> None:
    evidence = right(set_aside=[replace(PAID, operation="o1", request_id="r1")])
    evidence.accounts = [Account(7, 997, 0, 1, 2, 1)]
    assert named(evidence) == [("C6", "a debit that was paid already was not returned")]


def test_a_missing_command_is_named() -> None:
    assert named(right(commands=[])) == [("C6", "commands are missing or double")]


def test_a_top_up_booked_twice_is_named() -> None:
    evidence = right(accounts=[Account(7, 1997, 0, 1, 1, 2)], live=[replace(LIVE, balance=1997, applied=2)])
    evidence.entries.append(replace(evidence.entries[0], id=3, operation="g2", credit_seq=2))
    evidence.grants.append(Grant("g2", 7, 1000, 1000, 0))
    evidence.commands.append(Command(7, 2, "add", 1000))
    assert named(evidence) == [("C5", "a top-up was booked more than once")]


def test_a_confirmed_top_up_that_is_not_booked_is_named() -> None:
    evidence = right()
    evidence.topped_up.append(ToppedUp("t2", 7, 10, "answered"))
    assert named(evidence) == [("C5", "a confirmed top-up is not in the ledger")]


def test_a_refused_top_up_that_is_booked_is_named() -> None:
    assert named(right(topped_up=[ToppedUp("t1", 7, 1000, "refused")])) == [("C5", "a refused top-up is in the ledger")]


def test_a_top_up_that_nobody_made_is_named() -> None:
    assert named(right(topped_up=[])) == [("C5", "nobody made this top-up")]


def test_a_usage_row_beside_the_ledger_is_named() -> None:
    assert named(right(usage=[replace(USAGE, credits=2)])) == [
        ("C7", "the usage log shows another charge than the ledger")
    ]


def test_a_usage_row_of_the_reserve_adds_to_those_of_redis() -> None:
    entries = spent(
        replace(DEBIT, amount=1, drawn=1, charged_total=1),
        debit("o1", 2, charged_total=3, seq=None),
        asked=[ASKED],
        usage=[replace(USAGE, credits=1), replace(USAGE, event_id="reserve-1", credits=2)],
    )
    entries.accounts = [replace(entries.accounts[0], drained_seq=1)]
    assert named(entries) == []


def test_a_usage_row_that_stands_twice_is_named() -> None:
    assert named(right(usage=[USAGE, USAGE])) == [("C5", "the usage log shows an event twice")]


def test_a_charge_without_its_usage_row_is_named() -> None:
    assert named(right(usage=[])) == [("C7", "the usage log lacks a charge")]


def test_an_answer_to_a_revoked_key_is_named() -> None:
    assert named(right(revoked=[Revoked("k1", 9.0)])) == [("C9", "a revoked key was answered")]


def test_an_answer_to_a_request_made_before_the_revocation_is_in_order() -> None:
    assert named(right(revoked=[Revoked("k1", 10.1)])) == []
