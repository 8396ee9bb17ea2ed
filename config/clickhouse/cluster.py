"""The same schema on a cluster: CLICKHOUSE_CLUSTER names one of `remote_servers` of the servers' configuration.

Every table then is two. `records_local` is Replicated*MergeTree and holds a shard's rows, with all indexes and projections;
`records` is Distributed over the shards and is what the product reads and inserts into. The migrations are the same files:
they are rewritten statement by statement, here, and a statement that cannot be is refused.

A record's shard follows from its id: it is always the same one, so the loader's token makes a repeated insert do nothing there,
and rows of tables with the same key lie together.
"""

import re
from typing import Any, Literal

from django.conf import settings

from config.errors import DomainError

# Rows that must meet on one shard have the same value: duplicates of a record, deliveries of it, repeated usage events.
SHARDED_BY = {"records": "id", "deliveries": "id", "usage": "account_number"}
LOCAL = "_local"

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,63}")
_CREATE = re.compile(r"CREATE\s+TABLE\s+IF\s+NOT\s+EXISTS\s+(\w+)\s*\(", re.IGNORECASE)
_ENGINE = re.compile(r"\)\s*ENGINE\s*=\s*(\w*MergeTree)\b", re.IGNORECASE)
_ALTER = re.compile(r"ALTER\s+TABLE\s+(\w+)\s+(.*)", re.IGNORECASE | re.DOTALL)
_DROP = re.compile(r"DROP\s+TABLE\s+IF\s+EXISTS\s+(\w+)(?:\s+SYNC)?", re.IGNORECASE)
# What changes the columns that a Distributed table has, too; everything else is the local table's alone.
_COLUMN = re.compile(r"(ADD|DROP|MODIFY|RENAME|COMMENT)\s+COLUMN\b", re.IGNORECASE)


class NotForCluster(DomainError):
    """409: this statement, or this name of a cluster, cannot be used with CLICKHOUSE_CLUSTER."""

    status = 409
    code = "NOT_FOR_CLUSTER"


def name() -> str:
    """The cluster's name, '' for a single server. Raises `NotForCluster` for one that would need quoting."""
    given = str(settings.CLICKHOUSE_CLUSTER)
    if given and not _NAME.fullmatch(given):
        raise NotForCluster(f"CLICKHOUSE_CLUSTER is '{given}'. Use letters, digits, '.', '_' and '-' alone.")
    return given


def client_settings(role: Literal["writer", "reader"], cluster: str) -> dict[str, Any]:
    """The settings that a client sends with everything it asks; none for a single server."""
    if not cluster:
        return {}
    # A lookup by id asks the one shard that may have it.
    routing = {"optimize_skip_unused_shards": 1}
    if role == "reader":
        return routing
    return routing | {
        # An insert has ended when its rows are on the shards, not when the first server has queued them.
        "distributed_foreground_insert": 1,
        # "Already there" must be true on whichever replica is asked next.
        "insert_quorum": "auto",
        "insert_quorum_parallel": 0,
        "select_sequential_consistency": 1,
        # The table of asked ids is on the server that was asked; it is sent to the shards.
        "prefer_global_in_and_join": 1,
        "distributed_ddl_output_mode": "throw",
        "alter_sync": 2,
    }


def concurrent_insert_settings() -> dict[str, Any]:
    """For inserts that several processes make into one table at once, which a quorum in sequence would refuse."""
    return {"insert_quorum": 0} if name() else {}


def in_place(table: str) -> str:
    """What an ALTER … DELETE or UPDATE, or a DELETE FROM, names: a Distributed table cannot change its rows itself.

    Other tables in such a statement are the shard's own, too: say `local(…)`.
    """
    return f"{local(table)} ON CLUSTER `{name()}`" if name() else table


def local(table: str) -> str:
    """The table that holds the rows of the server that is asked."""
    return f"{table}{LOCAL}" if name() else table


def everywhere(system_table: str) -> str:
    """A system table as all servers together have it, for FROM."""
    return f"clusterAllReplicas(`{name()}`, {system_table})" if name() else system_table


def inserts_at_work(table: str, database: str) -> str:
    """A condition on `system.processes`: inserts into `table`, among them those that a server sends on to the shards."""
    asked = f"current_database = '{database}' AND match(query, '^INSERT INTO `?{table}`? ')"
    if not name():
        return f"query_kind = 'Insert' AND {asked}"
    sent_on = f"match(query, '^INSERT INTO `?{database}`?[.]`?{table}{LOCAL}`? ')"
    return f"query_kind = 'Insert' AND ({asked} OR {sent_on})"


def rewritten(statement: str, *, cluster: str, database: str) -> tuple[str, ...]:
    """A migration's statement for `cluster`, for a single server ('') itself. Pure. Raises `NotForCluster`."""
    if not cluster:
        return (statement,)
    on = f"ON CLUSTER `{cluster}`"
    if created := _CREATE.match(statement):
        return _create(statement, created, cluster, database)
    if altered := _ALTER.fullmatch(statement):
        return _alter(altered, on)
    if dropped := _DROP.fullmatch(statement):
        table = dropped[1]
        return f"DROP TABLE IF EXISTS {table} {on} SYNC", f"DROP TABLE IF EXISTS {table}{LOCAL} {on} SYNC"
    raise NotForCluster(
        f"'{' '.join(statement.split())[:80]}' has no form for a cluster. "
        "Write CREATE TABLE IF NOT EXISTS …, ALTER TABLE … or DROP TABLE IF EXISTS …"
    )


def _create(statement: str, created: re.Match[str], cluster: str, database: str) -> tuple[str, str]:
    table = created[1]
    key = SHARDED_BY.get(table)
    if key is None:
        raise NotForCluster(f"The table {table} has no sharding key. Give it one in config/clickhouse/cluster.py.")
    engine = _ENGINE.search(statement)
    if engine is None or engine[1].lower().startswith("replicated"):
        raise NotForCluster(f"The table {table} is not of a MergeTree engine that can be replicated.")
    on = f"ON CLUSTER `{cluster}`"
    start, end = engine.span(1)
    # Path and name of the replica are the servers' defaults: /clickhouse/tables/{uuid}/{shard} and {replica}.
    rows = (
        f"CREATE TABLE IF NOT EXISTS {table}{LOCAL} {on}\n("
        f"{statement[created.end() : start]}Replicated{engine[1]}{statement[end:]}"
    ).replace("non_replicated_deduplication_window", "replicated_deduplication_window")
    over = (
        f"CREATE TABLE IF NOT EXISTS {table} {on} AS {table}{LOCAL}\n"
        f"ENGINE = Distributed(`{cluster}`, `{database}`, {table}{LOCAL}, cityHash64({key}))"
    )
    return rows, over


def _alter(altered: re.Match[str], on: str) -> tuple[str, ...]:
    table, commands = altered[1], altered[2]
    rows = f"ALTER TABLE {table}{LOCAL} {on} {commands}"
    kinds = [_COLUMN.match(command) for command in _split(commands)]
    if not any(kinds):
        return (rows,)
    if not all(kinds):
        raise NotForCluster(f"ALTER TABLE {table} changes columns and other things at once. Write two statements.")
    over = f"ALTER TABLE {table} {on} {commands}"
    # What is read must be there: a new column comes first in the rows, one that goes leaves them last.
    return (over, rows) if all(kind and kind[1].upper() == "DROP" for kind in kinds) else (rows, over)


def _split(commands: str) -> list[str]:
    """The commands of an ALTER, cut at commas outside of parentheses and strings."""
    parts, depth, quoted = [""], 0, False
    for sign in commands:
        quoted ^= sign == "'"
        depth += 0 if quoted else (sign == "(") - (sign == ")")
        if sign == "," and depth == 0 and not quoted:
            parts.append("")
        else:
            parts[-1] += sign
    return [part.strip() for part in parts]
