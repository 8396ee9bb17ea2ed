"""Numbered, forward-only migrations of the ClickHouse schema: `migrations/NNNN_name.sql`.

A file holds statements that each end with `;` at the end of a line; a line that starts with `--` is a comment. Because
ClickHouse has no transactions over DDL, every statement must be harmless when it runs twice (IF NOT EXISTS): a migration
that was interrupted is run again from its first statement. A file that was applied never changes: its checksum is kept in
the table `schema_migrations` and compared every time.
"""

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from clickhouse_connect.driver.client import Client
from django.conf import settings

from config.clickhouse import client as clients
from config.clickhouse.locks import advisory_lock
from config.errors import DomainError

MIGRATIONS = Path(__file__).parent / "migrations"
LOCK_WAIT_S = 60.0
_FILE_NAME = re.compile(r"(\d{4})_([a-z0-9_]+)\.sql")
_DATABASE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")
_TABLE = """
CREATE TABLE IF NOT EXISTS schema_migrations (
    number UInt32, name String, checksum String, applied_at DateTime64(3, 'UTC') DEFAULT now64(3)
) ENGINE = MergeTree ORDER BY number
"""


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
        exists = client.query(
            "SELECT count() FROM system.tables WHERE database = {db:String} AND name = 'schema_migrations'",
            parameters={"db": clients.database_name()},
        ).result_rows[0][0]
        return pending(migrations, _applied(client) if exists else {})
    finally:
        client.close()


def migrate(folder: Path = MIGRATIONS, *, on_applied: Callable[[Migration], None] = lambda migration: None) -> int:
    """Applies what is pending, one process at a time, and returns how many; `on_applied` hears of each.

    Raises `SchemaConflict` before anything is changed, `LockBusy`, `StoreUnavailable`.
    """
    migrations = read_migrations(folder)
    client = _admin_client()
    try:
        with advisory_lock("clickhouse-schema", wait_s=LOCK_WAIT_S), clients.store_errors():
            client.command(f"CREATE DATABASE IF NOT EXISTS `{clients.database_name()}`")
            client.database = clients.database_name()
            client.command(_TABLE)
            waiting = pending(migrations, _applied(client))
            for migration in waiting:
                for statement in migration.statements:
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
