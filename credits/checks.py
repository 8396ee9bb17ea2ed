"""System checks of what the credit protocol stands on: `manage.py check --deploy`.

They ask the running stores, so they run at deployment alone. A store that cannot be asked is itself an error.
"""

from typing import Any
from urllib.parse import urlsplit

import redis
from clickhouse_connect.driver.exceptions import Error as ClickHouseError
from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning, register  # noqa: A004 - Django's own name
from django.db import OperationalError, connection

from config.clickhouse.client import READ_GRACE_S, StoreUnavailable, reader
from config.redis import RedisUnavailable, route
from credits.models import CreditTransaction, GrantDraw, SetAside

READER_LIMITS = ("max_execution_time", "max_memory_usage", "max_result_rows")


@register("credits", deploy=True)
def check_durations(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """A request runs two queries at most, rows and count; both must end before its hold does, or it could not be charged."""
    if 2 * (settings.QUERY_TIMEOUT_S + READ_GRACE_S) < settings.HOLD_S:
        return []
    return [
        Error(
            f"Two queries of QUERY_TIMEOUT_S ({settings.QUERY_TIMEOUT_S}) may outlive HOLD_S ({settings.HOLD_S}).",
            hint=f"Set HOLD_S above {2 * (settings.QUERY_TIMEOUT_S + READ_GRACE_S)}.",
            id="credits.E001",
        )
    ]


@register("credits", deploy=True)
def check_redis_urls(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """The Redis that holds money is not the cache's, which may evict or be flushed."""
    if "," in settings.REDIS_URL and not settings.REDIS_CLUSTER:
        return [
            Error(
                "REDIS_URL names several servers, and REDIS_CLUSTER is not set.",
                hint="Set REDIS_CLUSTER=true for a Redis Cluster, or name one server.",
                id="credits.E004",
            )
        ]
    if settings.CACHE_URL in settings.REDIS_URL.split(","):
        return [
            Error(
                "REDIS_URL and CACHE_URL are the same database.",
                hint="Clearing the cache would clear live balances. Give the cache a server of its own.",
                id="credits.E002",
            )
        ]
    if urlsplit(settings.CACHE_URL).netloc in [urlsplit(url).netloc for url in settings.REDIS_URL.split(",")]:
        return [
            Warning(
                "REDIS_URL and CACHE_URL are on the same server.",
                hint="Under load the cache and the money share its memory. Give the cache a server of its own.",
                id="credits.W003",
            )
        ]
    return []


@register("credits", deploy=True)
def check_redis(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """Each server of the money's Redis keeps what it is told: never evicting, append-only file on, a master.

    On a cluster the replicas are asked too: each may be a master tomorrow.
    """
    found: list[CheckMessage] = []
    try:
        masters, replicas = route().masters(), route().replicas()
        for place, server in masters.items():
            found += _durability(place, server.config_get("*"))
            if server.info("replication")["role"] not in ("master", b"master"):
                found.append(
                    Error(f"REDIS_URL leads to a replica: {place}.", hint="Point it to the master.", id="credits.E013")
                )
        for place, server in replicas.items():
            found += _durability(place, server.config_get("*"))
        if settings.REDIS_CLUSTER:
            found += _cluster_messages(masters)
    except RedisUnavailable as error:
        found.append(_unasked("Redis", error, "credits.E010"))
    return found


def _durability(place: str, config: "dict[str | None, str | None]") -> list[CheckMessage]:
    found: list[CheckMessage] = []
    if config.get("maxmemory-policy") != "noeviction":
        found.append(
            Error(
                f"Redis at {place} evicts: maxmemory-policy is {config.get('maxmemory-policy')}.",
                hint="Set maxmemory-policy noeviction: an evicted key is a lost balance.",
                id="credits.E011",
            )
        )
    if config.get("appendonly") != "yes":
        found.append(
            Error(
                f"Redis at {place} keeps no append-only file.",
                hint="Set appendonly yes (appendfsync everysec loses at most a second, in the customers' favour).",
                id="credits.E012",
            )
        )
    if config.get("repl-backlog-ttl") != "0":
        found.append(
            Warning(
                f"repl-backlog-ttl of {place} is {config.get('repl-backlog-ttl')}, not 0.",
                hint="Without it a master without replicas changes its replication id, and every account is loaded again.",
                id="credits.W014",
            )
        )
    return found


def _cluster_messages(masters: "dict[str, redis.Redis]") -> list[CheckMessage]:
    """Every slot has an owner, and every master a replica that takes over."""
    found: list[CheckMessage] = []
    for place, server in masters.items():
        known = server.execute_command("CLUSTER INFO")  # type: ignore[no-untyped-call]
        if known["cluster_slots_ok"] != "16384":
            found.append(
                Error(
                    f"{place} knows a working owner for {known['cluster_slots_ok']} of 16384 slots.",
                    hint="Customers of the other slots are refused. Look at CLUSTER NODES.",
                    id="credits.E015",
                )
            )
        if server.info("replication")["connected_slaves"] == 0:
            found.append(
                Warning(
                    f"{place} has no replica.",
                    hint="When it fails, its customers are refused until it is back. Give it a replica.",
                    id="credits.W016",
                )
            )
    return found


@register("credits", deploy=True)
def check_postgres(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """What Postgres has confirmed is on disk, and the ledger can only be inserted into."""
    try:
        with connection.cursor() as cursor:
            cursor.execute("SHOW synchronous_commit")
            synchronous_commit = cursor.fetchone()[0]
            cursor.execute(
                "SELECT tgrelid::regclass::text FROM pg_trigger WHERE tgname LIKE '%%_insert_only' AND tgenabled <> 'D'"
            )
            guarded = {name for (name,) in cursor.fetchall()}
    except OperationalError as error:
        return [_unasked("PostgreSQL", error, "credits.E020")]
    found: list[CheckMessage] = []
    if synchronous_commit == "off":
        found.append(
            Error(
                "PostgreSQL confirms commits before they are on disk (synchronous_commit is off).",
                hint="Set synchronous_commit on: the cursor moves behind what was confirmed.",
                id="credits.E021",
            )
        )
    missing = [model._meta.db_table for model in (CreditTransaction, GrantDraw, SetAside)]  # noqa: SLF001 - Django's API
    if unguarded := [table for table in missing if table not in guarded]:
        found.append(
            Error(
                f"These tables can be changed: {', '.join(unguarded)}.",
                hint="Run manage.py migrate, and find out who dropped or disabled their triggers.",
                id="credits.E022",
            )
        )
    return found


@register("credits", deploy=True)
def check_clickhouse(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """The user that answers customers can only read, within limits."""
    try:
        rows = reader().query(
            "SELECT name, value FROM system.settings WHERE name IN ({names:Array(String)}) LIMIT 100",
            parameters={"names": ["readonly", *READER_LIMITS]},
        )
    except (StoreUnavailable, ClickHouseError) as error:
        return [_unasked("ClickHouse", error, "credits.E030")]
    values = {name: value for name, value in rows.result_rows}  # noqa: C416 - rows are sequences, not pairs
    found: list[CheckMessage] = []
    if values.get("readonly", "0") == "0":
        found.append(
            Error(
                "The ClickHouse user of CLICKHOUSE_READER_URL may write.",
                hint="Give it a profile with readonly = 2.",
                id="credits.E031",
            )
        )
    if unlimited := [name for name in READER_LIMITS if float(values.get(name, "0")) == 0]:
        found.append(
            Error(
                f"The ClickHouse user of CLICKHOUSE_READER_URL has no limit on: {', '.join(unlimited)}.",
                hint="Set them in its profile; one query could take the server.",
                id="credits.E032",
            )
        )
    return found


def _unasked(store: str, error: Exception, check_id: str) -> CheckMessage:
    return Error(
        f"{store} could not be asked: {type(error).__name__}.", hint="Start it, then check again.", id=check_id
    )
