"""Alerts in the operator admin: the log, failed deliveries sent once more, thresholds; each by its permission."""

from functools import cache
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.urls import reverse
from django.utils import timezone

from accounts.models import Account
from credits import alert_settings, alerts
from credits.alert_models import Alert, AlertDelivery, AlertSettings
from tests.factories import make_account
from tests.operators import client_of, make_operator, make_staff, page_of, text_of

pytestmark = pytest.mark.usefixtures("stores")

operator = cache(make_operator)
ALERTS = "/admin/credits/alert/"
DELIVERIES = "/admin/credits/alertdelivery/"


def low(account: Account) -> Alert:
    alert_settings.save(
        account=account,
        low_credits=100,
        low_percent=0,
        expiring_days=0,
        emails=None,
        webhook_url="",
        now=timezone.now(),
    )
    alerts.evaluate(now=timezone.now())
    return Alert.objects.get(account=account)


def gave_up(account: Account) -> AlertDelivery:
    delivery = AlertDelivery.objects.get(alert=low(account))
    AlertDelivery.objects.filter(pk=delivery.pk).update(
        state="gave_up", attempts=8, last_error="answered 500", finished_at=timezone.now()
    )
    delivery.refresh_from_db()
    return delivery


def retry_of(delivery: AlertDelivery) -> str:
    return reverse("admin:credits_alertdelivery_try_again", args=[delivery.pk])


def shown(response: Any) -> list[int]:
    """The rows of a list."""
    return [row.pk for row in response.context["cl"].result_list]


def test_the_customers_page_shows_thresholds_and_log() -> None:
    account = make_account(credits=50)
    low(account)
    text = text_of(client_of(operator()).get(page_of(account)))
    assert f"at 100 credits; to {account.email}" in text
    assert "low balance (credits) 100 credits 50 1 pending" in text


def test_the_customers_page_shows_everybodys_thresholds_without_own_ones() -> None:
    account = make_account()
    text = text_of(client_of(operator()).get(page_of(account)))
    assert f"at 20 % of the open grants, 7 days before credits expire; to {account.email}" in text


def test_the_log_is_filtered_by_kind_and_customer() -> None:
    account, other = make_account(credits=50), make_account(credits=50)
    alert = low(account)
    low(other)
    client = client_of(operator())
    assert shown(client.get(f"{ALERTS}?customer={account.number}&kind__exact=low_credits")) == [alert.pk]
    assert shown(client.get(f"{ALERTS}?customer={account.number}&kind__exact=expiring")) == []


def test_deliveries_are_filtered_by_state_and_customer() -> None:
    account, other = make_account(credits=50), make_account(credits=50)
    delivery = gave_up(account)
    gave_up(other)
    client = client_of(operator())
    assert shown(client.get(f"{DELIVERIES}?customer={account.number}&state__exact=gave_up")) == [delivery.pk]
    assert shown(client.get(f"{DELIVERIES}?customer={account.number}&state__exact=delivered")) == []


def test_an_alerts_page_shows_where_it_went() -> None:
    account = make_account(credits=50)
    delivery = gave_up(account)
    text = text_of(client_of(operator()).get(reverse("admin:credits_alert_change", args=[delivery.alert_id])))
    assert f"{account.email} e-mail gave up 8 answered 500" in text


def test_a_failed_delivery_is_tried_again() -> None:
    account = make_account(credits=50)
    delivery = gave_up(account)
    client = client_of(operator())
    assert retry_of(delivery) in client.get(f"{DELIVERIES}{delivery.pk}/change/").content.decode()
    client.post(retry_of(delivery))
    delivery.refresh_from_db()
    assert (delivery.state, delivery.attempts, delivery.finished_at) == ("pending", 0, None)
    assert LogEntry.objects.get(object_id=str(delivery.pk), action_flag=2).change_message == "Tried again."


def test_a_delivery_under_way_offers_no_second_try() -> None:
    delivery = AlertDelivery.objects.get(alert=low(make_account(credits=50)))
    client = client_of(operator())
    assert retry_of(delivery) not in client.get(f"{DELIVERIES}{delivery.pk}/change/").content.decode()
    assert "Only a delivery that failed" in text_of(client.post(retry_of(delivery), follow=True))


def test_trying_again_needs_its_permission() -> None:
    delivery = gave_up(make_account(credits=50))
    assert client_of(make_staff("credits.view_alertdelivery")).post(retry_of(delivery)).status_code == 403
    delivery.refresh_from_db()
    assert delivery.state == "gave_up"


@pytest.mark.parametrize("path", [ALERTS, DELIVERIES])
def test_the_lists_need_their_permission(path: str) -> None:
    assert client_of(make_staff("accounts.view_account")).get(path).status_code == 403


def test_nobody_adds_or_changes_an_alert() -> None:
    alert = low(make_account(credits=50))
    client = client_of(operator())
    assert client.get(f"{ALERTS}add/").status_code == 403
    assert client.post(f"{ALERTS}{alert.pk}/change/", {"balance": 7}).status_code == 403
    assert client.post(f"{ALERTS}{alert.pk}/delete/", {"post": "yes"}).status_code == 403


def test_an_operator_sets_thresholds_and_the_change_is_kept() -> None:
    account = make_account()
    client = client_of(operator())
    data = {"low_credits": "500", "low_percent": "", "expiring_days": "0", "emails": "a@example.com, b@example.com"}
    client.post(page_of(account, "set_alerts"), data)
    row = AlertSettings.objects.get(account=account)
    assert (row.low_credits, row.low_percent, row.expiring_days) == (500, None, 0)
    assert row.emails == ["a@example.com", "b@example.com"]
    entry = LogEntry.objects.get(object_id=str(account.pk)).change_message
    assert entry.endswith("→ at 500 credits, at 20 % of the open grants; to a@example.com, b@example.com.")
    page = client.get(page_of(account, "set_alerts"))
    form = page.context["form"]
    assert [form[name].value() for name in data] == [500, None, 0, "a@example.com, b@example.com"]


def test_an_operator_leaves_the_webhook_as_it_is() -> None:
    account = make_account()
    alert_settings.save(
        account=account,
        low_credits=None,
        low_percent=None,
        expiring_days=None,
        emails=None,
        webhook_url="https://8.8.8.8/hook",
        now=timezone.now(),
    )
    before = AlertSettings.objects.get(account=account)
    client_of(operator()).post(page_of(account, "set_alerts"), {"low_credits": "5"})
    after = AlertSettings.objects.get(account=account)
    assert (after.low_credits, after.webhook_url, after.webhook_salt) == (5, before.webhook_url, before.webhook_salt)


def test_thresholds_name_what_they_refuse() -> None:
    account = make_account()
    response = client_of(operator()).post(page_of(account, "set_alerts"), {"low_percent": "100", "emails": "x"})
    assert list(response.context["form"].errors) == ["low_percent"]
    response = client_of(operator()).post(page_of(account, "set_alerts"), {"emails": "x"})
    assert response.context["form"].errors["emails"] == ["'x' is not an e-mail address."]
    assert not AlertSettings.objects.filter(account=account).exists()


def test_setting_thresholds_needs_its_permission() -> None:
    account = make_account()
    client = client_of(make_staff("accounts.view_account", "accounts.change_account"))
    assert client.post(page_of(account, "set_alerts"), {"low_credits": "5"}).status_code == 403
    assert not AlertSettings.objects.filter(account=account).exists()


def test_no_page_shows_what_signs_webhooks() -> None:
    account = make_account(credits=50)
    saved = alert_settings.save(
        account=account,
        low_credits=100,
        low_percent=0,
        expiring_days=0,
        emails=[],
        webhook_url="https://8.8.8.8/hook",
        now=timezone.now(),
    )
    alerts.evaluate(now=timezone.now())
    alert = Alert.objects.get(account=account)
    delivery = AlertDelivery.objects.get(alert=alert)
    client = client_of(operator())
    pages = [
        page_of(account),
        page_of(account, "set_alerts"),
        f"{ALERTS}{alert.pk}/change/",
        f"{DELIVERIES}{delivery.pk}/change/",
    ]
    body = "".join(client.get(page).content.decode() for page in pages)
    assert saved.secret is not None
    assert saved.secret not in body
    assert AlertSettings.objects.get(account=account).webhook_salt not in body
