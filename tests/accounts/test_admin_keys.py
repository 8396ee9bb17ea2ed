"""Keys in the operator admin: what each form does, what it refuses, and who may open it."""

import re
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.urls import reverse
from django.utils import timezone

from accounts import services
from accounts.models import ApiKey
from credits import drain, loading, metering
from credits.refusals import AddressNotAllowed, InsufficientCredits, InsufficientScope, KeyExpired
from tests.factories import Customer, make_account, make_customer, make_usage
from tests.operators import client_of, make_operator, make_staff, page_of, text_of, typed
from tests.outages import redis_away

pytestmark = pytest.mark.usefixtures("stores")

operator = cache(make_operator)
LIST = "/admin/accounts/apikey/"
WHOLE_KEY = re.compile(r"mh_live_[0-9a-z]{13}_[0-9A-Za-z]{28}")
LIMITS = {
    "label": "nightly export",
    "scopes": ["search", "account"],
    "expires_at": "2031-05-06T07:08",
    "networks": "10.0.0.9/8\n203.0.113.7, 2001:db8::/32",
    "monthly_cap": "500",
    "rpm": "90",
}
KEPT: dict[str, Any] = {
    "label": "nightly export",
    "scopes": ["account", "search"],
    "expires_at": datetime(2031, 5, 6, 7, 8, tzinfo=UTC),
    "networks": ["10.0.0.0/8", "203.0.113.7", "2001:db8::/32"],
    "monthly_cap": 500,
    "rpm": 90,
}


def page(key_id: str, action: str) -> str:
    return reverse(f"admin:accounts_apikey_{action}", args=[key_id])


def limits_of(key_id: str) -> dict[str, Any]:
    return dict(ApiKey.objects.filter(pk=key_id).values(*KEPT).get())


def spend(api_key: str, total: int) -> None:
    hold = metering.admit(api_key=api_key, endpoint="query", amount=total)
    metering.settle(hold, total=total, usage=make_usage())


def test_issue_key_takes_every_limit() -> None:
    account = make_account()
    response = client_of(operator()).post(page_of(account, "issue_key"), LIMITS)
    key = ApiKey.objects.get(account=account)
    assert limits_of(key.pk) == KEPT
    assert "203.0.113.7" in text_of(response)


def test_change_limits_shows_what_stands_and_keeps_it_when_nothing_is_changed() -> None:
    issued = services.issue_key(account=make_account(), **KEPT)
    client = client_of(operator())
    form = client.get(page(issued.key.pk, "change_limits"))
    shown = {name: typed(form, name) for name in ("label", "expires_at", "networks", "monthly_cap", "rpm")}
    assert shown == {
        "label": "nightly export",
        "expires_at": "2031-05-06T07:08:00",
        "networks": "10.0.0.0/8\n203.0.113.7\n2001:db8::/32",
        "monthly_cap": "500",
        "rpm": "90",
    }
    response = client.post(page(issued.key.pk, "change_limits"), {**shown, "scopes": KEPT["scopes"]}, follow=True)
    assert "had these limits already" in text_of(response)
    assert limits_of(issued.key.pk) == KEPT


def test_change_limits_sets_every_limit_and_writes_it_into_the_history() -> None:
    customer = make_customer(rpm=7)
    response = client_of(operator()).post(page(customer.key_id, "change_limits"), LIMITS, follow=True)
    assert limits_of(customer.key_id) == KEPT
    assert "are changed" in text_of(response)
    said = LogEntry.objects.get(object_id=customer.key_id).get_change_message()
    assert "rpm: 7 → 90" in said
    assert "networks: any → 10.0.0.0/8, 203.0.113.7, 2001:db8::/32" in said


def test_changed_limits_hold_from_the_next_call_on() -> None:
    customer = make_customer(credits=5)
    metering.identify(api_key=customer.api_key, endpoint="credits")
    client = client_of(operator())
    client.post(page(customer.key_id, "change_limits"), {"scopes": ["search"]})
    with pytest.raises(InsufficientScope):
        metering.identify(api_key=customer.api_key, endpoint="credits")
    client.post(page(customer.key_id, "change_limits"), {"networks": "10.0.0.0/8"})
    with pytest.raises(AddressNotAllowed):
        metering.identify(api_key=customer.api_key, endpoint="credits", address="192.0.2.1")


def test_a_first_cap_counts_what_was_spent_since_the_month_began() -> None:
    customer = make_customer(credits=100)
    spend(customer.api_key, 8)
    drain.drain_once()
    # A load does not rebuild the counters of families without a cap.
    loading.load_account(customer.number, even_if_usable=True)
    client_of(operator()).post(page(customer.key_id, "change_limits"), {"monthly_cap": "10"})
    with pytest.raises(InsufficientCredits):
        metering.admit(api_key=customer.api_key, endpoint="query", amount=3)
    spend(customer.api_key, 2)


@pytest.mark.parametrize(
    ("change", "field", "said"),
    [
        ({"networks": "10.0.0.0/33"}, "networks", "10.0.0.0/33"),
        ({"networks": "home"}, "networks", "192.0.2.0/24"),
        ({"expires_at": "2020-01-01T00:00"}, "expires_at", ""),
        ({"expires_at": "tomorrow"}, "expires_at", "Enter a valid date/time."),
        ({"monthly_cap": "-1"}, "monthly_cap", ""),
        ({"rpm": "100001"}, "rpm", ""),
        ({"scopes": ["everything"]}, "scopes", "everything"),
        ({"label": "x" * 101}, "label", ""),
    ],
)
@pytest.mark.parametrize("form", ["issue", "change"])
def test_a_limit_that_cannot_be_is_named_and_the_rest_stays_typed(
    form: str, change: dict[str, Any], field: str, said: str
) -> None:
    customer = make_customer(rpm=7)
    url = page_of(customer.account, "issue_key") if form == "issue" else page(customer.key_id, "change_limits")
    response = client_of(operator()).post(url, {**LIMITS, **change})
    assert list(response.context["form"].errors) == [field]
    assert said in str(response.context["form"].errors[field])
    assert typed(response, "rpm") == change.get("rpm", "90")
    assert ApiKey.objects.filter(account=customer.account).count() == 1
    assert limits_of(customer.key_id)["rpm"] == 7


def test_change_limits_without_redis_says_pending() -> None:
    customer = make_customer()
    client = client_of(operator())
    with redis_away():
        response = client.post(page(customer.key_id, "change_limits"), {"rpm": "8"}, follow=True)
    assert "pending: Redis could not be told yet" in text_of(response)
    assert limits_of(customer.key_id)["rpm"] == 8


def test_rotate_shows_the_successor_once_and_lets_the_old_key_live_on() -> None:
    customer = make_customer(credits=5)
    client = client_of(operator())
    response = client.post(page(customer.key_id, "rotate"), {"grace": "24"})
    (shown,) = set(WHOLE_KEY.findall(response.content.decode()))
    old = ApiKey.objects.get(pk=customer.key_id)
    assert old.expires_at is not None
    assert timedelta(hours=23) < old.expires_at - timezone.now() <= timedelta(hours=24)
    assert metering.identify(api_key=shown, endpoint="credits").key_id == old.successor_id
    assert metering.identify(api_key=customer.api_key, endpoint="credits").key_id == customer.key_id
    assert "no-store" in response.headers["Cache-Control"]
    assert WHOLE_KEY.findall(client.get(page(customer.key_id, "change")).content.decode()) == []
    assert shown.rsplit("_", 1)[1] not in str(list(LogEntry.objects.filter(object_id=customer.key_id).values()))


def test_rotate_now_ends_the_old_key() -> None:
    customer = make_customer(credits=5)
    client_of(operator()).post(page(customer.key_id, "rotate"), {"grace": "0"})
    with pytest.raises(KeyExpired):
        metering.identify(api_key=customer.api_key, endpoint="credits")


@pytest.mark.parametrize("grace", ["", "2", "-1", "169"])
def test_rotate_takes_only_the_graces_it_offers(grace: str) -> None:
    customer = make_customer()
    response = client_of(operator()).post(page(customer.key_id, "rotate"), {"grace": grace})
    assert list(response.context["form"].errors) == ["grace"]
    assert ApiKey.objects.filter(account=customer.account).count() == 1


def test_a_rotated_key_is_not_rotated_again() -> None:
    customer = make_customer()
    client = client_of(operator())
    client.post(page(customer.key_id, "rotate"), {"grace": "24"})
    response = client.post(page(customer.key_id, "rotate"), {"grace": "24"})
    assert "rotated already" in text_of(response)
    assert ApiKey.objects.filter(account=customer.account).count() == 2


def test_revoke_keeps_the_reason() -> None:
    customer = make_customer()
    client_of(operator()).post(page(customer.key_id, "revoke"), {"confirmation": customer.key_id, "reason": "leaked"})
    assert ApiKey.objects.get(pk=customer.key_id).revoked_reason == "leaked"


def state_shown(key: ApiKey) -> str:
    return ApiKey.objects.get(pk=key.pk).shown_state(now=timezone.now())


def test_the_states_of_a_key() -> None:
    key = ApiKey.objects.get(pk=make_customer().key_id)
    assert state_shown(key) == "active"
    services.rotate_key(public_id=key.pk, grace=timedelta(hours=1), now=timezone.now())
    assert state_shown(key) == "in grace"
    ApiKey.objects.filter(pk=key.pk).update(expires_at=timezone.now())
    assert state_shown(key) == "expired"
    ApiKey.objects.filter(pk=key.pk).update(state="revoked", revoked_at=timezone.now(), version=9, published_version=8)
    assert state_shown(key) == "pending"
    ApiKey.objects.filter(pk=key.pk).update(published_version=9)
    assert state_shown(key) == "revoked"


def test_the_list_shows_what_is_spent_of_the_cap() -> None:
    account = make_account(credits=5000)
    issued = services.issue_key(account=account, rpm=0, monthly_cap=2500)
    spend(issued.api_key, 1234)
    text = text_of(client_of(operator()).get(LIST, {"q": issued.key.pk}))
    assert "1,234 of 2,500" in text


def test_the_list_says_that_spending_is_unknown_without_redis() -> None:
    issued = services.issue_key(account=make_account(), monthly_cap=2500)
    with redis_away():
        text = text_of(client_of(operator()).get(LIST, {"q": issued.key.pk}))
    assert "unknown of 2,500" in text


# Who may do what: `support` looks after keys, `finance` after money and sees keys, nobody else gets in.
ROLES: dict[str, tuple[str, ...] | None] = {
    "support": ("accounts.view_account", "accounts.view_apikey", "accounts.add_apikey", "accounts.change_apikey"),
    "finance": ("accounts.view_account", "accounts.view_apikey", "credits.view_creditgrant", "credits.add_creditgrant"),
    "anonymous": None,
}
MAY = {"admin": 200, "support": 200, "finance": 403, "anonymous": 302}
ACTIONS = ["issue_key", "change_limits", "rotate", "revoke"]


def client_as(role: str) -> Any:
    if role == "admin":
        return client_of(operator())
    permissions = ROLES[role]
    return client_of(None if permissions is None else make_staff(*permissions))


def action_page(customer: Customer, action: str) -> str:
    return page_of(customer.account, action) if action == "issue_key" else page(customer.key_id, action)


@pytest.mark.parametrize("role", MAY)
@pytest.mark.parametrize("action", ACTIONS)
def test_who_may_open_the_pages_of_keys(action: str, role: str) -> None:
    assert client_as(role).get(action_page(make_customer(), action)).status_code == MAY[role]


@pytest.mark.parametrize("role", ["finance", "anonymous"])
@pytest.mark.parametrize("action", ACTIONS)
def test_who_may_not_open_a_page_cannot_post_to_it(action: str, role: str) -> None:
    customer = make_customer(rpm=7)
    before = list(ApiKey.objects.filter(account=customer.account).values())
    data = {"confirmation": customer.key_id, "grace": "0", "rpm": "9"}
    assert client_as(role).post(action_page(customer, action), data).status_code == MAY[role]
    assert list(ApiKey.objects.filter(account=customer.account).values()) == before


def test_who_may_change_keys_and_not_make_them_cannot_rotate() -> None:
    staff = make_staff("accounts.view_apikey", "accounts.change_apikey")
    assert client_of(staff).get(page(make_customer().key_id, "rotate")).status_code == 403
