"""Who may use Meterhouse and on whose credits: users, accounts, memberships, API keys.

An `Account` owns credits and keys; people reach it through a `Membership`. The columns `balance`, `reserve`, `epoch`,
`drained_seq` and `credit_seq` belong to the credit protocol (credits/README.md) and change only there.
"""

import uuid
from datetime import datetime
from typing import Any, ClassVar

from django.contrib.auth.models import AbstractBaseUser, BaseUserManager, PermissionsMixin
from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models.functions import Lower
from django.utils import timezone

from accounts.keys import PREFIX


class UserManager(BaseUserManager["User"]):
    """Creates users by e-mail address, the only name they have."""

    def create_user(self, email: str, password: str | None = None, **fields: Any) -> "User":
        user = self.model(email=self.normalize_email(email).lower(), **fields)
        user.set_password(password)
        user.save(using=self._db)
        return user

    def create_superuser(self, email: str, password: str | None = None, **fields: Any) -> "User":
        return self.create_user(email, password, **{**fields, "is_staff": True, "is_superuser": True})

    def get_by_natural_key(self, username: str | None) -> "User":
        return self.get(email__iexact=username)


class User(AbstractBaseUser, PermissionsMixin):
    """A person who logs in with an e-mail address: an operator (`is_staff`) or a member of accounts."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    email = models.EmailField(unique=True, error_messages={"unique": "A user with this e-mail address exists already."})
    name = models.CharField(max_length=200, blank=True)
    is_staff = models.BooleanField("operator", default=False, help_text="May enter the operator admin.")
    is_active = models.BooleanField(default=True, help_text="Uncheck instead of deleting: the ledger names this user.")
    date_joined = models.DateTimeField(default=timezone.now, editable=False)

    objects: ClassVar[UserManager] = UserManager()

    USERNAME_FIELD = "email"
    EMAIL_FIELD = "email"
    REQUIRED_FIELDS: ClassVar[list[str]] = []

    class Meta:
        ordering = ["email"]
        constraints = [models.UniqueConstraint(Lower("email"), name="user_email_unique_whatever_its_case")]

    def __str__(self) -> str:
        return self.email


class Account(models.Model):
    """A customer: owns credits and keys. `number` is its short customer number, in keys and on statements."""

    class State(models.TextChoices):
        ACTIVE = "active"
        SUSPENDED = "suspended"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    number = models.BigIntegerField(
        "customer number",
        unique=True,
        editable=False,
        db_default=models.Func(models.Value("accounts_account_number"), function="nextval"),
    )
    name = models.CharField(max_length=200)
    email = models.EmailField(help_text="Where statements and alerts go.")
    state = models.CharField(max_length=10, choices=State, default=State.ACTIVE)
    balance = models.BigIntegerField(default=0, editable=False)
    # The part of the balance that Redis does not have: it is spent while Redis is away.
    reserve = models.BigIntegerField(default=0, editable=False)
    epoch = models.BigIntegerField(default=0, editable=False)
    drained_seq = models.BigIntegerField(default=0, editable=False)
    credit_seq = models.BigIntegerField(default=0, editable=False)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    members = models.ManyToManyField(User, through="Membership", related_name="accounts")

    class Meta:
        ordering = ["number"]
        constraints = [
            models.CheckConstraint(condition=models.Q(balance__gte=0), name="account_balance_not_negative"),
            models.CheckConstraint(
                condition=models.Q(reserve__gte=0, reserve__lte=models.F("balance")),
                name="account_reserve_within_balance",
            ),
            models.CheckConstraint(condition=models.Q(number__gte=1), name="account_number_positive"),
        ]

    def __str__(self) -> str:
        return f"{self.name} (customer {self.number})"


class Membership(models.Model):
    """A user's place in an account."""

    class Role(models.TextChoices):
        OWNER = "owner"
        MEMBER = "member"
        READ_ONLY = "read_only", "read-only"

    account = models.ForeignKey(Account, on_delete=models.CASCADE, related_name="memberships")
    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="memberships")
    role = models.CharField(max_length=10, choices=Role, default=Role.MEMBER)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["account", "user"], name="membership_once_per_account")]

    def __str__(self) -> str:
        return f"{self.user} in {self.account} ({self.get_role_display()})"


class ApiKey(models.Model):
    """An API key as it is remembered: its public id and a digest, never the secret."""

    class State(models.TextChoices):
        ACTIVE = "active"
        REVOKED = "revoked"

    class Scope(models.TextChoices):
        SEARCH = "search", "search: query, search, person, fields"
        DOWNLOAD = "download", "download: CSV"
        ACCOUNT = "account", "account: credits and usage"

    public_id = models.CharField("key", primary_key=True, max_length=32, editable=False)
    account = models.ForeignKey(Account, on_delete=models.PROTECT, related_name="api_keys")
    digest = models.CharField(max_length=64, editable=False)
    label = models.CharField(max_length=100, blank=True, help_text="What this key is for, e.g. 'nightly export'.")
    state = models.CharField(max_length=10, choices=State, default=State.ACTIVE, editable=False)
    # Counts changes, so that Redis never goes back; and the last one that Redis is known to have been told.
    version = models.BigIntegerField(default=1, editable=False)
    published_version = models.BigIntegerField(default=1, editable=False)
    rpm = models.PositiveIntegerField(
        "requests per minute",
        null=True,
        blank=True,
        help_text="Empty: follows the setting RATE_LIMIT_RPM. 0: no limit.",
    )
    scopes = ArrayField(
        models.CharField(max_length=10, choices=Scope), default=list, blank=True, help_text="Empty: all of them."
    )
    expires_at = models.DateTimeField(null=True, blank=True, help_text="Empty: never.")
    networks = ArrayField(
        models.CharField(max_length=43),
        default=list,
        blank=True,
        help_text="Addresses or networks (CIDR) that may use the key. Empty: all.",
    )
    monthly_cap = models.BigIntegerField(
        "credits per month",
        null=True,
        blank=True,
        help_text="Most credits this key and its successors may spend in a month (UTC). Empty: no cap. 0: nothing.",
    )
    # Keys that follow each other by rotation: the monthly cap counts them together.
    family = models.UUIDField(default=uuid.uuid4, editable=False, db_index=True)
    successor = models.OneToOneField(
        "self", on_delete=models.PROTECT, null=True, editable=False, related_name="predecessor"
    )
    last_used_at = models.DateTimeField(null=True, editable=False)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    created_by = models.CharField(max_length=254, blank=True, editable=False)
    revoked_at = models.DateTimeField(null=True, editable=False)
    revoked_by = models.CharField(max_length=254, blank=True, editable=False)
    revoked_reason = models.CharField("reason", max_length=255, blank=True, editable=False)

    class Meta:
        verbose_name = "API key"
        ordering = ["-created_at"]
        indexes = [
            models.Index(
                fields=["public_id"],
                name="api_key_unpublished",
                condition=models.Q(version__gt=models.F("published_version")),
            )
        ]
        constraints = [
            models.CheckConstraint(
                name="api_key_revoked_has_its_time",
                condition=models.Q(state="active", revoked_at__isnull=True)
                | models.Q(state="revoked", revoked_at__isnull=False),
            ),
            models.CheckConstraint(
                name="api_key_rpm_bounded", condition=models.Q(rpm__isnull=True) | models.Q(rpm__lte=100_000)
            ),
            models.CheckConstraint(
                name="api_key_cap_not_negative",
                condition=models.Q(monthly_cap__isnull=True) | models.Q(monthly_cap__gte=0),
            ),
        ]

    def __str__(self) -> str:
        return self.masked

    @property
    def masked(self) -> str:
        """The key as it may be shown: `mh_live_<id>_…`."""
        return f"{PREFIX}{self.public_id}_…"

    def shown_state(self, *, now: datetime) -> str:
        """active; in grace (rotated, not ended yet); expired; revoked; or pending: revoked, and Redis does not know yet."""
        if self.state == self.State.REVOKED:
            return "pending" if self.version > self.published_version else "revoked"
        if self.expires_at is not None and self.expires_at <= now:
            return "expired"
        return "in grace" if self.successor_id is not None else "active"
