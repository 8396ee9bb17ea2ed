"""The operators' home page: true figures, each with its list, and stores that may be away."""

import time
from datetime import timedelta
from functools import cache
from typing import Any

import pytest
from django.db.models import Sum
from django.utils import timezone

from accounts.models import Account, ApiKey
from config.redis import money
from credits import drain, drain_figures, metering
from credits.models import CreditTransaction
from credits.selectors import expiring_of_all
from credits.services import top_up
from tests.factories import make_account, make_customer, make_usage
from tests.operators import client_of, make_operator, make_staff, text_of
from tests.outages import clickhouse_away, redis_away

pytestmark = pytest.mark.usefixtures("stores")

operator = cache(make_operator)


def home(user: Any = None) -> Any:
    return client_of(user or operator()).get("/admin/")


def tile(response: Any, title: str) -> Any:
    (found,) = [tile for tile in response.context["tiles"] if tile.title == title]
    return found


def test_home_counts_customers_and_active_keys() -> None:
    make_customer()
    response = home()
    assert f">{Account.objects.count():,}<" in tile(response, "Customers").value
    assert f">{ApiKey.objects.filter(state='active').count():,}<" in tile(response, "Active keys").value


def test_home_sums_what_was_topped_up() -> None:
    make_account(credits=3)
    total = CreditTransaction.objects.filter(kind="top_up").aggregate(total=Sum("amount"))["total"]
    shown = tile(home(), "Topped up").value
    assert f'title="{total:,}"' in shown or f">{total:,}<" in shown


@pytest.mark.parametrize(
    "title", ["Customers", "Active keys", "Credits in balances", "Topped up", "Spent", "Expiring in 30 days"]
)
def test_every_figure_leads_to_its_list(title: str) -> None:
    client = client_of(operator())
    assert client.get(tile(client.get("/admin/"), title).url).status_code == 200


def test_credits_in_balances_leads_to_the_largest_balances_first() -> None:
    make_account(credits=1)
    make_account(credits=2)
    client = client_of(operator())
    response = client.get(tile(client.get("/admin/"), "Credits in balances").url)
    balances = [account.balance for account in response.context["cl"].result_list]
    assert len(balances) >= 2
    assert balances == sorted(balances, reverse=True)


def test_home_says_that_no_drain_runs() -> None:
    money().delete(drain_figures._DRAINS)
    shown = tile(home(), "Drain")
    assert (shown.tone, "none runs" in shown.value) == ("warning", True)


def test_home_says_how_far_the_drain_is_behind() -> None:
    drain.drain_once()
    drain_figures.DrainLog().publish()
    assert tile(home(), "Drain").value == "up to date"
    customer = make_customer(credits=1)
    metering.settle(metering.admit(api_key=customer.api_key, endpoint="query", amount=1), total=1, usage=make_usage())
    time.sleep(0.1)
    assert tile(home(), "Drain").value.endswith(" s behind")


def test_home_says_that_every_store_answers() -> None:
    assert [(store["name"], store["word"]) for store in home().context["stores"]] == [
        ("PostgreSQL", "answers"),
        ("Redis", "answers"),
        ("ClickHouse", "answers"),
    ]


def test_home_without_redis_says_so_and_opens() -> None:
    with redis_away():
        response = home()
    assert response.status_code == 200
    assert [store["word"] for store in response.context["stores"]] == ["answers", "does not answer", "answers"]
    assert "unknown" in tile(response, "Journal").value


def test_home_without_clickhouse_says_so_and_opens() -> None:
    with clickhouse_away():
        response = home()
    assert response.status_code == 200
    assert [store["word"] for store in response.context["stores"]] == ["answers", "answers", "does not answer"]


def test_staff_see_only_figures_of_lists_they_may_open() -> None:
    response = home(make_staff("accounts.view_apikey"))
    assert [tile.title for tile in response.context["tiles"]] == ["Active keys"]
    assert response.context["jobs"] is None
    assert "Last ingestion jobs" not in text_of(response)


def test_the_sidebar_names_only_lists_that_may_be_opened() -> None:
    groups = home(make_staff("accounts.view_apikey")).context["sidebar_navigation"]
    allowed = [item["title"] for group in groups for item in group["items"] if item["has_permission"]]
    assert allowed == ["Home", "API keys"]


def test_home_sums_what_expires_within_30_days() -> None:
    before = expiring_of_all(now=timezone.now())
    account = make_account()
    for days in (29, 31):
        top_up(account=account, amount=5, now=timezone.now(), expires_at=timezone.now() + timedelta(days=days))
    assert expiring_of_all(now=timezone.now()) == before + 5


def test_expiring_grants_are_listed_the_first_to_expire_first() -> None:
    account = make_account()
    for days in (29, 31, 3):
        top_up(account=account, amount=days, now=timezone.now(), expires_at=timezone.now() + timedelta(days=days))
    query = {"expiring": "30", "customer": str(account.number)}
    response = client_of(operator()).get("/admin/credits/creditgrant/", query)
    assert [grant.amount for grant in response.context["cl"].result_list] == [3, 29]
