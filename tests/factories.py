"""Accounts and keys for tests. Each test makes its own: nothing is ever flushed, the ledger is insert-only."""

import itertools
import uuid
from dataclasses import dataclass

from django.utils import timezone

from accounts import services
from accounts.models import Account
from credits.models import VerificationRun
from credits.reported import Usage
from credits.services import top_up

_emails = itertools.count()


@dataclass(frozen=True, slots=True)
class Customer:
    """An account with one key whose whole text is known."""

    account: Account
    api_key: str
    key_id: str

    @property
    def number(self) -> int:
        return self.account.number


def make_account(*, credits: int = 0, name: str = "Alice & Co") -> Account:
    email = f"alice-{next(_emails)}-{uuid.uuid4().hex[:8]}@example.com"
    account = services.create_customer(name=name, email=email)
    if credits:
        top_up(account=account, amount=credits, now=timezone.now(), reason="test")
    return account


def make_customer(*, credits: int = 0, rpm: int | None = 0) -> Customer:
    account = make_account(credits=credits)
    issued = services.issue_key(account=account, rpm=rpm)
    return Customer(account, issued.api_key, issued.key.pk)


def make_usage(*, rows: int = 1, status: int = 200, endpoint: str = "query") -> Usage:
    return Usage(request_id=str(uuid.uuid4()), endpoint=endpoint, status=status, rows=rows, duration_ms=5)


def make_verification(*, differs: bool = False) -> VerificationRun:
    """A finished ledger check, the newest there is; `differs`: it found a live balance of customer 7 that is wrong."""
    what = "live balance in Redis against the ledger"
    found = {"account": 7, "what": what, "expected": 1045, "found": 1052, "repairable": True}
    now = timezone.now()
    return VerificationRun.objects.create(
        trigger=VerificationRun.Trigger.TASK,
        state=VerificationRun.State.DIFFERS if differs else VerificationRun.State.PROVEN,
        started_at=now,
        finished_at=now,
        accounts=3,
        live_accounts=2,
        differences=[found] if differs else [],
    )
