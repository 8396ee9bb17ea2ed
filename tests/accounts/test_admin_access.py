"""Who may see which page of the operator admin, from the URL configuration: a new page without a decision fails."""

from collections.abc import Iterator
from functools import cache
from typing import Any, cast

import pytest
from django.contrib import admin
from django.contrib.auth.models import Group
from django.contrib.contenttypes.models import ContentType
from django.http import HttpResponse
from django.http.response import HttpResponseBase
from django.test import RequestFactory
from django.urls import URLPattern, URLResolver, reverse
from django.utils import timezone
from django_celery_beat.models import IntervalSchedule, PeriodicTask

from config.errors import handler500
from credits import counters, ledger, metering
from credits.alerts import send_test
from credits.models import Command, CreditGrant, CreditTransaction, SetAside
from ingestion.models import IngestionJob, SavedMapping, Upload, WatchedSource
from tests.factories import make_customer, make_usage, make_verification
from tests.operators import client_of, make_member, make_operator, make_staff

# One of each does for every page; making an operator hashes a password.
operator, member, stranger = cache(make_operator), cache(make_member), cache(make_staff)

pytestmark = pytest.mark.usefixtures("stores")

READ_ONLY = {"changelist": 200, "add": 403, "history": 200, "delete": 403, "change": 200}
EDITED = {**READ_ONLY, "add": 200}
# What an operator with every permission gets.
MODELS: dict[str, dict[str, int]] = {
    "accounts_user": EDITED,
    "auth_group": {**EDITED, "delete": 200},
    "accounts_account": {
        **EDITED,
        "top_up": 200,
        "adjust": 200,
        "issue_key": 200,
        "set_alerts": 200,
        "suspend": 200,
        "reactivate": 200,
    },
    "accounts_apikey": {**READ_ONLY, "change_limits": 200, "rotate": 200, "revoke": 200},
    "credits_creditgrant": {**READ_ONLY, "void": 200},
    "credits_credittransaction": {**READ_ONLY, "refund": 200},
    "credits_alert": READ_ONLY,
    "credits_alertdelivery": {**READ_ONLY, "try_again": 200},
    "credits_setaside": READ_ONLY,
    "credits_command": READ_ONLY,
    "credits_verificationrun": {**READ_ONLY, "check_now": 200, "repair_now": 200},
    "django_celery_beat_periodictask": READ_ONLY,
    "ingestion_ingestionjob": {
        **READ_ONLY,
        "cancel_job": 200,
        "go_on": 200,
        "roll_back": 200,
        "progress": 200,
        "rejects": 200,
        "retry": 302,  # a button's: it leads back
    },
    "ingestion_upload": {**EDITED, "state": 200},
    "ingestion_savedmapping": READ_ONLY,
    "ingestion_watchedsource": {**EDITED, "delete": 200},
}
PAGES = {f"{model}_{page}": status for model, pages in MODELS.items() for page, status in pages.items()}
PAGES |= {"auth_user_password_change": 200, "app_list": 200, "autocomplete": 200}
# Pages of every member of staff, whatever their permissions.
PERSONAL = {"index": 200, "search": 200, "password_change": 200, "password_change_done": 200, "jsi18n": 200}
OPEN = {"login": 200}
ELSEWHERE = {"logout", "view_on_site", None}  # logout answers POST alone; nothing here has a page outside the admin


def names(patterns: list[Any]) -> Iterator[str | None]:
    for pattern in patterns:
        if isinstance(pattern, URLResolver):
            yield from names(pattern.url_patterns)
        elif isinstance(pattern, URLPattern):
            yield pattern.name


@cache
def shown() -> dict[str, Any]:
    """One object of each kind that has a page."""
    customer = make_customer(credits=100)
    hold = metering.admit(api_key=customer.api_key, endpoint="query", amount=2)
    metering.settle(hold, total=2, usage=make_usage())
    while ledger.drain_ledger([customer.number % 64], now=timezone.now()).events:
        pass
    now = timezone.now()
    alert = send_test(account=customer.account, now=now)
    return {
        "accounts_user": make_member().pk,
        "auth_group": Group.objects.create(name=f"role of {customer.number}").pk,
        "accounts_account": customer.account.pk,
        "accounts_apikey": customer.key_id,
        "credits_creditgrant": CreditGrant.objects.filter(account=customer.account).latest("created_at").pk,
        "credits_credittransaction": CreditTransaction.objects.get(account=customer.account, type="debit").pk,
        "credits_alert": alert.pk,
        "credits_alertdelivery": alert.deliveries.get().pk,
        "credits_setaside": SetAside.objects.create(account=customer.account, reason="late", debit=1, event={}).pk,
        "credits_command": Command.objects.get(account=customer.account).pk,
        "django_celery_beat_periodictask": PeriodicTask.objects.create(
            name=f"entry of {customer.number}",
            task="credits.verify_ledger",
            interval=IntervalSchedule.objects.get_or_create(every=600, period="seconds")[0],
        ).pk,
        "ingestion_ingestionjob": IngestionJob.objects.create(
            source_path="data.csv",
            source_file="data.csv",
            size_bytes=1,
            sha256="0" * 64,
            format="csv",
            chunk_rows=1,
            created_at=now,
            started_at=now,
        ).pk,
        "ingestion_savedmapping": SavedMapping.objects.create(
            name=f"mapping of {customer.number}",
            document={"columns": {"mail": "email"}},
            created_at=now,
            updated_at=now,
        ).pk,
        "ingestion_upload": Upload.objects.create(name="data.csv", path="data.csv", created_at=now, sent_at=now).pk,
        "ingestion_watchedsource": WatchedSource.objects.create(path=f"/srv/{customer.number}").pk,
    }


def address(name: str) -> str:
    if name == "app_list":
        return reverse("admin:app_list", args=["credits"])
    if name == "autocomplete":
        return reverse("admin:autocomplete") + "?app_label=accounts&model_name=membership&field_name=user&term=bob"
    if name == "auth_user_password_change":
        return reverse(f"admin:{name}", args=[shown()["accounts_user"]])
    model = next((model for model in MODELS if name.startswith(f"{model}_")), "")
    if not model or name.removeprefix(f"{model}_") in {"changelist", "add", "check_now"}:
        return reverse(f"admin:{name}")
    # Only what the newest check found may be repaired.
    found = make_verification(differs=True).pk if model == "credits_verificationrun" else shown()[model]
    return reverse(f"admin:{name}", args=[found])


def get(name: str, user: Any) -> HttpResponse:
    response = client_of(user).get(address(name))
    assert isinstance(response, HttpResponseBase)
    return cast(HttpResponse, response)  # rejected rows come as a stream


def test_every_page_of_the_admin_has_a_decision() -> None:
    assert set(names(admin.site.get_urls())) == {*PAGES, *PERSONAL, *OPEN, *ELSEWHERE}


@pytest.mark.parametrize("name", [*PAGES, *PERSONAL])
def test_anonymous_is_sent_to_the_login(name: str) -> None:
    response = get(name, None)
    assert (response.status_code, response.headers["Location"].split("?")[0]) == (302, reverse("admin:login"))


@pytest.mark.parametrize("name", [*PAGES, *PERSONAL])
def test_a_member_who_is_no_operator_is_refused(name: str) -> None:
    response = get(name, member())
    assert (response.status_code, response.headers["Location"].split("?")[0]) == (302, reverse("admin:login"))


@pytest.mark.parametrize("name", PAGES)
def test_staff_without_permissions_is_refused(name: str) -> None:
    assert get(name, stranger()).status_code == (404 if name == "app_list" else 403)


@pytest.mark.parametrize(("name", "status"), [*PAGES.items(), *PERSONAL.items(), *OPEN.items()])
def test_an_operator_gets_every_page(name: str, status: int) -> None:
    user = None if name in OPEN else operator()
    assert get(name, user).status_code == status


@pytest.mark.parametrize(
    "name", [name for name in PAGES if name.split("_")[-1] in {"up", "key", "suspend", "limits", "rotate", "revoke"}]
)
def test_a_reader_of_customers_may_not_act(name: str) -> None:
    assert get(name, make_staff("accounts.view_account", "accounts.view_apikey")).status_code == 403


@pytest.mark.parametrize("model", ["accounts_account", "accounts_apikey", "ingestion_ingestionjob"])
def test_a_page_of_nothing_leads_back(model: str) -> None:
    response = client_of(operator()).get(reverse(f"admin:{model}_change", args=["nothing"]))
    assert response.status_code == 302


@pytest.mark.parametrize("action", ["top_up", "issue_key", "suspend", "reactivate"])
def test_an_action_on_nobody_is_not_found(action: str) -> None:
    response = client_of(operator()).get(reverse(f"admin:accounts_account_{action}", args=["nobody"]))
    assert response.status_code == 404


def test_content_types_have_no_page_of_their_own() -> None:
    kind = ContentType.objects.get_for_model(CreditTransaction)
    response = client_of(operator()).get(reverse("admin:view_on_site", args=[kind.pk, 1]))
    assert response.status_code == 404


def test_pages_are_never_cached() -> None:
    assert "no-store" in get("accounts_account_changelist", operator()).headers["Cache-Control"]


def test_no_page_allows_inline_scripts() -> None:
    policy = get("accounts_account_changelist", operator()).headers["Content-Security-Policy"]
    scripts = next(part for part in policy.split("; ") if part.startswith("script-src"))
    assert scripts.split() == ["script-src", "'self'", "'unsafe-eval'"]


def test_live_balances_of_a_page_are_one_round_trip(monkeypatch: pytest.MonkeyPatch) -> None:
    trips: list[int] = []
    inspect_many = counters.inspect_many

    def counted(numbers: Any, **options: Any) -> Any:
        trips.append(len(numbers))
        return inspect_many(numbers, **options)

    monkeypatch.setattr(counters, "inspect_many", counted)
    make_customer()
    make_customer()
    get("accounts_account_changelist", operator())
    assert len(trips) == 1
    assert trips[0] >= 2


def test_a_refused_page_says_what_to_do() -> None:
    response = get("accounts_account_changelist", stranger())
    assert "You may not open this page" in response.content.decode()


def test_an_unknown_address_of_the_admin_says_so() -> None:
    response = client_of(operator()).get("/admin/accounts/nothing/")
    assert (response.status_code, "There is nothing here" in response.content.decode()) == (404, True)


def test_a_page_that_fails_says_where_to_look() -> None:
    response = handler500(RequestFactory().get("/admin/", headers={"accept": "text/html"}))
    assert (response.status_code, "the health page" in response.content.decode()) == (500, True)
