"""The ways to the Redis that holds money."""

import pytest
from django.test import override_settings

from config import redis, redis_routes
from credits import counters

pytestmark = pytest.mark.usefixtures("stores")


def test_a_pool_that_our_own_threads_exhaust_has_a_name_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_routes, "CONNECTIONS_MAX", 1)
    with override_settings(REDIS_TIMEOUT_MS=50):
        redis.forget_clients()
        pool = redis.money().connection_pool
        connection = pool.get_connection()
        try:
            with pytest.raises(redis_routes.PoolExhausted):
                counters.inspect_many([1], quick=True)
        finally:
            pool.release(connection)
            redis.forget_clients()


def test_batches_wait_longer_than_requests() -> None:
    with override_settings(REDIS_TIMEOUT_MS=250):
        redis.forget_clients()
        pools = [redis.route(quick=quick).client.connection_pool for quick in (True, False)]  # type: ignore[union-attr]
        redis.forget_clients()
    assert [pool.connection_kwargs["socket_timeout"] for pool in pools] == [0.25, 5.0]
