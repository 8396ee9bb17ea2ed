"""An operator checks the ledger and repairs what differs, in a real browser."""

import pytest

from config.redis import money
from credits import counters, metering
from credits.models import VerificationRun
from tests.e2e.browser import Visit
from tests.factories import make_customer

pytestmark = pytest.mark.browser


def test_operator_checks_the_ledger_and_repairs_what_differs(operator_visit: Visit) -> None:
    customer = make_customer(credits=50)
    metering.identify(api_key=customer.api_key, endpoint="credits")
    money().hincrby(counters.account_key(customer.number), "bal", 7)
    page = operator_visit.page
    operator_visit.goto("/admin/credits/verificationrun/")
    page.click("a:has-text('Check now')")
    page.click("button:has-text('Check now')")
    page.wait_for_selector("text=Expected")
    assert "differs" in page.inner_text(".mh-tiles")
    page.click("a:has-text('Repair')")
    page.fill("#id_reason", "Ticket 12")
    page.click("button:has-text('Repair')")
    page.wait_for_selector("text=loaded again")
    assert counters.inspect(customer.number).balance == 50
    assert VerificationRun.objects.latest("id").reason == "Ticket 12"


@pytest.mark.parametrize("path", ["/admin/credits/verificationrun/", "/admin/django_celery_beat/periodictask/"])
def test_no_page_of_the_system_is_wider_than_a_phone(operator_visit: Visit, path: str) -> None:
    operator_visit.page.set_viewport_size({"width": 390, "height": 844})
    operator_visit.goto(path)
    assert operator_visit.page.evaluate("document.documentElement.scrollWidth") <= 390
