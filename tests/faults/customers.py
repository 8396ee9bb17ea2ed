"""Customers under load: threads that ask, download, top up and give up, and remember what they saw."""

import http.client
import json
import os
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from tests.faults.evidence import Asked, Evidence, Outcome, ToppedUp

CLIENT_TIMEOUT_S = 6.0
RETRY_S = 0.3
RETRIES = 4
PAUSE_S = 0.02
GIVEN_UP_BYTES = 300_000
UNREADABLE = -1
REMEMBERED = 60
UNCONFIRMED = "could not be confirmed"
LIMITS = (1, 20, 100, 250, 600)


@dataclass(slots=True)
class Customer:
    """An account and its keys, the newest last; `ended` are keys that were revoked. `topped_up`: how much at a time."""

    number: int
    keys: list[str]
    ended: list[str] = field(default_factory=list)
    topped_up: int = 0


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back; `status` 0 when nothing did. `whole` is False for an answer that broke off."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    whole: bool = False

    @property
    def error(self) -> dict[str, Any]:
        if self.status == 200 or not self.whole:
            return {}
        try:
            return dict(json.loads(self.body)["error"])
        except (ValueError, KeyError, TypeError):
            return {"code": "UNREADABLE", "message": self.body[:200].decode("utf-8", "replace")}


class Load:
    """Threads that ask for as long as they are let. `said` gets one JSON line for each request."""

    def __init__(
        self, customers: Sequence[Customer], urls: Callable[[], list[str]], *, threads: int, seed: int, said: Path
    ) -> None:
        self._customers = customers
        self._urls = urls
        self._asked: list[Asked] = []
        self._topped_up: list[ToppedUp] = []
        self._lock = threading.Lock()
        self._folder = said.parent
        self._said = said.open("a")
        self._running = threading.Event()
        self._ended = threading.Event()
        self._idle = [threading.Event() for _ in range(threads)]
        self._names = iter(range(10**9))
        # Sent again much later: what Redis remembered of them may be lost by then.
        self._remembered: deque[tuple[Customer, int, str]] = deque(maxlen=REMEMBERED)
        self._threads = [
            threading.Thread(target=self._work, args=[random.Random(seed * 1000 + n), idle], daemon=True)
            for n, idle in enumerate(self._idle)
        ]
        for thread in self._threads:
            thread.start()

    def go(self) -> None:
        for idle in self._idle:
            idle.clear()
        self._running.set()

    def rest(self, *, timeout_s: float) -> None:
        """Lets no new request begin and waits until those under way have ended."""
        self._running.clear()
        deadline = time.monotonic() + timeout_s
        for idle in self._idle:
            if not idle.wait(max(0.0, deadline - time.monotonic())):
                raise TimeoutError("A client's request does not end.")

    def close(self) -> None:
        self._ended.set()
        self._running.set()
        for thread in self._threads:
            thread.join(timeout=4 * CLIENT_TIMEOUT_S)
        self._said.close()

    def fill(self, evidence: Evidence) -> None:
        """Puts what the clients saw until now into `evidence`."""
        with self._lock:
            evidence.asked = list(self._asked)
            evidence.topped_up = list(self._topped_up)

    def first_answer_since(self, moment: float) -> float | None:
        """When the first request was answered that began after `moment`."""
        with self._lock:
            return min((a.ended for a in self._asked if a.started >= moment and a.outcome == "answered"), default=None)

    def top_up(self, customer: Customer, chance: random.Random) -> None:
        """Tops up, and sends the same again until it is answered or that was tried often enough."""
        reference = f"t{next(self._names)}"
        body = json.dumps({"user_id": customer.number, "amount": customer.topped_up, "reason": reference}).encode()
        headers = {
            "X-Admin-Secret": os.environ["ADMIN_SECRET"],
            "Content-Type": "application/json",
            "Idempotency-Key": reference,
        }
        for _ in range(RETRIES):
            reply = _exchange(chance.choice(self._urls()), "POST", "/admin/topup", headers, body)
            outcome = _outcome(reply)
            with self._lock:
                self._topped_up.append(ToppedUp(reference, customer.number, customer.topped_up, outcome))
            if outcome == "answered":
                return
            time.sleep(RETRY_S)

    def _work(self, chance: random.Random, idle: threading.Event) -> None:
        while not self._ended.is_set():
            if not self._running.is_set():
                idle.set()
                self._running.wait(timeout=1)
                continue
            self._do_something(chance)
            time.sleep(PAUSE_S)

    def _do_something(self, chance: random.Random) -> None:
        customer = chance.choice(self._customers)
        (kind,) = chance.choices(
            ["query", "repeated", "remembered", "download", "given up", "unknown", "bad", "ended key", "top up"],
            [44, 18, 12, 3, 2, 4, 3, 5, 4],
        )
        if kind == "top up":
            if customer.topped_up:
                self.top_up(customer, chance)
        elif kind == "repeated":
            self._ask_again_and_again(customer, chance)
        elif kind == "remembered" and self._remembered:
            customer, limit, name = chance.choice(list(self._remembered))
            self._query(customer, chance, limit=limit, idempotency=name)
        elif kind in ("download", "given up"):
            self._download(customer, chance, give_up=kind == "given up")
        elif kind == "unknown":
            self._ask(customer, chance, "person", "GET", "/api/v1/person/nobody-has-this-id", limit=1)
        elif kind == "bad":
            self._ask(customer, chance, "query", "POST", "/api/v1/query", body=b'{"limit": -1}', limit=1)
        elif kind == "ended key" and customer.ended:
            self._query(customer, chance, key=chance.choice(customer.ended))
        else:
            self._query(customer, chance)

    def _query(
        self, customer: Customer, chance: random.Random, *, key: str = "", limit: int = 0, idempotency: str = ""
    ) -> Asked:
        limit = limit or chance.choice(LIMITS)
        body = json.dumps({"limit": limit, "include_total": False, "fields": ["user_id", "name"]}).encode()
        return self._ask(
            customer, chance, "query", "POST", "/api/v1/query", body=body, limit=limit, key=key, idempotency=idempotency
        )

    def _ask_again_and_again(self, customer: Customer, chance: random.Random) -> None:
        """With an idempotency key: until it is answered, and sometimes once more."""
        limit, name = chance.choice(LIMITS), f"i{next(self._names)}"
        more = chance.random() < 0.3
        self._remembered.append((customer, limit, name))
        for _ in range(RETRIES):
            asked = self._query(customer, chance, limit=limit, idempotency=name)
            if asked.status not in (0, 200, 409, 503, 504):
                return
            if asked.outcome == "answered":
                if not more:
                    return
                more = False
            time.sleep(RETRY_S)

    def _download(self, customer: Customer, chance: random.Random, *, give_up: bool) -> None:
        limit = chance.choice([150, 12_000])
        path = f"/api/v1/download?{urlencode({'q': 'com', 'limit': limit})}"
        name = f"i{next(self._names)}" if chance.random() < 0.3 else ""
        at_most = GIVEN_UP_BYTES if give_up else None
        asked = self._ask(customer, chance, "download", "GET", path, limit=limit, idempotency=name, at_most=at_most)
        if name and asked.outcome == "lost":
            time.sleep(RETRY_S)
            self._ask(customer, chance, "download", "GET", path, limit=limit, idempotency=name)

    def _ask(
        self,
        customer: Customer,
        chance: random.Random,
        endpoint: str,
        method: str,
        path: str,
        *,
        limit: int,
        body: bytes = b"",
        key: str = "",
        idempotency: str = "",
        at_most: int | None = None,
    ) -> Asked:
        key = key or customer.keys[-1]
        request_id = f"r{next(self._names)}"
        headers = {"X-API-Key": key, "X-Request-ID": request_id, "Content-Type": "application/json"}
        if idempotency:
            headers["Idempotency-Key"] = idempotency
        started = time.time()
        reply = _exchange(chance.choice(self._urls()), method, path, headers, body, at_most=at_most)
        asked = Asked(
            request_id=request_id,
            account=customer.number,
            key=public_id(key),
            endpoint=endpoint,
            limit=limit,
            started=started,
            ended=time.time(),
            outcome=_outcome(reply),
            status=reply.status,
            code=str(reply.error.get("code", "")),
            rows=_rows(endpoint, reply),
            used=_header(reply, "X-Credits-Used"),
            remaining=_header(reply, "X-Credits-Remaining"),
            replayed=reply.headers.get("idempotent-replayed") == "true",
            idempotency=idempotency,
        )
        with self._lock:
            if asked.rows == UNREADABLE:
                (self._folder / f"{request_id}.unreadable").write_bytes(
                    repr(reply.headers).encode() + b"\n" + reply.body
                )
            self._asked.append(asked)
            self._said.write(json.dumps(asdict(asked), separators=(",", ":")) + "\n")
        return asked


def public_id(key: str) -> str:
    """The part of a key that the ledger shows: `mh_live_<public id>_<secret>`."""
    return key.split("_")[2]


def _outcome(reply: Reply) -> Outcome:
    if not reply.whole:
        return "lost"
    if reply.status == 200:
        return "answered"
    # The one refusal that says itself that the request may have been charged.
    return "lost" if UNCONFIRMED in str(reply.error.get("message", "")) else "refused"


def _header(reply: Reply, name: str) -> int | None:
    value = reply.headers.get(name.lower())
    return None if value is None else int(value)


def _rows(endpoint: str, reply: Reply) -> int:
    """Records that arrived whole."""
    if reply.status != 200:
        return 0
    if endpoint == "download":
        return max(0, reply.body.count(b"\n") - 1)
    if not reply.whole:
        return 0
    try:
        return len(json.loads(reply.body)["data"])
    except (ValueError, KeyError, TypeError):
        return UNREADABLE


def _exchange(
    url: str, method: str, path: str, headers: dict[str, str], body: bytes, *, at_most: int | None = None
) -> Reply:
    """One request on a connection of its own; `at_most` bytes are read before the client goes away."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=CLIENT_TIMEOUT_S)
    status, answered, read = 0, {}, b""
    try:
        connection.request(method, path, body or None, headers)
        answer = connection.getresponse()
        status = answer.status
        answered = {name.lower(): value for name, value in answer.getheaders()}
        while chunk := answer.read1(65536):
            read += chunk
            if at_most is not None and len(read) >= at_most:
                return Reply(status, answered, read)
        # read1 does not say that a body with a length came short.
        whole = "content-length" not in answered or len(read) == int(answered["content-length"])
        return Reply(status, answered, read, whole=whole)
    except ConnectionRefusedError:
        return Reply(body=b'{"error":{"code":"CONNECTION_REFUSED"}}', whole=True)  # nothing was sent
    except (OSError, http.client.HTTPException, ValueError):
        return Reply(status, answered, read)
    finally:
        connection.close()
