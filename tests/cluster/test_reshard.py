"""Partitions that move to another master while customers are served."""

import time
from collections.abc import Callable

import pytest

from accounts.models import Account
from config.errors import TemporarilyUnavailable
from config.redis import PARTITIONS, RedisUnavailable
from credits import counters, drain, loading, metering
from tests.cluster.load import asking, assert_proven, booked
from tests.cluster.nodes import Node, Nodes
from tests.factories import Customer, make_customer, make_usage

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180)]

THREADS = 6
ROUNDS = 2
STEP_S = 0.02


def another(cluster: Nodes, source: Node) -> Node:
    return next(node for node in cluster.masters() if node is not source)


def move(cluster: Nodes, customer: Customer) -> None:
    partition = customer.number % PARTITIONS
    cluster.move(partition, target=another(cluster, cluster.owner(partition)))


def balance(customer: Customer) -> int:
    return Account.objects.get(pk=customer.account.pk).balance


def charge(customer: Customer, total: int) -> metering.Hold:
    hold = metering.admit(api_key=customer.api_key, endpoint="query", amount=total)
    metering.settle(hold, total=total, usage=make_usage())
    return hold


def test_partitions_move_there_and_back_under_load(cluster: Nodes) -> None:
    customers = [make_customer(credits=100_000) for _ in range(12)]
    partitions = [customer.number % PARTITIONS for customer in customers[:6]]
    moves = 0
    with asking(customers, threads=THREADS) as record:
        time.sleep(1)
        for _ in range(ROUNDS):
            for partition in partitions:
                source = cluster.owner(partition)
                target = another(cluster, source)
                cluster.begin_move(partition, source=source, target=target)
                while cluster.move_keys(partition, source=source, target=target, at_most=20):
                    time.sleep(STEP_S)
                cluster.end_move(partition, source=source, target=target)
                moves += 1
        time.sleep(1)
    lost = assert_proven(customers, record)
    record.note(
        "partitions_moved",
        moves=moves,
        silence_of_moved_s=record.silence_s(customers[:6]),
        silence_of_others_s=record.silence_s(customers[6:]),
        lost=len(lost),
    )
    assert lost == []
    moved = set(partitions)
    assert {customer.number % PARTITIONS in moved for customer in customers} == {True, False}


def test_events_that_were_not_drained_move_with_their_partition(cluster: Nodes) -> None:
    customer = make_customer(credits=100)
    hold = charge(customer, 30)
    move(cluster, customer)
    assert metering.admit(api_key=customer.api_key, endpoint="query", amount=10).available == 60
    assert (balance(customer), booked([customer])) == (70, {hold.operation: 30})


def test_a_drained_partition_goes_on_behind_its_cursor(cluster: Nodes) -> None:
    customer = make_customer(credits=100)
    charge(customer, 30)
    drain.drain_once()
    move(cluster, customer)
    charge(customer, 5)
    assert drain.drain_once().entries == 1
    assert balance(customer) == 65


def test_a_request_that_holds_settles_after_its_partition_has_moved(cluster: Nodes) -> None:
    customer = make_customer(credits=100)
    hold = metering.admit(api_key=customer.api_key, endpoint="query", amount=10)
    move(cluster, customer)
    assert metering.settle(hold, total=4, usage=make_usage()) == metering.Settlement(4, 96)
    assert metering.settle(hold, total=4, usage=make_usage()) == metering.Settlement(4, 96)
    drain.drain_once()
    assert booked([customer]) == {hold.operation: 4}


def test_a_settle_repeated_behind_a_move_is_charged_once(cluster: Nodes) -> None:
    customer = make_customer(credits=100)
    hold = charge(customer, 10)
    move(cluster, customer)
    assert metering.settle(hold, total=10, usage=make_usage()) == metering.Settlement(10, 90)
    drain.drain_once()
    assert booked([customer]) == {hold.operation: 10}


def test_an_account_that_moves_away_and_back_unused_counts_as_before(cluster: Nodes) -> None:
    customer = make_customer(credits=100)
    hold = metering.admit(api_key=customer.api_key, endpoint="query", amount=10)
    epoch = counters.inspect(customer.number).epoch
    source = cluster.owner(customer.number % PARTITIONS)
    move(cluster, customer)
    cluster.move(customer.number % PARTITIONS, target=source)
    assert counters.inspect(customer.number).usable
    assert metering.settle(hold, total=10, usage=make_usage()) == metering.Settlement(10, 90)
    assert counters.inspect(customer.number).epoch == epoch


@pytest.mark.parametrize(
    ("module", "step"), [(loading, "_raise_epoch"), (counters, "write_loaded"), (counters, "activate")]
)
def test_a_partition_that_moves_in_the_middle_of_a_load(
    module: object, step: str, cluster: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    customer = make_customer(credits=100)
    charge(customer, 30)
    counters.close(account_number=customer.number, epoch=1, even_if_usable=True, lease_ms=0)
    done: Callable[..., object] = getattr(module, step)

    def after_a_move(*args: object, **kwargs: object) -> object:
        monkeypatch.setattr(module, step, done)
        move(cluster, customer)
        return done(*args, **kwargs)

    monkeypatch.setattr(module, step, after_a_move)
    time.sleep(loading.LEASE_MS / 1000)
    assert loading.load_account(customer.number)
    live = counters.inspect(customer.number)
    assert (live.usable, live.balance, balance(customer)) == (True, 70, 70)


def test_a_partition_that_is_half_way_refuses_and_charges_nothing(cluster: Nodes) -> None:
    customer = make_customer(credits=100)
    charged = charge(customer, 30)
    partition = customer.number % PARTITIONS
    source = cluster.owner(partition)
    target = another(cluster, source)
    cluster.begin_move(partition, source=source, target=target)
    cluster.move_keys(partition, source=source, target=target, at_most=1)
    try:
        with pytest.raises(TemporarilyUnavailable):
            metering.admit(api_key=customer.api_key, endpoint="query", amount=10)
    finally:
        while cluster.move_keys(partition, source=source, target=target):
            pass
        cluster.end_move(partition, source=source, target=target)
    assert metering.admit(api_key=customer.api_key, endpoint="query", amount=10).available == 60
    assert booked([customer]) == {charged.operation: 30}


def test_what_a_half_way_partition_holds_back_does_not_stop_the_others(cluster: Nodes) -> None:
    customer = make_customer(credits=100)
    waiting = make_customer(credits=100)
    for each in (customer, waiting):
        charge(each, 30)
    partition = waiting.number % PARTITIONS
    source = cluster.owner(partition)
    target = another(cluster, source)
    cluster.begin_move(partition, source=source, target=target)
    cluster.move_keys(partition, source=source, target=target, at_most=1)
    # As a drain that has just begun: it reads by the script, whose two keys are in two places now.
    counters._seen_cursors.clear()
    try:
        with pytest.raises(RedisUnavailable):
            drain._book()
        assert balance(customer) == 70
    finally:
        while cluster.move_keys(partition, source=source, target=target):
            pass
        cluster.end_move(partition, source=source, target=target)
    drain.drain_once()
    assert balance(waiting) == 70
