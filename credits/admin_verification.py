"""Ledger checks in the operator admin: the last result, the history, a dry run, and the repair of what it found."""

from datetime import timedelta
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db import InterfaceError, OperationalError
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils import timezone
from django.utils.safestring import SafeString
from unfold.enums import ActionVariant

from accounts.admin_forms import ConfirmForm
from accounts.admin_pages import OperationForm, operation, operation_page
from config.clickhouse.client import StoreUnavailable
from config.display import Tile, figure, labelled, moment, quiet, short_figure
from config.errors import DomainError
from config.read_only import NextPagePaginator, ReadOnlyAdmin
from config.redis import RedisUnavailable
from credits import verification
from credits.models import VerificationRun

DIFFERENCES_SHOWN = 200
NUMBERS_SHOWN = 20
_State = VerificationRun.State
STATE_LABELS = {
    "running": "info",
    "proven": "success",
    "repaired": "warning",
    "differs": "danger",
    "behind": "warning",
    "failed": "danger",
    "broken off": "danger",
}
_TONES = {"success": "good", "warning": "warning", "danger": "bad", "info": ""}
_MEANING = {
    _State.RUNNING: "under way",
    _State.PROVEN: "every balance is proven",
    _State.REPAIRED: "what differed was loaded again",
    _State.DIFFERS: "balances differ",
    _State.BEHIND: "the drain has not caught up",
    _State.FAILED: "nothing is proven",
    _State.BROKEN_OFF: "it never ended; nothing is proven",
}


class ReasonForm(OperationForm):
    """Why live balances are replaced."""

    reason = forms.CharField(max_length=255, help_text="Stands in the history of checks, beside your name.")


def _label(state: str) -> str:
    return str(_State(state).label).lower()


def result_tile(row: VerificationRun | None, *, url: str = "") -> Tile:
    """The last check as a tile: what it says, and how old that is."""
    title = "Ledger check"
    if row is None:
        return Tile(title, quiet("never run"), "nothing is proven yet", url, "warning")
    state = verification.state_now(row)
    tone = _TONES[STATE_LABELS[_label(state)]]
    age = timezone.now() - row.started_at
    if state == _State.PROVEN and age > verification.STALE_AFTER:
        return Tile(title, _label(state), f"{_ago(age)}; the next is overdue", url, "warning")
    return Tile(title, _label(state), f"{_MEANING[_State(state)]}, {_ago(age)}", url, tone)


def _ago(age: timedelta) -> str:
    minutes = int(age.total_seconds()) // 60
    if minutes < 1:
        return "just now"
    if minutes < 120:
        return f"{minutes} min ago"
    return f"{minutes // 60} h ago" if minutes < 48 * 60 else f"{minutes // (24 * 60)} days ago"


@admin.register(VerificationRun)
class VerificationRunAdmin(ReadOnlyAdmin):
    """Every check that ran, newest first."""

    list_display = (
        "started",
        "state_label",
        "accounts_figure",
        "live_figure",
        "differences_figure",
        "took",
        "trigger",
        "actor",
    )
    list_filter = ("state", "trigger")
    fields = (
        "started",
        "finished",
        "state_label",
        "trigger",
        "actor",
        "reason_given",
        "repair",
        "behind_numbers",
        "error",
    )
    readonly_fields = fields
    ordering = ("-id",)
    paginator = NextPagePaginator
    list_before_template = "admin/credits/verification.html"
    change_form_before_template = "admin/credits/verification_run.html"
    actions_list = ("check_now",)
    actions_detail = ("repair_now",)
    sortable_by = ()

    @admin.display(description="Started")
    def started(self, row: VerificationRun) -> SafeString:
        return moment(row.started_at)

    @admin.display(description="Finished")
    def finished(self, row: VerificationRun) -> SafeString:
        return moment(row.finished_at) if row.finished_at else quiet("not finished")

    @labelled("Result", STATE_LABELS)
    def state_label(self, row: VerificationRun) -> str:
        return _label(verification.state_now(row))

    @admin.display(description="Accounts")
    def accounts_figure(self, row: VerificationRun) -> SafeString:
        return figure(row.accounts)

    @admin.display(description="Live")
    def live_figure(self, row: VerificationRun) -> SafeString:
        return figure(row.live_accounts)

    @admin.display(description="Differences")
    def differences_figure(self, row: VerificationRun) -> SafeString:
        return figure(len(row.differences))

    @admin.display(description="Took")
    def took(self, row: VerificationRun) -> SafeString | str:
        return f"{(row.finished_at - row.started_at).total_seconds():.1f} s" if row.finished_at else quiet("–")

    @admin.display(description="Reason")
    def reason_given(self, row: VerificationRun) -> SafeString | str:
        return row.reason or quiet("none")

    @admin.display(description="Behind")
    def behind_numbers(self, row: VerificationRun) -> SafeString | str:
        return f"customers {_numbers(row.behind)}" if row.behind else quiet("none")

    def has_check_permission(self, request: HttpRequest, object_id: object = None) -> bool:
        return request.user.has_perm("credits.run_verification")

    def has_repair_permission(self, request: HttpRequest, object_id: object = None) -> bool:
        return request.user.has_perm("credits.repair_balances")

    def get_actions_detail(self, request: HttpRequest, object_id: Any) -> list[Any]:
        row = self.get_object(request, object_id)
        offered = row is not None and _may_be_repaired(row)
        return super().get_actions_detail(request, object_id) if offered else []

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        last = verification.last_run()
        shown = {
            "tiles": _tiles(last) if last is not None else [result_tile(None)],
            "last": last,
            "now": timezone.now(),
        }
        response: HttpResponse = super().changelist_view(request, {**(extra_context or {}), **shown})
        return response

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        row: VerificationRun | None = self.get_object(request, object_id)
        shown: dict[str, Any] = {}
        if row is not None:
            shown = {
                "tiles": _tiles(row),
                "differences": row.differences[:DIFFERENCES_SHOWN],
                "hidden": max(0, len(row.differences) - DIFFERENCES_SHOWN),
                "repaired": set(row.repaired),
                "proven": row.state == _State.PROVEN,
            }
        response: HttpResponse = super().change_view(request, object_id, form_url, {**(extra_context or {}), **shown})
        return response

    @operation("Check now", icon="fact_check", permission="check", url_path="check", variant=ActionVariant.PRIMARY)
    def check_now(self, request: HttpRequest) -> HttpResponse:
        """A dry run: `verification.run`."""
        if request.method == "POST":
            return self._carry_out(request, repair=False)
        return operation_page(
            self,
            request,
            title="Check the ledger",
            form=ConfirmForm(),
            submit="Check now",
            notes=["Books what the journal holds, then compares every account. Nothing else is changed."],
            cancel_url=_list_url(),
        )

    @operation("Repair", icon="build", permission="repair", url_path="repair", variant=ActionVariant.DANGER)
    def repair_now(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Loads live balances that differ again: `verification.run` with `repair`."""
        row: VerificationRun | None = self.get_object(request, object_id)
        if row is None:
            raise Http404
        if not _may_be_repaired(row):
            messages.warning(
                request, "There is nothing to repair here, or a newer check has been made. See its result."
            )
            return redirect(_list_url())
        form = ReasonForm(request.POST if request.method == "POST" else None)
        if form.is_valid():
            return self._carry_out(request, repair=True, reason=form.cleaned_data["reason"])
        numbers = sorted({difference["account"] for difference in row.differences if difference["repairable"]})
        return operation_page(
            self,
            request,
            title="Repair live balances",
            form=form,
            submit="Repair",
            obj=row,
            danger=True,
            notes=[
                f"Differ: customers {_numbers(numbers)}.",
                "Every account is compared again, and live balances that differ then are replaced by what the ledger says.",
                "The ledger itself is never changed, and calls under way go on.",
            ],
            cancel_url=_run_url(row),
        )

    def _carry_out(self, request: HttpRequest, *, repair: bool, reason: str = "") -> HttpResponse:
        if not (self.has_repair_permission(request) if repair else self.has_check_permission(request)):
            raise PermissionDenied
        try:
            row = verification.run(
                now=timezone.now(),
                trigger=VerificationRun.Trigger.ADMIN,
                actor=request.user.get_username(),
                reason=reason,
                repair=repair,
            )
        except DomainError as error:
            messages.error(request, error.message)
            return redirect(_list_url())
        except (*RedisUnavailable, StoreUnavailable, OperationalError, InterfaceError) as error:
            messages.error(request, f"A store cannot be reached ({type(error).__name__}), so nothing is proven.")
            return redirect(_list_url())
        if repair:
            self.log_change(request, row, f"Loaded {len(row.repaired)} live balances again: {reason}")
        if row.state == _State.PROVEN:
            messages.success(request, f"Every balance is proven: {row.accounts:,} accounts.")
        elif row.state == _State.REPAIRED:
            messages.success(request, f"{len(row.repaired)} live balances were loaded again from the ledger.")
        else:
            messages.warning(request, f"The check ended: {_MEANING[_State(row.state)]}.")
        return redirect(_run_url(row))


def _may_be_repaired(row: VerificationRun) -> bool:
    """Only what the newest check found: an older one says nothing about the balances of now."""
    return verification.can_repair(row) and not VerificationRun.objects.filter(pk__gt=row.pk).exists()


def _tiles(row: VerificationRun) -> list[Tile]:
    differ = len(row.differences)
    return [
        result_tile(row),
        Tile("Accounts", short_figure(row.accounts), "compared with ledger and grants"),
        Tile("Live", short_figure(row.live_accounts), "compared with Redis"),
        Tile("Differences", short_figure(differ), "expected and found differ", tone="bad" if differ else ""),
        Tile("Loaded again", short_figure(len(row.repaired)), "live balances" if row.repair else "not asked for"),
    ]


def _numbers(numbers: list[int]) -> str:
    more = len(numbers) - NUMBERS_SHOWN
    return ", ".join(map(str, numbers[:NUMBERS_SHOWN])) + (f" and {more:,} more" if more > 0 else "")


def _list_url() -> str:
    return reverse("admin:credits_verificationrun_changelist")


def _run_url(row: VerificationRun) -> str:
    return reverse("admin:credits_verificationrun_change", args=[row.pk])
