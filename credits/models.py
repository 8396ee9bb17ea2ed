"""The truth about credits: grants, the append-only ledger, which grant paid what, and what Redis has to learn.

All amounts are whole credits in `bigint`, below 10^14 so that Redis' Lua can hold them exactly.
"""

import uuid

from django.contrib.postgres.indexes import BrinIndex
from django.db import models
from django.db.models import F, Q
from django.utils import timezone

from accounts.models import Account
from credits.alert_models import (  # noqa: F401 - Django looks for an app's models here
    Alert,
    AlertDelivery,
    AlertSettings,
    AlertState,
    ExpiryNotice,
)
from credits.amounts import CREDITS_MAX

EXTERNAL_ID_LENGTH_MAX = 200


class CreditGrant(models.Model):
    """Credits given to an account; `remaining` is what its draws have left.

    A grant whose `effective_at` lies ahead is scheduled: nothing of it counts (`remaining` 0) until it enters ledger and
    balance, which `entered_at` tells.
    """

    class Kind(models.TextChoices):
        PURCHASE = "purchase"
        PROMO = "promo"
        ADJUSTMENT = "adjustment"
        REFUND = "refund"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    account = models.ForeignKey(Account, on_delete=models.PROTECT, related_name="grants")
    kind = models.CharField(max_length=10, choices=Kind)
    amount = models.BigIntegerField()
    remaining = models.BigIntegerField()
    priority = models.SmallIntegerField(default=100, help_text="Lower is spent first.")
    effective_at = models.DateTimeField(default=timezone.now)
    entered_at = models.DateTimeField(null=True, editable=False)
    expires_at = models.DateTimeField(null=True, blank=True)
    external_id = models.CharField(max_length=EXTERNAL_ID_LENGTH_MAX, null=True, blank=True, unique=True)
    voided_at = models.DateTimeField(null=True, blank=True)
    # Since when it is being taken back (expiry, void): from then on it is drawn last, until nothing remains.
    ending_at = models.DateTimeField(null=True, editable=False)
    reason = models.CharField(max_length=255, blank=True)
    actor = models.CharField(max_length=254, blank=True)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        ordering = ["-created_at"]
        constraints = [
            models.CheckConstraint(name="grant_amount_positive", condition=Q(amount__gt=0, amount__lte=CREDITS_MAX)),
            models.CheckConstraint(
                name="grant_remaining_within_amount", condition=Q(remaining__gte=0, remaining__lte=F("amount"))
            ),
        ]
        indexes = [
            # Burn-down order reads only grants that can still pay.
            models.Index(fields=["account"], name="grant_open", condition=Q(remaining__gt=0)),
            models.Index(
                fields=["effective_at"],
                name="grant_scheduled",
                condition=Q(entered_at__isnull=True, voided_at__isnull=True),
            ),
            models.Index(
                fields=["expires_at"],
                name="grant_expiring",
                condition=Q(remaining__gt=0, expires_at__isnull=False, ending_at__isnull=True),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.get_kind_display()} of {self.amount:,} credits"


class CreditTransaction(models.Model):
    """The ledger: one entry for each change of an account's balance. Inserted, never changed (a trigger guards it)."""

    class Type(models.TextChoices):
        CREDIT = "credit"
        DEBIT = "debit"

    class Kind(models.TextChoices):
        TOP_UP = "top_up", "top-up"
        USAGE = "usage"
        EXPIRY = "expiry"
        REFUND = "refund"
        ADJUSTMENT = "adjustment"
        VOID = "void"

    account = models.ForeignKey(Account, on_delete=models.PROTECT, related_name="ledger")
    type = models.CharField(max_length=6, choices=Type)
    kind = models.CharField(max_length=10, choices=Kind)
    amount = models.BigIntegerField()
    reason = models.CharField(max_length=255, blank=True)
    operation = models.UUIDField(null=True)
    charged_total = models.BigIntegerField(null=True)
    epoch = models.BigIntegerField(null=True)
    seq = models.BigIntegerField(null=True)
    credit_seq = models.BigIntegerField(null=True)
    api_key = models.CharField(max_length=32, blank=True)
    actor = models.CharField(max_length=254, blank=True)
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        verbose_name = "ledger entry"
        verbose_name_plural = "ledger"
        ordering = ["-id"]
        constraints = [
            models.CheckConstraint(name="ledger_amount_positive", condition=Q(amount__gt=0, amount__lte=CREDITS_MAX)),
            models.UniqueConstraint(
                fields=["account", "epoch", "seq"], name="ledger_seq_once", condition=Q(seq__isnull=False)
            ),
            models.UniqueConstraint(
                fields=["account", "credit_seq"], name="ledger_credit_seq_once", condition=Q(credit_seq__isnull=False)
            ),
        ]
        indexes = [
            models.Index(
                fields=["account", "operation"], name="ledger_operation", condition=Q(operation__isnull=False)
            ),
            models.Index(fields=["account", "-id"], name="ledger_statement"),
            # Operators' lists: usage is nearly every row and needs no index; a day is found by where it lies on disk.
            models.Index(fields=["kind", "-id"], name="ledger_rare_kinds", condition=~Q(kind="usage")),
            models.Index(fields=["-id"], name="ledger_credits", condition=Q(type="credit")),
            BrinIndex(fields=["created_at"], name="ledger_day", pages_per_range=32, autosummarize=True),
        ]

    def __str__(self) -> str:
        sign = "+" if self.type == self.Type.CREDIT else "−"
        return f"{sign}{self.amount:,} {self.get_kind_display()}"


class GrantDraw(models.Model):
    """Which grant paid (a part of) a debit. Written in the entry's transaction, never changed.

    Without foreign keys in the database: entry and grant are never deleted, and both were read or written under the account's
    lock by the transaction that writes the draw; checking each again would cost more than the row.
    """

    entry = models.ForeignKey(CreditTransaction, on_delete=models.PROTECT, related_name="draws", db_constraint=False)
    grant = models.ForeignKey(CreditGrant, on_delete=models.PROTECT, related_name="draws", db_constraint=False)
    amount = models.BigIntegerField()

    class Meta:
        constraints = [models.CheckConstraint(name="draw_amount_positive", condition=Q(amount__gt=0))]

    def __str__(self) -> str:
        return f"{self.amount:,} credits of {self.grant_id}"


class Refund(models.Model):
    """Credits of a charged operation, given back to the grants that had paid. Inserted with its entry, never changed.

    `whole`: all that was left of the charge was asked for, whatever that was.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    account = models.ForeignKey(Account, on_delete=models.PROTECT, related_name="refunds")
    operation = models.UUIDField()
    amount = models.BigIntegerField()
    whole = models.BooleanField(default=False)
    entry = models.OneToOneField(CreditTransaction, on_delete=models.PROTECT, related_name="refund")
    external_id = models.CharField(max_length=EXTERNAL_ID_LENGTH_MAX, null=True, blank=True, unique=True)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        ordering = ["-created_at"]
        constraints = [models.CheckConstraint(name="refund_amount_positive", condition=Q(amount__gt=0))]
        indexes = [models.Index(fields=["account", "operation"], name="refund_operation")]

    def __str__(self) -> str:
        return f"Refund of {self.amount:,} credits"


class GrantReturn(models.Model):
    """Where (a part of) a refund went: `amount` of what `draw` took is in `grant` again. Never changed.

    That is the grant that paid, or a new one of kind refund where that one has ended.
    """

    refund = models.ForeignKey(Refund, on_delete=models.PROTECT, related_name="returns")
    draw = models.ForeignKey(GrantDraw, on_delete=models.PROTECT, related_name="returns")
    grant = models.ForeignKey(CreditGrant, on_delete=models.PROTECT, related_name="returns")
    amount = models.BigIntegerField()

    class Meta:
        constraints = [models.CheckConstraint(name="return_amount_positive", condition=Q(amount__gt=0))]

    def __str__(self) -> str:
        return f"{self.amount:,} credits back to {self.grant_id}"


class Decrease(models.Model):
    """Credits to be taken back: what a grant has left (expiry, void), or an amount (adjustment).

    Redis gives what is not held or spent, `take` by `take`, until `booked` reaches the target or the grant is empty.
    """

    class Kind(models.TextChoices):
        EXPIRY = "expiry"
        VOID = "void"
        ADJUSTMENT = "adjustment"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    account = models.ForeignKey(Account, on_delete=models.PROTECT, related_name="decreases")
    grant = models.ForeignKey(CreditGrant, on_delete=models.PROTECT, null=True, related_name="decreases")
    kind = models.CharField(max_length=10, choices=Kind)
    target = models.BigIntegerField()
    booked = models.BigIntegerField(default=0)
    external_id = models.CharField(max_length=EXTERNAL_ID_LENGTH_MAX, null=True, blank=True, unique=True)
    reason = models.CharField(max_length=255, blank=True)
    actor = models.CharField(max_length=254, blank=True)
    created_at = models.DateTimeField(default=timezone.now)
    closed_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["-created_at"]
        constraints = [
            models.CheckConstraint(name="decrease_target_positive", condition=Q(target__gt=0)),
            models.CheckConstraint(
                name="decrease_booked_within_target", condition=Q(booked__gte=0, booked__lte=F("target"))
            ),
            models.UniqueConstraint(fields=["grant"], name="decrease_once_per_grant"),
        ]
        indexes = [models.Index(fields=["created_at"], name="decrease_open", condition=Q(closed_at__isnull=True))]

    def __str__(self) -> str:
        return f"{self.get_kind_display()} of {self.target:,} credits"


class Command(models.Model):
    """What Redis has to learn of an account, in the order of `credit_seq`. `confirmed_at` only helps to find work.

    An `add` of a top-up has no `seq`; one that returns the unbooked part of a debit names that debit's epoch and seq. A
    `take` belongs to a decrease and asks for `amount` credits at most. A `note` moves nothing: `amount` credits of the
    reserve were spent, by the key family it names. Each carries the `reserve` after it, for Redis to show.
    """

    class Kind(models.TextChoices):
        ADD = "add"
        TAKE = "take"
        NOTE = "note"

    account = models.ForeignKey(Account, on_delete=models.PROTECT, related_name="commands")
    credit_seq = models.BigIntegerField()
    kind = models.CharField(max_length=4, choices=Kind)
    amount = models.BigIntegerField()
    decrease = models.ForeignKey(Decrease, on_delete=models.PROTECT, null=True, related_name="takes")
    epoch = models.BigIntegerField(null=True)
    seq = models.BigIntegerField(null=True)
    reserve = models.BigIntegerField(null=True)
    family = models.UUIDField(null=True)
    created_at = models.DateTimeField(default=timezone.now)
    confirmed_at = models.DateTimeField(null=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["account", "credit_seq"], name="command_seq_once"),
            models.CheckConstraint(name="command_amount_positive", condition=Q(amount__gt=0)),
            models.CheckConstraint(
                name="command_take_has_its_decrease",
                condition=Q(kind__in=["add", "note"], decrease__isnull=True) | Q(kind="take", decrease__isnull=False),
            ),
        ]
        indexes = [models.Index(fields=["created_at"], name="command_open", condition=Q(confirmed_at__isnull=True))]

    def __str__(self) -> str:
        return f"{self.kind} {self.amount:,} (#{self.credit_seq})"


class ReserveUsage(models.Model):
    """A request that the reserve has paid, written with its ledger entry and copied to the usage log by the drain.

    Kept for a week after that: should Redis have charged the request too, its event is recognised and not logged twice.
    """

    account_number = models.BigIntegerField()
    at = models.DateTimeField()
    request_id = models.CharField(max_length=128)
    operation = models.UUIDField()
    key_id = models.CharField(max_length=32)
    endpoint = models.CharField(max_length=32)
    status = models.PositiveSmallIntegerField()
    rows = models.BigIntegerField()
    credits = models.BigIntegerField()
    duration_ms = models.BigIntegerField()
    query = models.TextField(blank=True)
    copied_at = models.DateTimeField(null=True)

    class Meta:
        verbose_name_plural = "usage of the reserve"
        ordering = ["-id"]
        indexes = [
            models.Index(fields=["id"], name="reserve_usage_open", condition=Q(copied_at__isnull=True)),
            models.Index(fields=["copied_at"], name="reserve_usage_copied", condition=Q(copied_at__isnull=False)),
            models.Index(fields=["operation"], name="reserve_usage_operation"),
        ]

    def __str__(self) -> str:
        return f"{self.endpoint} for {self.credits:,} credits"


class SetAside(models.Model):
    """A journal event that was not booked, and why. Nothing is charged for it. Never changed."""

    class Reason(models.TextChoices):
        LATE = "late", "late: of an epoch that has ended"
        BAD = "bad", "bad: could not be read or booked"
        PAID = "paid", "paid: its operation was paid already; the debit went back"

    account = models.ForeignKey(Account, on_delete=models.PROTECT, null=True, related_name="set_aside")
    epoch = models.BigIntegerField(null=True)
    seq = models.BigIntegerField(null=True)
    reason = models.CharField(max_length=4, choices=Reason)
    debit = models.BigIntegerField(default=0)
    event = models.JSONField()
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        verbose_name_plural = "events set aside"
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(
                fields=["account", "epoch", "seq"], name="set_aside_seq_once", condition=Q(seq__isnull=False)
            )
        ]

    def __str__(self) -> str:
        return f"{self.get_reason_display()} ({self.debit:,} credits)"


class VerificationRun(models.Model):
    """One comparison of ledger, accounts, grants and live balances. `running` turns into another state only at its end.

    A row that says `running` while nobody holds the run's lock was broken off; the next run writes that down.
    """

    class State(models.TextChoices):
        RUNNING = "running"
        PROVEN = "proven"
        REPAIRED = "repaired"
        DIFFERS = "differs"
        BEHIND = "behind"
        FAILED = "failed"
        BROKEN_OFF = "broken_off", "broken off"

    class Trigger(models.TextChoices):
        COMMAND = "command"
        TASK = "task"
        ADMIN = "admin"
        API = "api", "API"

    trigger = models.CharField(max_length=8, choices=Trigger)
    actor = models.CharField(max_length=254, blank=True)
    reason = models.CharField(max_length=255, blank=True)
    repair = models.BooleanField(default=False)
    state = models.CharField(max_length=10, choices=State, default=State.RUNNING)
    started_at = models.DateTimeField()
    finished_at = models.DateTimeField(null=True)
    accounts = models.IntegerField(default=0)
    live_accounts = models.IntegerField(default=0)
    behind = models.JSONField(default=list, help_text="Account numbers that the drain has not caught up with.")
    differences = models.JSONField(default=list, help_text="account, what, expected, found, repairable")
    repaired = models.JSONField(default=list, help_text="Account numbers that were loaded again.")
    error = models.CharField(max_length=300, blank=True)

    class Meta:
        verbose_name = "ledger check"
        ordering = ["-id"]
        permissions = [
            ("run_verification", "Can run the ledger check"),
            ("repair_balances", "Can load live balances that differ from the ledger again"),
        ]
        constraints = [
            models.CheckConstraint(
                name="verification_ends_with_a_time",
                condition=Q(state__in=["running", "broken_off"], finished_at__isnull=True)
                | Q(state__in=["proven", "repaired", "differs", "behind", "failed"], finished_at__isnull=False),
            )
        ]

    def __str__(self) -> str:
        return f"Ledger check of {self.started_at:%Y-%m-%d %H:%M:%S} UTC"
