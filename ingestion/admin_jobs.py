"""What an operator does to an ingestion job in the admin: cancel it, have it go on, roll it back; each with a reason."""

from collections.abc import Callable
from typing import Any

from django import forms
from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils import timezone
from unfold.enums import ActionVariant

from accounts.admin_pages import OperationForm, operation, operation_page
from config.errors import DomainError
from ingestion import cancelling, queueing, rolling_back
from ingestion.models import IngestionJob
from ingestion.progress import state_text

_OFFERED = {
    "cancel_job": cancelling.CANCELLABLE,
    "go_on": queueing.RESUMABLE,
    "roll_back": rolling_back.ROLLABLE,
}


class ReasonForm(OperationForm):
    """Why a job is ended, goes on or is rolled back."""

    reason = forms.CharField(max_length=255, help_text="Stands in the job's events, beside your name.")


class JobActions:
    """Buttons on a job's page; which of them are there says the job's state."""

    actions_detail = ("cancel_job", "go_on", "roll_back")

    def has_stop_permission(self, request: HttpRequest, object_id: object = None) -> bool:
        return request.user.has_perm("ingestion.stop_job")

    def has_roll_back_permission(self, request: HttpRequest, object_id: object = None) -> bool:
        return request.user.has_perm("ingestion.roll_back_job")

    def get_actions_detail(self, request: HttpRequest, object_id: Any) -> list[Any]:
        job: IngestionJob | None = self.get_object(request, object_id)  # type: ignore[attr-defined]
        offered: list[Any] = super().get_actions_detail(request, object_id)  # type: ignore[misc]
        prefix = "ingestion_ingestionjob_"
        return [
            action
            for action in offered
            if job is not None and job.state in _OFFERED[action.action_name.removeprefix(prefix)]
        ]

    @operation("Cancel", icon="cancel", permission="stop", url_path="cancel", variant=ActionVariant.DANGER)
    def cancel_job(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """`cancelling.cancel`."""
        return self._act(
            request,
            object_id,
            title="Cancel the job",
            submit="Cancel the job",
            notes=[
                "It ends after the chunk that is being loaded.",
                "Rows that it has loaded stay; roll it back to take them out.",
            ],
            act=cancelling.cancel,
        )

    @operation("Go on", icon="play_arrow", permission="stop", url_path="go-on")
    def go_on(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """`queueing.resume`."""
        return self._act(
            request,
            object_id,
            title="Have the job go on",
            submit="Go on",
            notes=["A worker takes it up from its last checkpoint. Its file must lie where it was."],
            act=queueing.resume,
        )

    @operation("Roll back", icon="undo", permission="roll_back", url_path="roll-back", variant=ActionVariant.DANGER)
    def roll_back(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """`rolling_back.request_roll_back`."""
        return self._act(
            request,
            object_id,
            title="Roll the job back",
            submit="Take its rows out",
            notes=[
                "A worker takes the rows that this job added out of the store.",
                "Rows that another job delivered, too, stay and become that job's.",
                "Other jobs wait while it works. Counts and rejected rows stay; the file may be loaded again.",
            ],
            act=rolling_back.request_roll_back,
        )

    def _act(
        self,
        request: HttpRequest,
        object_id: str,
        *,
        title: str,
        submit: str,
        notes: list[str],
        act: Callable[..., IngestionJob],
    ) -> HttpResponse:
        job: IngestionJob | None = self.get_object(request, object_id)  # type: ignore[attr-defined]
        if job is None:
            raise Http404
        url = reverse("admin:ingestion_ingestionjob_change", args=[job.pk])
        form = ReasonForm(request.POST if request.method == "POST" else None)
        if form.is_valid():
            reason = form.cleaned_data["reason"]
            try:
                job = act(job.pk, now=timezone.now(), actor=request.user.get_username(), reason=reason)
            except DomainError as error:
                form.refuse(error)
            else:
                self.log_change(request, job, f"{title}: {reason}")  # type: ignore[attr-defined]
                messages.success(request, f"{job.source_file}: {state_text(job)}.")
                return redirect(url)
        return operation_page(
            self,  # type: ignore[arg-type]
            request,
            title=title,
            subtitle=f"{job.source_file}, {state_text(job)}",
            form=form,
            submit=submit,
            obj=job,
            notes=notes,
            danger=act is rolling_back.request_roll_back,
            cancel_url=url,
        )
