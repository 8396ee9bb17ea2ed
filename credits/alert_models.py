"""Alerts: what a customer asked to be told, what was told and when, and each attempt to deliver it.

`credits.models` imports these, for that is where Django looks for an app's models.
"""

import uuid

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q
from django.utils import timezone

from accounts.models import Account

URL_LENGTH_MAX = 2000
ERROR_LENGTH_MAX = 300


class AlertSettings(models.Model):
    """What an account wants to be told. None follows the setting of that name for everybody, 0 switches the alert off.

    `webhook_salt` and the pepper of KEY_PEPPER make the signing secret, so the database alone cannot sign.
    """

    account = models.OneToOneField(Account, on_delete=models.CASCADE, primary_key=True, related_name="alert_settings")
    low_credits = models.BigIntegerField(null=True, blank=True)
    low_percent = models.SmallIntegerField(null=True, blank=True)
    expiring_days = models.SmallIntegerField(null=True, blank=True)
    # None: the account's own address. An empty list: no e-mail.
    emails = ArrayField(models.EmailField(), null=True, blank=True)
    webhook_url = models.CharField(max_length=URL_LENGTH_MAX, blank=True)
    webhook_salt = models.CharField(max_length=64, blank=True, editable=False)
    webhook_previous_salt = models.CharField(max_length=64, blank=True, editable=False)
    webhook_previous_until = models.DateTimeField(null=True, editable=False)
    updated_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        verbose_name = "alert settings"
        verbose_name_plural = "alert settings"
        constraints = [
            models.CheckConstraint(
                name="alert_credits_not_negative", condition=Q(low_credits__isnull=True) | Q(low_credits__gte=0)
            ),
            models.CheckConstraint(
                name="alert_percent_is_one",
                condition=Q(low_percent__isnull=True) | Q(low_percent__gte=0, low_percent__lt=100),
            ),
            models.CheckConstraint(
                name="alert_webhook_can_be_signed", condition=Q(webhook_url="") | ~Q(webhook_salt="")
            ),
        ]

    def __str__(self) -> str:
        return f"Alert settings of {self.account}"


class AlertState(models.Model):
    """Where an account stands against its thresholds, and the figures it was last looked at with.

    A threshold is armed, or fired since the balance came down to it; `…_crossings` counts how often it fired. `…_lowest` is
    the least balance seen since: only credits that came in lift the balance above it.
    """

    account = models.OneToOneField(Account, on_delete=models.CASCADE, primary_key=True, related_name="alert_state")
    balance = models.BigIntegerField(default=-1)
    credit_seq = models.BigIntegerField(default=-1)
    low_credits = models.BigIntegerField(default=-1)
    low_percent = models.SmallIntegerField(default=-1)
    credits_fired = models.BooleanField(default=False)
    credits_crossings = models.BigIntegerField(default=0)
    percent_fired = models.BooleanField(default=False)
    percent_crossings = models.BigIntegerField(default=0)
    percent_lowest = models.BigIntegerField(default=0)

    FIGURES = (
        "balance",
        "credit_seq",
        "low_credits",
        "low_percent",
        "credits_fired",
        "credits_crossings",
        "percent_fired",
        "percent_crossings",
        "percent_lowest",
    )

    def __str__(self) -> str:
        return f"Alert state of account {self.account_id}"


class Alert(models.Model):
    """Something a customer was told, with the figures of that moment. One row an event, never changed."""

    class Kind(models.TextChoices):
        LOW_CREDITS = "low_credits", "low balance (credits)"
        LOW_PERCENT = "low_percent", "low balance (percent)"
        EXPIRING = "expiring", "credits expiring soon"
        TEST = "test"

    event_id = models.UUIDField(unique=True, default=uuid.uuid4, editable=False)
    account = models.ForeignKey(Account, on_delete=models.PROTECT, related_name="alerts")
    kind = models.CharField(max_length=12, choices=Kind)
    # The how-manieth crossing of that threshold: the same one cannot be told twice.
    crossing = models.BigIntegerField(null=True)
    threshold = models.BigIntegerField(null=True)
    balance = models.BigIntegerField()
    # What a percentage is of; what expires, in how many grants, the first of them when.
    granted = models.BigIntegerField(null=True)
    expiring = models.BigIntegerField(null=True)
    expiring_grants = models.IntegerField(null=True)
    expires_at = models.DateTimeField(null=True)
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(
                fields=["account", "kind", "crossing"],
                name="alert_once_per_crossing",
                condition=Q(crossing__isnull=False),
            ),
            models.CheckConstraint(
                name="alert_low_has_its_crossing",
                condition=Q(kind__in=["low_credits", "low_percent"], crossing__isnull=False)
                | Q(kind__in=["expiring", "test"], crossing__isnull=True),
            ),
        ]
        indexes = [
            models.Index(fields=["account", "-id"], name="alert_log"),
            models.Index(fields=["kind", "-id"], name="alert_kinds"),
        ]

    def __str__(self) -> str:
        return f"{self.get_kind_display().capitalize()} at {self.balance:,} credits"


class ExpiryNotice(models.Model):
    """That a grant's expiry was announced so many days ahead: once per grant and window."""

    alert = models.ForeignKey(Alert, on_delete=models.PROTECT, related_name="notices")
    grant = models.ForeignKey("credits.CreditGrant", on_delete=models.PROTECT, related_name="expiry_notices")
    days = models.SmallIntegerField()
    remaining = models.BigIntegerField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["grant", "days"], name="expiry_notice_once_per_window")]

    def __str__(self) -> str:
        return f"{self.remaining:,} credits of {self.grant_id}, {self.days} days ahead"


class AlertDelivery(models.Model):
    """An alert on its way to one address. `claim` is the attempt that may write how it ended."""

    class Channel(models.TextChoices):
        EMAIL = "email", "e-mail"
        WEBHOOK = "webhook"

    class State(models.TextChoices):
        PENDING = "pending"
        FAILED = "failed", "failed, will be tried again"
        DELIVERED = "delivered"
        GAVE_UP = "gave_up", "gave up"

    alert = models.ForeignKey(Alert, on_delete=models.PROTECT, related_name="deliveries")
    channel = models.CharField(max_length=7, choices=Channel)
    target = models.CharField(max_length=URL_LENGTH_MAX)
    state = models.CharField(max_length=9, choices=State, default=State.PENDING)
    attempts = models.PositiveSmallIntegerField(default=0)
    claim = models.UUIDField(null=True, editable=False)
    next_attempt_at = models.DateTimeField(default=timezone.now)
    give_up_at = models.DateTimeField()
    response_status = models.PositiveSmallIntegerField(null=True)
    last_error = models.CharField(max_length=ERROR_LENGTH_MAX, blank=True)
    finished_at = models.DateTimeField(null=True)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        verbose_name_plural = "alert deliveries"
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(fields=["alert", "channel", "target"], name="alert_delivery_once"),
            models.CheckConstraint(
                name="alert_delivery_ends_once",
                condition=Q(state__in=["pending", "failed"], finished_at__isnull=True)
                | Q(state__in=["delivered", "gave_up"], finished_at__isnull=False),
            ),
        ]
        indexes = [
            models.Index(
                fields=["next_attempt_at"], name="alert_delivery_due", condition=Q(state__in=["pending", "failed"])
            ),
            models.Index(fields=["-id"], name="alert_delivery_ended_badly", condition=Q(state="gave_up")),
        ]

    def __str__(self) -> str:
        return f"{self.get_channel_display()} to {self.target[:80]}: {self.get_state_display()}"
