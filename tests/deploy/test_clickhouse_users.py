"""deploy/clickhouse: the real server's users have what the embedded server gives them, and nothing without a password.

The embedded engine has no users, so what is asked here is what it can answer: that the grants and the settings are ones of
this version.
"""

import xml.etree.ElementTree as ET
from typing import Any

import pytest

from config.clickhouse import client as clients
from config.clickhouse import schema
from embedded.clickhouse.guard import READER_LIMITS
from search.store import READ_SETTINGS
from tests.deploy.composed import ROOT, services

pytestmark = pytest.mark.usefixtures("stores")

FOLDER = ROOT / "deploy" / "clickhouse"
USERS = ET.parse(FOLDER / "users.xml").getroot()  # noqa: S314 - our own file


def _only(path: str) -> Any:
    found = USERS.find(path)
    assert found is not None, path
    return found


def _grants() -> list[tuple[str, str]]:
    users = _only("users")
    return [(user.tag, str(query.text)) for user in users for query in user.iterfind("grants/query")]


def test_there_are_two_users_and_no_default() -> None:
    assert [(user.tag, user.get("remove")) for user in _only("users")] == [
        ("default", "1"),
        ("meterhouse", None),
        ("reader", None),
    ]


@pytest.mark.parametrize("user", ["meterhouse", "reader"])
def test_a_password_comes_from_the_environment_that_compose_gives(user: str) -> None:
    password = _only(f"users/{user}/password")
    assert password.text is None
    assert password.get("from_env") in services()["clickhouse"]["environment"]


def test_the_reader_may_read_the_data_and_the_settings_alone() -> None:
    assert {query for user, query in _grants() if user == "reader"} == {
        f"GRANT SELECT ON {table}"
        for table in (
            "meterhouse.records", "meterhouse.records_local", "meterhouse.usage", "meterhouse.usage_local", "system.settings",
        )
    }  # fmt: skip
    assert _only("profiles/reader/readonly").text == "2"


def test_the_reader_has_the_limits_of_the_embedded_reader() -> None:
    for name, limit in READER_LIMITS.items():
        assert _only(f"profiles/reader/{name}").text == str(limit)
        assert _only(f"profiles/reader/constraints/{name}/max").text == str(limit)


def test_what_searches_ask_for_is_not_forbidden() -> None:
    fixed = {rule.tag for rule in _only("profiles/reader/constraints") if rule.find("readonly") is not None}
    assert fixed & set(READ_SETTINGS) == set()
    for name, value in READ_SETTINGS.items():
        if name in READER_LIMITS:
            assert int(value) <= READER_LIMITS[name]


def test_every_setting_of_the_profiles_is_one_of_the_engine() -> None:
    names = {setting.tag for profile in _only("profiles") for setting in profile if setting.tag != "constraints"}
    names |= {rule.tag for rule in _only("profiles/reader/constraints")}
    known = clients.writer().query(
        "SELECT name FROM system.settings WHERE name IN {names:Array(String)}", parameters={"names": sorted(names)}
    )
    assert {name for (name,) in known.result_rows} == names


@pytest.mark.parametrize("query", [query for _, query in _grants()])
def test_a_grant_is_sql_that_the_engine_reads(query: str) -> None:
    user = "reader" if "SELECT ON" in query else "meterhouse"
    read = clients.writer().command(f"EXPLAIN AST {query} TO {user}")
    assert "GrantQuery" in str(read)


def test_every_privilege_is_one_of_the_engine() -> None:
    known = {
        str(name)
        for (name,) in clients.writer()
        .query("SELECT privilege FROM system.privileges UNION ALL SELECT arrayJoin(aliases) FROM system.privileges")
        .result_rows
    }
    for _, query in _grants():
        asked = query.removeprefix("GRANT ").partition(" ON ")[0].split(", ")
        assert set(asked) <= known


def test_the_writer_is_granted_the_engines_of_the_schema() -> None:
    assert any("ENGINE = " in statement for found in schema.read_migrations() for statement in found.statements)
    assert "GRANT TABLE ENGINE ON *" in {query for user, query in _grants() if user == "meterhouse"}


def test_the_server_is_given_xml_that_can_be_read() -> None:
    assert ET.parse(FOLDER / "server.xml").getroot().tag == "clickhouse"  # noqa: S314 - our own file
