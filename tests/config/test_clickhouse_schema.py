"""The ClickHouse migration runner: order, checksums, refusals, one at a time."""

import threading
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import override_settings

from config.clickhouse import client as clients
from config.clickhouse import schema
from config.clickhouse.locks import LockBusy, advisory_lock, holds, try_lock, unlock
from config.clickhouse.schema import Migration, SchemaConflict, pending, read_migrations, split_statements

pytestmark = pytest.mark.usefixtures("stores")


def migration(number: int, name: str = "x", checksum: str = "c") -> Migration:
    return Migration(number, name, checksum, ("SELECT 1",))


@pytest.fixture
def fresh_database(tmp_path: Path) -> str:
    """The name of a database that does not exist yet."""
    return f"fresh_{abs(hash(str(tmp_path))):x}"


def url(database: str) -> str:
    from django.conf import settings

    return str(settings.CLICKHOUSE_URL).rpartition("/")[0] + "/" + database


def test_split_statements_cuts_at_line_ends_outside_comments() -> None:
    text = "-- first;\nCREATE TABLE a\n(\n    b String DEFAULT ';x'\n);\n\n  -- ;\nDROP TABLE a;  \n"
    assert split_statements(text) == ("CREATE TABLE a\n(\n    b String DEFAULT ';x'\n)", "DROP TABLE a")


def test_pending_is_what_was_not_applied_in_order() -> None:
    migrations = [migration(1), migration(2), migration(3)]
    assert pending(migrations, {1: ("x", "c")}) == [migration(2), migration(3)]
    assert pending(migrations, dict.fromkeys((1, 2, 3), ("x", "c"))) == []


@pytest.mark.parametrize(
    ("migrations", "applied", "words"),
    [
        ([migration(1, checksum="new")], {1: ("x", "old")}, "0001_x.sql has changed"),
        ([], {1: ("x", "c")}, "0001_x was applied here but its file is gone"),
        ([migration(1), migration(2)], {2: ("x", "c")}, "0001_x.sql comes before 0002"),
    ],
)
def test_pending_refuses_contradictions(
    migrations: list[Migration], applied: dict[int, tuple[str, str]], words: str
) -> None:
    with pytest.raises(SchemaConflict, match=words):
        pending(migrations, applied)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"1_x.sql": "SELECT 1;"}, "not named like"),
        ({"0001_x.sql": "SELECT 1;", "0001_y.sql": "SELECT 1;"}, "uses number 0001 again"),
        ({"0001_x.sql": "-- nothing\n"}, "holds no statement"),
    ],
)
def test_read_migrations_refuses_bad_files(tmp_path: Path, files: dict[str, str], words: str) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(SchemaConflict, match=words):
        read_migrations(tmp_path)


def test_migrate_creates_the_database_and_applies_each_file_once(tmp_path: Path, fresh_database: str) -> None:
    (tmp_path / "0001_one.sql").write_text("CREATE TABLE IF NOT EXISTS one (a UInt8) ENGINE = MergeTree ORDER BY a;\n")
    with override_settings(CLICKHOUSE_URL=url(fresh_database)):
        assert [found.label for found in schema.plan(tmp_path)] == ["0001_one"]
        heard: list[str] = []
        assert schema.migrate(tmp_path, on_applied=lambda done: heard.append(done.label)) == 1
        assert heard == ["0001_one"]
        (tmp_path / "0002_two.sql").write_text(
            "CREATE TABLE IF NOT EXISTS two (a UInt8) ENGINE = MergeTree ORDER BY a;\n"
        )
        assert schema.migrate(tmp_path) == 1
        assert schema.migrate(tmp_path) == 0
        assert schema.plan(tmp_path) == []
        (tmp_path / "0001_one.sql").write_text("SELECT 1;\n")
        with pytest.raises(SchemaConflict, match=r"0001_one\.sql has changed"):
            schema.migrate(tmp_path)
    rows = (
        clients.writer()
        .query(f"SELECT number, name FROM {fresh_database}.schema_migrations ORDER BY number")
        .result_rows
    )
    assert list(rows) == [(1, "one"), (2, "two")]
    clients.writer().command(f"DROP DATABASE {fresh_database}")


def test_migrate_refuses_a_database_name_that_needs_quoting() -> None:
    with override_settings(CLICKHOUSE_URL=url("a`b")), pytest.raises(SchemaConflict, match="letters, digits and _"):
        schema.migrate()


def test_the_command_shows_its_plan_and_that_there_is_nothing_to_do() -> None:
    out = StringIO()
    call_command("migrate_clickhouse", "--plan", stdout=out)
    call_command("migrate_clickhouse", stdout=out)
    assert out.getvalue() == "0 pending.\n0 applied, ClickHouse is up to date.\n"


def test_the_command_names_a_store_that_is_away() -> None:
    with (
        override_settings(CLICKHOUSE_URL="http://default:@127.0.0.1:9/meterhouse"),
        pytest.raises(CommandError, match="TEMPORARILY_UNAVAILABLE: The data store cannot be reached"),
    ):
        call_command("migrate_clickhouse", stdout=StringIO())


def test_records_words_are_answered_by_the_text_index() -> None:
    clients.writer().command("INSERT INTO records (id, name) SELECT generateUUIDv4(), 'Ann Berlin'")
    plan = clients.writer().command(
        "EXPLAIN indexes = 1 SELECT user_id FROM records WHERE hasAllTokens(words, ['ann', 'berlin'])"
    )
    assert "texts" in str(plan)


@pytest.mark.parametrize("column", ["id", "user_id", "email", "phone"])
def test_records_keys_have_a_projection(column: str) -> None:
    rows = (
        clients.writer()
        .query("SELECT name FROM system.projections WHERE database = currentDatabase() AND table = 'records'")
        .result_rows
    )
    assert (f"by_{column}",) in list(rows)


def test_advisory_lock_has_one_holder() -> None:
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        with advisory_lock("test-one-holder", wait_s=5):
            held.set()
            release.wait(20)
        connection.close()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(20)
    with pytest.raises(LockBusy, match="test-one-holder"), advisory_lock("test-one-holder", wait_s=0.1):
        pass
    release.set()
    thread.join()
    assert holds("test-one-holder") is False
    assert try_lock("test-one-holder") is True
    assert holds("test-one-holder") is True
    unlock("test-one-holder")
    assert holds("test-one-holder") is False
