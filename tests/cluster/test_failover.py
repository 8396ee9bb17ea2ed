"""A master that dies or freezes in the middle of load: its replica is promoted, and the money is right afterwards."""

import time

import pytest
from django.utils import timezone

from config.redis import PARTITIONS
from credits import counters, drain, metering, verify
from tests.cluster.load import asking, assert_proven, booked, come_to_rest
from tests.cluster.nodes import NODE_TIMEOUT_MS, Node, Nodes
from tests.factories import Customer, make_customer, make_usage

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180)]

THREADS = 6
LOAD_S = 2.0
# Replication is asynchronous: what a master told in its last moment may not have reached the replica.
LOST_WITHIN_S = 1.0


def make_customers(count: int) -> list[Customer]:
    """Every fourth has so little that it runs out."""
    return [make_customer(credits=60 if number % 4 == 0 else 100_000) for number in range(count)]


def customers_at(node: Node, cluster: Nodes, customers: list[Customer]) -> list[Customer]:
    return [customer for customer in customers if cluster.owner(customer.number % PARTITIONS) is node]


def test_kill_9_of_a_master_under_load(cluster: Nodes) -> None:
    customers = make_customers(16)
    killed = cluster.owner(customers[1].number % PARTITIONS)
    concerned = customers_at(killed, cluster, customers)
    with asking(customers, threads=THREADS) as record:
        time.sleep(LOAD_S)
        killed_at = time.monotonic()
        killed.kill()
        promoted_at = killed_at + cluster.wait_for_promotion(killed)
        time.sleep(LOAD_S)
    lost = assert_proven(customers, record)
    others = [customer for customer in customers if customer not in concerned]
    record.note(
        "master_killed",
        promoted_after_s=promoted_at - killed_at,
        silence_s=record.silence_s(concerned),
        silence_of_others_s=record.silence_s(others),
        lost=len(lost),
    )
    assert {asked.at > promoted_at for asked in record.asked if asked.customer in concerned} == {False, True}
    assert all(killed_at - LOST_WITHIN_S <= asked.at <= promoted_at for asked in lost)


def test_a_frozen_master_that_comes_back_after_its_replica_was_promoted(cluster: Nodes) -> None:
    customers = make_customers(16)
    frozen = cluster.owner(customers[1].number % PARTITIONS)
    concerned = customers_at(frozen, cluster, customers)
    with asking(customers, threads=THREADS) as record:
        time.sleep(LOAD_S)
        frozen_at = time.monotonic()
        frozen.freeze()
        try:
            promoted_at = frozen_at + cluster.wait_for_promotion(frozen)
        finally:
            frozen.thaw()
        time.sleep(LOAD_S)
    lost = assert_proven(customers, record)
    record.note(
        "master_frozen",
        promoted_after_s=promoted_at - frozen_at,
        silence_s=record.silence_s(concerned),
        lost=len(lost),
    )
    # The old master may serve until it hears of the new one.
    assert all(frozen_at - LOST_WITHIN_S <= asked.at <= promoted_at + NODE_TIMEOUT_MS / 1000 for asked in lost)


def charge(customer: Customer, total: int) -> metering.Hold:
    hold = metering.admit(api_key=customer.api_key, endpoint="query", amount=total)
    metering.settle(hold, total=total, usage=make_usage())
    return hold


def test_what_the_replica_had_not_received_is_lost_in_the_customers_favour(cluster: Nodes) -> None:
    customer = make_customer(credits=100)
    master = cluster.owner(customer.number % PARTITIONS)
    replica = cluster.replica_of(master)
    replicated = charge(customer, 5)
    open_hold = metering.admit(api_key=customer.api_key, endpoint="query", amount=10)
    master.client.wait(1, 5000)
    replica.cut_off(master)
    booked_already = charge(customer, 7)
    drain.drain_once()
    lost = charge(customer, 9)
    master.kill()
    cluster.wait_for_promotion(master)
    replica.follow_again()

    # The ledger knows more than the replica: what it has booked stays booked.
    assert metering.admit(api_key=customer.api_key, endpoint="query", amount=1).available == 87
    # The three requests settle again: one result was replicated, one was booked and forgotten, one is told for the first time.
    assert metering.settle(replicated, total=5, usage=make_usage()).charged == 5
    assert metering.settle(booked_already, total=7, usage=make_usage()).charged == 7
    assert metering.settle(lost, total=9, usage=make_usage()).charged == 9
    assert metering.settle(open_hold, total=10, usage=make_usage()).charged == 10
    come_to_rest([customer])
    assert booked([customer]) == {
        replicated.operation: 5,
        booked_already.operation: 7,
        lost.operation: 9,
        open_hold.operation: 10,
    }
    result = verify.verify(now=timezone.now())
    assert [difference for difference in result.differences if difference.account_number == customer.number] == []
    assert counters.inspect(customer.number).balance == 69


def test_a_charge_that_nobody_repeats_stays_with_the_customer(cluster: Nodes) -> None:
    customer = make_customer(credits=100)
    master = cluster.owner(customer.number % PARTITIONS)
    replica = cluster.replica_of(master)
    master.client.wait(1, 5000)
    replica.cut_off(master)
    charge(customer, 9)
    master.kill()
    cluster.wait_for_promotion(master)
    replica.follow_again()
    assert metering.admit(api_key=customer.api_key, endpoint="query", amount=1).available == 99
    assert booked([customer]) == {}
