"""Customers, keys and users in the operator admin: each action does what its button says."""

import re
from functools import cache

import pytest
from django.contrib.admin.models import LogEntry
from django.core.cache import cache as django_cache
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from accounts.models import Account, ApiKey, Membership, User
from accounts.services import set_account_state
from credits import metering, refusals
from credits.services import TOP_UP_MAX
from tests.factories import make_account, make_customer
from tests.operators import client_of, make_member, make_operator, make_staff, page_of, text_of
from tests.outages import redis_away

pytestmark = pytest.mark.usefixtures("stores")

operator = cache(make_operator)
ADD = "/admin/accounts/account/add/"
LIST = "/admin/accounts/account/"
WHOLE_KEY = re.compile(r"mh_live_[0-9a-z]{13}_[0-9A-Za-z]{28}")


def members_of(account: Account) -> dict[str, object]:
    """The members as the page sends them back, unchanged."""
    rows = list(Membership.objects.filter(account=account))
    data: dict[str, object] = {"memberships-TOTAL_FORMS": len(rows), "memberships-INITIAL_FORMS": len(rows)}
    for position, row in enumerate(rows):
        prefix = f"memberships-{position}"
        data |= {f"{prefix}-id": row.pk, f"{prefix}-account": str(account.pk)}
        data |= {f"{prefix}-user": str(row.user_id), f"{prefix}-role": row.role}
    return data


def test_create_customer_makes_an_account_and_its_owner() -> None:
    email = f"new-{make_account().number}@example.com"
    response = client_of(operator()).post(ADD, {"name": "Northwind", "email": email})
    account = Account.objects.get(email=email)
    assert (response.status_code, response.headers["Location"]) == (302, page_of(account))
    assert (account.name, account.balance, account.members.get().email) == ("Northwind", 0, email)
    assert LogEntry.objects.get(object_id=str(account.pk)).user == operator()


def test_create_customer_says_what_is_wrong_and_keeps_what_was_typed() -> None:
    response = client_of(operator()).post(ADD, {"name": "Kestrel", "email": "not an address"})
    assert response.context["form"].errors == {"email": ["Enter a valid email address."]}
    assert response.context["form"]["name"].value() == "Kestrel"


def test_create_customer_needs_the_permission() -> None:
    response = client_of(make_staff("accounts.view_account")).post(ADD, {"name": "Mallory", "email": "m@example.com"})
    assert response.status_code == 403


def test_saving_a_customer_never_writes_its_balance() -> None:
    account = make_account(credits=5)
    Account.objects.filter(pk=account.pk).update(balance=3)
    data = {"name": "Renamed", "email": account.email, "balance": "999", **members_of(account)}
    for prefix in ("api_keys", "grants", "alerts"):
        data |= {f"{prefix}-TOTAL_FORMS": 0, f"{prefix}-INITIAL_FORMS": 0}
    with CaptureQueriesContext(connection) as queries:
        response = client_of(operator()).post(page_of(account), data)
    account.refresh_from_db()
    Account.objects.filter(pk=account.pk).update(balance=5)
    assert (response.status_code, account.name, account.balance) == (302, "Renamed", 3)
    updates = [query["sql"] for query in queries if query["sql"].startswith('UPDATE "accounts_account"')]
    assert len(updates) == 1
    assert "balance" not in updates[0]


def test_an_account_keeps_an_owner() -> None:
    account = make_account()
    data = {"name": account.name, "email": account.email, **members_of(account), "memberships-0-role": "member"}
    for prefix in ("api_keys", "grants", "alerts"):
        data |= {f"{prefix}-TOTAL_FORMS": 0, f"{prefix}-INITIAL_FORMS": 0}
    response = client_of(operator()).post(page_of(account), data)
    assert "An account needs an owner" in text_of(response)
    assert account.memberships.get().role == "owner"


def test_the_list_shows_ledger_and_live_balance() -> None:
    customer = make_customer(credits=1234567)
    metering.admit(api_key=customer.api_key, endpoint="query", amount=11)
    text = text_of(client_of(operator()).get(LIST, {"q": customer.number}))
    assert "1,234,567" in text
    assert "1,234,556" in text


def test_the_list_says_not_loaded_in_words() -> None:
    account = make_account()
    assert "not loaded" in text_of(client_of(operator()).get(LIST, {"q": account.number}))


def test_the_list_says_in_words_that_redis_is_away() -> None:
    account = make_account(credits=77)
    with redis_away():
        text = text_of(client_of(operator()).get(LIST, {"q": account.number}))
    assert "Redis away" in text
    assert " 77 " in text


def test_the_page_of_a_customer_opens_without_redis() -> None:
    account = make_account(credits=4321)
    with redis_away():
        response = client_of(operator()).get(page_of(account))
    assert response.status_code == 200
    assert "Redis away" in text_of(response)
    assert "4,321" in text_of(response)


def test_a_customer_is_found_by_its_number() -> None:
    account = make_account()
    response = client_of(operator()).get(LIST, {"q": str(account.number)})
    # Digits also stand in other customers' addresses: the number itself must be among what is found.
    assert account.pk in [row.pk for row in response.context["cl"].result_list]


@pytest.mark.parametrize("field", ["name", "email"])
def test_a_customer_is_found_by_name_and_email(field: str) -> None:
    account = make_account()
    Account.objects.filter(pk=account.pk).update(name=f"Kestrel {account.pk}")
    account.refresh_from_db()
    response = client_of(operator()).get(LIST, {"q": str(getattr(account, field))})
    assert [row.pk for row in response.context["cl"].result_list] == [account.pk]


def test_issue_key_shows_the_whole_key_once_and_it_works() -> None:
    account = make_account(credits=5)
    client = client_of(operator())
    response = client.post(page_of(account, "issue_key"), {"label": "nightly export", "rpm": "90"})
    (shown,) = set(WHOLE_KEY.findall(response.content.decode()))
    key = ApiKey.objects.get(account=account)
    assert (key.label, key.rpm, key.created_by) == ("nightly export", 90, operator().email)
    assert metering.identify(api_key=shown, endpoint="credits").key_id == key.pk
    assert "no-store" in response.headers["Cache-Control"]
    later = (
        client.get(page_of(account)).content.decode()
        + client.get(f"/admin/accounts/apikey/{key.pk}/change/").content.decode()
    )
    assert WHOLE_KEY.findall(later) == []


def test_an_issued_key_stands_in_no_session_message_log_or_cache() -> None:
    account = make_account()
    client = client_of(operator())
    response = client.post(page_of(account, "issue_key"), {"label": "", "rpm": ""})
    (shown,) = set(WHOLE_KEY.findall(response.content.decode()))
    secret = shown.rsplit("_", 1)[1]
    assert "messages" not in response.cookies
    assert secret not in str(dict(client.session))
    assert secret not in str(list(LogEntry.objects.filter(object_id=str(account.pk)).values()))
    assert secret not in str(ApiKey.objects.filter(account=account).values())
    assert django_cache.get(secret) is None


@pytest.mark.parametrize("rpm", ["-1", "100001", "many"])
def test_issue_key_refuses_a_limit_out_of_bounds(rpm: str) -> None:
    account = make_account()
    response = client_of(operator()).post(page_of(account, "issue_key"), {"label": "typed", "rpm": rpm})
    assert list(response.context["form"].errors) == ["rpm"]
    assert response.context["form"]["label"].value() == "typed"
    assert not ApiKey.objects.filter(account=account).exists()


def test_looking_at_the_issue_page_issues_nothing() -> None:
    account = make_account()
    client_of(operator()).get(page_of(account, "issue_key"), {"label": "x"})
    assert not ApiKey.objects.filter(account=account).exists()


def revoke_page(key_id: str) -> str:
    return reverse("admin:accounts_apikey_revoke", args=[key_id])


def test_revoke_asks_for_the_key_id() -> None:
    customer = make_customer()
    response = client_of(operator()).post(revoke_page(customer.key_id), {"confirmation": "something else"})
    assert list(response.context["form"].errors) == ["confirmation"]
    assert ApiKey.objects.get(pk=customer.key_id).state == "active"


def test_revoke_ends_the_key_and_says_so() -> None:
    customer = make_customer(credits=5)
    metering.identify(api_key=customer.api_key, endpoint="credits")
    response = client_of(operator()).post(revoke_page(customer.key_id), {"confirmation": customer.key_id}, follow=True)
    with pytest.raises(refusals.KeyRevoked):
        metering.identify(api_key=customer.api_key, endpoint="credits")
    key = ApiKey.objects.get(pk=customer.key_id)
    assert (key.state, key.revoked_by) == ("revoked", operator().email)
    assert "is revoked. Every process refuses the key from now on" in text_of(response)


def test_revoke_without_redis_says_pending() -> None:
    customer = make_customer()
    client = client_of(operator())
    with redis_away():
        response = client.post(revoke_page(customer.key_id), {"confirmation": customer.key_id}, follow=True)
    assert ApiKey.objects.get(pk=customer.key_id).state == "revoked"
    assert "is pending. PostgreSQL knows, but Redis could not be told yet" in text_of(response)


def test_a_key_cannot_be_edited() -> None:
    customer = make_customer()
    url = reverse("admin:accounts_apikey_change", args=[customer.key_id])
    response = client_of(operator()).post(url, {"label": "changed", "state": "revoked"})
    key = ApiKey.objects.get(pk=customer.key_id)
    assert (response.status_code, key.label, key.state) == (403, "", "active")


def test_suspend_refuses_the_customers_keys() -> None:
    customer = make_customer(credits=5)
    response = client_of(operator()).post(page_of(customer.account, "suspend"))
    customer.account.refresh_from_db()
    assert (response.status_code, customer.account.state) == (302, "suspended")
    with pytest.raises(refusals.AccountSuspended):
        metering.identify(api_key=customer.api_key, endpoint="credits")


def test_suspend_without_redis_says_that_its_keys_do_not_know_yet() -> None:
    account = make_customer().account
    client = client_of(operator())
    with redis_away():
        response = client.post(page_of(account, "suspend"), follow=True)
    account.refresh_from_db()
    assert account.state == "suspended"
    assert "Redis away: keys it knows follow when it is back and has been told." in text_of(response)


def test_reactivate_lets_the_customers_keys_work_again() -> None:
    customer = make_customer(credits=5)
    set_account_state(account=customer.account, state="suspended")
    client_of(operator()).post(page_of(customer.account, "reactivate"))
    assert metering.identify(api_key=customer.api_key, endpoint="credits").key_id == customer.key_id


def test_looking_at_the_suspend_page_suspends_nobody() -> None:
    account = make_account()
    client_of(operator()).get(page_of(account, "suspend"))
    account.refresh_from_db()
    assert account.state == "active"


@pytest.mark.parametrize(("state", "offered"), [("active", "suspend"), ("suspended", "reactivate")])
def test_a_customer_offers_the_action_that_its_state_allows(state: str, offered: str) -> None:
    account = make_account()
    set_account_state(account=account, state=state)
    response = client_of(operator()).get(page_of(account))
    paths = [entry["path"] for entry in response.context["actions_detail"]]
    assert paths == [page_of(account, name) for name in ("top_up", "adjust", "issue_key", "set_alerts", offered)]


def test_customers_keys_and_users_are_never_deleted() -> None:
    customer = make_customer()
    client = client_of(operator())
    pages = [
        reverse("admin:accounts_account_delete", args=[customer.account.pk]),
        reverse("admin:accounts_apikey_delete", args=[customer.key_id]),
        reverse("admin:accounts_user_delete", args=[customer.account.members.get().pk]),
    ]
    assert [client.post(page, {"post": "yes"}).status_code for page in pages] == [403, 403, 403]


def test_a_new_user_logs_in_by_email_whatever_its_case() -> None:
    email = f"Erin-{make_account().number}@Example.com"
    data = {"email": email, "usable_password": "true", "password1": "correct horse", "password2": "correct horse"}
    client_of(operator()).post("/admin/accounts/user/add/", data)
    user = User.objects.get(email=email.lower())
    assert user.check_password("correct horse")


def test_a_users_password_can_be_changed() -> None:
    user = make_member()
    data = {"usable_password": "true", "password1": "battery staple", "password2": "battery staple"}
    client_of(operator()).post(reverse("admin:auth_user_password_change", args=[user.pk]), data)
    user.refresh_from_db()
    assert user.check_password("battery staple")


def test_staff_cannot_make_themselves_superusers() -> None:
    staff = make_staff("accounts.view_user", "accounts.change_user")
    url = reverse("admin:accounts_user_change", args=[staff.pk])
    client_of(staff).post(url, {"email": staff.email, "is_superuser": "on", "is_staff": "on", "is_active": "on"})
    staff.refresh_from_db()
    assert (staff.is_superuser, staff.is_active) == (False, True)


def test_staff_cannot_change_a_superusers_password() -> None:
    staff = make_staff("accounts.view_user", "accounts.change_user")
    url = reverse("admin:auth_user_password_change", args=[operator().pk])
    assert client_of(staff).post(url, {"password1": "x", "password2": "x"}).status_code == 403


def test_large_figures_on_tiles_are_shortened_with_the_exact_value_on_hover() -> None:
    account = make_account(credits=TOP_UP_MAX)
    page = client_of(operator()).get(page_of(account)).content.decode()
    assert '<span class="mh-figure" title="1,000,000,000,000">1.0 T</span>' in page
