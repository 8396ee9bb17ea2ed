"""Scripts touch the keys that they declare and no other, all in one slot: Redis itself checks neither on one server."""

import gc
import re
import threading
import uuid
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import redis
from django.conf import settings
from django.test import override_settings
from django.utils import timezone
from redis.crc import key_slot

from accounts import key_state, revocation
from config.redis import Script, money
from credits import counters, decreases, drain, drain_figures, loading, metering, services, verify
from credits.refusals import KeyRevoked
from tests.factories import make_customer, make_usage

ROOT = Path(__file__).resolve().parents[2]
LUA = sorted(
    path for app in ("accounts", "config", "credits", "ingestion", "search") for path in (ROOT / app).rglob("*.lua")
)
WITHOUT_KEYS = {"TIME", "INFO"}
# Commands whose only key is their first argument; another one has to be looked at before it is added.
WITH_ONE_KEY = {
    *("DEL", "EXISTS", "GET", "SET", "PEXPIRE"),
    *("HDEL", "HEXISTS", "HGET", "HGETALL", "HINCRBY", "HLEN", "HMGET", "HSET"),
    *("LINDEX", "LLEN", "LPUSH", "RPOP"),
    *("XADD", "XLEN", "XRANGE", "XTRIM"),
    *("ZADD", "ZCARD", "ZCOUNT", "ZRANGEBYSCORE", "ZREM", "ZREMRANGEBYSCORE"),
}
_CALL = re.compile(r"redis\s*\.\s*p?call\s*\(\s*(?:'([A-Z]+)'|\"([A-Z]+)\")?\s*(?:,\s*([^,()]+?)\s*(?=[,)]))?")
_ANY_CALL = re.compile(r"\bredis\b(?!\s*\.\s*call\s*\(\s*')")
_WORD = re.compile(rb'"((?:[^"\\]|\\.)*)"')


def without_comments(path: Path) -> str:
    return re.sub(r"--[^\n]*", "", path.read_text())


@pytest.mark.parametrize("path", LUA, ids=lambda path: path.stem)
def test_a_script_names_its_keys_by_number(path: Path) -> None:
    text = without_comments(path)
    assert _ANY_CALL.findall(text) == [], "Redis is reached by redis.call('COMMAND', … alone"
    for match in _CALL.finditer(text):
        command, key = match[1], match[3]
        if command in WITHOUT_KEYS:
            continue
        assert command in WITH_ONE_KEY, f"{match[0]}: look at which of its arguments are keys"
        assert key is not None, match[0]
        assert re.fullmatch(r"KEYS\[\d+\]", key), f"{match[0]}: a key is KEYS[number]"


@pytest.mark.parametrize("path", LUA, ids=lambda path: path.stem)
def test_a_script_says_what_its_keys_are(path: Path) -> None:
    used = {int(number) for number in re.findall(r"KEYS\[(\d+)\]", without_comments(path))}
    header = re.search(r"^-- KEYS: (.*(?:\n--  .*)*)", path.read_text(), re.MULTILINE)
    declared = (
        {int(number) for number in re.findall(r"(?:^|, +)(\d+) ", header[1].replace("\n--", ""))} if header else set()
    )
    assert declared == used == set(range(1, len(used) + 1))


def test_every_lua_file_is_a_script_or_stands_before_one() -> None:
    scripts = {script.name for script in every_script()}
    assert {path.stem for path in LUA} == scripts | {"account"}


@pytest.mark.parametrize("app", ["accounts", "credits", "search", "ingestion"])
def test_the_product_sends_no_command_past_the_routes(app: str) -> None:
    past = re.compile(r"\bmoney\(\)|\.pipeline\(|redis\.Redis\(|RedisCluster\(")
    found = [path.name for path in (ROOT / app).rglob("*.py") if past.search(path.read_text())]
    assert found == []


def every_script() -> list[Script]:
    """Every script of the product: they are made once, when their modules are imported."""
    # Not isinstance: it would wake lazy objects, some of which can no longer be made.
    return [thing for thing in gc.get_objects() if type(thing) is Script]


@dataclass
class Seen:
    """What scripts did: `touched` and `declared` keys of each run, by the script's SHA-1."""

    runs: dict[str, list[tuple[set[bytes], set[bytes]]]] = field(default_factory=lambda: defaultdict(list))


@contextmanager
def watching() -> Iterator[Seen]:
    """Reads MONITOR: each script's call, then the commands that it ran."""
    connection = redis.Connection(**redis.connection.parse_url(settings.REDIS_URL))  # type: ignore[no-untyped-call]
    connection.connect()  # type: ignore[no-untyped-call]
    connection.send_command("MONITOR")  # type: ignore[no-untyped-call]
    connection.read_response()
    lines: list[bytes] = []
    reading = threading.Thread(target=_read_until_done, args=(connection, lines))
    reading.start()
    seen = Seen()
    try:
        yield seen
    finally:
        money().echo("watched enough")
        reading.join(timeout=30)
        connection.disconnect()  # type: ignore[no-untyped-call]
    _sort(lines, seen)


def _read_until_done(connection: redis.Connection, lines: list[bytes]) -> None:
    while not lines or b'"watched enough"' not in lines[-1]:
        lines.append(bytes(connection.read_response(disable_decoding=True)))


def _sort(lines: list[bytes], seen: Seen) -> None:
    run: tuple[set[bytes], set[bytes]] | None = None
    for line in lines:
        words = _WORD.findall(line)
        if b" lua] " in line.partition(b'"')[0]:
            assert run is not None
            if words[0].upper().decode() not in WITHOUT_KEYS:
                run[0].update(_keys_of(words))
        elif words[0].upper() in (b"EVALSHA", b"EVAL"):
            run = (set(), set(words[3 : 3 + int(words[2])]))
            seen.runs[words[1].decode()].append(run)
        else:
            run = None


def _keys_of(words: list[bytes]) -> list[bytes]:
    """As Redis itself finds them."""
    found = money().execute_command("COMMAND GETKEYS", *words)  # type: ignore[no-untyped-call]
    return [key.encode() if isinstance(key, str) else key for key in found]


def use_every_script() -> None:
    """One customer from the first load to the last check."""
    counters._seen_cursors.clear()  # as a process that has just begun: it reads the journals by their script
    customer = make_customer(credits=2000)
    idempotent = {"idempotency_key": "again", "body": b"{}"}
    for _ in range(2):
        hold = metering.admit(api_key=customer.api_key, endpoint="query", amount=10, **idempotent)  # type: ignore[arg-type]
        metering.settle(hold, total=4, usage=make_usage())
    hold = metering.admit(api_key=customer.api_key, endpoint="download", amount=10)
    metering.settle(hold, total=3, usage=None, final=False)
    metering.release(hold, usage=make_usage())
    with override_settings(HOLD_S=0):
        metering.admit(api_key=customer.api_key, endpoint="query", amount=10)
    drain.sweep()
    services.top_up(account=customer.account, amount=50, now=timezone.now(), reason="test")
    decreases.deduct(account=customer.account, amount=1990, reason="test", actor="test", now=timezone.now())
    lost = metering.admit(api_key=customer.api_key, endpoint="query", amount=10)
    loading.load_account(customer.number, even_if_usable=True)
    metering.settle(lost, total=10, usage=make_usage())
    counters.inspect(customer.number)
    counters.spent_of_caps([(customer.number, uuid.uuid4())])
    verify.verify(now=timezone.now())
    drain_figures.backlog()
    drain_figures.DrainLog().publish()
    drain_figures.drained()
    revocation.revoke_key(public_id=customer.key_id, now=timezone.now())
    with pytest.raises(KeyRevoked):
        metering.identify(api_key=customer.api_key, endpoint="credits")
    key_state.publish([customer.key_id])


@pytest.mark.usefixtures("stores")
def test_scripts_touch_the_keys_they_declare_and_all_are_in_one_slot() -> None:
    with watching() as seen:
        use_every_script()
    by_sha1 = {script.sha1: script.name for script in every_script()}
    for sha1, name in by_sha1.items():
        assert seen.runs[sha1], f"{name} was not used: use it in use_every_script"
    for sha1, runs in seen.runs.items():
        for touched, declared in runs:
            assert touched <= declared, f"{by_sha1.get(sha1, sha1[:60])} touches what it does not declare"
            assert len({key_slot(key) for key in declared}) == 1
