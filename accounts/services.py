"""What can be done to users, accounts and keys. Each function is one decision; callers are admin, commands, API."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.db import connection, transaction
from django.db.models import F
from django.utils import timezone

from accounts import key_state, keys
from accounts.addresses import normalised
from accounts.models import Account, ApiKey, Membership, User
from config.errors import DomainError, InvalidRequest, NotFound

RPM_MAX = 100_000
MONTHLY_CAP_MAX = 10**14 - 1
NETWORKS_MAX = 100
LABEL_MAX = 100
GRACE_MAX = timedelta(days=7)


class DuplicateEmail(DomainError):
    """A user or account with this address exists."""

    status = 409


class KeyNotRotatable(DomainError):
    """409: the key has ended or has a successor already."""

    status = 409


class KeyEnded(DomainError):
    """409: the key was revoked."""

    status = 409


@dataclass(frozen=True, slots=True)
class IssuedKey:
    """A new key; `api_key` is the only copy of the whole key there will ever be.

    `pending` is True when it follows another key and Redis could not be told yet when that one ends.
    """

    key: ApiKey
    api_key: str
    pending: bool = False


@dataclass(frozen=True, slots=True)
class KeyChange:
    """A key with its new limits; `changed` names what differs as (before, after).

    `pending` is True while Redis could not be told yet.
    """

    key: ApiKey
    changed: dict[str, tuple[Any, Any]]
    pending: bool


@dataclass(frozen=True, slots=True)
class StateChange:
    """An account in its new state; `pending` is True while Redis could not be told of each of its keys yet."""

    account: Account
    pending: bool


def _valid_email(email: str) -> str:
    email = email.strip().lower()
    try:
        validate_email(email)
    except ValidationError as error:
        raise InvalidRequest(
            f"'{email}' is not an e-mail address.", details={"email": "not an e-mail address"}
        ) from error
    return email


def create_operator(*, email: str, password: str) -> User:
    """A user who may do everything in the operator admin. Raises `DuplicateEmail`, `InvalidRequest`."""
    email = _valid_email(email)
    if User.objects.filter(email=email).exists():
        raise DuplicateEmail(f"A user with the e-mail address {email} exists already.")
    return User.objects.create_superuser(email, password)


@transaction.atomic
def create_customer(*, name: str, email: str, password: str | None = None) -> Account:
    """A new account and its owner (an existing user with that address becomes the owner). No credits yet.

    Without a password the owner cannot log in until one is set.
    """
    email = _valid_email(email)
    if not name.strip():
        raise InvalidRequest("A customer needs a name.", details={"name": "required"})
    owner = User.objects.filter(email=email).first() or User.objects.create_user(email, password)
    account = Account.objects.create(name=name.strip(), email=email)
    account.refresh_from_db(fields=["number"])
    Membership.objects.create(account=account, user=owner, role=Membership.Role.OWNER)
    return account


def find_account(reference: str) -> Account:
    """The account with this UUID or this customer number. Raises `NotFound`."""
    reference = str(reference).strip()
    lookup = (
        {"number": int(reference)}
        if reference.isascii() and reference.isdigit() and len(reference) < 19
        else {"pk": reference}
    )
    try:
        return Account.objects.get(**lookup)
    except (Account.DoesNotExist, ValidationError) as error:
        raise NotFound(f"There is no account '{reference[:64]}'. Give its UUID or its customer number.") from error


def issue_key(
    *,
    account: Account,
    label: str = "",
    rpm: int | None = None,
    scopes: Sequence[str] = (),
    expires_at: datetime | None = None,
    networks: Sequence[str] = (),
    monthly_cap: int | None = None,
    actor: str = "",
) -> IssuedKey:
    """A new live key of that account. Raises `InvalidRequest`.

    `rpm`: None follows RATE_LIMIT_RPM, 0 is without limit. No `scopes`: all; no `networks` (CIDR): any address;
    `monthly_cap`: most credits the key and its successors may spend in a month.
    """
    limits = _valid_limits(
        rpm=rpm, scopes=scopes, expires_at=expires_at, networks=networks, monthly_cap=monthly_cap, now=timezone.now()
    )
    return _create_key(account, label=label.strip()[:LABEL_MAX], created_by=actor, **limits)


def _create_key(account: Account, **fields: Any) -> IssuedKey:
    api_key = keys.generate(account_number=account.number)
    presented = keys.parse(api_key, pepper=settings.KEY_PEPPER)
    assert presented is not None  # noqa: S101 - what generate makes, parse reads
    key = ApiKey.objects.create(public_id=presented.public_id, account=account, digest=presented.digest, **fields)
    return IssuedKey(key, api_key)


def _valid_limits(
    *,
    rpm: int | None,
    scopes: Sequence[str],
    expires_at: datetime | None,
    networks: Sequence[str],
    monthly_cap: int | None,
    now: datetime,
) -> dict[str, Any]:
    problems = {}
    if rpm is not None and not 0 <= rpm <= RPM_MAX:
        problems["rpm"] = f"0 (no limit) to {RPM_MAX} requests per minute"
    if unknown := sorted(set(scopes) - set(ApiKey.Scope.values)):
        problems["scopes"] = f"unknown: {', '.join(unknown)}; there are {', '.join(ApiKey.Scope.values)}"
    if expires_at is not None and expires_at <= now:
        problems["expires_at"] = "must lie in the future"
    if monthly_cap is not None and not 0 <= monthly_cap <= MONTHLY_CAP_MAX:
        problems["monthly_cap"] = f"0 to {MONTHLY_CAP_MAX} credits"
    kept = []
    for network in networks[:NETWORKS_MAX]:
        try:
            kept.append(normalised(network))
        except ValueError:
            problems["networks"] = (
                f"'{network.strip()[:64]}' is no address or network, as 192.0.2.7 or 192.0.2.0/24 are"
            )
            break
    if len(networks) > NETWORKS_MAX:
        problems["networks"] = f"at most {NETWORKS_MAX}"
    if problems:
        said = "; ".join(f"{name}: {reason}" for name, reason in problems.items())
        raise InvalidRequest(f"The key cannot have these limits: {said}.", details=problems)
    return {
        "rpm": rpm,
        "scopes": sorted(set(scopes)),
        "expires_at": expires_at,
        "networks": list(dict.fromkeys(kept)),
        "monthly_cap": monthly_cap,
    }


@transaction.atomic
def _succeed(public_id: str, *, grace: timedelta, now: datetime, actor: str) -> IssuedKey:
    old = ApiKey.objects.select_for_update(of=("self",)).select_related("account").filter(pk=public_id).first()
    if old is None:
        raise NotFound("There is no such key.")
    if old.state != ApiKey.State.ACTIVE or (old.expires_at is not None and old.expires_at <= now):
        raise KeyNotRotatable("Only an active key can be rotated. Issue a new one instead.")
    if old.successor_id is not None:
        raise KeyNotRotatable(f"This key was rotated already; its successor is {old.successor_id}.")
    issued = _create_key(
        old.account,
        label=old.label,
        rpm=old.rpm,
        scopes=old.scopes,
        expires_at=old.expires_at,
        networks=old.networks,
        monthly_cap=old.monthly_cap,
        family=old.family,
        created_by=actor,
    )
    ends = now + grace if old.expires_at is None else min(now + grace, old.expires_at)
    ApiKey.objects.filter(pk=public_id).update(successor=issued.key, expires_at=ends, version=F("version") + 1)
    return issued


def rotate_key(*, public_id: str, grace: timedelta, now: datetime, actor: str = "") -> IssuedKey:
    """A successor that inherits everything of the key, which itself lives on for `grace` (zero: ends now).

    Raises `NotFound`, `KeyNotRotatable`, `InvalidRequest` for a grace outside 0 to 7 days.
    """
    if not timedelta(0) <= grace <= GRACE_MAX:
        raise InvalidRequest("The grace period is 0 to 7 days.", details={"grace": "0 to 7 days"})
    issued = _succeed(public_id, grace=grace, now=now, actor=actor)
    return replace(issued, pending=not key_state.publish([public_id]))


def set_key_limits(
    *,
    public_id: str,
    label: str,
    rpm: int | None,
    scopes: Sequence[str],
    expires_at: datetime | None,
    networks: Sequence[str],
    monthly_cap: int | None,
    now: datetime,
) -> KeyChange:
    """What a key may do from its next call on. The cap is that of the whole family: predecessors that live on get it, too.

    Raises `NotFound`, `KeyEnded`, `InvalidRequest`; the limits mean what they mean to `issue_key`.
    """
    with transaction.atomic():
        family = _lock_family(public_id)
        key = family[public_id]
        if key.state != ApiKey.State.ACTIVE:
            raise KeyEnded("This key is revoked, and revoked is final. Issue a new one.")
        limits = _valid_limits(
            rpm=rpm,
            scopes=scopes,
            # What stands already may lie in the past: the other limits of an expired key can still be put right.
            expires_at=None if expires_at == key.expires_at else expires_at,
            networks=networks,
            monthly_cap=monthly_cap,
            now=now,
        )
        wanted = {**limits, "expires_at": expires_at, "label": label.strip()[:LABEL_MAX]}
        if key.successor_id is not None and (expires_at is None or expires_at > (key.expires_at or expires_at)):
            raise InvalidRequest(
                "This key was rotated: its grace period may be shortened only.",
                details={"expires_at": "at most what it is: the key has a successor"},
            )
        changed = {name: (getattr(key, name), value) for name, value in wanted.items() if getattr(key, name) != value}
        told = [public_id] if changed else []
        ApiKey.objects.filter(pk__in=told).update(**wanted, version=F("version") + 1)
        if "monthly_cap" in changed:
            others = [other.pk for other in family.values() if other.pk != public_id and other.state == key.state]
            ApiKey.objects.filter(pk__in=others).update(monthly_cap=monthly_cap, version=F("version") + 1)
            told += others
    pending = not key_state.publish(told)
    key.refresh_from_db()
    return KeyChange(key, changed, pending)


def _lock_family(public_id: str) -> dict[str, ApiKey]:
    """The key and those that it follows or that follow it, locked in the order of their ids. Raises `NotFound`."""
    family = ApiKey.objects.filter(pk=public_id).values("family")
    keys_of_family = ApiKey.objects.filter(family__in=family).order_by("public_id").select_for_update(no_key=True)
    found = {key.pk: key for key in keys_of_family}
    if public_id not in found:
        raise NotFound("There is no such key.")
    return found


def set_account_state(*, account: Account, state: str) -> StateChange:
    """Suspends or reactivates an account: its keys answer ACCOUNT_SUSPENDED, or work again, within a second."""
    with transaction.atomic():
        Account.objects.filter(pk=account.pk).update(state=Account.State(state))
        _lock_keys(account)
        ApiKey.objects.filter(account=account).update(version=F("version") + 1)
    told = key_state.publish_account(account.pk)
    account.refresh_from_db(fields=["state"])
    return StateChange(account, pending=not told)


def _lock_keys(account: Account) -> None:
    """Locks an account's keys in the order of their ids, as every writer of several keys does."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT 1 FROM accounts_apikey WHERE account_id = %s ORDER BY public_id FOR NO KEY UPDATE", [account.pk]
        )


def note_uses(uses: Mapping[str, datetime]) -> None:
    """Remembers when keys were last used, `uses` being public id → time; written at most once a minute for each key."""
    if not uses:
        return
    with connection.cursor() as cursor:
        cursor.execute(
            # Locked in the order of their ids: drains do this at the same time, for the same keys.
            "WITH due AS (SELECT k.public_id, t.at FROM accounts_apikey k"
            " JOIN unnest(%s::varchar[], %s::timestamptz[]) AS t(id, at) ON k.public_id = t.id"
            " WHERE k.last_used_at IS NULL OR k.last_used_at < t.at - interval '1 minute'"
            " ORDER BY k.public_id FOR NO KEY UPDATE OF k)"
            " UPDATE accounts_apikey k SET last_used_at = due.at FROM due WHERE k.public_id = due.public_id",
            [list(uses), list(uses.values())],
        )
