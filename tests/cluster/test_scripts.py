"""The credit protocol on a Redis Cluster at rest: every script, and every batch over all partitions."""

import pytest
from django.test import override_settings
from django.utils import timezone

from accounts import revocation
from accounts.models import Account
from config import health, redis
from config.redis import PARTITIONS, shard_of
from credits import checks, counters, decreases, drain, loading, metering, verify
from credits.models import CreditTransaction
from credits.refusals import InsufficientCredits, KeyRevoked
from credits.services import top_up
from tests.cluster.nodes import Nodes
from tests.factories import Customer, make_customer, make_usage

pytestmark = pytest.mark.cluster


def make_customers(cluster: Nodes) -> list[Customer]:
    """One customer with 50 credits at each of the three masters."""
    found: dict[int, Customer] = {}
    while len(found) < 3:
        customer = make_customer(credits=50)
        found.setdefault(cluster.owner(customer.number % PARTITIONS).port, customer)
    return list(found.values())


def spent(customer: Customer) -> list[int]:
    entries = CreditTransaction.objects.filter(account=customer.account, kind="usage").order_by("seq")
    return list(entries.values_list("amount", flat=True))


def test_each_partition_is_served_by_the_master_that_owns_its_slot(cluster: Nodes) -> None:
    assert [shard_of(partition) for partition in range(PARTITIONS)] == [
        cluster.owner(partition).place for partition in range(PARTITIONS)
    ]
    assert {shard_of(partition) for partition in range(PARTITIONS)} == {node.place for node in cluster.masters()}


def test_customers_of_every_master_are_charged_once(cluster: Nodes) -> None:
    for customer in make_customers(cluster):
        hold = metering.admit(api_key=customer.api_key, endpoint="query", amount=10)
        assert metering.settle(hold, total=4, usage=make_usage()) == metering.Settlement(4, 46)
        assert metering.settle(hold, total=4, usage=make_usage()) == metering.Settlement(4, 46)
        with pytest.raises(InsufficientCredits):
            metering.admit(api_key=customer.api_key, endpoint="query", amount=47)
        drain.drain_once()
        assert spent(customer) == [4]
        assert Account.objects.get(pk=customer.account.pk).balance == 46


def test_a_stream_settles_its_parts(cluster: Nodes) -> None:
    for customer in make_customers(cluster):
        hold = metering.admit(api_key=customer.api_key, endpoint="download", amount=10)
        for total in (3, 6):
            assert metering.settle(hold, total=total, usage=None, final=False).charged == total
        assert metering.release(hold, usage=make_usage()) == metering.Settlement(6, 44)
        drain.drain_once()
        assert sum(spent(customer)) == 6


def test_increases_and_decreases_reach_every_master(cluster: Nodes) -> None:
    for customer in make_customers(cluster):
        metering.admit(api_key=customer.api_key, endpoint="query", amount=1)
        top_up(account=customer.account, amount=25, now=timezone.now(), reason="test")
        assert counters.inspect(customer.number).balance == 75
        decreases.deduct(account=customer.account, amount=30, reason="test", actor="test", now=timezone.now())
        drain.drain_once()
        assert counters.inspect(customer.number).balance == 45
        assert Account.objects.get(pk=customer.account.pk).balance == 45


def test_the_sweep_finds_due_holds_of_every_master(cluster: Nodes) -> None:
    customers = make_customers(cluster)
    with override_settings(HOLD_S=0):
        for customer in customers:
            metering.admit(api_key=customer.api_key, endpoint="query", amount=10)
    drain.sweep()
    assert [counters.inspect(customer.number).held for customer in customers] == [0, 0, 0]


def test_a_revoked_key_is_refused_at_every_master(cluster: Nodes) -> None:
    for customer in make_customers(cluster):
        metering.identify(api_key=customer.api_key, endpoint="credits")
        revocation.revoke_key(public_id=customer.key_id, now=timezone.now())
        with pytest.raises(KeyRevoked):
            metering.identify(api_key=customer.api_key, endpoint="credits")


def test_scripts_are_sent_again_to_servers_that_have_forgotten_them(cluster: Nodes) -> None:
    customers = make_customers(cluster)
    for customer in customers:
        loading.load_account(customer.number)
    for master in cluster.masters():
        master.client.script_flush()
    assert [live.balance for live in counters.inspect_many([customer.number for customer in customers])] == [50] * 3


def test_a_repair_loads_what_differs_at_every_master(cluster: Nodes) -> None:
    customers = make_customers(cluster)
    for customer in customers:
        loading.load_account(customer.number)
        owner = cluster.owner(customer.number % PARTITIONS)
        owner.client.hincrby(counters.account_key(customer.number), "bal", 7)
    numbers = {customer.number for customer in customers}
    assert numbers <= set(verify.verify(now=timezone.now(), repair=True).repaired)
    assert [live.balance for live in counters.inspect_many(sorted(numbers))] == [50, 50, 50]


def test_the_journal_is_trimmed_in_every_partition(cluster: Nodes) -> None:
    for customer in make_customers(cluster):
        for _ in range(3):
            hold = metering.admit(api_key=customer.api_key, endpoint="query", amount=1)
            metering.settle(hold, total=1, usage=make_usage())
        drain.drain_once()
        owner = cluster.owner(customer.number % PARTITIONS)
        assert owner.client.xlen(counters.journal_key(customer.number % PARTITIONS)) == 1


def test_a_master_without_enough_replicas_is_an_unavailable_redis(cluster: Nodes) -> None:
    customer = make_customers(cluster)[0]
    loading.load_account(customer.number)
    owner = cluster.owner(customer.number % PARTITIONS)
    owner.client.config_set("min-replicas-to-write", 2)
    try:
        with pytest.raises(redis.RefusesToWrite):
            counters.close(account_number=customer.number, epoch=1, even_if_usable=True, lease_ms=0)
    finally:
        owner.client.config_set("min-replicas-to-write", 0)


def test_the_deployment_checks_ask_every_node(cluster: Nodes) -> None:
    found = {message.id for message in checks.check_redis(None)}
    assert found == {"credits.E012"}  # the tests' nodes keep no append-only file
    assert len([message for message in checks.check_redis(None) if message.id == "credits.E012"]) == len(cluster.nodes)
    for node in cluster.nodes:
        node.client.config_set("repl-backlog-ttl", 3600)
        try:
            assert {message.id for message in checks.check_redis(None)} == {"credits.E012", "credits.W014"}
        finally:
            node.client.config_set("repl-backlog-ttl", 0)


def test_redis_is_healthy_when_every_master_answers(cluster: Nodes) -> None:
    assert health.stores()["redis"] is True
