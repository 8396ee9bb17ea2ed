"""Steps of the protocol machine with one caller cut off from Redis, while the others go on; and idempotency keys."""

import dataclasses
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import Bundle, consumes, multiple, rule

from accounts.models import Account
from config.errors import TemporarilyUnavailable
from credits import counters, ledger, loading, metering, refusals
from tests.factories import Customer, make_usage
from tests.outages import redis_away

KEYS = st.sampled_from(["a", "b"])


@dataclasses.dataclass(slots=True)
class Told:
    """What a client knows of one operation: the greatest total it was told, what of it the ledger has paid, the greatest
    total whose answer was lost, and whether Redis has lost data since."""

    total: int = 0
    paid_by_reserve: int = 0
    unanswered: int = 0
    lost: bool = False


class ReserveSteps:
    """Mixed into the machine, which has the `customer`, its `number` and what clients were `told`."""

    holds = Bundle("holds")
    finished = Bundle("finished")

    customer: Customer
    number: int
    told: dict[str, Told]

    @rule(target=holds, amount=st.integers(1, 15))
    def admit_without_redis(self, amount: int) -> Any:
        with redis_away():
            return self._admitted(amount)

    @rule(target=holds, spare=st.integers(0, 3))
    def admit_nearly_all(self, spare: int) -> Any:
        """Falls short of the reserve, which is moved."""
        live = counters.inspect(self.number)
        amount = live.available - spare
        return self._admitted(amount) if live.usable and amount > 0 else multiple()

    @rule(target=holds, key=KEYS, amount=st.integers(1, 15), away=st.booleans())
    def admit_under_an_idempotency_key(self, key: str, amount: int, away: bool) -> Any:  # C10
        if not away:
            return self._admitted(amount, key=key)
        with redis_away():
            return self._admitted(amount, key=key)

    def _admitted(self, amount: int, *, key: str = "") -> Any:
        try:
            hold = metering.admit(
                api_key=self.customer.api_key, endpoint="query", amount=amount, idempotency_key=key, body=b"{}"
            )
        except (refusals.InsufficientCredits, refusals.IdempotencyInProgress, TemporarilyUnavailable):
            return multiple()
        self.told.setdefault(hold.operation, Told())
        if hold.replayed:
            assert metering.settle(hold, total=amount, usage=make_usage()).charged == 0
            return multiple()
        return hold

    @rule(target=finished, hold=consumes(holds), share=st.floats(0, 1))
    def settle_without_redis(self, hold: metering.Hold, share: float) -> Any:
        return hold, self._settle_away(hold, share)

    @rule(target=finished, hold=consumes(holds), share=st.floats(0, 1))
    def settle_and_lose_the_reply(self, hold: metering.Hold, share: float) -> Any:
        """Redis may have charged it; the caller, cut off, has the reserve pay for the same operation."""
        total = self._total(hold, share)
        self._settle_in_redis(hold, total)
        self.told[hold.operation].unanswered = max(self.told[hold.operation].unanswered, total)
        return hold, self._settle_away(hold, share)

    @rule(hold=holds, share=st.floats(0, 1))
    def settle_away_and_go_on(self, hold: metering.Hold, share: float) -> None:
        """The settle that timed out is still on its way: another step may let it arrive."""
        self._settle_away(hold, share)

    @rule(done=finished)
    def a_delayed_settle_arrives(self, done: tuple[metering.Hold, int]) -> None:
        hold, total = done
        self.told[hold.operation].unanswered = max(self.told[hold.operation].unanswered, total)
        self._settle_in_redis(hold, total)

    @rule()
    def move_the_reserve_and_crash(self) -> None:
        ledger.move_reserve(self.number)

    @rule()
    def cover(self) -> None:
        loading.cover(self.number)

    def _total(self, hold: metering.Hold, share: float) -> int:
        return min(hold.amount, max(int(hold.amount * share), self.told[hold.operation].total))

    def _settle_away(self, hold: metering.Hold, share: float) -> int:
        """The total that was asked for."""
        total, told = self._total(hold, share), self.told[hold.operation]
        with redis_away():
            try:
                settlement = metering.settle(hold, total=total, usage=make_usage())
            except TemporarilyUnavailable:
                told.unanswered = max(told.unanswered, total)
                return total
        told.total = max(told.total, settlement.charged)
        told.paid_by_reserve = max(told.paid_by_reserve, settlement.charged if total > hold.paid else 0)
        return total

    def _settle_in_redis(self, hold: metering.Hold, total: int) -> None:
        counters.settle(
            account_number=hold.account_number,
            operation=hold.operation,
            attempt=hold.attempt,
            total=total,
            final=True,
            amount=hold.amount,
            deadline_ms=hold.deadline_ms,
            key_id=hold.key_id,
            endpoint=hold.endpoint,
            usage=make_usage().as_json(),
            kept_ms=hold.kept_ms,
        )

    def assert_reserve_is_known(self, live: counters.LiveBalance, account: Account) -> None:
        """The reserve is a part of the balance, and Redis shows it when it has applied all commands."""
        assert 0 <= account.reserve <= account.balance
        assert live.applied < account.credit_seq or live.reserve == account.reserve
