"""What leaves: the success envelope around ClickHouse's own bytes, and the headers of a metered answer."""

import json
from typing import Any

from django.http import HttpResponse

from credits.metering import Hold, Settlement
from credits.rate import RateWindow, rate_headers
from search.store import Page

JSON = "application/json"


def page_response(
    page: Page, *, page_number: int | None, limit: int | None = None, hold: Hold, settlement: Settlement
) -> HttpResponse:
    """`{"status", "data", "metadata"}` with the rows spliced in as they came from the store.

    `limit` is told where `max_credits` may have lowered it: the client pages on with it.
    """
    metadata = json.dumps(
        {
            "total_records": page.total,
            "returned": page.returned,
            "page": page_number,
            "credits_used": settlement.charged,
            "credits_remaining": settlement.available,
            "query_time_ms": page.elapsed_ms,
            "next_cursor": None,
            **({} if limit is None else {"limit": limit}),
        },
        separators=(",", ":"),
    )
    body = b'{"status":"success","data":[' + page.rows + b'],"metadata":' + metadata.encode() + b"}"
    return HttpResponse(body, content_type=JSON, headers=metered_headers(hold, settlement))


def free_response(data: Any, *, rate: RateWindow) -> HttpResponse:
    """`{"status", "data"}` of an endpoint that costs nothing."""
    body = json.dumps({"status": "success", "data": data}, ensure_ascii=False, separators=(",", ":"))
    return HttpResponse(body, content_type=JSON, headers={"X-Credits-Used": "0", **rate_headers(rate)})


def metered_headers(hold: Hold, settlement: Settlement) -> dict[str, str]:
    """`X-Credits-Used`, `X-Credits-Remaining`, the rate window's headers, and whether an idempotency key was replayed."""
    headers = {
        "X-Credits-Used": str(settlement.charged),
        "X-Credits-Remaining": str(settlement.available),
        **rate_headers(hold.rate),
    }
    if hold.replayed:
        headers["Idempotent-Replayed"] = "true"
    return headers
