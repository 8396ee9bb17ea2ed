"""Customers in the operator admin. Each action is one call of a service."""

from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.views.main import ChangeList
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils.safestring import SafeString
from unfold.admin import ModelAdmin
from unfold.enums import ActionVariant

import accounts.admin_users  # noqa: F401 - registers users and roles
from accounts import services
from accounts.admin_forms import ConfirmForm, CustomerForm, KeyLimitsForm
from accounts.admin_keys import KeyInline, key_shown_once
from accounts.admin_members import MembershipInline
from accounts.admin_pages import account_url, operation, operation_page
from accounts.models import Account
from config.display import figure, labelled, moment, two_lines
from config.errors import DomainError
from credits.admin import GrantInline
from credits.admin_alerts import AlertInline, thresholds, thresholds_page
from credits.admin_balances import available_figure, balance_tiles
from credits.admin_money import adjust_page, top_up_page
from credits.alert_settings import preferences_of
from credits.selectors import live_balances

STATE_LABELS = {"active": "success", "suspended": "warning"}


class AccountChangeList(ChangeList):
    """Reads the live balances of the page's rows in one round trip."""

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        rows = list(self.result_list)
        for account, live in zip(rows, live_balances([account.number for account in rows]), strict=True):
            account.live = live
        self.result_list = rows


@admin.register(Account)
class AccountAdmin(ModelAdmin):  # type: ignore[misc]
    """Customers: balances, grants, keys, members; top up, issue a key, suspend."""

    list_display = ("short_number", "customer", "state_label", "ledger_balance", "live_available", "since")
    list_display_links = ("short_number", "customer")
    list_filter = ("state",)
    search_fields = ("=number", "name", "email")
    search_help_text = "Customer number, name or e-mail"
    ordering = ("-number",)
    show_full_result_count = False
    list_per_page = 50
    readonly_fields = ("number", "state_label", "since", "told", "id", "epoch", "drained_seq", "credit_seq")
    fieldsets = (
        ("Customer", {"fields": ("number", "name", "email", "state_label", "since", "told")}),
        ("Protocol", {"fields": ("id", "epoch", "drained_seq", "credit_seq"), "classes": ("collapse",)}),
    )
    inlines = (KeyInline, GrantInline, AlertInline, MembershipInline)
    change_form_before_template = "admin/accounts/account/tiles.html"
    actions_detail = ("top_up", "adjust", "issue_key", "set_alerts", "suspend", "reactivate")
    actions = None

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return AccountChangeList

    @admin.display(description="Number", ordering="number")
    def short_number(self, account: Account) -> int:
        return account.number

    @admin.display(description="Customer", ordering="name")
    def customer(self, account: Account) -> SafeString:
        return two_lines(account.name, account.email)

    @labelled("State", STATE_LABELS, ordering="state")
    def state_label(self, account: Account) -> str:
        return account.state

    @admin.display(description="Ledger balance", ordering="balance")
    def ledger_balance(self, account: Account) -> SafeString:
        return figure(account.balance)

    @admin.display(description="Live available")
    def live_available(self, account: Account) -> SafeString:
        return available_figure(account.live)  # type: ignore[attr-defined]

    @admin.display(description="Since", ordering="created_at")
    def since(self, account: Account) -> SafeString:
        return moment(account.created_at)

    @admin.display(description="Alerts")
    def told(self, account: Account) -> str:
        return thresholds(preferences_of(account))

    def has_delete_permission(self, request: HttpRequest, obj: Account | None = None) -> bool:
        return False

    def has_top_up_permission(self, request: HttpRequest, object_id: object = None) -> bool:
        return request.user.has_perm("credits.add_creditgrant")

    def has_adjust_permission(self, request: HttpRequest, object_id: object = None) -> bool:
        return request.user.has_perms(("credits.add_creditgrant", "credits.add_decrease"))

    def has_issue_permission(self, request: HttpRequest, object_id: object = None) -> bool:
        return request.user.has_perm("accounts.add_apikey")

    def has_alerts_permission(self, request: HttpRequest, object_id: object = None) -> bool:
        return request.user.has_perm("credits.change_alertsettings")

    def has_suspend_permission(self, request: HttpRequest, object_id: object = None) -> bool:
        return request.user.has_perm("accounts.change_account")

    def get_actions_detail(self, request: HttpRequest, object_id: Any) -> list[Any]:
        account = self.get_object(request, object_id)
        suspended = account is not None and account.state == Account.State.SUSPENDED
        hidden = "accounts_account_suspend" if suspended else "accounts_account_reactivate"
        return [entry for entry in super().get_actions_detail(request, object_id) if entry.action_name != hidden]

    def _found(self, request: HttpRequest, object_id: str) -> Account:
        account: Account | None = self.get_object(request, object_id)
        if account is None:
            raise Http404
        return account

    def save_model(self, request: HttpRequest, obj: Account, form: Any, change: bool) -> None:
        # The other columns belong to the credit protocol: writing what the form was opened with would undo charges.
        obj.save(update_fields=["name", "email"])

    def add_view(self, request: HttpRequest, form_url: str = "", extra_context: Any = None) -> HttpResponse:
        """A new customer: `create_customer`."""
        if not self.has_add_permission(request):
            raise PermissionDenied
        form = CustomerForm(request.POST or None)
        if form.is_valid():
            try:
                account = services.create_customer(name=form.cleaned_data["name"], email=form.cleaned_data["email"])
            except DomainError as error:
                form.refuse(error)
            else:
                self.log_addition(request, account, "Created the customer.")
                messages.success(request, f"{account} is there. Top it up and issue its first key.")
                return redirect("admin:accounts_account_change", account.pk)
        return operation_page(
            self,
            request,
            title="Add customer",
            form=form,
            submit="Create customer",
            notes=["The account starts with no credits and no key."],
            cancel_url=reverse("admin:accounts_account_changelist"),
        )

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        account = self.get_object(request, object_id)
        shown = {
            "tiles": balance_tiles(account) if account is not None else [],
            "show_save_and_add_another": False,
        }
        response: HttpResponse = super().change_view(request, object_id, form_url, {**(extra_context or {}), **shown})
        return response

    @operation("Top up", icon="add_card", permission="top_up", url_path="top-up", variant=ActionVariant.PRIMARY)
    def top_up(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Gives credits: `credits.services.top_up`, once however often the form is sent."""
        return top_up_page(self, request, self._found(request, object_id))

    @operation("Adjust", icon="balance", permission="adjust", url_path="adjust")
    def adjust(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Corrects the balance: `credits.adjustments`, once however often the form is sent."""
        return adjust_page(self, request, self._found(request, object_id))

    @operation("Issue key", icon="key", permission="issue", url_path="issue-key")
    def issue_key(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """A new API key: `issue_key`; the answer is the only place where the whole key ever stands."""
        account = self._found(request, object_id)
        form = KeyLimitsForm(request.POST if request.method == "POST" else None)
        if form.is_valid():
            try:
                issued = services.issue_key(account=account, actor=request.user.get_username(), **form.cleaned_data)
            except DomainError as error:
                form.refuse(error)
            else:
                self.log_change(request, account, f"Issued the key {issued.key.pk}.")
                return key_shown_once(self, request, issued, title="Key issued", back_url=account_url(account.pk))
        return operation_page(
            self,
            request,
            title="Issue key",
            subtitle=str(account),
            form=form,
            submit="Issue key",
            obj=account,
            notes=["The whole key is shown once, on the next page. Only a digest of it is kept."],
            cancel_url=account_url(account.pk),
        )

    @operation("Set alerts", icon="notifications", permission="alerts", url_path="alerts")
    def set_alerts(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """When and whom by e-mail to tell: `credits.alert_settings.save`."""
        return thresholds_page(self, request, self._found(request, object_id))

    @operation("Suspend", icon="block", permission="suspend", url_path="suspend")
    def suspend(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Its keys answer ACCOUNT_SUSPENDED: `set_account_state`."""
        return self._set_state(
            request,
            object_id,
            Account.State.SUSPENDED,
            title="Suspend",
            note="Every key of this account will answer 403 ACCOUNT_SUSPENDED within a second. Credits stay.",
        )

    @operation("Reactivate", icon="play_arrow", permission="suspend", url_path="reactivate")
    def reactivate(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Its keys work again: `set_account_state`."""
        return self._set_state(
            request,
            object_id,
            Account.State.ACTIVE,
            title="Reactivate",
            note="The account's active keys will work again within a second.",
        )

    def _set_state(
        self, request: HttpRequest, object_id: str, state: Account.State, *, title: str, note: str
    ) -> HttpResponse:
        account = self._found(request, object_id)
        if request.method == "POST":
            before = account.state
            change = services.set_account_state(account=account, state=state)
            account = change.account
            self.log_change(request, account, f"State: {before} → {account.state}.")
            done = f"{account} is {account.get_state_display().lower()}."
            if change.pending:
                messages.warning(request, f"{done} Redis away: keys it knows follow when it is back and has been told.")
            else:
                messages.success(request, done)
            return redirect(account_url(account.pk))
        return operation_page(
            self,
            request,
            title=title,
            subtitle=str(account),
            form=ConfirmForm(),
            submit=f"{title} {account.name}",
            obj=account,
            notes=[note],
            danger=state == Account.State.SUSPENDED,
            cancel_url=account_url(account.pk),
        )
