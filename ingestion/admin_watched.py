"""Watched folders and buckets in the operator admin: which there are, what was seen there, what went wrong."""

from typing import Any

from django.contrib import admin
from django.db.models import Count, Q, QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.admin import ModelAdmin

from config.display import code, figure, labelled, moment, quiet
from config.read_only import ReadOnlyInline
from ingestion.models import IngestionJob, WatchedFile, WatchedSource

# How a job ended that loaded nothing of its file.
_NOT_LOADED = (IngestionJob.State.REFUSED, IngestionJob.State.FAILED)


class WatchedFileInline(ReadOnlyInline):
    """The files that were seen there, the newest first."""

    model = WatchedFile
    verbose_name_plural = "Files"
    fields = ("file", "seen", "job_state")
    readonly_fields = fields
    ordering = ("-seen_at", "path")
    per_page = 50

    def get_queryset(self, request: HttpRequest) -> QuerySet[WatchedFile]:
        files: QuerySet[WatchedFile] = super().get_queryset(request)
        return files.select_related("job")

    @admin.display(description="File")
    def file(self, file: WatchedFile) -> str:
        return file.path.removeprefix(file.watched.path).lstrip("/") or file.path

    @admin.display(description="Seen")
    def seen(self, file: WatchedFile) -> SafeString:
        return moment(file.seen_at)

    @admin.display(description="Job")
    def job_state(self, file: WatchedFile) -> SafeString:
        if file.job is None:
            return quiet("waits until it stands still" if file.taken_at is None else "taken")
        why = f": {file.job.error}" if file.job.error else ""
        link = reverse("admin:ingestion_ingestionjob_change", args=[file.job.pk])
        return format_html('<a href="{}">{}</a>{}', link, file.job.get_state_display(), why)


@admin.register(WatchedSource)
class WatchedSourceAdmin(ModelAdmin):  # type: ignore[misc]
    """Every minute beat has them looked at."""

    list_display = ("path", "source", "on", "files_seen", "not_loaded", "looked", "last_error")
    list_filter = ("enabled",)
    list_filter_submit = False
    search_fields = ("path", "source")
    fields = ("path", "source", "enabled", "looked", "last_error")
    readonly_fields = ("looked", "last_error")
    ordering = ("path",)
    actions = None
    list_per_page = 50
    inlines = (WatchedFileInline,)

    def get_queryset(self, request: HttpRequest) -> QuerySet[WatchedSource]:
        sources: QuerySet[WatchedSource] = super().get_queryset(request)
        bad = Count("files", filter=Q(files__job__state__in=_NOT_LOADED))
        return sources.annotate(seen_files=Count("files"), bad_files=bad)

    def get_inlines(self, request: HttpRequest, obj: WatchedSource | None) -> Any:
        return self.inlines if obj is not None else ()

    @labelled("State", {"on": "success", "off": "warning"})
    def on(self, watched: WatchedSource) -> str:
        return "on" if watched.enabled else "off"

    @admin.display(description="Files")
    def files_seen(self, watched: Any) -> SafeString:
        return figure(watched.seen_files)

    @admin.display(description="Not loaded")
    def not_loaded(self, watched: Any) -> SafeString:
        return figure(watched.bad_files)

    @admin.display(description="Last look", ordering="looked_at")
    def looked(self, watched: WatchedSource) -> SafeString:
        return quiet("never") if watched.looked_at is None else moment(watched.looked_at)

    @admin.display(description="Last error")
    def last_error(self, watched: WatchedSource) -> SafeString:
        return quiet("none") if not watched.error_code else code(f"{watched.error_code}: {watched.error}")
