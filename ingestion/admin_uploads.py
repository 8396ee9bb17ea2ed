"""Files to load in the operator admin: upload, preview, mapping, start."""

from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db import connection
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.cache import patch_cache_control
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.views.decorators.csrf import csrf_exempt, csrf_protect

from config.admin_pages import page_context
from config.display import labelled, link, moment, quiet
from config.errors import DomainError
from config.read_only import ReadOnlyAdmin
from ingestion import upload_files, uploads
from ingestion.fields import FIELDS
from ingestion.mapping_documents import InvalidMapping, MappingDocument
from ingestion.models import Upload
from ingestion.saved_mappings import save_document
from ingestion.upload_files import ToUploadFolder
from ingestion.upload_forms import COLUMNS_EDITED, FIELD_LABELS, MappingForm, UploadForm, size_text

_State = Upload.State
STATE_TONES = {"being looked at": "info", "ready to load": "success", "refused": "danger", "started": "info"}
WAITS_TOO_LONG_S = 15


@admin.register(Upload)
class UploadAdmin(ReadOnlyAdmin):
    """Files that operators brought. What was never started goes after INGEST_UPLOAD_DAYS."""

    list_display = ("name", "state_label", "size", "source", "by", "came", "job_link")
    list_filter = ("state",)
    list_filter_submit = False
    search_fields = ("name", "source")
    ordering = ("-created_at",)

    def get_urls(self) -> list[URLPattern]:
        state = path(
            "<uuid:upload_id>/state/",
            self.admin_site.admin_view(self.state_view),
            name="ingestion_upload_state",
        )
        return [state, *super().get_urls()]

    def has_add_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("ingestion.load_file")

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return request.user.has_perm("ingestion.load_file") or request.user.has_perm("ingestion.view_upload")

    @labelled("State", STATE_TONES)
    def state_label(self, upload: Upload) -> str:
        return upload.get_state_display()

    @admin.display(description="Size", ordering="size_bytes")
    def size(self, upload: Upload) -> SafeString:
        return (
            format_html('<span class="mh-figure">{}</span>', size_text(upload.size_bytes))
            if upload.size_bytes
            else quiet("–")
        )

    @admin.display(description="By")
    def by(self, upload: Upload) -> str:
        return upload.uploaded_by

    @admin.display(description="Came", ordering="created_at")
    def came(self, upload: Upload) -> SafeString:
        return moment(upload.created_at)

    @admin.display(description="Job")
    def job_link(self, upload: Upload) -> SafeString:
        return quiet("not started") if upload.job_id is None else link(job_url(upload.job_id), "Open job")

    # The token is in the body, which must not be read before its length and its writer's rights are known.
    @csrf_exempt
    def add_view(self, request: HttpRequest, form_url: str = "", extra_context: Any = None) -> HttpResponse:
        if not self.has_add_permission(request):
            raise PermissionDenied
        if request.method != "POST":
            return self._add_page(request, UploadForm())
        try:
            upload_files.insist_on_room(int(request.META.get("CONTENT_LENGTH") or 0))
        except (DomainError, ValueError, OSError) as exc:
            form = UploadForm({})
            form.errors.clear()  # nothing of it was read
            form.add_error("file", _told(exc))
            return self._add_page(request, form, status=exc.status if isinstance(exc, DomainError) else 500)
        handler = ToUploadFolder()
        request.upload_handlers = [handler]
        connection.close()  # a slow line keeps no connection of the pool waiting
        try:
            return csrf_protect(self._receive)(request, handler)
        finally:
            handler.discard()

    def _receive(self, request: HttpRequest, handler: ToUploadFolder) -> HttpResponse:
        form = UploadForm(request.POST, request.FILES)
        is_valid = form.is_valid()
        if handler.trouble is not None:
            form.errors.pop("file", None)
            form.add_error("file", handler.trouble.message)
            # A page that is asked for by the script is shown with its reason; the status is for everybody else.
            return self._add_page(request, form, status=handler.trouble.status)
        if not is_valid:
            return self._add_page(request, form)
        given, stored = form.cleaned_data, form.stored
        options = {"source": given["source"], "wanted": given["wanted"], "now": timezone.now()}
        try:
            if stored is None:
                place = uploads.allowed_path(given["place"])
                upload = uploads.take_in(
                    name=str(place), path=place, is_stored=False, actor=request.user.get_username(), **options
                )
            else:
                upload = uploads.take_in(
                    name=stored.given,
                    path=handler.keep(),
                    is_stored=True,
                    size_bytes=stored.size or 0,
                    key=stored.key,
                    actor=request.user.get_username(),
                    **options,
                )
        except DomainError as exc:
            form.add_error("place" if stored is None else None, exc.message)
            return self._add_page(request, form)
        return _go(request, upload_url(upload))

    def _add_page(self, request: HttpRequest, form: UploadForm, *, status: int = 200) -> HttpResponse:
        context = {**page_context(self, request, None), "title": "Load a file", "form": form}
        return TemplateResponse(request, "admin/ingestion/upload_add.html", context, status=status)

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        upload = self.get_object(request, object_id)
        if not self.has_view_permission(request, upload):
            raise PermissionDenied
        if upload is None:
            messages.warning(request, "This upload is gone: it was not loaded in time.")
            return redirect(reverse("admin:ingestion_upload_changelist"))
        if upload.job_id is not None and request.method != "POST":
            return redirect(job_url(upload.job_id))
        if request.method == "POST":
            if not request.user.has_perm("ingestion.load_file"):
                raise PermissionDenied
            return self._act(request, upload)
        return self._page(request, upload, _form(upload))

    def _act(self, request: HttpRequest, upload: Upload) -> HttpResponse:
        """What a button of the preview does: `start` and `again` load, everything else looks anew."""
        do, form = request.POST.get("do", ""), _form(upload, request)
        if upload.state == _State.LOOKING and do != "start":
            return redirect(upload_url(upload))
        is_valid = form.is_valid()
        try:
            if is_valid and upload.state == _State.REFUSED:
                uploads.look_again(upload, now=timezone.now(), asked=form.asked)
                return redirect(upload_url(upload))
            if is_valid and _asks_for_another_part(upload, form):
                uploads.look_again(upload, now=timezone.now(), asked=form.asked)
                return redirect(upload_url(upload))
            if is_valid and form.says_something():
                return self._go_on(request, upload, form, do)
        except DomainError as exc:
            form.refuse(exc)
        return self._page(request, upload, form)

    def _go_on(self, request: HttpRequest, upload: Upload, form: MappingForm, do: str) -> HttpResponse:
        document, now = form.document(), timezone.now()
        name = form.cleaned_data["save_as"] or upload.mapping_name
        if form.cleaned_data["save_as"] and upload.job_id is None:
            source = upload.source if form.cleaned_data.get("for_source") else ""
            save_document(document, name=name, source=source, now=now)
            messages.success(request, f"The mapping is saved as “{name}”.")
        if upload.job_id is None and not _same(document, upload):
            uploads.look_again(upload, now=now, document=document, mapping_name=name, asked=form.asked)
            if do in ("start", "again"):
                messages.info(request, "The mapping has changed: look at what it gives now, then load.")
            return redirect(upload_url(upload))
        if do not in ("start", "again"):
            return redirect(upload_url(upload))
        job, is_new = uploads.start(upload, now=now, actor=request.user.get_username(), again=do == "again")
        if is_new:
            self.log_change(request, job, f"Started from the upload {upload.name}")
        return redirect(job_url(job.pk))

    def _page(self, request: HttpRequest, upload: Upload, form: MappingForm) -> HttpResponse:
        result = upload.result
        known = result.get("known")
        context = {
            **page_context(self, request, upload),
            "title": upload.name,
            "upload": upload,
            "form": form,
            "facts": _facts(upload),
            "shown": _shown(result),
            "more_columns": max(0, result.get("columns", 0) - COLUMNS_EDITED),
            "known_url": job_url(known["job"]) if known else "",
            "may_load": request.user.has_perm("ingestion.load_file"),
            **_looking(upload),
        }
        return TemplateResponse(request, "admin/ingestion/upload.html", context)

    def state_view(self, request: HttpRequest, upload_id: Any) -> HttpResponse:
        """What is being done with a file, asked for again and again; once it is done the whole page is to be loaded anew."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        upload = Upload.objects.filter(pk=upload_id).first()
        if upload is None:
            raise Http404
        response = TemplateResponse(
            request, "admin/ingestion/upload_looking.html", {"upload": upload, **_looking(upload)}
        )
        patch_cache_control(response, no_store=True)
        if upload.state != _State.LOOKING:
            response["HX-Refresh"] = "true"
        return response


def job_url(job_id: Any) -> str:
    return reverse("admin:ingestion_ingestionjob_change", args=[job_id])


def upload_url(upload: Upload) -> str:
    return reverse("admin:ingestion_upload_change", args=[upload.pk])


def _go(request: HttpRequest, url: str) -> HttpResponse:
    """A redirect that the page's script follows as well."""
    if request.headers.get("HX-Request"):
        return HttpResponse(status=200, headers={"HX-Redirect": url})
    return redirect(url)


def _told(exc: Exception) -> str:
    if isinstance(exc, DomainError):
        return exc.message
    return "The folder of uploads cannot be used. Ask whoever runs the machine to look at INGEST_UPLOAD_DIR."


def _form(upload: Upload, request: HttpRequest | None = None) -> MappingForm:
    typed = None if request is None else request.POST
    return MappingForm(typed, result=upload.result, options=upload.options, source=upload.source)


def _asks_for_another_part(upload: Upload, form: MappingForm) -> bool:
    return upload.retry_of_id is None and form.asked != upload.options


def _same(document: MappingDocument, upload: Upload) -> bool:
    try:
        before = MappingDocument.from_json(upload.result["document"])
    except InvalidMapping:
        return False
    return _meaning(before) == _meaning(document)


def _meaning(document: MappingDocument) -> tuple[Any, ...]:
    targets = {name: target for name, target in document.targets.items() if target is not None}
    return (targets, document.last_first, document.day_first, document.region_column, document.name_parts)


def _looking(upload: Upload) -> dict[str, Any]:
    waited_s = (timezone.now() - upload.sent_at).total_seconds()
    waits = upload.state == _State.LOOKING and not upload.stage
    return {"waits": waits, "waits_long": waits and waited_s > WAITS_TOO_LONG_S}


def _facts(upload: Upload) -> list[tuple[str, str]]:
    """What was found about the file as a whole."""
    result = upload.result
    facts = [("Brought by", upload.uploaded_by or "nobody"), ("Source", upload.source or "none")]
    if not result:
        return facts
    detected = result["detected"]
    dialect = detected["dialect"]
    how = [detected["format"]]
    if detected["compression"]:
        how.append(f"in {detected['compression']}")
    if detected["encoding"] != "binary":
        how.append(detected["encoding"])
    if dialect:
        delimiter = {"\t": "tab", ",": "comma", ";": "semicolon", "|": "bar"}.get(
            dialect["delimiter"], dialect["delimiter"]
        )
        how.append(f"{delimiter} between values, {'with' if dialect['has_header'] else 'without'} a header")
    unpacked = result["content_bytes"] != result["size_bytes"]
    size = size_text(result["size_bytes"]) + (f", {size_text(result['content_bytes'])} unpacked" if unpacked else "")
    facts = [("Format", ", ".join(how)), ("Size", size), *facts]
    if result["table"]:
        facts.insert(1, ("Table", f"{result['table']}, of {len(result['tables'])}"))
    elif result["sheets"]:
        facts.insert(1, ("Sheet", f"{detected['choice']}, of {len(result['sheets'])}"))
    elif detected["records"]:
        facts.insert(1, ("Records", f"the list {detected['records']['path']}; what is around it is not loaded"))
    if result["mapping_name"] and result["mapping_name"] != "preview":
        facts.append(("Mapping", result["mapping_name"]))
    return facts


def _shown(result: dict[str, Any]) -> dict[str, Any]:
    """The preview's rows as a table: the fields that anything has, in their order."""
    preview = result.get("preview")
    if not preview:
        return {}
    filled = {name for row in preview["rows"] for name in row.get("values", {})}
    names = [name for name in (*FIELDS, "metadata") if name in filled]
    rows = [{**row, "cells": [row.get("values", {}).get(name, "") for name in names]} for row in preview["rows"]]
    return {
        **preview,
        "names": [FIELD_LABELS.get(name, name) for name in names],
        "rows": rows,
        "width": len(names) + 2,
        "usable": preview["judged"] - preview["rejected"],
    }
