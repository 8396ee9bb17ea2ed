"""Streamed CSV: each chunk of whole rows is paid before it leaves, and memory holds two chunks whatever the size."""

import itertools
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import structlog
from django.http import HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase

from config.errors import DomainError
from credits import metering
from credits.metering import Hold, Settlement
from search.answers import metered_headers
from search.csv_rows import whole_rows
from search.metered import STATUS_DEFECT, STATUS_OK, Call, held
from search.pricing import cost, highest_cost
from search.query.compile import compile_csv
from search.query.request import RecordQuery
from search.store import stream

log = structlog.get_logger(__name__)

CHUNK_BYTES = 1_048_576
CONTENT_TYPE = "text/csv; charset=utf-8; header=present"
# What a client that went away is logged with; nobody is there to be sent it.
STATUS_CLIENT_GONE = 499

Piece = tuple[bytes, int]


def answer_download(call: Call, query: RecordQuery) -> HttpResponseBase:
    """The CSV of `query`: whole when it fits into one chunk, else streamed. Charges `1 + delivered // 100`.

    Raises what admit, the store and settle raise before the first byte; later failures break the stream off, and the
    rows that were delivered by then are paid.
    """
    header = ",".join(one.name for one in query.fields).encode() + b"\n"
    with held(call, amount=highest_cost(query.limit)) as hold, ExitStack() as opened:
        chunks = opened.enter_context(stream(compile_csv(query), query_id=hold.operation, chunk_bytes=CHUNK_BYTES))
        pieces = whole_rows(chunks)
        (text, rows), second = next(pieces, (b"", 0)), next(pieces, None)
        if second is None:
            settlement = metering.settle(hold, total=cost(rows), usage=call.usage(status=STATUS_OK, rows=rows))
            return HttpResponse(header + text, headers=_headers(query, hold, settlement))
        settlement = metering.settle(hold, total=cost(rows), usage=None, final=False)
        rest = itertools.chain([second], pieces)
        delivery = Delivery(call, hold, rows=rows, head=header + text, rest=rest, end=opened.pop_all().close)
        headers = {**_headers(query, hold, settlement), "X-Credits-Reserved": str(hold.amount)}
        return StreamingHttpResponse(delivery, headers=headers)


class Delivery(Iterator[bytes]):
    """The chunks of one download. `head`, with its `rows`, is paid already; each later one is paid when it is asked for.

    However it ends (all read, the client gone, the store or Redis away), `close` settles what was delivered.
    """

    def __init__(
        self, call: Call, hold: Hold, *, rows: int, head: bytes, rest: Iterator[Piece], end: Callable[[], None]
    ) -> None:
        self._call, self._hold = call, hold
        self._rows, self._head = rows, head
        self._rest, self._end = rest, end
        self._status = STATUS_CLIENT_GONE
        self._closed = False

    def __next__(self) -> bytes:
        if self._head:
            head, self._head = self._head, b""
            return head
        try:
            text, rows = next(self._rest)
            metering.settle(self._hold, total=cost(self._rows + rows), usage=None, final=False)
        except StopIteration:
            self._status = STATUS_OK
            self.close()
            raise
        except DomainError as error:
            self._status = error.status
            self.close()
            raise
        except BaseException:
            self._status = STATUS_DEFECT
            self.close()
            raise
        self._rows += rows
        return text

    def close(self) -> None:
        """Ends the query and closes the hold at the price of the rows delivered; harmless when called again."""
        if self._closed:
            return
        self._closed = True
        try:
            self._end()
        finally:
            self._settle_delivered()

    def _settle_delivered(self) -> None:
        usage = self._call.usage(status=self._status, rows=self._rows)
        if self._status != STATUS_OK:
            # Every delivered row is paid. Released, not settled: the whole must not be replayed for the price of a part.
            metering.release(self._hold, usage=usage)
            return
        try:
            metering.settle(self._hold, total=cost(self._rows), usage=usage)
        except DomainError as error:
            # Every delivered row was paid before it left; only the remainder of the hold waits for the sweep.
            log.warning("download_left_to_sweep", operation=self._hold.operation, code=error.code)


def _headers(query: RecordQuery, hold: Hold, settlement: Settlement) -> dict[str, str]:
    name = re.sub(r"[^a-z0-9]+", "-", "-".join(query.words), flags=re.ASCII).strip("-")[:60] or "records"
    return {
        "Content-Type": CONTENT_TYPE,
        "Content-Disposition": f'attachment; filename="meterhouse-{name}.csv"',
        "X-Accel-Buffering": "no",
        **metered_headers(hold, settlement),
    }
