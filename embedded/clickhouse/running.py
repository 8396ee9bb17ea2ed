"""The queries that run at the moment, so that they can be cancelled by id or when their client goes away."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from embedded.clickhouse.engine import Session, quoted
from embedded.clickhouse.errors import QUERY_WITH_SAME_ID_IS_ALREADY_RUNNING, refusal
from embedded.clickhouse.http import Channel

KILL_WAIT_S = 5.0
_RETRY_S = 0.01


@dataclass(slots=True)
class Running:
    """One query at work. `lock` is held while it ends and while it is killed: a kill must not hit the next one."""

    query_id: str
    user: str
    session: Session
    channel: Channel
    started: float = field(default_factory=time.monotonic)
    lock: threading.Lock = field(default_factory=threading.Lock)
    ended: bool = False


class RunningQueries:
    """Registry of running queries, with one connection of its own that does the killing."""

    def __init__(self, control: Session) -> None:
        self._control = control
        self._control_lock = threading.Lock()
        self._by_id: dict[str, Running] = {}
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def track(self, running: Running) -> Iterator[None]:
        """Keep the query registered while the block runs; refuses an id that already runs."""
        with self._lock:
            if running.query_id in self._by_id:
                raise refusal(
                    QUERY_WITH_SAME_ID_IS_ALREADY_RUNNING,
                    f"Query with id = {running.query_id} is already running.",
                    "QUERY_WITH_SAME_ID_IS_ALREADY_RUNNING",
                )
            self._by_id[running.query_id] = running
        try:
            yield
        finally:
            with running.lock:
                running.ended = True
            with self._lock:
                del self._by_id[running.query_id]

    def older_than(self, age_s: float) -> list[Running]:
        """The queries that have run for at least this long."""
        limit = time.monotonic() - age_s
        with self._lock:
            return [running for running in self._by_id.values() if running.started <= limit]

    def find(self, query_id: str, user: str) -> Running | None:
        """The query with this id, if this user may kill it: the reader its own alone."""
        with self._lock:
            running = self._by_id.get(query_id)
        return running if running is not None and user in {"default", running.user} else None

    def kill(self, running: Running, *, wait: bool) -> bool:
        """Cancel the query in the engine. It may not have got there yet, so this tries until it has, or ends."""
        statement = f"KILL QUERY WHERE Settings['log_comment'] = {quoted(running.session.mark)}"
        deadline = time.monotonic() + KILL_WAIT_S
        hit = False
        while time.monotonic() < deadline:
            with running.lock:
                if running.ended:
                    return hit
                if not hit:
                    with self._control_lock:
                        hit = self._control.execute(statement).get_memview().view().nbytes > 0
            if hit and not wait:
                return True
            time.sleep(_RETRY_S)
        return hit
