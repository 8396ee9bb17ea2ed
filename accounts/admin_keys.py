"""API keys in the operator admin: on their customer's page, and by themselves."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.contrib import admin, messages
from django.contrib.admin import ModelAdmin
from django.contrib.admin.views.main import ChangeList
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import timezone
from django.utils.safestring import SafeString
from unfold.enums import ActionVariant

from accounts import revocation, services
from accounts.admin_forms import KeyLimitsForm, RevokeKeyForm, RotateKeyForm
from accounts.admin_pages import account_url, operation, operation_page, result_page
from accounts.models import ApiKey
from config.display import code, figure, labelled, link, moment, quiet, two_lines
from config.errors import DomainError
from config.read_only import ReadOnlyAdmin, ReadOnlyInline
from credits.key_limits import change_key_limits, spent_this_month

STATE_LABELS = {
    "active": "success",
    "in grace": "info",
    "expired": "warning",
    "revoked": "danger",
    "pending": "warning",
}


class KeyChangeList(ChangeList):
    """Reads what the page's capped keys have spent this month in one round trip."""

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        rows = list(self.result_list)
        note_spending(rows)
        self.result_list = rows


def note_spending(rows: Sequence[ApiKey]) -> None:
    """Writes what the family of each capped key has spent this month beside the key."""
    capped = [key for key in rows if key.monthly_cap is not None]
    spent = spent_this_month([(key.account.number, key.family) for key in capped])
    for key, known in zip(capped, spent, strict=True):
        key.spent = known  # type: ignore[attr-defined]


def key_shown_once(
    model_admin: "ModelAdmin[Any]",
    request: HttpRequest,
    issued: services.IssuedKey,
    *,
    title: str,
    back_url: str,
    replaced: ApiKey | None = None,
) -> TemplateResponse:
    """The only page on which a whole key ever stands; `replaced` is the key that it follows."""
    return result_page(
        model_admin,
        request,
        "admin/accounts/account/key_issued.html",
        title=title,
        subtitle=str(issued.key.account),
        obj=issued.key.account if replaced is None else replaced,
        key=issued.key,
        api_key=issued.api_key,
        replaced=replaced,
        pending=issued.pending,
        back_url=back_url,
    )


class KeyColumns:
    """What a key says of itself wherever it is listed."""

    @labelled("State", STATE_LABELS, ordering="state")
    def state_label(self, key: ApiKey) -> str:
        return key.shown_state(now=timezone.now())

    @admin.display(description="Spent this month")
    def month(self, key: ApiKey) -> SafeString:
        if key.monthly_cap is None:
            return quiet("no cap")
        spent = getattr(key, "spent", None)
        of_cap = f"of {key.monthly_cap:,}"
        return two_lines("unknown", of_cap) if spent is None else two_lines(f"{spent:,}", of_cap)

    @admin.display(description="Expires", ordering="expires_at")
    def expires(self, key: ApiKey) -> SafeString:
        return quiet("never") if key.expires_at is None else moment(key.expires_at)

    @admin.display(description="Requests per minute", ordering="rpm")
    def limit(self, key: ApiKey) -> SafeString:
        if key.rpm is None:
            return quiet(f"{settings.RATE_LIMIT_RPM:,} (setting)")
        return figure(key.rpm) if key.rpm else quiet("no limit")

    @admin.display(description="Created", ordering="created_at")
    def created(self, key: ApiKey) -> SafeString:
        return moment(key.created_at)

    @admin.display(description="Last used", ordering="last_used_at")
    def last_used(self, key: ApiKey) -> SafeString:
        return quiet("never") if key.last_used_at is None else moment(key.last_used_at)


class KeyInline(KeyColumns, ReadOnlyInline):
    """The customer's keys, newest first."""

    model = ApiKey
    verbose_name_plural = "API keys"
    template_after = "admin/accounts/account/no_keys.html"
    fields = ("key", "label", "state_label", "limit", "expires", "last_used")
    readonly_fields = fields

    @admin.display(description="Key")
    def key(self, key: ApiKey) -> SafeString:
        return link(reverse("admin:accounts_apikey_change", args=[key.pk]), code(key.masked))


@admin.register(ApiKey)
class ApiKeyAdmin(KeyColumns, ReadOnlyAdmin):
    """Keys of all customers: find, limit, rotate, revoke. Issued on the customer's page."""

    list_display = ("masked_key", "owner_and_label", "state_label", "month", "expires", "last_used")
    list_filter = ("state",)
    search_fields = ("=public_id", "=account__number", "account__name", "label")
    search_help_text = "Key id, customer number or name, label"
    list_select_related = ("account",)
    list_filter_submit = False
    readonly_fields = (
        "masked_key",
        "owner",
        "state_label",
        "limit",
        "month",
        "allowed_scopes",
        "allowed_networks",
        "expires",
        "last_used",
        "created",
        "revoked",
    )
    fields = (
        "masked_key",
        "owner",
        "label",
        "state_label",
        "limit",
        "month",
        "allowed_scopes",
        "allowed_networks",
        "expires",
        "successor",
        "last_used",
        "created",
        "created_by",
        "revoked",
        "revoked_by",
        "revoked_reason",
    )
    actions_detail = ("change_limits", "rotate", "revoke")

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return KeyChangeList

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> ApiKey | None:
        key: ApiKey | None = super().get_object(request, object_id, from_field)
        if key is not None:
            note_spending([key])
        return key

    @admin.display(description="Key", ordering="public_id")
    def masked_key(self, key: ApiKey) -> SafeString:
        return code(key.masked)

    @admin.display(description="Customer", ordering="account__number")
    def owner(self, key: ApiKey) -> SafeString:
        return link(account_url(key.account_id), str(key.account))

    @admin.display(description="Customer", ordering="account__number")
    def owner_and_label(self, key: ApiKey) -> SafeString:
        below = f"customer {key.account.number}" + (f" · {key.label}" if key.label else "")
        return link(account_url(key.account_id), two_lines(key.account.name, below))

    @admin.display(description="Scopes")
    def allowed_scopes(self, key: ApiKey) -> str | SafeString:
        return ", ".join(key.scopes) or quiet("all")

    @admin.display(description="Networks")
    def allowed_networks(self, key: ApiKey) -> str | SafeString:
        return ", ".join(key.networks) or quiet("any address")

    @admin.display(description="Revoked")
    def revoked(self, key: ApiKey) -> SafeString:
        return moment(key.revoked_at)

    def _found(self, request: HttpRequest, object_id: str) -> ApiKey:
        key: ApiKey | None = self.get_object(request, object_id)
        if key is None:
            raise Http404
        return key

    def has_control_permission(self, request: HttpRequest, object_id: object = None) -> bool:
        return request.user.has_perm("accounts.change_apikey")

    def has_rotate_permission(self, request: HttpRequest, object_id: object = None) -> bool:
        return request.user.has_perms(["accounts.change_apikey", "accounts.add_apikey"])

    def get_actions_detail(self, request: HttpRequest, object_id: Any) -> list[Any]:
        actions: list[Any] = super().get_actions_detail(request, object_id)
        key = ApiKey.objects.filter(pk=object_id).first()
        hidden = set()
        if key is None or key.state != ApiKey.State.ACTIVE:
            hidden.add("accounts_apikey_change_limits")
        if key is None or key.shown_state(now=timezone.now()) != "active":
            hidden.add("accounts_apikey_rotate")
        return [entry for entry in actions if entry.action_name not in hidden]

    @operation("Change limits", icon="tune", permission="control", url_path="limits")
    def change_limits(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """What the key may do: `change_key_limits`."""
        key = self._found(request, object_id)
        form = KeyLimitsForm(request.POST if request.method == "POST" else None, key=key)
        if form.is_valid():
            try:
                change = change_key_limits(public_id=key.pk, now=timezone.now(), **form.cleaned_data)
            except DomainError as error:
                form.refuse(error)
            else:
                self._report_change(request, change)
                return redirect("admin:accounts_apikey_change", key.pk)
        return operation_page(
            self,
            request,
            title="Change limits",
            subtitle=f"{key.masked} of {key.account}",
            form=form,
            submit="Change limits",
            obj=key,
            notes=["The limits hold from the key's next request on."],
            cancel_url=_page_of(key),
        )

    def _report_change(self, request: HttpRequest, change: services.KeyChange) -> None:
        key = change.key
        if not change.changed:
            messages.info(request, f"{key.masked} had these limits already.")
            return
        said = "; ".join(
            f"{name}: {_said(before)} → {_said(after)}" for name, (before, after) in change.changed.items()
        )
        self.log_change(request, key, f"Changed {said}.")
        if change.pending:
            messages.warning(
                request,
                f"{key.masked} is changed; pending: Redis could not be told yet. The drain tells it when it is back.",
            )
        else:
            messages.success(request, f"The limits of {key.masked} are changed.")

    @operation("Rotate", icon="autorenew", permission="rotate", url_path="rotate")
    def rotate(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """A successor with the same limits, shown once: `rotate_key`."""
        key = self._found(request, object_id)
        form = RotateKeyForm(request.POST if request.method == "POST" else None)
        if form.is_valid():
            grace = timedelta(hours=int(form.cleaned_data["grace"]))
            try:
                issued = services.rotate_key(
                    public_id=key.pk, grace=grace, now=timezone.now(), actor=request.user.get_username()
                )
            except DomainError as error:
                form.refuse(error)
            else:
                key.refresh_from_db()
                self.log_change(request, key, f"Rotated: its successor is {issued.key.pk}.")
                return key_shown_once(self, request, issued, title="Key rotated", back_url=_page_of(key), replaced=key)
        return operation_page(
            self,
            request,
            title="Rotate key",
            subtitle=f"{key.masked} of {key.account}",
            form=form,
            submit="Rotate key",
            obj=key,
            notes=[
                "The successor inherits every limit, and what this key has spent of its monthly cap.",
                "It is shown once, on the next page. A key that leaked is revoked instead.",
            ],
            cancel_url=_page_of(key),
        )

    @operation("Revoke", icon="key_off", permission="control", url_path="revoke", variant=ActionVariant.DANGER)
    def revoke(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Ends the key for good: `revoke_key`. Revoking it again tells who could not be told."""
        key = self._found(request, object_id)
        form = RevokeKeyForm(request.POST if request.method == "POST" else None, public_id=key.pk)
        if form.is_valid():
            try:
                done = revocation.revoke_key(
                    public_id=key.pk,
                    now=timezone.now(),
                    actor=request.user.get_username(),
                    reason=form.cleaned_data["reason"],
                )
            except DomainError as error:
                form.refuse(error)
            else:
                self.log_change(request, key, f"Revoked the key: {done.state}, known by {' and '.join(done.known_by)}.")
                tell = messages.warning if done.pending else messages.success
                tell(request, f"{key.masked} is {done.state}. {done.meaning}")
                return redirect("admin:accounts_apikey_change", key.pk)
        return operation_page(
            self,
            request,
            title="Revoke key",
            subtitle=f"{key.masked} of {key.account}",
            form=form,
            submit="Revoke this key",
            obj=key,
            notes=["A revoked key never works again. The customer needs another key first."],
            danger=True,
            cancel_url=_page_of(key),
        )


def _page_of(key: ApiKey) -> str:
    return reverse("admin:accounts_apikey_change", args=[key.pk])


def _said(value: Any) -> str:
    """A limit as the history says it."""
    if isinstance(value, list):
        return ", ".join(value) or "any"
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S} UTC"
    return "none" if value in (None, "") else str(value)
