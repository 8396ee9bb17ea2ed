"""Numbered, forward-only migrations of the ClickHouse schema: `migrations/NNNN_name.sql`.

A file holds statements that each end with `;` at the end of a line; a line that starts with `--` is a comment. Because
ClickHouse has no transactions over DDL, every statement must be harmless when it runs twice (IF NOT EXISTS): a migration
that was interrupted is run again from its first statement. A file that was applied never changes: its checksum is kept in
the table `schema_migrations` and compared every time.

With CLICKHOUSE_CLUSTER the same files make the tables of a cluster (`config.clickhouse.cluster`). A checksum is that of the
file either way; which of the two a database is shows in the engine of its `schema_migrations`, and it stays that.
"""

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from clickhouse_connect.driver.client import Client
from django.conf import settings

from config.clickhouse import client as clients
from config.clickhouse import cluster
from config.clickhouse.locks import advisory_lock
from config.errors import DomainError

MIGRATIONS = Path(__file__).parent / "migrations"
LOCK_WAIT_S = 60.0
_FILE_NAME = re.compile(r"(\d{4})_([a-z0-9_]+)\.sql")
_DATABASE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")
_TABLE = """
CREATE TABLE IF NOT EXISTS schema_migrations{on} (
    number UInt32, name String, checksum String, applied_at DateTime64(3, 'UTC') DEFAULT now64(3)
) ENGINE = {engine} ORDER BY number
"""
# All servers of all shards are replicas of one table: each can say what was applied.
_REPLICATED = "ReplicatedMergeTree('/clickhouse/tables/{database}/schema_migrations', '{shard}-{replica}')"


class SchemaConflict(DomainError):
    """409: the files and what was applied contradict each other; somebody must decide, so nothing is applied."""

    status = 409
    code = "SCHEMA_CONFLICT"


@dataclass(frozen=True)
class Migration:
    """One `.sql` file: its number, its name, the SHA-256 of its bytes, its statements in order."""

    number: int
    name: str
    checksum: str
    statements: tuple[str, ...]

    @property
    def label(self) -> str:
        return f"{self.number:04d}_{self.name}"


def read_migrations(folder: Path = MIGRATIONS) -> list[Migration]:
    """The migrations in `folder` by number. Raises `SchemaConflict` for a stray name, a number used twice, an empty file."""
    found: dict[int, Migration] = {}
    for path in sorted(folder.glob("*.sql")):
        match = _FILE_NAME.fullmatch(path.name)
        if match is None:
            raise SchemaConflict(f"{path.name} is not named like 0001_what_it_does.sql. Rename it.")
        number = int(match[1])
        if number in found:
            raise SchemaConflict(f"{path.name} uses number {number:04d} again. Give it the next free number.")
        body = path.read_bytes()
        statements = split_statements(body.decode())
        if not statements:
            raise SchemaConflict(f"{path.name} holds no statement. Remove it or write one.")
        found[number] = Migration(number, match[2], hashlib.sha256(body).hexdigest(), statements)
    return [found[number] for number in sorted(found)]


def split_statements(text: str) -> tuple[str, ...]:
    """The statements of a file: cut at each `;` that ends a line, comment lines left out."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("--")]
    parts = re.split(r";[ \t]*$", "\n".join(lines), flags=re.MULTILINE)
    return tuple(part.strip() for part in parts if part.strip())


def pending(migrations: Sequence[Migration], applied: dict[int, tuple[str, str]]) -> list[Migration]:
    """What is still to apply, given `applied` as number → (name, checksum). Pure. Raises `SchemaConflict`."""
    by_number = {migration.number: migration for migration in migrations}
    for number, (name, checksum) in sorted(applied.items()):
        migration = by_number.get(number)
        if migration is None:
            raise SchemaConflict(f"{number:04d}_{name} was applied here but its file is gone. Bring the file back.")
        if migration.checksum != checksum:
            raise SchemaConflict(
                f"{migration.label}.sql has changed since it was applied. Undo the change and write a new migration."
            )
    waiting = [migration for migration in migrations if migration.number not in applied]
    newest = max(applied, default=0)
    if waiting and waiting[0].number < newest:
        raise SchemaConflict(
            f"{waiting[0].label}.sql comes before {newest:04d}, which is applied. Give it the next free number."
        )
    return waiting


def plan(folder: Path = MIGRATIONS) -> list[Migration]:
    """What `migrate` would apply now; changes nothing. Raises `SchemaConflict`, `StoreUnavailable`."""
    migrations = read_migrations(folder)
    client = _admin_client()
    try:
        engine = _engine(client)
        check_kind(engine, cluster.name())
        return pending(migrations, _applied(client) if engine else {})
    finally:
        client.close()


def migrate(folder: Path = MIGRATIONS, *, on_applied: Callable[[Migration], None] = lambda migration: None) -> int:
    """Applies what is pending, one process at a time, and returns how many; `on_applied` hears of each.

    Raises `SchemaConflict` before anything is changed, `LockBusy`, `StoreUnavailable`.
    """
    migrations = read_migrations(folder)
    kind = cluster.name()
    client = _admin_client()
    try:
        with advisory_lock("clickhouse-schema", wait_s=LOCK_WAIT_S), clients.store_errors():
            check_kind(_engine(client), kind)
            for statement in opening(clients.database_name(), kind):
                client.command(statement)
                client.database = clients.database_name()
            waiting = pending(migrations, _applied(client))
            # All of them first: one that a cluster cannot have is found before anything is changed.
            prepared = [statements_of(migration, kind, clients.database_name()) for migration in waiting]
            for migration, statements in zip(waiting, prepared, strict=True):
                for statement in statements:
                    client.command(statement)
                client.insert(
                    "schema_migrations",
                    [[migration.number, migration.name, migration.checksum]],
                    column_names=["number", "name", "checksum"],
                )
                on_applied(migration)
            return len(waiting)
    finally:
        client.close()


def opening(database: str, kind: str) -> tuple[str, str]:
    """The statements that make the database and its table of migrations, on the cluster `kind` or on one server (''). Pure."""
    on = f" ON CLUSTER `{kind}`" if kind else ""
    engine = _REPLICATED if kind else "MergeTree"
    return f"CREATE DATABASE IF NOT EXISTS `{database}`{on}", _TABLE.format(on=on, engine=engine)


def statements_of(migration: Migration, kind: str, database: str) -> list[str]:
    """What is run for a migration on the cluster `kind` or on one server (''). Pure. Raises `NotForCluster`."""
    return [
        statement
        for written in migration.statements
        for statement in cluster.rewritten(written, cluster=kind, database=database)
    ]


def check_kind(engine: str, kind: str) -> None:
    """Raises `SchemaConflict` when the database's table of migrations has an `engine` of the other kind; '': none yet."""
    if engine and engine.startswith("Replicated") != bool(kind):
        made, wanted = ("for a cluster", "is not set") if not kind else ("for one server", f"is {kind}")
        raise SchemaConflict(
            f"The database {clients.database_name()} was made {made}, and CLICKHOUSE_CLUSTER {wanted}. Its tables stay what "
            "they are: set CLICKHOUSE_CLUSTER as it was, or name another database in CLICKHOUSE_URL and load it."
        )


def _engine(client: Client) -> str:
    """The engine of the table of migrations, '' when there is none."""
    with clients.store_errors():
        rows = client.query(
            "SELECT engine FROM system.tables WHERE database = {db:String} AND name = 'schema_migrations'",
            parameters={"db": clients.database_name()},
        ).result_rows
    return str(rows[0][0]) if rows else ""


def _admin_client() -> Client:
    """A client that does not need the product's database to exist yet."""
    name = clients.database_name()
    if not _DATABASE_NAME.fullmatch(name):
        raise SchemaConflict(f"CLICKHOUSE_URL names the database '{name}'. Use letters, digits and _ alone.")
    return clients.connect(settings.CLICKHOUSE_URL, read_timeout_s=clients.WRITE_TIMEOUT_S, database="default")


def _applied(client: Client) -> dict[int, tuple[str, str]]:
    table = f"`{clients.database_name()}`.schema_migrations"
    with clients.store_errors():
        rows = client.query(f"SELECT number, name, checksum FROM {table} ORDER BY number").result_rows
    return {number: (name, checksum) for number, name, checksum in rows}
