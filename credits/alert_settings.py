"""What a customer wants to be told, and where."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.db import transaction

from accounts.models import Account
from config.errors import InvalidRequest
from credits import webhook_addresses, webhooks
from credits.alert_models import AlertSettings
from credits.amounts import CREDITS_MAX
from credits.webhook_addresses import Resolver, WebhookAddressRefused

PERCENT_MAX = 99
EXPIRING_DAYS_MAX = 90
EMAILS_MAX = 10
OLD_SECRET_KEPT = timedelta(hours=24)


class NoWebhook(InvalidRequest):
    """400: there is no webhook whose secret could be renewed."""


@dataclass(frozen=True, slots=True)
class Preferences:
    """What counts for an account: its own choice or, where it has made none, everybody's. 0 is off."""

    low_credits: int
    low_percent: int
    expiring_days: int
    emails: list[str]
    webhook_url: str
    previous_secret_until: datetime | None


@dataclass(frozen=True, slots=True)
class Saved:
    """Settings as they were saved; `secret` is a new signing secret, the only time it is told."""

    preferences: Preferences
    secret: str | None


def preferences_of(account: Account) -> Preferences:
    """What counts for the account now."""
    chosen = AlertSettings.objects.filter(account=account).first() or AlertSettings(account=account)
    return _preferences(account, chosen)


def _preferences(account: Account, chosen: AlertSettings) -> Preferences:
    return Preferences(
        low_credits=settings.ALERT_LOW_CREDITS if chosen.low_credits is None else chosen.low_credits,
        low_percent=settings.ALERT_LOW_PERCENT if chosen.low_percent is None else chosen.low_percent,
        expiring_days=settings.ALERT_EXPIRING_DAYS if chosen.expiring_days is None else chosen.expiring_days,
        emails=[account.email] if chosen.emails is None else list(chosen.emails),
        webhook_url=chosen.webhook_url,
        previous_secret_until=chosen.webhook_previous_until if chosen.webhook_url else None,
    )


def save(
    *,
    account: Account,
    low_credits: int | None,
    low_percent: int | None,
    expiring_days: int | None,
    emails: Sequence[str] | None,
    webhook_url: str | None,
    now: datetime,
    resolver: Resolver = webhook_addresses.resolve,
) -> Saved:
    """Replaces an account's alert settings. None follows everybody's setting (e-mails: the account's address), 0 is off; a
    webhook of None stays as it is, and '' removes it.

    A webhook's host is resolved here, so that a wrong address is found now, and again at each attempt. A new webhook gets a
    signing secret. Raises `InvalidRequest`, `WebhookAddressRefused`.
    """
    _check_range("low_credits", low_credits, CREDITS_MAX)
    _check_range("low_percent", low_percent, PERCENT_MAX)
    _check_range("expiring_days", expiring_days, EXPIRING_DAYS_MAX)
    addresses = None if emails is None else _valid_emails(emails)
    if webhook_url:
        check_webhook(webhook_url, resolver=resolver)
    with transaction.atomic():
        chosen = _locked(account)
        chosen.low_credits, chosen.low_percent, chosen.expiring_days = low_credits, low_percent, expiring_days
        chosen.emails, chosen.updated_at = addresses, now
        chosen.webhook_url = chosen.webhook_url if webhook_url is None else webhook_url
        made = bool(webhook_url) and not chosen.webhook_salt
        if made:
            chosen.webhook_salt = webhooks.new_salt()
        if not chosen.webhook_url:
            chosen.webhook_salt = chosen.webhook_previous_salt = ""
            chosen.webhook_previous_until = None
        chosen.save()
    return Saved(_preferences(account, chosen), webhooks.secret_of(chosen.webhook_salt) if made else None)


def rotate_secret(*, account: Account, now: datetime) -> Saved:
    """A new signing secret; for 24 hours each request is signed with the old one too. Raises `NoWebhook`."""
    with transaction.atomic():
        chosen = _locked(account)
        if not chosen.webhook_url:
            raise NoWebhook(
                "There is no webhook. Set webhook_url first; its secret comes with the answer.",
                details={"webhook_url": "not set"},
            )
        chosen.webhook_previous_salt, chosen.webhook_previous_until = chosen.webhook_salt, now + OLD_SECRET_KEPT
        chosen.webhook_salt, chosen.updated_at = webhooks.new_salt(), now
        chosen.save()
    return Saved(_preferences(account, chosen), webhooks.secret_of(chosen.webhook_salt))


def valid_salts(chosen: AlertSettings, *, now: datetime) -> list[str]:
    """The salts to sign with now: the present one first, then the one before it while it still counts."""
    until = chosen.webhook_previous_until
    old = [chosen.webhook_previous_salt] if until is not None and now < until else []
    return [chosen.webhook_salt, *old]


def check_webhook(url: str, *, resolver: Resolver = webhook_addresses.resolve) -> None:
    """Raises `WebhookAddressRefused` for a URL that nothing would be sent to as things are."""
    try:
        webhook_addresses.public_addresses(webhook_addresses.parse(url), resolver=resolver)
    except webhook_addresses.NameUnresolved as error:
        raise WebhookAddressRefused(str(error)) from error


def _locked(account: Account) -> AlertSettings:
    AlertSettings.objects.bulk_create([AlertSettings(account=account)], ignore_conflicts=True)
    return AlertSettings.objects.select_for_update().get(account=account)


def _check_range(field: str, value: int | None, most: int) -> None:
    if value is not None and not 0 <= value <= most:
        reason = f"a whole number from 0 (off) to {most}, or null for the default"
        raise InvalidRequest(f"{field} must be {reason}.", details={field: reason})


def _valid_emails(emails: Sequence[str]) -> list[str]:
    if len(emails) > EMAILS_MAX:
        raise InvalidRequest(f"At most {EMAILS_MAX} e-mail addresses.", details={"emails": f"at most {EMAILS_MAX}"})
    valid = [email.strip().lower() for email in emails]
    for email in valid:
        try:
            validate_email(email)
        except ValidationError as error:
            reason = f"'{email[:254]}' is not an e-mail address"
            raise InvalidRequest(f"{reason}.", details={"emails": reason}) from error
    return list(dict.fromkeys(valid))
