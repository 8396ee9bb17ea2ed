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
    lost: tuple[float, float] | None = None

    def strike(self) -> None:
        """Notes this moment."""
        self.struck_at = time.time()

    def strike_redis(self, blow: Callable[[], object], *, unsaved_s: float) -> None:
        """Makes Redis lose its data by `blow`: what is not booked by now, and what it has not saved for `unsaved_s`.

        What is charged after the blow may not get lost any more.
        """
        self.strike()
        oldest = self.observer.oldest_unbooked()
        since = min(self.struck_at, oldest or self.struck_at) - unsaved_s
        blow()
        self.lost = (since, time.time())

    def heal(self) -> None:
        self.returned_at = time.time()

    def hold(self, low_s: float, high_s: float) -> None:
        time.sleep(self.chance.uniform(low_s, high_s))

    def loss(self, cause: str) -> Loss | None:
        """What this fault may have lost."""
        return None if self.lost is None else Loss(*self.lost, cause)


def redis_kill(course: Course) -> None:
    """kill -9 of Redis, which starts again from its append-only file."""
    course.strike_redis(lambda: course.ground.kill(course.ground.redis), unsaved_s=AOF_LAG_S)
    course.hold(0.3, 3)
    course.ground.start(course.ground.redis)
    course.heal()


def redis_stop(course: Course) -> None:
    """SIGSTOP of Redis: calls hang, and those that were given up are carried out later."""
    _pause(course, course.ground.redis, 1, 4)


def redis_flush(course: Course) -> None:
    """FLUSHALL."""
    course.strike_redis(course.ground.money().flushall, unsaved_s=0)
    course.heal()


def redis_older(course: Course) -> None:
    """Redis comes back with the data of a moment ago, as from a backup."""
    copy = course.ground.folder / "older"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(course.ground.redis_data, copy)
    course.hold(0.5, 2)
    course.strike_redis(lambda: course.ground.kill(course.ground.redis), unsaved_s=AOF_LAG_S)
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


def web_lossy(course: Course) -> None:
    """A third of what Redis answers both web processes is lost on the way, so they say it again."""
    _lossy(course, course.ground.webs)


def drain_lossy(course: Course) -> None:
    """A third of what Redis answers the drains is lost on the way."""
    _lossy(course, course.ground.drains)


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


def web_frozen_flush(course: Course) -> None:
    """What one web process has said arrives when Redis has forgotten everything and the accounts are loaded again."""
    web = course.chance.choice(course.ground.webs)
    web.to_redis.set(Mode.FREEZE)
    try:
        course.hold(0.2, 1)
        redis_flush(course)
        course.hold(0.5, 2)
    finally:
        web.to_redis.set(Mode.PASS)
    course.heal()


def web_frozen_kill(course: Course) -> None:
    """What a web process has said before it was killed arrives when its holds have been swept."""
    web = course.chance.choice(course.ground.webs)
    course.strike()
    web.to_redis.set(Mode.FREEZE)
    try:
        course.hold(0.1, 0.4)
        web.process.kill()
        course.hold(0.5, HOLD_S + 2)
    finally:
        web.to_redis.set(Mode.PASS)
    web.start_again()
    course.heal()


def web_stop_flush(course: Course) -> None:
    """A web process stops in the middle of its requests, Redis forgets everything, the web process goes on."""
    stopped = course.chance.choice(course.ground.webs).process
    stopped.pause()
    try:
        course.hold(0.1, 1)
        redis_flush(course)
        course.hold(0.5, HOLD_S)
    finally:
        stopped.resume()
    course.heal()


def web_cut_postgres_lossy(course: Course) -> None:
    """One web process is cut off from Redis, so the reserve pays, and loses one answer of PostgreSQL in twenty."""
    web = course.chance.choice(course.ground.webs)
    course.strike()
    web.to_redis.set(Mode.CUT)
    web.to_postgres.set(Mode.LOSSY, loss=0.05)
    try:
        course.hold(2, 4)
    finally:
        web.to_postgres.set(Mode.PASS)
        web.to_redis.set(Mode.PASS)
    course.heal()


def both_kill(course: Course) -> None:
    """kill -9 of Redis and PostgreSQL together: nobody may decide. Either comes back first."""
    course.strike_redis(lambda: course.ground.kill(course.ground.redis), unsaved_s=AOF_LAG_S)
    course.ground.kill(course.ground.postgres)
    course.hold(0.3, 1)
    engines: list[Redis | Postgres] = [course.ground.redis, course.ground.postgres]
    course.chance.shuffle(engines)
    for engine in engines:
        course.ground.start(engine)
        course.hold(0, 1)
    course.heal()


def drain_lossy_postgres(course: Course) -> None:
    """One answer in ten of what PostgreSQL says to the drains is lost: they do not know what was committed."""
    course.strike()
    try:
        for program in course.ground.drains:
            program.to_postgres.set(Mode.LOSSY, loss=0.1)
        course.hold(2, 4)
    finally:
        for program in course.ground.drains:
            program.to_postgres.set(Mode.PASS)
    course.heal()


def drain_replies_dropped(course: Course) -> None:
    """Redis hears a drain, which hears nothing back: it books and cannot say so."""
    _proxied(course, course.chance.choice(course.ground.drains), Mode.DROP_REPLIES, 1, 4)


def drain_frozen(course: Course) -> None:
    """What one drain says to Redis arrives late, all at once, when the other has done its work."""
    _proxied(course, course.chance.choice(course.ground.drains), Mode.FREEZE, 1, 4)


def drain_frozen_flush(course: Course) -> None:
    """What the drains have said arrives when Redis has forgotten everything and the accounts are loaded again."""
    for program in course.ground.drains:
        program.to_redis.set(Mode.FREEZE)
    try:
        course.hold(0.1, 0.5)
        redis_flush(course)
        course.hold(0.5, 2)
    finally:
        for program in course.ground.drains:
            program.to_redis.set(Mode.PASS)
    course.heal()


def drain_frozen_postgres(course: Course) -> None:
    """What one drain says to PostgreSQL arrives late, its commits too, while it holds the accounts' locks."""
    course.strike()
    program = course.chance.choice(course.ground.drains)
    program.to_postgres.set(Mode.FREEZE)
    try:
        course.hold(1, 4)
    finally:
        program.to_postgres.set(Mode.PASS)
    course.heal()


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
    "web-lossy": web_lossy,
    "web-cut-from-postgres": web_cut_from_postgres,
    "web-frozen-flush": web_frozen_flush,
    "web-frozen-kill": web_frozen_kill,
    "web-stop-flush": web_stop_flush,
    "web-cut-postgres-lossy": web_cut_postgres_lossy,
    "both-kill": both_kill,
    "drain-kill": drain_kill,
    "drain-stop": drain_stop,
    "drain-stop-flush": drain_stop_flush,
    "drain-replies-dropped": drain_replies_dropped,
    "drain-lossy": drain_lossy,
    "drain-lossy-postgres": drain_lossy_postgres,
    "drain-frozen": drain_frozen,
    "drain-frozen-flush": drain_frozen_flush,
    "drain-frozen-postgres": drain_frozen_postgres,
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


def _lossy(course: Course, programs: list[Program]) -> None:
    course.strike()
    try:
        for program in programs:
            program.to_redis.set(Mode.LOSSY, loss=0.33)
        course.hold(2, 4)
    finally:
        for program in programs:
            program.to_redis.set(Mode.PASS)
    course.heal()
