"""How Redis learns an account, and heals after losing it."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import connection
from django.test import override_settings
from django.utils import timezone

from accounts.models import Account
from config.redis import money
from credits import counters, drain, ledger, loading, metering, services, usage, verify
from credits.models import Command, SetAside
from tests.factories import Customer, make_account, make_customer, make_usage

pytestmark = pytest.mark.usefixtures("stores")


def add(stream: str, *, stream_id: str = "*") -> bytes:
    """Appends an event that means nothing."""
    added = money().xadd(stream, {"nonsense": "1"}, id=stream_id)
    assert isinstance(added, bytes)
    return added


def spend(customer: Customer, total: int) -> metering.Settlement:
    hold = metering.admit(api_key=customer.api_key, endpoint="query", amount=total)
    return metering.settle(hold, total=total, usage=make_usage())


def test_load_gives_redis_the_balance_and_raises_the_epoch() -> None:
    account = make_account(credits=30)
    money().flushall()
    epoch = Account.objects.get(pk=account.pk).epoch
    assert loading.load_account(account.number)
    live = counters.inspect(account.number)
    assert (live.usable, live.balance, live.held, live.epoch) == (True, 30, 0, epoch + 1)


def test_load_of_an_unknown_account_says_so() -> None:
    assert loading.load_account(2**40) is False


def test_load_of_a_usable_account_changes_nothing() -> None:
    account = make_account(credits=30)
    loading.load_account(account.number)
    before = counters.inspect(account.number)
    loading.load_account(account.number)
    assert counters.inspect(account.number) == before


def test_load_books_the_surviving_journal_first() -> None:
    customer = make_customer(credits=30)
    spend(customer, 4)
    money().delete(counters.account_key(customer.number))
    assert loading.load_account(customer.number)
    assert counters.inspect(customer.number).balance == 26


def test_flushall_heals_at_the_next_call() -> None:
    customer = make_customer(credits=30)
    spend(customer, 4)
    drain.drain_once()
    money().flushall()
    assert spend(customer, 1) == metering.Settlement(1, 25)


def test_settle_after_flushall_admits_and_settles_in_one_step() -> None:
    customer = make_customer(credits=30)
    hold = metering.admit(api_key=customer.api_key, endpoint="query", amount=4)
    money().flushall()
    assert metering.settle(hold, total=4, usage=make_usage()) == metering.Settlement(4, 26)
    assert metering.settle(hold, total=4, usage=make_usage()) == metering.Settlement(4, 26)


def test_a_settle_repeated_over_a_flushall_is_charged_once() -> None:
    customer = make_customer(credits=30)
    hold = metering.admit(api_key=customer.api_key, endpoint="query", amount=4)
    metering.settle(hold, total=4, usage=make_usage())
    drain.drain_once()
    money().flushall()
    metering.settle(hold, total=4, usage=make_usage())
    drain.drain_once()
    customer.account.refresh_from_db()
    assert customer.account.balance == 26
    assert counters.inspect(customer.number).balance == 26
    assert SetAside.objects.get(account=customer.account).reason == "paid"


def test_an_older_snapshot_is_not_believed() -> None:
    customer = make_customer(credits=30)
    spend(customer, 1)
    key = counters.account_key(customer.number)
    snapshot = money().dump(key)
    spend(customer, 9)
    drain.drain_once()
    assert snapshot is not None
    money().restore(key, 0, snapshot, replace=True)
    money().hset(key, "gen", "0" * 40)  # a server that starts from older data has another replication id
    assert spend(customer, 1) == metering.Settlement(1, 19)


def test_a_load_that_was_overtaken_is_not_switched_on() -> None:
    account = make_account(credits=30)
    money().flushall()
    epoch = Account.objects.get(pk=account.pk).epoch
    assert counters.write_loaded(account_number=account.number, epoch=epoch, balance=99, drained_seq=0, credit_seq=1)
    assert not counters.inspect(account.number).usable
    loading.load_account(account.number)
    assert not counters.write_loaded(
        account_number=account.number, epoch=epoch, balance=99, drained_seq=0, credit_seq=1
    )
    assert not counters.activate(account_number=account.number, epoch=epoch)
    assert counters.inspect(account.number).balance == 30


def test_holds_do_not_survive_a_load() -> None:
    customer = make_customer(credits=30)
    hold = metering.admit(api_key=customer.api_key, endpoint="query", amount=4)
    key = counters.account_key(customer.number)
    money().hset(key, "gen", "0" * 40)
    loading.load_account(customer.number)
    assert (counters.inspect(customer.number).held, money().hexists(key, f"h:{hold.operation}")) == (0, False)


def test_an_epoch_is_raised_by_one_load_alone() -> None:
    account = make_account(credits=30)
    epoch = Account.objects.get(pk=account.pk).epoch
    assert loading._raise_epoch(account.number, epoch) == loading.Raised(epoch + 1, 30, 0, 0, 1, {})
    assert loading._raise_epoch(account.number, epoch) is None


def test_a_load_whose_successor_was_lost_is_not_switched_on() -> None:
    account = make_account(credits=30)
    money().flushall()
    epoch = Account.objects.get(pk=account.pk).epoch
    slow = loading._raise_epoch(account.number, epoch)
    quick = loading._raise_epoch(account.number, epoch + 1)
    assert slow is not None
    assert quick is not None
    money().flushall()
    assert counters.write_loaded(
        account_number=account.number, epoch=slow.epoch, balance=30, drained_seq=0, credit_seq=1
    )
    assert loading._switch_on(account.number, slow.epoch) is False
    assert not counters.inspect(account.number).usable


def test_usage_waits_for_the_ledger() -> None:
    customer = make_customer(credits=10)
    spend(customer, 2)
    assert usage.drain_usage([customer.number % 64]) == 0
    drain.drain_once()
    assert usage.drain_usage([customer.number % 64]) == 0


def test_an_add_is_applied_once_and_in_order() -> None:
    account = make_account(credits=10)
    services.top_up(account=account, amount=5, now=timezone.now())
    command = Command.objects.get(account=account, credit_seq=2)
    assert counters.apply_add(account_number=account.number, credit_seq=2, amount=5)[0] == "OK"
    assert counters.apply_add(account_number=account.number, credit_seq=4, amount=5)[0] == "GAP"
    assert counters.inspect(account.number).balance == 15
    assert command.confirmed_at is not None


def test_a_command_that_redis_forgot_is_sent_again() -> None:
    account = make_account(credits=10)
    loading.load_account(account.number)
    Command.objects.create(account=account, credit_seq=2, kind="add", amount=1, confirmed_at=timezone.now())
    Command.objects.create(account=account, credit_seq=3, kind="add", amount=1)
    loading.apply_commands(account.pk)
    assert counters.inspect(account.number).applied == 3


def test_a_journal_is_read_from_where_another_consumer_has_moved_the_cursor() -> None:
    partition, journal = 63, counters.journal_key(63)
    first, second, third = (money().xadd(journal, {"nonsense": "1"}) for _ in range(3))
    (page,) = counters.read_journal([partition], consumer=counters.LEDGER, limit=1)
    start = page.cursor
    assert [stream_id for stream_id, _ in page.events] == [first]
    money().set(counters.cursor_key(partition, counters.LEDGER), second)
    (page,) = counters.read_journal([partition], consumer=counters.LEDGER, limit=1)
    assert (page.cursor, [stream_id for stream_id, _ in page.events]) == (second, [third])
    assert start != second


def test_a_new_stream_is_read_from_its_beginning_after_the_old_one_was_lost() -> None:
    partition, journal = 62, counters.journal_key(62)
    (page,) = counters.read_journal([partition], consumer=counters.LEDGER, limit=10)
    known = money().xadd(journal, {"nonsense": "1"})
    assert counters.move_cursors([(partition, page.cursor, known)], consumer=counters.LEDGER) == 1  # type: ignore[list-item]
    assert counters.read_journal([partition], consumer=counters.LEDGER, limit=10)[0].events == []
    money().flushall()
    # The clock was set back: the new stream's ids lie before the cursor that this process has seen.
    money().xadd(journal, {"nonsense": "2"}, id="5-1")
    (page,) = counters.read_journal([partition], consumer=counters.LEDGER, limit=10)
    assert (page.cursor, page.events) == (b"", [(b"5-1", {b"nonsense": b"2"})])


def test_unreadable_events_are_set_aside_and_do_not_stop_the_drain() -> None:
    customer = make_customer(credits=10)
    metering.identify(api_key=customer.api_key, endpoint="credits")
    money().xadd(counters.journal_key(customer.number % 64), {"nonsense": f"{customer.number}"})
    spend(customer, 2)
    drain.drain_once()
    customer.account.refresh_from_db()
    assert customer.account.balance == 8
    assert SetAside.objects.filter(account=None, event__fields=["nonsense", str(customer.number)]).count() == 1


def test_sweep_releases_abandoned_holds_and_logs_them() -> None:
    customer = make_customer(credits=10)
    with override_settings(HOLD_S=-1):
        metering.admit(api_key=customer.api_key, endpoint="download", amount=4)
    drain.sweep()
    live = counters.inspect(customer.number)
    assert (live.balance, live.held) == (10, 0)


def test_cursor_does_not_move_over_a_stream_that_was_lost() -> None:
    partition = 5
    stream = counters.journal_key(partition)
    money().flushall()
    old = add(stream, stream_id="9999999999999-1")
    money().flushall()
    add(stream, stream_id="5-1")
    assert counters.move_cursors([(partition, b"", old)], consumer=counters.LEDGER) == 0
    assert counters.ledger_cursors([partition]) == [b""]


def test_cursor_does_not_move_from_where_it_no_longer_is() -> None:
    partition = 7
    money().flushall()
    ids = [add(counters.journal_key(partition)) for _ in range(3)]
    assert counters.move_cursors([(partition, b"", ids[2])], consumer=counters.LEDGER) == 1
    assert counters.move_cursors([(partition, b"", ids[0])], consumer=counters.LEDGER) == 0
    assert counters.ledger_cursors([partition]) == [ids[2]]


def test_trim_forgets_only_what_both_consumers_have_behind_them() -> None:
    partition = 6
    stream = counters.journal_key(partition)
    money().flushall()
    ids = [add(stream) for _ in range(5)]
    counters.move_cursors([(partition, b"", ids[3])], consumer=counters.LEDGER)
    assert counters.trim([partition]) == 0
    counters.move_cursors([(partition, b"", ids[1])], consumer=counters.USAGE)
    assert counters.trim([partition]) == 1
    assert [stream_id for stream_id, _ in money().xrange(stream) or []] == ids[1:]


def test_verify_finds_nothing_after_ordinary_work() -> None:
    customer = make_customer(credits=50)
    for total in (1, 2, 3):
        spend(customer, total)
    metering.admit(api_key=customer.api_key, endpoint="query", amount=3)
    result = verify.verify(now=timezone.now())
    assert [d for d in result.differences if d.account_number == customer.number] == []
    assert customer.number not in result.behind


def test_verify_names_a_live_balance_that_differs_and_repairs_it_when_told_to() -> None:
    customer = make_customer(credits=50)
    spend(customer, 5)
    money().hincrby(counters.account_key(customer.number), "bal", 7)
    result = verify.verify(now=timezone.now())
    mine = [d for d in result.differences if d.account_number == customer.number]
    assert mine == [verify.Difference(customer.number, "live balance in Redis against the ledger", 45, 52, True)]
    repaired = verify.verify(now=timezone.now(), repair=True)
    assert customer.number in repaired.repaired
    assert counters.inspect(customer.number).balance == 45


def test_a_load_that_died_after_the_raise_leaves_nothing_that_counts() -> None:
    customer = make_customer(credits=30)
    spend(customer, 1)
    number, epoch = customer.number, Account.objects.get(pk=customer.account.pk).epoch
    assert counters.close(account_number=number, epoch=epoch, even_if_usable=True, lease_ms=0) == "CLOSED"
    ledger.catch_up(number % 64, now=timezone.now())
    assert loading._raise_epoch(number, epoch) == loading.Raised(epoch + 1, 29, 0, 1, 1, {})
    assert not counters.inspect(number).usable
    assert spend(customer, 2) == metering.Settlement(2, 27)
    drain.drain_once()
    assert Account.objects.get(number=number).balance == 27
    assert not SetAside.objects.filter(account=customer.account).exists()


def test_a_second_loader_leaves_the_first_one_alone_and_takes_over_when_it_died() -> None:
    account = make_account(credits=30)
    money().flushall()
    epoch = Account.objects.get(pk=account.pk).epoch
    first = counters.close(account_number=account.number, epoch=epoch, even_if_usable=False, lease_ms=60_000)
    second = counters.close(account_number=account.number, epoch=epoch, even_if_usable=False, lease_ms=60_000)
    later = counters.close(account_number=account.number, epoch=epoch, even_if_usable=False, lease_ms=0)
    assert (first, second, later) == ("CLOSED", "LOADING", "CLOSED")


def test_a_load_that_another_one_closed_is_not_switched_on() -> None:
    account = make_account(credits=30)
    money().flushall()
    number = account.number
    raised = loading._raise_epoch(number, Account.objects.get(pk=account.pk).epoch)
    assert raised is not None
    epoch = raised.epoch
    assert counters.write_loaded(
        account_number=number,
        epoch=epoch,
        balance=raised.balance,
        drained_seq=raised.drained_seq,
        credit_seq=raised.credit_seq,
    )
    assert counters.close(account_number=number, epoch=epoch, even_if_usable=False, lease_ms=0) == "CLOSED"
    assert loading._switch_on(number, epoch) is False
    assert not counters.inspect(number).usable
    assert loading.load_account(number)
    assert counters.inspect(number).balance == 30


def test_a_loader_with_an_old_epoch_does_not_close_a_later_load() -> None:
    account = make_account(credits=30)
    loading.load_account(account.number)
    epoch = Account.objects.get(pk=account.pk).epoch
    state = counters.close(account_number=account.number, epoch=epoch - 1, even_if_usable=True, lease_ms=0)
    assert (state, counters.inspect(account.number).usable) == ("AHEAD", True)


def test_a_hash_of_an_epoch_that_has_ended_is_loaded_again() -> None:
    account = make_account(credits=30)
    loading.load_account(account.number)
    epoch = Account.objects.get(pk=account.pk).epoch
    assert loading._raise_epoch(account.number, epoch) is not None
    assert loading.load_account(account.number)
    assert counters.inspect(account.number).epoch == epoch + 2


def test_calls_that_meet_a_cold_account_load_it_once() -> None:
    customer = make_customer(credits=30)
    drain.drain_once()
    money().flushall()
    epoch = Account.objects.get(pk=customer.account.pk).epoch

    def call(_: int) -> int:
        try:
            return spend(customer, 1).charged
        finally:
            connection.close()

    with ThreadPoolExecutor(max_workers=12) as threads:
        assert list(threads.map(call, range(24))) == [1] * 24
    drain.drain_once()
    account = Account.objects.get(pk=customer.account.pk)
    assert (account.balance, account.epoch) == (6, epoch + 1)
    assert not SetAside.objects.filter(account=customer.account).exists()


def test_a_server_that_serves_an_epoch_that_has_ended_is_overtaken_by_the_drain() -> None:
    # A loader at the master that was replaced raises the epoch; the new master has loaded the account before and knows nothing.
    customer = make_customer(credits=100)
    first = metering.admit(api_key=customer.api_key, endpoint="query", amount=10)
    epoch = counters.inspect(customer.number).epoch
    assert loading._raise_epoch(customer.number, epoch) is not None
    metering.settle(first, total=10, usage=make_usage())
    drain.drain_once()
    assert list(SetAside.objects.filter(account=customer.account).values_list("reason", "debit")) == [("late", 10)]
    second = metering.admit(api_key=customer.api_key, endpoint="query", amount=10)
    metering.settle(second, total=10, usage=make_usage())
    drain.drain_once()
    assert (Account.objects.get(pk=customer.account.pk).balance, counters.inspect(customer.number).balance) == (90, 90)
