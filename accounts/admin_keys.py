"""API keys in the operator admin: on their customer's page, and by themselves."""

from typing import Any

from django.conf import settings
from django.contrib import admin, messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils import timezone
from django.utils.safestring import SafeString
from unfold.enums import ActionVariant

from accounts import revocation, services
from accounts.admin_forms import KeyLimitForm, RevokeKeyForm
from accounts.admin_pages import account_url, operation, operation_page
from accounts.models import ApiKey
from config.display import code, figure, labelled, link, moment, quiet
from config.errors import DomainError
from config.read_only import ReadOnlyAdmin, ReadOnlyInline

STATE_LABELS = {"active": "success", "expired": "warning", "revoked": "danger"}


class KeyColumns:
    """What a key says of itself wherever it is listed."""

    @labelled("State", STATE_LABELS, ordering="state")
    def state_label(self, key: ApiKey) -> str:
        return key.shown_state(now=timezone.now())

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
    fields = ("key", "label", "state_label", "limit", "created", "last_used")
    readonly_fields = fields

    @admin.display(description="Key")
    def key(self, key: ApiKey) -> SafeString:
        return link(reverse("admin:accounts_apikey_change", args=[key.pk]), code(key.masked))


@admin.register(ApiKey)
class ApiKeyAdmin(KeyColumns, ReadOnlyAdmin):
    """Keys of all customers: find, limit, revoke. Issued on the customer's page."""

    list_display = ("masked_key", "owner", "label", "state_label", "limit", "last_used")
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
        "cap",
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
        "cap",
        "allowed_scopes",
        "allowed_networks",
        "expires",
        "successor",
        "last_used",
        "created",
        "created_by",
        "revoked",
        "revoked_by",
    )
    actions_detail = ("set_limit", "revoke")

    @admin.display(description="Key", ordering="public_id")
    def masked_key(self, key: ApiKey) -> SafeString:
        return code(key.masked)

    @admin.display(description="Customer", ordering="account__number")
    def owner(self, key: ApiKey) -> SafeString:
        return link(account_url(key.account_id), str(key.account))

    @admin.display(description="Credits per month")
    def cap(self, key: ApiKey) -> SafeString:
        return quiet("no cap") if key.monthly_cap is None else figure(key.monthly_cap)

    @admin.display(description="Scopes")
    def allowed_scopes(self, key: ApiKey) -> str | SafeString:
        return ", ".join(key.scopes) or quiet("all")

    @admin.display(description="Networks")
    def allowed_networks(self, key: ApiKey) -> str | SafeString:
        return ", ".join(key.networks) or quiet("any address")

    @admin.display(description="Expires")
    def expires(self, key: ApiKey) -> SafeString:
        return quiet("never") if key.expires_at is None else moment(key.expires_at)

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

    def get_actions_detail(self, request: HttpRequest, object_id: Any) -> list[Any]:
        actions: list[Any] = super().get_actions_detail(request, object_id)
        active = ApiKey.objects.filter(pk=object_id, state=ApiKey.State.ACTIVE).exists()
        return [entry for entry in actions if active or entry.action_name != "accounts_apikey_set_limit"]

    @operation("Change limit", icon="speed", permission="control", url_path="limit")
    def set_limit(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Requests per minute: `set_key_limit`."""
        key = self._found(request, object_id)
        form = KeyLimitForm(request.POST if request.method == "POST" else None, initial={"rpm": key.rpm})
        if form.is_valid():
            try:
                changed = services.set_key_limit(public_id=key.pk, rpm=form.cleaned_data["rpm"])
            except DomainError as error:
                form.refuse(error)
            else:
                self.log_change(request, changed, f"Requests per minute: {key.rpm} → {changed.rpm}.")
                messages.success(request, f"The limit of {key.masked} is changed.")
                return redirect("admin:accounts_apikey_change", key.pk)
        return operation_page(
            self,
            request,
            title="Change limit",
            subtitle=f"{key.masked} of {key.account}",
            form=form,
            submit="Change limit",
            obj=key,
            cancel_url=reverse("admin:accounts_apikey_change", args=[key.pk]),
        )

    @operation("Revoke", icon="key_off", permission="control", url_path="revoke", variant=ActionVariant.DANGER)
    def revoke(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Ends the key for good: `revoke_key`. Revoking it again tells Redis again."""
        key = self._found(request, object_id)
        form = RevokeKeyForm(request.POST if request.method == "POST" else None, public_id=key.pk)
        if form.is_valid():
            done = revocation.revoke_key(public_id=key.pk, now=timezone.now(), actor=request.user.get_username())
            self.log_change(request, key, "Revoked the key." + (" Redis is not told yet." if done.pending else ""))
            if done.pending:
                messages.warning(
                    request,
                    f"{key.masked} is revoked; pending: Redis could not be told yet. The drain tells it when it is back.",
                )
            else:
                messages.success(request, f"{key.masked} is revoked. Every request with it is refused from now on.")
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
            cancel_url=reverse("admin:accounts_apikey_change", args=[key.pk]),
        )
