"""Random interleavings of the whole protocol on the real stores; the invariants hold after every step.

One account an example. Crashes are steps that stop half-way (an increase booked but not applied, a load written but not
switched on, events booked but the cursor not moved). Data loss is real: FLUSHALL, a promotion (a new replication id), an
older snapshot put back under a new replication id. The model remembers only what a client was told.
"""

import itertools
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.db.models import F
from django.utils import timezone
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule

from accounts import key_state, revocation
from accounts import services as services_of_keys
from accounts.models import Account, ApiKey
from config.errors import InvalidRequest
from config.redis import PARTITIONS, money
from credits import counters, decreases, drain, ledger, loading, metering, refusals, reserve, services, usage, verify
from credits.models import CreditGrant, Decrease
from tests.credits.machine_grants import GrantSteps
from tests.credits.machine_reserve import ReserveSteps, Told
from tests.factories import Customer, make_customer, make_usage

pytestmark = pytest.mark.usefixtures("stores")


@contextmanager
def _promoted() -> Iterator[None]:
    """What happens inside, happens to a server that comes back under another replication id."""
    money().replicaof("127.0.0.1", "1")  # type: ignore[no-untyped-call, unused-ignore]
    money().replicaof("NO", "ONE")  # type: ignore[no-untyped-call, unused-ignore]
    yield


class Protocol(GrantSteps, ReserveSteps, RuleBasedStateMachine):
    """Holds, settles, releases, top-ups, refunds, the reserve, drains, sweeps, loads, crashes and losses of one account."""

    holds = Bundle("holds")
    finished = Bundle("finished")

    @initialize(credits=st.integers(1, 60) | st.integers(500, 600))
    def begin(self, credits: int) -> None:
        self.customer: Customer = make_customer(credits=credits)
        self.number = self.customer.number
        self.partition = self.number % PARTITIONS
        self.told: dict[str, Told] = {}
        self.snapshot: dict[bytes, bytes] = {}
        self.clock_jumped = False
        # A second key, to be revoked; and what a writer that has stalled since has read of it.
        self.other = services_of_keys.issue_key(account=self.customer.account, rpm=0)
        self.other_is_revoked = False
        self.stalled = key_state.read(self.other.key.pk)

    # --- what clients do ---------------------------------------------------------------------------------------------

    @rule(target=holds, amount=st.integers(1, 30))
    def admit(self, amount: int) -> Any:
        try:
            hold = metering.admit(api_key=self.customer.api_key, endpoint="query", amount=amount)
        except refusals.InsufficientCredits:
            return multiple()
        self.told[hold.operation] = Told()
        return hold

    @rule(hold=holds, share=st.floats(0, 1))
    def settle_a_part(self, hold: metering.Hold, share: float) -> None:
        self._settle(hold, int(hold.amount * share), final=False)

    @rule(target=finished, hold=consumes(holds), share=st.floats(0, 1))
    def settle(self, hold: metering.Hold, share: float) -> Any:
        total = self._total(hold, share)
        self._settle(hold, total, final=True)
        return hold, total

    @rule(target=finished, hold=consumes(holds))
    def release(self, hold: metering.Hold) -> Any:
        metering.release(hold, usage=make_usage())
        return hold, min(hold.amount, self.told[hold.operation].total)

    @rule(done=finished)
    def repeat_the_last_settle(self, done: tuple[metering.Hold, int]) -> None:
        hold, total = done
        self._settle(hold, total, final=True)

    @rule(done=finished, more=st.integers(1, 5))
    def settle_more_after_the_end(self, done: tuple[metering.Hold, int], more: int) -> None:
        hold, total = done
        if total + more <= hold.amount:
            self._settle(hold, total + more, final=True)

    @rule(hold=holds)
    def admit_the_same_attempt_again(self, hold: metering.Hold) -> None:
        key = metering._presented(self.customer.api_key)
        counters.admit(
            key=key,
            amount=hold.amount,
            operation=hold.operation,
            attempt=hold.attempt,
            endpoint=hold.endpoint,
            scope="search",
        )

    @rule(hold=holds)
    def forget_and_sweep(self, hold: metering.Hold) -> None:
        """The client dies; its deadline passes."""
        packed = money().hget(counters.account_key(self.number), f"h:{hold.operation}")
        if packed:
            fields = bytes(packed).split(b" ")  # type: ignore[arg-type]
            fields[1] = b"1"
            money().hset(counters.account_key(self.number), f"h:{hold.operation}", b" ".join(fields))
            counters.sweep(self.number, hold.operation)

    def _settle(self, hold: metering.Hold, total: int, *, final: bool) -> None:
        try:
            settlement = metering.settle(hold, total=total, usage=make_usage() if final else None, final=final)
        except (refusals.HoldExpired, refusals.InsufficientCredits, reserve.ReserveShort):
            return
        told = self.told[hold.operation]
        told.total = max(told.total, settlement.charged)

    # --- what operators and the drain do -----------------------------------------------------------------------------

    @rule(amount=st.integers(1, 50))
    def top_up(self, amount: int) -> None:
        services.top_up(account=self.customer.account, amount=amount, now=timezone.now())

    @rule(amount=st.integers(1, 50))
    def top_up_and_crash_before_redis_learns(self, amount: int) -> None:
        services._book_grant(
            CreditGrant(account=self.customer.account, kind="purchase", amount=amount, remaining=0), now=timezone.now()
        )

    @rule(data=st.data())
    def void_a_grant(self, data: st.DataObject) -> None:
        grants = list(CreditGrant.objects.filter(account=self.customer.account, remaining__gt=0, ending_at=None))
        if grants:
            grant = data.draw(st.sampled_from(sorted(grants, key=lambda grant: grant.created_at)))
            decreases._begin(grant, kind=Decrease.Kind.VOID, reason="machine", actor="", now=timezone.now())

    @rule(amount=st.integers(1, 20))
    def deduct(self, amount: int) -> None:
        try:
            decreases.deduct(
                account=self.customer.account, amount=amount, reason="machine", actor="", now=timezone.now()
            )
        except InvalidRequest:
            return

    @rule()
    def ask_open_decreases_again(self) -> None:
        for decrease in Decrease.objects.filter(account=self.customer.account, closed_at=None):
            decreases._take_rest(decrease, now=timezone.now())

    @rule()
    def apply_outstanding(self) -> None:
        loading.apply_commands(self.customer.account.pk)

    @rule(limit=st.integers(1, 5), minutes=st.sampled_from([0, 0, -90, 90]))
    def drain_some_by_a_clock_that_is_wrong(self, limit: int, minutes: int) -> None:
        ledger.drain_ledger([self.partition], limit=limit, now=timezone.now() + timedelta(minutes=minutes))

    @rule(hours=st.integers(1, 40))
    def the_clock_of_redis_jumps_ahead_and_back(self, hours: int) -> None:
        """A stream's ids never go back, so all later events are dated by the jump, until the stream is lost."""
        journal = counters.journal_key(self.partition)
        if money().exists(journal):
            last: Any = money().xinfo_stream(journal)
            ahead_ms = int(time.time() * 1000) + hours * 3_600_000
            if int(last["last-generated-id"].partition(b"-")[0]) < ahead_ms:
                money().execute_command("XSETID", journal, f"{ahead_ms}-0")  # type: ignore[no-untyped-call]
                self.clock_jumped = True

    @rule()
    def drain_and_crash_before_the_cursor_moves(self) -> None:
        pages = counters.read_journal([self.partition], consumer=counters.LEDGER, limit=10)
        ledger.book(self._charges(pages), now=timezone.now())

    @rule(limit=st.integers(1, 5))
    def drain_delivers_old_events_again(self, limit: int) -> None:
        entries: Any = money().xrange(counters.journal_key(self.partition), count=limit)
        page = counters.JournalPage(self.partition, b"", entries)
        ledger.book(self._charges([page]), now=timezone.now())

    @rule()
    def copy_usage_and_trim(self) -> None:
        usage.drain_usage([self.partition])
        counters.trim([self.partition])

    def _charges(self, pages: list[counters.JournalPage]) -> list[Any]:
        from credits import events

        parsed = [events.parse(stream_id, fields) for page in pages for stream_id, fields in page.events]
        return [event for event in parsed if event.seq is not None]

    # --- the other key -----------------------------------------------------------------------------------------------

    @rule()
    def call_with_the_other_key(self) -> None:  # C9
        try:
            metering.identify(api_key=self.other.api_key, endpoint="credits")
        except refusals.KeyRevoked:
            return
        assert not self.other_is_revoked

    @rule()
    def a_writer_reads_the_other_key_and_stalls(self) -> None:
        self.stalled = key_state.read(self.other.key.pk)

    @rule()
    def the_stalled_writer_tells_redis(self) -> None:
        if self.stalled is not None:
            key_state.write(self.stalled)

    @rule()
    def revoke(self) -> None:
        done = revocation.revoke_key(public_id=self.other.key.pk, now=timezone.now())
        self.other_is_revoked = self.other_is_revoked or done.state == "revoked"

    @rule()
    def revoke_and_crash_before_postgres_knows(self) -> None:
        revocation._note(self.other.key.pk, now=timezone.now(), actor="", reason="")

    @rule()
    def revoke_without_redis_and_crash_before_it_learns(self) -> None:
        ApiKey.objects.filter(pk=self.other.key.pk, state="active").update(
            state="revoked", revoked_at=timezone.now(), version=F("version") + 1
        )

    @rule()
    def change_the_other_key(self) -> None:
        ApiKey.objects.filter(pk=self.other.key.pk).update(version=F("version") + 1)
        key_state.publish([self.other.key.pk])

    @rule()
    def carry_revocations(self) -> None:
        revocation.carry_revocations()

    # --- loads and losses --------------------------------------------------------------------------------------------

    @rule()
    def load(self) -> None:
        loading.load_account(self.number)

    @rule()
    def load_again_from_the_ledger(self) -> None:
        """The repair of a difference, while nothing differs and holds are out."""
        loading.load_account(self.number, even_if_usable=True)

    @rule()
    def close_and_crash(self) -> None:
        self._close()

    @rule()
    def load_and_crash_after_the_raise(self) -> None:
        self._close()
        self._raise_epoch()

    @rule()
    def load_and_crash_before_the_switch(self) -> None:
        self._close()
        raised = self._raise_epoch()
        if raised is not None:
            counters.write_loaded(
                account_number=self.number,
                epoch=raised.epoch,
                balance=raised.balance - raised.reserve,
                reserve=raised.reserve,
                drained_seq=raised.drained_seq,
                credit_seq=raised.credit_seq,
            )

    def _close(self) -> None:
        epoch = Account.objects.get(number=self.number).epoch
        counters.close(account_number=self.number, epoch=epoch, even_if_usable=True, lease_ms=0)

    def _raise_epoch(self) -> loading.Raised | None:
        ledger.catch_up(self.partition, now=timezone.now())
        return loading._raise_epoch(self.number, Account.objects.get(number=self.number).epoch)

    @rule()
    def flushall(self) -> None:
        self._lose()
        money().flushall()

    @rule()
    def script_flush(self) -> None:
        money().script_flush()

    @rule()
    def promote_a_replica_that_has_everything(self) -> None:
        self._lose()
        with _promoted():
            pass

    @rule()
    def take_a_snapshot(self) -> None:
        keys = list(money().scan_iter(match=f"{{p{self.partition:02d}}}:*"))
        self.snapshot = {key: value for key in keys if (value := money().dump(key)) is not None}

    @rule()
    def restart_from_the_older_snapshot(self) -> None:
        self._lose()
        with _promoted():
            money().flushall()
            for key, value in self.snapshot.items():
                money().restore(key, 0, value)

    def _lose(self) -> None:
        """Charges that were told and stand only in Redis may be gone from here on, in the customer's favour."""
        for told in self.told.values():
            told.lost = True

    # --- what must hold ----------------------------------------------------------------------------------------------

    @invariant()
    def ledger_balance_grants_and_draws_agree(self) -> None:  # C1
        if hasattr(self, "customer"):
            assert verify._ledger_differences([self.number]) == []

    @invariant()
    def redis_holds_what_the_ledger_says_at_the_cut(self) -> None:  # C2, C3
        if not hasattr(self, "customer"):
            return
        live = counters.inspect(self.number)
        if not live.usable:
            return
        assert live.balance >= 0
        assert live.held >= 0
        assert live.free >= 0
        account = Account.objects.get(number=self.number)
        assert account.epoch == live.epoch
        self.assert_reserve_is_known(live, account)
        waiting = [
            event
            for event in self._charges(counters.read_journal([self.partition], consumer=counters.LEDGER, limit=100_000))
            if event.account_number == self.number
            and event.epoch == live.epoch
            and event.seq is not None
            and event.seq > account.drained_seq
        ]
        with connection.cursor() as cursor:
            cursor.execute(verify._LIVE_SQL, [[self.number], [live.epoch], [live.seq], [live.applied]])
            expected = cursor.fetchall()[0][4]
        assert live.balance == expected - sum(event.debit for event in waiting)

    @invariant()
    def operations_are_charged_their_greatest_total_at_most(self) -> None:  # C4, C7
        if not hasattr(self, "customer"):
            return
        charged = self._charged()
        for operation, told in self.told.items():
            assert told.paid_by_reserve <= charged.get(operation, 0) <= max(told.total, told.unanswered)
        assert set(charged) <= set(self.told)

    @invariant()
    def every_seq_stands_once(self) -> None:  # C6
        if not hasattr(self, "customer"):
            return
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT epoch, seq FROM credits_credittransaction WHERE account_id = %s AND seq IS NOT NULL"
                " UNION ALL SELECT epoch, seq FROM credits_setaside WHERE account_id = %s AND seq IS NOT NULL",
                [self.customer.account.pk] * 2,
            )
            recorded = cursor.fetchall()
        assert len(recorded) == len(set(recorded))
        account = Account.objects.get(number=self.number)
        seqs = sorted(seq for epoch, seq in recorded if epoch == account.epoch and seq <= account.drained_seq)
        assert all(later == earlier + 1 for earlier, later in itertools.pairwise(seqs))

    def _charged(self) -> dict[str, int]:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT operation, sum(amount)::bigint FROM credits_credittransaction"
                " WHERE account_id = %s AND type = 'debit' AND kind = 'usage' GROUP BY 1",
                [self.customer.account.pk],
            )
            return {str(operation): amount for operation, amount in cursor.fetchall()}

    def teardown(self) -> None:
        """At rest every operation that was told and not lost is charged exactly what was told."""
        if not hasattr(self, "customer"):
            return
        loading.load_account(self.number)
        drain.drain_once()
        charged = self._charged()
        for operation, told in self.told.items():
            if not told.lost and told.unanswered <= told.total:
                assert charged.get(operation, 0) == told.total
        assert verify._ledger_differences([self.number]) == []
        _, behind, differences = verify._live_differences([self.number])
        assert (behind, differences) == ([], [])
        if self.clock_jumped:
            money().flushall()  # streams dated ahead are nobody else's affair


def _run(*, examples: int, steps: int) -> None:
    from hypothesis.stateful import run_state_machine_as_test

    run_state_machine_as_test(
        Protocol,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            # A planted fault need only be found; making its example small takes minutes.
            phases=(Phase.generate,) if os.environ.get("SHRINK") == "0" else tuple(Phase),
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.timeout(170)
def test_invariants_hold_in_short_random_runs() -> None:
    _run(examples=30, steps=30)


@pytest.mark.machine
@pytest.mark.timeout(1500)
def test_invariants_hold_in_500_random_runs() -> None:
    _run(examples=500, steps=50)


@pytest.mark.long
def test_invariants_hold_in_long_random_runs() -> None:
    _run(examples=1000, steps=100)
