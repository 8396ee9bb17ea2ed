"""Ingestion jobs in the operator admin: what every file gave, and the rows that could not be loaded."""

import uuid
from collections.abc import Callable
from typing import Any

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect
from django.template.defaultfilters import filesizeformat
from django.urls import URLPattern, path
from django.utils.safestring import SafeString

from config.display import code, figure, labelled, moment, quiet
from config.read_only import ReadOnlyAdmin, ReadOnlyInline
from ingestion.admin_job_pages import job_context, progress_page, rejects_csv, retry
from ingestion.admin_jobs import JobActions
from ingestion.admin_uploads import UploadAdmin, job_url
from ingestion.admin_watched import WatchedSourceAdmin
from ingestion.models import DeadLetter, IngestionJob, SavedMapping

__all__ = ["UploadAdmin", "WatchedSourceAdmin"]

RAW_SHOWN_CHARACTERS = 300
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
    change_form_outer_before_template = "admin/ingestion/job.html"
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

    def get_urls(self) -> list[URLPattern]:
        def page(view: Callable[..., HttpResponseBase], name: str) -> Any:
            wrapped = self.admin_site.admin_view(view)
            return path(f"<uuid:job_id>/{name}/", wrapped, name=f"ingestion_ingestionjob_{name}")

        return [
            page(self.progress_view, "progress"),
            page(self.retry_view, "retry"),
            page(self.rejects_view, "rejects"),
            *super().get_urls(),
        ]

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        job = self.get_object(request, object_id)
        shown = {} if job is None else job_context(job, request)
        response: HttpResponse = super().change_view(request, object_id, form_url, {**(extra_context or {}), **shown})
        return response

    def progress_view(self, request: HttpRequest, job_id: uuid.UUID) -> HttpResponse:
        return progress_page(request, self._seen(request, job_id))

    def retry_view(self, request: HttpRequest, job_id: uuid.UUID) -> HttpResponse:
        job = self._seen(request, job_id)
        return retry(request, job) if request.method == "POST" else redirect(job_url(job_id))

    def rejects_view(self, request: HttpRequest, job_id: uuid.UUID) -> HttpResponseBase:
        return rejects_csv(self._seen(request, job_id), request.GET.get("reason", ""))

    def _seen(self, request: HttpRequest, job_id: uuid.UUID) -> IngestionJob:
        if not self.has_view_permission(request):
            raise PermissionDenied
        job: IngestionJob | None = IngestionJob.objects.filter(pk=job_id).first()
        if job is None:
            raise Http404
        return job


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
