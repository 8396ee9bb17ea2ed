"""Ledger checks that are written down: the one way in which command, task, admin and API run `verify`.

One run at a time in the whole installation, by an advisory lock of Postgres, which a run that dies gives back. Its row then
still says `running`; with the lock free that means broken off, and nothing ever reads it as a result.
"""

from datetime import datetime, timedelta

import structlog
from django.db import InterfaceError, OperationalError
from django.utils import timezone

from config.clickhouse import locks
from config.errors import DomainError
from credits import verify
from credits.models import VerificationRun

log = structlog.get_logger(__name__)

LOCK = "credits.verification"
PROVEN_KEPT = 1000  # about a week
OTHERS_KEPT = 300
STALE_AFTER = timedelta(minutes=30)
ERROR_LENGTH_MAX = 300
_State = VerificationRun.State
_RESULT = ("state", "finished_at", "accounts", "live_accounts", "behind", "differences", "repaired", "error")


class VerificationRunning(DomainError):
    """409: another ledger check is under way."""

    status = 409
    code = "VERIFICATION_RUNNING"


def run(
    *, now: datetime, trigger: VerificationRun.Trigger, actor: str = "", reason: str = "", repair: bool = False
) -> VerificationRun:
    """Drains, compares every account and keeps what came of it; with `repair`, loads live balances that differ again.

    Raises `VerificationRunning`, and what the stores raise: then the run is kept as failed, as far as Postgres answers.
    """
    try:
        with locks.advisory_lock(LOCK, wait_s=0):
            VerificationRun.objects.filter(state=_State.RUNNING).update(state=_State.BROKEN_OFF)
            row = VerificationRun.objects.create(
                trigger=trigger, actor=actor[:254], reason=reason[:255], repair=repair, started_at=now
            )
            _carry_out(row, repair=repair)
            _forget_old_runs()
    except locks.LockBusy as error:
        raise VerificationRunning(
            "Another ledger check is under way. Wait for its result, or try again when it is done."
        ) from error
    return row


def _carry_out(row: VerificationRun, *, repair: bool) -> None:
    try:
        result = verify.verify(now=row.started_at, repair=repair)
    except Exception as error:
        row.state, row.error = _State.FAILED, f"{type(error).__name__}: {error}"[:ERROR_LENGTH_MAX]
        log.warning("verification_failed", run=row.pk, error=type(error).__name__)
        try:
            _finish(row)
        except (OperationalError, InterfaceError):
            # The row stays as it is: running, and broken off as soon as the lock is free.
            log.warning("verification_not_recorded", run=row.pk)
        raise
    row.state = _state_of(result)
    row.accounts, row.live_accounts = result.accounts, result.live_accounts
    row.behind = result.behind[: verify.DIFFERENCES_MAX]
    row.differences = [
        {
            "account": found.account_number,
            "what": found.what,
            "expected": found.expected,
            "found": found.found,
            "repairable": found.repairable,
        }
        for found in result.differences
    ]
    row.repaired = result.repaired
    _finish(row)
    if row.state != _State.PROVEN:
        log.error("ledger_not_proven", run=row.pk, state=row.state, differences=len(row.differences))


def _state_of(result: verify.Verification) -> str:
    if result.differences:
        repaired = set(result.repaired)
        mended = all(found.repairable and found.account_number in repaired for found in result.differences)
        return _State.REPAIRED if mended and not result.behind else _State.DIFFERS
    return _State.BEHIND if result.behind else _State.PROVEN


def _finish(row: VerificationRun) -> None:
    """Writes down what came of the run, unless another has found it broken off, which is final."""
    row.finished_at = timezone.now()
    ended = {name: getattr(row, name) for name in _RESULT}
    if not VerificationRun.objects.filter(pk=row.pk, state=_State.RUNNING).update(**ended):
        log.warning("verification_overtaken", run=row.pk)


def _forget_old_runs() -> None:
    proven = VerificationRun.objects.filter(state=_State.PROVEN)
    for runs, kept in ((proven, PROVEN_KEPT), (VerificationRun.objects.exclude(state=_State.PROVEN), OTHERS_KEPT)):
        oldest = runs.order_by("-id").values_list("id", flat=True)[kept - 1 : kept].first()
        if oldest is not None:
            runs.filter(id__lt=oldest).delete()


def state_now(row: VerificationRun) -> str:
    """The run's state; `broken_off` for one that says running though no process holds the lock any more."""
    if row.state == _State.RUNNING and not locks.is_held(LOCK):
        return _State.BROKEN_OFF
    return row.state


def last_run() -> VerificationRun | None:
    """The newest run that is not under way, or None when there has been none."""
    for row in VerificationRun.objects.order_by("-id")[:2]:
        if state_now(row) != _State.RUNNING:
            return row
    return None


def can_repair(row: VerificationRun) -> bool:
    """Whether a load from the ledger could mend anything that this run found."""
    return not row.repair and any(difference["repairable"] for difference in row.differences)
