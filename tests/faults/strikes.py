"""The faults of the cycles: each strikes one thing, holds for a while and heals it; `STRIKES` names them all."""

import random
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass

from embedded.clickhouse_server import ClickHouse
from embedded.postgres import Postgres
from embedded.redis import Redis
from tests.faults.evidence import Loss
from tests.faults.ground import HOLD_S, Ground, Program
from tests.faults.observed import Observer
from tests.faults.proxy import Mode

AOF_LAG_S = 2.5  # appendfsync everysec: a write waits up to two seconds for a sync under way


@dataclass(slots=True)
class Course:
    """One fault on its way: when it struck and was healed, and since when Redis has lost what was not booked."""

    ground: Ground
    observer: Observer
    chance: random.Random
    struck_at: float = 0.0
    returned_at: float = 0.0
    lost_since: float | None = None

    def strike(self, *, loses_s: float | None = None) -> None:
        """Notes this moment; `loses_s` seconds before it and everything not booked may be lost."""
        self.struck_at = time.time()
        if loses_s is not None:
            oldest = self.observer.oldest_unbooked()
            self.lost_since = min(self.struck_at, oldest or self.struck_at) - loses_s

    def heal(self) -> None:
        self.returned_at = time.time()

    def hold(self, low_s: float, high_s: float) -> None:
        time.sleep(self.chance.uniform(low_s, high_s))

    def loss(self, cause: str) -> Loss | None:
        """What this fault may have lost."""
        return None if self.lost_since is None else Loss(self.lost_since, self.returned_at, cause)


def redis_kill(course: Course) -> None:
    """kill -9 of Redis, which starts again from its append-only file."""
    course.strike(loses_s=AOF_LAG_S)
    course.ground.kill(course.ground.redis)
    course.hold(0.3, 3)
    course.ground.start(course.ground.redis)
    course.heal()


def redis_stop(course: Course) -> None:
    """SIGSTOP of Redis: calls hang, and those that were given up are carried out later."""
    _pause(course, course.ground.redis, 1, 4)


def redis_flush(course: Course) -> None:
    """FLUSHALL."""
    course.strike(loses_s=0)
    course.ground.money().flushall()
    course.heal()


def redis_older(course: Course) -> None:
    """Redis comes back with the data of a moment ago, as from a backup."""
    copy = course.ground.folder / "older"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(course.ground.redis_data, copy)
    course.hold(0.5, 2)
    course.strike(loses_s=AOF_LAG_S)
    course.ground.kill(course.ground.redis)
    shutil.rmtree(course.ground.redis_data)
    shutil.move(copy, course.ground.redis_data)
    course.ground.start(course.ground.redis)
    course.heal()


def postgres_kill(course: Course) -> None:
    """kill -9 of PostgreSQL, which recovers from its log."""
    course.strike()
    course.ground.kill(course.ground.postgres)
    course.hold(0.5, 3)
    course.ground.start(course.ground.postgres)
    course.heal()


def postgres_stop(course: Course) -> None:
    """SIGSTOP of PostgreSQL with all its sessions."""
    _pause(course, course.ground.postgres, 1, 4)


def clickhouse_kill(course: Course) -> None:
    """kill -9 of ClickHouse."""
    course.strike()
    course.ground.kill(course.ground.clickhouse)
    course.hold(0.5, 2)
    course.ground.start(course.ground.clickhouse)
    course.heal()


def web_kill(course: Course) -> None:
    """kill -9 of a web process with the requests it serves."""
    _kill(course, course.chance.choice(course.ground.webs))


def web_stop(course: Course) -> None:
    """SIGSTOP of a web process for longer than its holds live: they are swept before it goes on."""
    _stop(course, course.chance.choice(course.ground.webs), HOLD_S + 1.5)


def drain_kill(course: Course) -> None:
    """kill -9 of the drains, one after the other."""
    first, second = course.chance.sample(course.ground.drains, 2)
    _kill(course, first)
    _kill(course, second)


def drain_stop(course: Course) -> None:
    """SIGSTOP of one drain in the middle of whatever it does; the other goes on."""
    _stop(course, course.chance.choice(course.ground.drains), course.chance.uniform(2, 5))


def drain_stop_flush(course: Course) -> None:
    """A drain stops with events it has read, Redis forgets everything, accounts are loaded, the drain goes on."""
    stopped = course.chance.choice(course.ground.drains).process
    stopped.pause()
    try:
        course.hold(0.2, 0.6)
        redis_flush(course)
        course.hold(0.5, 1.5)
    finally:
        stopped.resume()
    course.heal()


def web_cut(course: Course) -> None:
    """One web process is cut off from Redis while all others see it."""
    _proxied(course, course.chance.choice(course.ground.webs), Mode.CUT, 1, 4)


def web_frozen(course: Course) -> None:
    """What one web process says to Redis arrives late, all at once."""
    _proxied(course, course.chance.choice(course.ground.webs), Mode.FREEZE, 1, 4)


def web_replies_dropped(course: Course) -> None:
    """Redis hears one web process, which hears nothing back."""
    _proxied(course, course.chance.choice(course.ground.webs), Mode.DROP_REPLIES, 1, 4)


def web_cut_from_postgres(course: Course) -> None:
    """One web process is cut off from PostgreSQL, and Redis forgets everything meanwhile, so that it has to load."""
    web = course.chance.choice(course.ground.webs)
    web.to_postgres.set(Mode.CUT)
    try:
        redis_flush(course)
        course.hold(1, 3)
    finally:
        web.to_postgres.set(Mode.PASS)
    course.heal()


def drain_replies_dropped(course: Course) -> None:
    """Redis hears a drain, which hears nothing back: it books and cannot say so."""
    _proxied(course, course.chance.choice(course.ground.drains), Mode.DROP_REPLIES, 1, 4)


def everybody_slow(course: Course) -> None:
    """Each answer of Redis takes 20 to 150 ms."""
    course.strike()
    delay_s = course.chance.uniform(0.02, 0.15)
    try:
        for program in course.ground.everybody():
            program.to_redis.set(Mode.DELAY, delay_s=delay_s)
        course.hold(1, 3)
    finally:
        for program in course.ground.everybody():
            program.to_redis.set(Mode.PASS)
    course.heal()


STRIKES: dict[str, Callable[[Course], None]] = {
    "redis-kill": redis_kill,
    "redis-stop": redis_stop,
    "redis-flush": redis_flush,
    "redis-older": redis_older,
    "postgres-kill": postgres_kill,
    "postgres-stop": postgres_stop,
    "clickhouse-kill": clickhouse_kill,
    "web-kill": web_kill,
    "web-stop": web_stop,
    "web-cut": web_cut,
    "web-frozen": web_frozen,
    "web-replies-dropped": web_replies_dropped,
    "web-cut-from-postgres": web_cut_from_postgres,
    "drain-kill": drain_kill,
    "drain-stop": drain_stop,
    "drain-stop-flush": drain_stop_flush,
    "drain-replies-dropped": drain_replies_dropped,
    "everybody-slow": everybody_slow,
}


def _pause(course: Course, engine: Redis | Postgres | ClickHouse, low_s: float, high_s: float) -> None:
    course.strike()
    resume = course.ground.pause(engine)
    try:
        course.hold(low_s, high_s)
    finally:
        resume()
    course.heal()


def _kill(course: Course, program: Program) -> None:
    course.strike()
    program.process.kill()
    program.start_again()
    course.heal()


def _stop(course: Course, program: Program, seconds: float) -> None:
    course.strike()
    program.process.pause()
    try:
        time.sleep(seconds)
    finally:
        program.process.resume()
    course.heal()


def _proxied(course: Course, program: Program, mode: Mode, low_s: float, high_s: float) -> None:
    course.strike()
    program.to_redis.set(mode)
    try:
        course.hold(low_s, high_s)
    finally:
        program.to_redis.set(Mode.PASS)
    course.heal()
