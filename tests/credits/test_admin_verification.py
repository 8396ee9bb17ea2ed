"""The ledger check in the operator admin: last result, history, dry run, repair."""

from datetime import timedelta
from functools import cache
from typing import Any

import psycopg
import pytest
from django.contrib.admin.models import LogEntry
from django.urls import reverse
from django.utils import timezone

from config.clickhouse import locks
from config.redis import money
from credits import counters, metering, verification
from credits.admin_verification import result_tile
from credits.models import VerificationRun
from tests.factories import Customer, make_customer, make_verification
from tests.faults.processes import database_url
from tests.operators import client_of, make_operator, make_staff, text_of
from tests.outages import redis_away

pytestmark = pytest.mark.usefixtures("stores")

operator = cache(make_operator)
LIST = "/admin/credits/verificationrun/"
CHECK = "/admin/credits/verificationrun/check/"
State = VerificationRun.State


def _repair_url(row: VerificationRun) -> str:
    return reverse("admin:credits_verificationrun_repair_now", args=[row.pk])


def _page_url(row: VerificationRun) -> str:
    return reverse("admin:credits_verificationrun_change", args=[row.pk])


def _spoiled() -> Customer:
    customer = make_customer(credits=50)
    metering.identify(api_key=customer.api_key, endpoint="credits")
    money().hincrby(counters.account_key(customer.number), "bal", 7)
    return customer


def _newest() -> VerificationRun:
    return VerificationRun.objects.latest("id")


def _tone_and_word(row: VerificationRun | None) -> tuple[str, str]:
    tile = result_tile(row)
    return tile.tone, str(tile.value)


def test_check_now_runs_a_dry_run_in_the_operators_name() -> None:
    customer = _spoiled()
    response = client_of(operator()).post(CHECK)
    row = _newest()
    assert (response.status_code, response.headers["Location"]) == (302, _page_url(row))
    assert (row.trigger, row.actor, row.repair) == ("admin", operator().email, False)
    assert counters.inspect(customer.number).balance == 57
    verification.run(now=timezone.now(), trigger=VerificationRun.Trigger.API, repair=True)


def test_opening_the_confirmation_checks_nothing() -> None:
    before = VerificationRun.objects.count()
    assert client_of(operator()).get(CHECK).status_code == 200
    assert VerificationRun.objects.count() == before


def test_a_repair_needs_a_reason() -> None:
    customer = _spoiled()
    client = client_of(operator())
    client.post(CHECK)
    response = client.post(_repair_url(_newest()), {"reason": " "})
    assert (response.status_code, response.context["form"].errors["reason"]) == (200, ["This field is required."])
    assert counters.inspect(customer.number).balance == 57


def test_a_repair_loads_again_and_keeps_name_and_reason() -> None:
    customer = _spoiled()
    client = client_of(operator())
    client.post(CHECK)
    response = client.post(_repair_url(_newest()), {"reason": "Ticket 12"})
    row = _newest()
    assert (response.status_code, row.reason, row.actor, row.repair) == (302, "Ticket 12", operator().email, True)
    assert customer.number in row.repaired
    assert counters.inspect(customer.number).balance == 50
    assert LogEntry.objects.filter(object_id=str(row.pk), change_message__contains="Ticket 12").count() == 1


def test_only_the_newest_check_may_be_repaired() -> None:
    old = make_verification(differs=True)
    make_verification()
    before = VerificationRun.objects.count()
    response = client_of(operator()).post(_repair_url(old), {"reason": "late"})
    assert (response.status_code, response.headers["Location"]) == (302, LIST)
    assert VerificationRun.objects.count() == before


def test_a_check_that_proved_everything_offers_no_repair() -> None:
    proven = make_verification()
    assert _repair_url(proven) not in client_of(operator()).get(_page_url(proven)).content.decode()


def test_a_check_that_found_something_offers_the_repair() -> None:
    differs = make_verification(differs=True)
    assert _repair_url(differs) in client_of(operator()).get(_page_url(differs)).content.decode()


@pytest.mark.parametrize("permission", ["credits.view_verificationrun", "credits.run_verification"])
def test_a_repair_needs_its_own_permission(permission: str) -> None:
    differs = make_verification(differs=True)
    staff = make_staff("credits.view_verificationrun", permission)
    assert client_of(staff).post(_repair_url(differs), {"reason": "why"}).status_code == 403
    assert _newest().pk == differs.pk


def test_a_reader_may_not_start_a_check() -> None:
    row = make_verification()
    assert client_of(make_staff("credits.view_verificationrun")).post(CHECK).status_code == 403
    assert _newest().pk == row.pk


def test_the_page_of_a_check_shows_expected_and_found() -> None:
    text = text_of(client_of(operator()).get(_page_url(make_verification(differs=True))))
    assert "7 live balance in Redis against the ledger 1,045 1,052 can be loaded again" in text


def test_the_list_leads_to_the_last_check() -> None:
    row = make_verification()
    body = client_of(operator()).get(LIST).content.decode()
    assert "What it compared and found</a>" in body
    assert _page_url(row) in body


def test_a_check_while_another_runs_says_so() -> None:
    with psycopg.connect(database_url(), autocommit=True) as other:
        other.execute("SELECT pg_advisory_lock(%s)", [locks._key(verification.LOCK)])
        response = client_of(operator()).post(CHECK, follow=True)
    assert "Another ledger check is under way" in text_of(response)


def test_a_check_without_redis_says_that_nothing_is_proven() -> None:
    with redis_away():
        response = client_of(operator()).post(CHECK, follow=True)
    assert "so nothing is proven" in text_of(response)
    assert _newest().state == "failed"


def test_tile_of_no_check_says_so() -> None:
    assert _tone_and_word(None) == ("warning", '<span class="mh-quiet">never run</span>')


def test_tile_of_a_proven_check_is_good() -> None:
    assert _tone_and_word(make_verification()) == ("good", "proven")


def test_tile_of_differences_is_bad() -> None:
    assert _tone_and_word(make_verification(differs=True)) == ("bad", "differs")


def test_tile_of_a_check_that_never_ended_is_bad() -> None:
    row = VerificationRun.objects.create(trigger="task", started_at=timezone.now())
    assert _tone_and_word(row) == ("bad", "broken off")
    row.delete()


def test_tile_of_an_old_proof_warns() -> None:
    row = make_verification()
    row.started_at -= timedelta(minutes=31)
    tile: Any = result_tile(row)
    assert (tile.tone, tile.value, tile.note) == ("warning", "proven", "31 min ago; the next is overdue")


def test_home_shows_the_last_check_and_leads_to_the_list() -> None:
    make_verification()
    response = client_of(operator()).get("/admin/")
    (tile,) = [tile for tile in response.context["tiles"] if tile.title == "Ledger check"]
    assert (tile.value, tile.tone, tile.url) == ("proven", "good", LIST)
