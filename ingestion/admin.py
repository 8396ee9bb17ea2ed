"""Ingestion jobs in the operator admin: what every file gave, and the rows that could not be loaded."""

from typing import Any

from django.contrib import admin
from django.db.models import Count
from django.http import HttpRequest, HttpResponse
from django.template.defaultfilters import filesizeformat
from django.utils.safestring import SafeString

from config.display import Tile, code, figure, labelled, moment, quiet, short_figure
from config.read_only import ReadOnlyAdmin, ReadOnlyInline
from ingestion.admin_jobs import JobActions
from ingestion.admin_watched import WatchedSourceAdmin
from ingestion.models import DeadLetter, IngestionJob, SavedMapping

__all__ = ["WatchedSourceAdmin"]

REASONS_SHOWN_MAX = 20
RAW_SHOWN_CHARACTERS = 300
EVENTS_SHOWN = 50
STATE_TONES = {
    "queued": "info",
    "running": "info",
    "done": "success",
    "needs review": "warning",
    "stopped": "warning",
    "failed": "danger",
    "skipped": "info",
    "refused": "danger",
    "cancelled": "warning",
    "rolling back": "info",
    "rolled back": "warning",
}


class DeadLetterInline(ReadOnlyInline):
    """Rows that could not be loaded, fifty at a time."""

    model = DeadLetter
    verbose_name_plural = "Dead letters"
    fields = ("row_figure", "column", "reason", "message", "raw_text")
    readonly_fields = fields
    ordering = ("row",)
    per_page = 50

    @admin.display(description="Row")
    def row_figure(self, letter: DeadLetter) -> SafeString:
        return figure(letter.row)

    @admin.display(description="Raw text")
    def raw_text(self, letter: DeadLetter) -> SafeString:
        cut = "…" if len(letter.raw) > RAW_SHOWN_CHARACTERS else ""
        return code(letter.raw[:RAW_SHOWN_CHARACTERS] + cut)


@admin.register(IngestionJob)
class IngestionJobAdmin(JobActions, ReadOnlyAdmin):
    """One row a file. Jobs are started by `manage.py ingest`, here or by a worker."""

    list_display = ("source_file", "format", "state_label", "read", "loaded", "duplicates", "rejected", "started")
    list_filter = ("state", "format")
    search_fields = ("source_file", "=id", "=sha256")
    search_help_text = "File name, job id or SHA-256"
    fieldsets = (
        ("File", {"fields": ("source_file", "source_path", "source", "size", "sha256", "format", "retry_of")}),
        ("Run", {"fields": ("state_label", "engine", "error_text", "rate", "chunks_done", "started", "finished")}),
        ("How it was read", {"fields": ("mapping", "detected", "stage_seconds"), "classes": ("collapse",)}),
    )
    readonly_fields = ("size", "state_label", "error_text", "rate", "started", "finished")
    inlines = (DeadLetterInline,)
    change_form_before_template = "admin/ingestion/job.html"
    ordering = ("-created_at",)
    list_filter_submit = False

    @labelled("State", STATE_TONES)
    def state_label(self, job: IngestionJob) -> str:
        return job.get_state_display()

    @admin.display(description="Read", ordering="rows_read")
    def read(self, job: IngestionJob) -> SafeString:
        return figure(job.rows_read)

    @admin.display(description="Loaded", ordering="rows_loaded")
    def loaded(self, job: IngestionJob) -> SafeString:
        return figure(job.rows_loaded)

    @admin.display(description="Duplicates", ordering="rows_duplicate")
    def duplicates(self, job: IngestionJob) -> SafeString:
        return figure(job.rows_duplicate)

    @admin.display(description="Rejected", ordering="rows_rejected")
    def rejected(self, job: IngestionJob) -> SafeString:
        return figure(job.rows_rejected)

    @admin.display(description="Started", ordering="started_at")
    def started(self, job: IngestionJob) -> SafeString:
        return moment(job.started_at)

    @admin.display(description="Finished")
    def finished(self, job: IngestionJob) -> SafeString:
        return moment(job.finished_at)

    @admin.display(description="Size")
    def size(self, job: IngestionJob) -> str:
        return f"{filesizeformat(job.size_bytes)} ({job.size_bytes:,} bytes)"

    @admin.display(description="Rows a second")
    def rate(self, job: IngestionJob) -> SafeString:
        return figure(round(job.rows_per_second)) if job.busy_seconds else quiet("–")

    @admin.display(description="Error")
    def error_text(self, job: IngestionJob) -> SafeString:
        return quiet("none") if not job.error_code else code(f"{job.error_code}: {job.error}")

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        job = self.get_object(request, object_id)
        shown = (
            {}
            if job is None
            else {"tiles": row_tiles(job), "reasons": reject_reasons(job), "happened": job.events.all()[:EVENTS_SHOWN]}
        )
        response: HttpResponse = super().change_view(request, object_id, form_url, {**(extra_context or {}), **shown})
        return response


@admin.register(SavedMapping)
class SavedMappingAdmin(ReadOnlyAdmin):
    """Mappings are saved by `manage.py ingest --dry-run --save-mapping NAME`."""

    list_display = ("name", "source", "fields_mapped", "saved")
    search_fields = ("name", "source")
    fields = ("name", "source", "document", "created_at", "updated_at")
    ordering = ("name",)
    list_filter_submit = False

    @admin.display(description="Fields")
    def fields_mapped(self, mapping: SavedMapping) -> str:
        return ", ".join(target for target in mapping.document["columns"].values() if target)

    @admin.display(description="Saved", ordering="updated_at")
    def saved(self, mapping: SavedMapping) -> SafeString:
        return moment(mapping.updated_at)


def row_tiles(job: IngestionJob) -> list[Tile]:
    """Rows read = loaded + duplicates + rejected."""
    share = f"{job.reject_share:.2%} of the rows read"
    return [
        Tile("Rows read", short_figure(job.rows_read), "= loaded + duplicates + rejected"),
        Tile("Loaded", short_figure(job.rows_loaded), "new in the store"),
        Tile("Duplicates", short_figure(job.rows_duplicate), "were in the store already"),
        Tile("Rejected", short_figure(job.rows_rejected), share, tone="warning" if job.rows_rejected else ""),
    ]


def reject_reasons(job: IngestionJob) -> list[Any]:
    """The commonest reasons of its rejected rows: `reason`, `rows`."""
    groups = job.dead_letters.values("reason").annotate(rows=Count("pk")).order_by("-rows", "reason")
    return list(groups[:REASONS_SHOWN_MAX])
