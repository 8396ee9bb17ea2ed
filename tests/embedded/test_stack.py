"""The three engines as one stack: restarts after kill -9, long paths, busy ports, the command line."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import clickhouse_connect
import psutil
import psycopg
import pytest
import redis
from environ import Env

from embedded.errors import EmbeddedError
from embedded.stack import Stack

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def stack(checkout: Path) -> Iterator[Stack]:
    """A stack of its own, stopped at the end; nothing is started yet."""
    made = Stack(checkout)
    yield made
    Stack(checkout).stop()


def write_everywhere(urls: dict[str, str], number: int) -> None:
    """Put a row into every engine."""
    with psycopg.connect(urls["DATABASE_URL"]) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS kept (number int)")
        connection.execute("INSERT INTO kept VALUES (%s)", [number])
    with redis.Redis.from_url(urls["REDIS_URL"]) as money:
        money.rpush("kept", number)
    client = clickhouse_connect.get_client(dsn=urls["CLICKHOUSE_URL"], autogenerate_session_id=False)
    client.command("CREATE TABLE IF NOT EXISTS kept (number UInt64) ENGINE = MergeTree ORDER BY number")
    client.insert("kept", [[number]], column_names=["number"])
    client.close()


def read_everywhere(urls: dict[str, str]) -> list[list[int]]:
    """The rows in each engine."""
    with psycopg.connect(urls["DATABASE_URL"]) as connection:
        in_postgres = [row[0] for row in connection.execute("SELECT number FROM kept ORDER BY number").fetchall()]
    with redis.Redis.from_url(urls["REDIS_URL"]) as money:
        in_redis = [int(number) for number in money.lrange("kept", 0, -1)]
    client = clickhouse_connect.get_client(dsn=urls["CLICKHOUSE_URL"], autogenerate_session_id=False)
    in_clickhouse = [row[0] for row in client.query("SELECT number FROM kept ORDER BY number").result_rows]
    client.close()
    return [in_postgres, in_redis, in_clickhouse]


def pids(stack: Stack) -> dict[str, int]:
    """The pid files' numbers by name."""
    return {path.stem: int(path.read_text()) for path in stack.pids.glob("*.pid")}


def kill_everything(stack: Stack) -> None:
    """kill -9 every engine, as a crash of the machine would."""
    victims = [psutil.Process(pid) for pid in pids(stack).values()]
    for victim in victims:
        victim.kill()
    psutil.wait_procs(victims, timeout=10)


def test_up_status_and_down(stack: Stack) -> None:
    stack.start(dies_with_parent=True)
    assert stack.status() == {"postgres": "healthy", "redis": "healthy", "clickhouse": "healthy"}
    assert set(pids(stack)) == {"postgres", "redis", "clickhouse"}
    stack.stop()
    assert stack.status() == {"postgres": "stopped", "redis": "stopped", "clickhouse": "stopped"}
    assert pids(stack) == {}


def test_second_start_leaves_running_engines_alone(stack: Stack) -> None:
    stack.start(dies_with_parent=True)
    before = pids(stack)
    again = Stack(stack.root)
    assert again.start(dies_with_parent=True) == []
    assert (pids(again), again.urls) == (before, stack.urls)


def test_data_survives_kill_9_of_every_engine(stack: Stack) -> None:
    stack.start(dies_with_parent=True)
    write_everywhere(stack.urls, 1)
    kill_everything(stack)
    again = Stack(stack.root)
    again.start(dies_with_parent=True)
    assert again.urls == stack.urls
    write_everywhere(again.urls, 2)
    assert read_everywhere(again.urls) == [[1, 2], [1, 2], [1, 2]]


def test_data_survives_a_stop_in_order(stack: Stack) -> None:
    stack.start(dies_with_parent=True)
    write_everywhere(stack.urls, 1)
    stack.stop()
    again = Stack(stack.root)
    again.start(dies_with_parent=True)
    assert read_everywhere(again.urls) == [[1], [1], [1]]


def test_stale_pid_files_and_locks_of_other_processes_do_not_stop_a_start(stack: Stack) -> None:
    stack.start(dies_with_parent=True)
    kill_everything(stack)
    for path in stack.pids.glob("*.pid"):
        path.write_text(f"{os.getpid()}\n")
    lock = stack.state / "postgres" / "data" / "postmaster.pid"
    lines = lock.read_text().splitlines()
    lock.write_text("\n".join([str(os.getpid()), *lines[1:]]) + "\n")
    Stack(stack.root).start(dies_with_parent=True)
    assert set(Stack(stack.root).status().values()) == {"healthy"}
    assert os.getpid() not in pids(stack).values()


def test_orphans_of_a_lost_state_are_replaced(stack: Stack) -> None:
    stack.start(dies_with_parent=True)
    orphans = pids(stack)
    for path in stack.pids.glob("*.pid"):
        path.unlink()
    Stack(stack.root).start(dies_with_parent=True)
    assert set(Stack(stack.root).status().values()) == {"healthy"}
    assert not set(orphans.values()) & set(pids(stack).values())


def test_very_long_path_with_a_space_works(checkout: Path) -> None:
    root = checkout / ("a" * 120) / ("b" * 100) / "with space"
    root.mkdir(parents=True)
    stack = Stack(root)
    try:
        stack.start(dies_with_parent=True)
        write_everywhere(stack.urls, 1)
        assert read_everywhere(stack.urls) == [[1], [1], [1]]
    finally:
        stack.stop()


def test_engines_in_a_very_long_path_are_found_again_and_stopped(checkout: Path) -> None:
    root = checkout / ("a" * 120) / ("b" * 100) / "with space"
    root.mkdir(parents=True)
    stack = Stack(root)
    try:
        stack.start(dies_with_parent=True)
        started = pids(stack)
        again = Stack(root)
        assert again.status() == {"postgres": "healthy", "redis": "healthy", "clickhouse": "healthy"}
        assert again.start(dies_with_parent=True) == []
    finally:
        stack.stop()
    assert [name for name, pid in started.items() if psutil.pid_exists(pid)] == []


def test_busy_ports_are_exchanged(stack: Stack) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, socket.create_server(("127.0.0.1", 0)) as also_taken:
        busy = [taken.getsockname()[1], also_taken.getsockname()[1]]
        stack.state.mkdir()
        stack.env_file.write_text(
            f"export REDIS_URL='redis://127.0.0.1:{busy[0]}/0'\n"
            f"export CLICKHOUSE_URL='http://default:@127.0.0.1:{busy[1]}/meterhouse'\n"
        )
        again = Stack(stack.root)
        again.start(dies_with_parent=True)
        assert set(again.status().values()) == {"healthy"}
        assert f":{busy[0]}/" not in again.urls["REDIS_URL"]
        assert f":{busy[1]}/" not in again.urls["CLICKHOUSE_URL"]


def test_given_url_replaces_its_engine(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://db.example.com/meterhouse")
    stack = Stack(checkout)
    assert [engine.name for engine in stack.engines] == ["redis", "clickhouse"]
    assert stack.urls["DATABASE_URL"] == "postgresql://db.example.com/meterhouse"


def test_emails_become_files_in_the_outbox(checkout: Path) -> None:
    root = checkout / "a checkout+more"
    (root / ".local").mkdir(parents=True)
    url = Stack(root).remember({})["EMAIL_URL"]
    assert Env.email_url_config(url)["EMAIL_FILE_PATH"] == str(root / ".local" / "outbox")


def test_second_command_at_the_same_time_is_refused(stack: Stack) -> None:
    with (
        stack.locked(),
        pytest.raises(EmbeddedError, match="Another command works on"),
        Stack(stack.root).locked(),
    ):
        pass


def test_full_disk_is_said(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("embedded.stack.FREE_DISK_MIN_BYTES", 2**60)
    with pytest.raises(EmbeddedError, match="The disk is almost full"):
        stack.start(dies_with_parent=True)


def test_command_line_brings_the_engines_up_and_down(checkout: Path) -> None:
    def run(command: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "embedded", "--root", str(checkout), command]
        return subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False, timeout=100)

    try:
        assert run("up").returncode == 0
        status = run("status")
        assert (status.returncode, status.stdout) == (0, "postgres: healthy\nredis: healthy\nclickhouse: healthy\n")
    finally:
        down = run("down")
    assert (down.returncode, down.stdout) == (0, "The engines are down.\n")
    assert run("status").returncode == 1
    assert list((checkout / ".local" / "pids").iterdir()) == []
