"""The schema on a cluster: text in, text out; what the engine reads; and a cluster of one shard that answers the product's SQL.

There is no Keeper here, so nothing is replicated and no DDL is distributed: these two words are taken out of what the last
tests run.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.test import override_settings

from config.clickhouse import client as clients
from config.clickhouse import cluster, schema
from config.clickhouse.cluster import NotForCluster, rewritten
from config.clickhouse.schema import SchemaConflict, check_kind
from search.query.compile import compile_json, compile_person
from search.query.request import parse_query

CREATED = (
    "CREATE TABLE IF NOT EXISTS records\n(\n    id UUID,\n    a String DEFAULT 'x'\n)\nENGINE = MergeTree\nORDER BY id"
)
OVER = "ENGINE = Distributed(`c1`, `db`, {0}_local, cityHash64({1}))"


@pytest.mark.parametrize(
    ("statement", "wanted"),
    [
        (
            CREATED,
            (
                (
                    "CREATE TABLE IF NOT EXISTS records_local ON CLUSTER `c1`\n(\n    id UUID,\n    a String DEFAULT 'x'\n)\n"
                    "ENGINE = ReplicatedMergeTree\nORDER BY id"
                ),
                f"CREATE TABLE IF NOT EXISTS records ON CLUSTER `c1` AS records_local\n{OVER.format('records', 'id')}",
            ),
        ),
        (
            (
                "CREATE TABLE IF NOT EXISTS usage (a UInt8) ENGINE = ReplacingMergeTree(a) ORDER BY a"
                " SETTINGS non_replicated_deduplication_window = 100"
            ),
            (
                (
                    "CREATE TABLE IF NOT EXISTS usage_local ON CLUSTER `c1`\n(a UInt8) ENGINE = ReplicatedReplacingMergeTree(a)"
                    " ORDER BY a SETTINGS replicated_deduplication_window = 100"
                ),
                "CREATE TABLE IF NOT EXISTS usage ON CLUSTER `c1` AS usage_local\n"
                + OVER.format("usage", "account_number"),
            ),
        ),
        (
            "ALTER TABLE records ADD COLUMN b Decimal(9, 2), ADD COLUMN c String DEFAULT ','",
            (
                "ALTER TABLE records_local ON CLUSTER `c1` ADD COLUMN b Decimal(9, 2), ADD COLUMN c String DEFAULT ','",
                "ALTER TABLE records ON CLUSTER `c1` ADD COLUMN b Decimal(9, 2), ADD COLUMN c String DEFAULT ','",
            ),
        ),
        (
            "ALTER TABLE records DROP COLUMN IF EXISTS b",
            (
                "ALTER TABLE records ON CLUSTER `c1` DROP COLUMN IF EXISTS b",
                "ALTER TABLE records_local ON CLUSTER `c1` DROP COLUMN IF EXISTS b",
            ),
        ),
        (
            "ALTER TABLE records ADD INDEX IF NOT EXISTS i a TYPE minmax, MODIFY SETTING index_granularity = 1",
            (
                (
                    "ALTER TABLE records_local ON CLUSTER `c1` ADD INDEX IF NOT EXISTS i a TYPE minmax,"
                    " MODIFY SETTING index_granularity = 1"
                ),
            ),
        ),
        (
            "DROP TABLE IF EXISTS usage",
            (
                "DROP TABLE IF EXISTS usage ON CLUSTER `c1` SYNC",
                "DROP TABLE IF EXISTS usage_local ON CLUSTER `c1` SYNC",
            ),
        ),
    ],
)
def test_a_statement_has_its_form_for_a_cluster(statement: str, wanted: tuple[str, ...]) -> None:
    assert rewritten(statement, cluster="c1", database="db") == wanted


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("INSERT INTO records SELECT 1", "'INSERT INTO records SELECT 1' has no form for a cluster"),
        ("CREATE TABLE records (id UUID) ENGINE = MergeTree ORDER BY id", "has no form for a cluster"),
        (CREATED.replace("records", "others"), "The table others has no sharding key"),
        (CREATED.replace("MergeTree", "Memory"), "is not of a MergeTree engine"),
        (CREATED.replace("MergeTree", "ReplicatedMergeTree"), "is not of a MergeTree engine"),
        ("ALTER TABLE records ADD COLUMN a UInt8, ADD INDEX i a TYPE minmax", "Write two statements"),
    ],
)
def test_a_statement_without_such_a_form_is_refused(statement: str, words: str) -> None:
    with pytest.raises(NotForCluster, match=words):
        rewritten(statement, cluster="c1", database="db")


def test_for_one_server_a_statement_stays_as_it_is() -> None:
    assert rewritten("ANYTHING", cluster="", database="db") == ("ANYTHING",)


def test_a_name_that_needs_quoting_is_refused() -> None:
    with override_settings(CLICKHOUSE_CLUSTER="a`b"), pytest.raises(NotForCluster, match="Use letters"):
        cluster.name()


def test_a_database_stays_of_its_kind() -> None:
    check_kind("", "c1")
    check_kind("", "")
    check_kind("MergeTree", "")
    check_kind("ReplicatedMergeTree", "c1")
    with pytest.raises(SchemaConflict, match="was made for one server, and CLICKHOUSE_CLUSTER is c1"):
        check_kind("MergeTree", "c1")
    with pytest.raises(SchemaConflict, match="was made for a cluster, and CLICKHOUSE_CLUSTER is not set"):
        check_kind("ReplicatedMergeTree", "")


@pytest.mark.usefixtures("stores")
def test_a_single_servers_database_is_not_migrated_as_a_clusters() -> None:
    with override_settings(CLICKHOUSE_CLUSTER="c1"):
        with pytest.raises(SchemaConflict, match="was made for one server"):
            schema.migrate()
        with pytest.raises(SchemaConflict, match="was made for one server"):
            schema.plan()


def test_names_and_settings_are_those_of_the_cluster() -> None:
    with override_settings(CLICKHOUSE_CLUSTER="c1"):
        assert cluster.in_place("records") == "records_local ON CLUSTER `c1`"
        assert cluster.local("deliveries") == "deliveries_local"
        assert cluster.everywhere("system.processes") == "clusterAllReplicas(`c1`, system.processes)"
        assert cluster.concurrent_insert_settings() == {"insert_quorum": 0}
    assert (cluster.in_place("records"), cluster.local("deliveries")) == ("records", "deliveries")
    assert cluster.everywhere("system.processes") == "system.processes"
    assert cluster.concurrent_insert_settings() == cluster.client_settings("writer", "") == {}


def everything(name: str, database: str) -> list[str]:
    """All that migrating an empty database runs on a cluster."""
    statements = list(schema.opening(database, name))
    for migration in schema.read_migrations():
        statements += schema.statements_of(migration, name, database)
    return statements


@pytest.mark.usefixtures("stores")
class TestInTheEngine:
    @pytest.mark.parametrize("statement", everything("c1", "db"))
    def test_every_migration_is_sql_that_the_engine_reads(self, statement: str) -> None:
        kind = statement.split()[0].capitalize()
        assert str(clients.writer().command(f"EXPLAIN AST {statement}")).startswith(f"{kind}Query")

    def test_every_setting_is_one_of_the_engine(self) -> None:
        names = sorted({*cluster.client_settings("writer", "c1"), *cluster.client_settings("reader", "c1")})
        known = clients.writer().query(
            "SELECT name FROM system.settings WHERE name IN {names:Array(String)} ORDER BY name",
            parameters={"names": names},
        )
        assert [name for (name,) in known.result_rows] == names

    def test_the_condition_on_inserts_can_be_asked(self) -> None:
        for setting in ("", "c1"):
            with override_settings(CLICKHOUSE_CLUSTER=setting):
                condition = cluster.inserts_at_work("records", "db")
            assert clients.writer().command(f"SELECT count() FROM system.processes WHERE {condition}") == 0


_ONE_SHARD = """
<clickhouse>
    <tcp_port>9000</tcp_port>
    <remote_servers><c1><shard>
        <internal_replication>true</internal_replication>
        <replica><host>127.0.0.1</host><port>9000</port></replica>
    </shard></c1></remote_servers>
</clickhouse>
"""
_RUN = """
import json, sys, chdb
folder, statements = sys.argv[1], json.load(sys.stdin)
engine = chdb.connect(f"{folder}/data?config-file={folder}/config.xml")
print(json.dumps([str(engine.query(statement)).strip() for statement in statements]))
engine.close()
"""


def _on_one_shard(folder: Path, statements: list[str]) -> list[str]:
    """The answers of an engine of its own that knows a cluster c1 of one shard: itself."""
    (folder / "config.xml").write_text(_ONE_SHARD)
    done = subprocess.run(
        [sys.executable, "-c", _RUN, str(folder)],
        input=json.dumps(statements),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found: list[str] = json.loads(done.stdout.splitlines()[-1])
    return found


def _bound(statement: Any) -> str:
    """The statement with its values written into it."""
    sql = str(statement.sql)
    for name, value in statement.parameters.items():
        start = sql.index(f"{{{name}:")
        sql = sql.replace(sql[start : sql.index("}", start) + 1], repr(value))
    return sql


def test_a_cluster_of_one_shard_answers_the_products_sql(tmp_path: Path) -> None:
    made = [
        statement.replace(" ON CLUSTER `c1`", "")
        .replace(
            "ReplicatedMergeTree('/clickhouse/tables/{database}/schema_migrations', '{shard}-{replica}')", "MergeTree"
        )
        .replace("= Replicated", "= ")
        .replace(" replicated_dedup", " non_replicated_dedup")
        for statement in everything("c1", "db")
    ]
    sent = ", ".join(
        f"{name} = {value!r}"
        for name, value in cluster.client_settings("writer", "c1").items()
        if "quorum" not in name and "sequential" not in name
    )
    id_ = "00000000-0000-0000-0000-000000000001"
    insert = (
        "INSERT INTO records (id, user_id, email, name, country, status)"
        f" SETTINGS insert_deduplication_token = 'job-1', {sent} "
        f"VALUES ('{id_}', 'u1', 'ann@example.com', 'Ann Berlin', 'DEU', 'active')"
    )
    usage = f"INSERT INTO usage (account_number, at, event_id, credits) SETTINGS {sent} "
    usage += "VALUES (7, '2026-01-01 00:00:00', 'e', 2)"
    question = compile_json(parse_query({"filters": {"country": "DEU"}, "fields": ["email"], "limit": 5}))
    answers = _on_one_shard(
        tmp_path,
        [
            made[0],
            "USE db",
            *made[1:],
            insert,
            insert,
            usage,
            usage,
            "CREATE TABLE asked (id UUID) ENGINE = Memory",
            f"INSERT INTO asked VALUES ('{id_}')",
            f"SELECT count() FROM records WHERE id IN asked SETTINGS {sent}",
            "SELECT count() FROM records",
            "SELECT record_hash FROM records WHERE hasAllTokens(words, ['ann', 'berlin'])",
            "SELECT count() FROM usage FINAL",
            _bound(question),
            _bound(compile_person("user_id", "u1")),
            "SELECT count() FROM clusterAllReplicas(`c1`, system.processes) WHERE query_kind = 'Insert'",
            "EXPLAIN indexes = 1 SELECT id FROM records_local WHERE hasAllTokens(words, ['ann'])",
        ],
    )
    known, rows, found, used, page, person, at_work, plan = answers[-8:]
    assert (known, rows, used, at_work) == ("1", "1", "1", "0")
    assert found.strip('"') == id_.replace("-", "")
    assert "ann@example.com" in page
    assert "ann@example.com" in person
    assert "tokens: [" in plan  # of the text index
