"""What an operator does with a job in the admin: watch it, see what it rejected, read that again."""

import csv
from collections.abc import Iterator
from typing import Any

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.db.models import Count
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.utils import timezone

from config.display import Tile, short_figure
from config.errors import DomainError
from ingestion import uploads
from ingestion.admin_uploads import job_url, upload_url
from ingestion.models import DeadLetter, IngestionJob
from ingestion.progress import progress

REASONS_SHOWN_MAX = 20
EVENTS_SHOWN = 50
CSV_ROWS_MAX = 100_000
# A spreadsheet would take what begins with one of these for a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def row_tiles(job: IngestionJob) -> list[Tile]:
    """Rows read = loaded + duplicates + rejected."""
    share = f"{job.reject_share:.2%} of the rows read"
    return [
        Tile("Rows read", short_figure(job.rows_read), "= loaded + duplicates + rejected"),
        Tile("Loaded", short_figure(job.rows_loaded), "new in the store"),
        Tile("Duplicates", short_figure(job.rows_duplicate), "were in the store already"),
        Tile("Rejected", short_figure(job.rows_rejected), share, tone="warning" if job.rows_rejected else ""),
    ]


def job_context(job: IngestionJob, request: HttpRequest) -> dict[str, Any]:
    """What the page of a job shows above its fields."""
    may_load = request.user.has_perm("ingestion.load_file")
    reason = request.GET.get("reason", "")
    letters = job.dead_letters.order_by("row")
    return {
        "job": job,
        "reasons": reject_reasons(job),
        "reason": reason,
        "of_reason": letters.filter(reason=reason)[:50] if reason else [],
        "happened": job.events.all()[:EVENTS_SHOWN],
        "csv_max": CSV_ROWS_MAX,
        "may_retry": may_load and job.state in uploads.RETRIABLE and job.rows_rejected > 0,
        **progress_context(job),
    }


def progress_context(job: IngestionJob) -> dict[str, Any]:
    """What the polled part of the page shows."""
    now = progress(job)
    return {
        "job": job,
        "progress": now,
        "tiles": row_tiles(job),
        "percent": None if now.fraction is None else int(now.fraction * 100),
        "rate": round(now.rows_per_s),
        "eta": None if now.eta_s is None else duration_text(now.eta_s),
    }


def reject_reasons(job: IngestionJob) -> list[Any]:
    """The commonest reasons of its rejected rows: `reason`, `rows`."""
    groups = job.dead_letters.values("reason").annotate(rows=Count("pk")).order_by("-rows", "reason")
    return list(groups[:REASONS_SHOWN_MAX])


def progress_page(request: HttpRequest, job: IngestionJob) -> HttpResponse:
    """The polled part; once the job has ended the whole page is to be loaded anew, and nobody asks again."""
    response = TemplateResponse(request, "admin/ingestion/job_progress.html", progress_context(job))
    if not progress(job).is_open:
        response["HX-Refresh"] = "true"
    return response


def retry(request: HttpRequest, job: IngestionJob) -> HttpResponse:
    """Leads to a preview of the rejected rows: `uploads.prepare_retry`."""
    if not request.user.has_perm("ingestion.load_file"):
        raise PermissionDenied
    try:
        prepared = uploads.prepare_retry(job, now=timezone.now(), actor=request.user.get_username())
    except DomainError as error:
        messages.error(request, error.message)
        return redirect(job_url(job.pk))
    return redirect(upload_url(prepared))


def rejects_csv(job: IngestionJob, reason: str) -> StreamingHttpResponse:
    """The rejected rows as CSV, CSV_ROWS_MAX at most, of one reason if it is named; cells never run as formulas."""
    letters = job.dead_letters.order_by("row")
    if reason:
        letters = letters.filter(reason=reason)
    response = StreamingHttpResponse(_lines(letters[:CSV_ROWS_MAX]), content_type="text/csv; charset=utf-8")
    response["Content-Disposition"] = f'attachment; filename="rejected-{job.pk}.csv"'
    response["Cache-Control"] = "no-store"
    return response


class _Line:
    """What csv writes to: hands the line back."""

    def write(self, line: str) -> str:
        return line


def _lines(letters: Any) -> Iterator[str]:
    writer = csv.writer(_Line())
    yield writer.writerow(["row", "column", "reason", "message", "raw"])
    letter: DeadLetter
    for letter in letters.iterator(chunk_size=2_000):
        cells = (letter.column, letter.reason, letter.message, letter.raw)
        yield writer.writerow([letter.row, *(_plain(cell) for cell in cells)])


def _plain(cell: str) -> str:
    return f"'{cell}" if cell.startswith(_FORMULA) else cell


def duration_text(seconds: float) -> str:
    """A time that is left, in the two units that matter."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
