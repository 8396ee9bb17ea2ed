"""One metered request from key to answer: the order of its steps stands here and nowhere else.

admit (highest price) → store → settle (true price) → rows leave. Whatever goes wrong in between releases the hold.
"""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from django.http import HttpRequest, HttpResponse

from config.errors import DomainError, NotFound
from config.middleware import client_address, request_id_of
from credits import metering
from credits.metering import Hold, Settlement
from credits.rate import RateWindow, rate_headers
from credits.refusals import InsufficientCredits
from credits.reported import Usage
from search.answers import metered_headers, page_response
from search.pricing import LOOKUP_COST, cost, highest_cost
from search.query.request import RecordQuery
from search.store import Page, fetch_page, fetch_person

STATUS_OK = 200
STATUS_DEFECT = 500


class PersonNotFound(NotFound):
    """404: no record has this id, neither as its own nor as its source's. Nothing is charged."""

    def __init__(self) -> None:
        super().__init__(
            "No person has this id. Ids are case-sensitive; give the record's id or the id it had in its source.",
            details={"id": "no match"},
        )


@dataclass(slots=True)
class Call:
    """One request to a metered endpoint: who asks, under which ids, what (as compact JSON), and since when."""

    endpoint: str
    api_key: str | None
    request_id: str
    idempotency_key: str
    address: str
    asked: str = ""
    started: float = field(default_factory=time.monotonic)

    @classmethod
    def of(cls, request: HttpRequest, endpoint: str) -> "Call":
        """The call that `request` makes to `endpoint`."""
        headers = request.headers
        idempotency_key = headers.get("Idempotency-Key", "").strip()
        return cls(endpoint, headers.get("X-API-Key"), request_id_of(request), idempotency_key, client_address(request))

    def note(self, asked: Any) -> None:
        """Keep what was asked: it makes an idempotency key mean this request alone, and stands in the usage log."""
        self.asked = json.dumps(asked, separators=(",", ":"))

    def usage(self, *, status: int, rows: int) -> Usage:
        """The usage event of this call, ending now."""
        duration_ms = round((time.monotonic() - self.started) * 1000)
        return Usage(self.request_id, self.endpoint, status, rows, duration_ms, self.asked)


@contextmanager
def reading(call: Call) -> Iterator[None]:
    """Around the reading of a request: a refusal costs nothing, and only a caller with a good key learns its reasons."""
    try:
        yield
    except DomainError as refusal:
        caller = metering.identify(api_key=call.api_key, endpoint=call.endpoint, address=call.address)
        refusal.headers.update({"X-Credits-Used": "0", **rate_headers(caller.rate)})
        raise


@contextmanager
def held(call: Call, *, amount: int) -> Iterator[Hold]:
    """Holds `amount` credits; whatever is raised inside releases them and, as a refusal, tells the balance."""
    try:
        hold = metering.admit(
            api_key=call.api_key,
            endpoint=call.endpoint,
            amount=amount,
            address=call.address,
            idempotency_key=call.idempotency_key,
            body=call.asked.encode(),
        )
    except DomainError as refusal:
        refusal.headers["X-Credits-Used"] = "0"
        if isinstance(refusal, InsufficientCredits):
            refusal.headers["X-Credits-Remaining"] = str(refusal.details["available"])
        raise
    try:
        yield hold
    except BaseException as error:
        status = error.status if isinstance(error, DomainError) else STATUS_DEFECT
        settlement = metering.release(hold, usage=call.usage(status=status, rows=0))
        if isinstance(error, DomainError):
            error.headers.update(metered_headers(hold, settlement))
        raise


def answer_query(call: Call, query: RecordQuery) -> HttpResponse:
    """Runs `query` and charges `1 + returned // 100`, never above its `max_credits`.

    Raises what admit, the store and settle raise.
    """
    with held(call, amount=highest_cost(query.limit)) as hold:
        page = fetch_page(query, query_id=hold.operation)
        settlement = _charge(call, hold, page, total=cost(page.returned))
    limit = None if query.max_credits is None else query.limit
    return page_response(page, page_number=query.page, limit=limit, hold=hold, settlement=settlement)


def answer_person(call: Call, person_id: str) -> HttpResponse:
    """Looks one person up for 1 credit. Raises `PersonNotFound`, at no charge, beside what `answer_query` raises."""
    with held(call, amount=LOOKUP_COST) as hold:
        page = fetch_person(person_id, query_id=hold.operation)
        if not page.returned:
            raise PersonNotFound
        settlement = _charge(call, hold, page, total=LOOKUP_COST)
    return page_response(page, page_number=1, hold=hold, settlement=settlement)


def identify(call: Call) -> RateWindow:
    """Checks the key of a call that costs nothing; it counts in the key's rate window."""
    return metering.identify(api_key=call.api_key, endpoint=call.endpoint, address=call.address).rate


def _charge(call: Call, hold: Hold, page: Page, *, total: int) -> Settlement:
    return metering.settle(hold, total=total, usage=call.usage(status=STATUS_OK, rows=page.returned))
