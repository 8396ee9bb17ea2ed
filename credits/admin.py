"""Grants, the ledger, events set aside and commands in the operator admin: all to look at, none to change."""

from typing import Any

from django.contrib import admin
from django.db.models import Model, QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.html import format_html_join
from django.utils.safestring import SafeString
from unfold.enums import ActionVariant

import credits.admin_verification  # noqa: F401 - registers the ledger checks
from accounts.admin_pages import account_url, operation
from config.display import code, figure, labelled, link, moment, quiet
from config.read_only import NextPagePaginator, ReadOnlyAdmin, ReadOnlyInline
from credits import refunds
from credits.admin_filters import CustomerFilter, DayFilter, ExpiringFilter
from credits.admin_money import refund_page, void_page
from credits.models import Command, CreditGrant, CreditTransaction, GrantDraw, GrantReturn, Refund, SetAside

LINKS_MAX = 20


class OfAccountAdmin(ReadOnlyAdmin):
    """Rows that belong to an account."""

    list_select_related = ("account",)
    sortable_by = ()
    paginator = NextPagePaginator

    @admin.display(description="Customer")
    def customer(self, row: Any) -> SafeString:
        if row.account_id is None:
            return quiet("unknown")
        return link(account_url(row.account_id), str(row.account))

    @admin.display(description="Time")
    def created(self, row: Any) -> SafeString:
        return moment(row.created_at)

    @admin.display(description="Amount")
    def amount_figure(self, row: Any) -> SafeString:
        return figure(row.amount)


def state_of(grant: CreditGrant) -> str:
    """A grant's state in one word: scheduled, open, spent, ending (being taken back) or ended."""
    if grant.entered_at is None:
        return "ended" if grant.voided_at else "scheduled"
    if grant.ending_at is not None:
        return "ending" if grant.remaining else "ended"
    return "open" if grant.remaining else "spent"


class GrantInline(ReadOnlyInline):
    """Credits a customer was given, newest first, on its page."""

    model = CreditGrant
    verbose_name_plural = "Grants"
    fields = ("given", "kind", "state", "amount_figure", "remaining_figure", "expires", "reason")
    readonly_fields = fields

    @admin.display(description="Given")
    def given(self, grant: CreditGrant) -> SafeString:
        return link(reverse("admin:credits_creditgrant_change", args=[grant.pk]), moment(grant.created_at))

    @admin.display(description="State")
    def state(self, grant: CreditGrant) -> str:
        return state_of(grant)

    @admin.display(description="Amount")
    def amount_figure(self, grant: CreditGrant) -> SafeString:
        return figure(grant.amount)

    @admin.display(description="Remaining")
    def remaining_figure(self, grant: CreditGrant) -> SafeString:
        return figure(grant.remaining)

    @admin.display(description="Expires")
    def expires(self, grant: CreditGrant) -> SafeString:
        return moment(grant.expires_at) if grant.expires_at else quiet("never")


@admin.register(CreditGrant)
class CreditGrantAdmin(OfAccountAdmin):
    """Grants; a top-up makes one, its draws use it up. What one has left can be voided."""

    list_display = (
        "created",
        "customer",
        "kind",
        "state_label",
        "amount_figure",
        "remaining_figure",
        "expires",
    )
    actions_detail = ("void",)
    list_filter = ("kind", ExpiringFilter, CustomerFilter)
    fields = (
        "grant_id",
        "customer",
        "kind",
        "amount_figure",
        "remaining_figure",
        "state_label",
        "priority",
        "effective",
        "expires",
        "ending",
        "voided",
        "external",
        "reason",
        "actor",
        "created",
    )
    readonly_fields = fields
    ordering = ("-created_at",)

    @admin.display(description="Remaining")
    def remaining_figure(self, grant: CreditGrant) -> SafeString:
        return figure(grant.remaining)

    @labelled(
        "State", {"open": "success", "spent": "info", "scheduled": "info", "ending": "warning", "ended": "danger"}
    )
    def state_label(self, grant: CreditGrant) -> str:
        return state_of(grant)

    def has_void_permission(self, request: HttpRequest, object_id: object = None) -> bool:
        return request.user.has_perm("credits.add_decrease")

    def get_actions_detail(self, request: HttpRequest, object_id: Any) -> list[Any]:
        grant = self.get_object(request, object_id)
        can_end = grant is not None and state_of(grant) in {"open", "scheduled"}
        return super().get_actions_detail(request, object_id) if can_end else []

    @operation("Void", icon="block", permission="void", url_path="void", variant=ActionVariant.DANGER)
    def void(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Takes back what the grant has left: `credits.decreases.void_grant`."""
        grant = self.get_object(request, object_id)
        if grant is None:
            raise Http404
        return void_page(self, request, grant)

    @admin.display(description="Effective")
    def effective(self, grant: CreditGrant) -> SafeString:
        return moment(grant.effective_at)

    @admin.display(description="Expires")
    def expires(self, grant: CreditGrant) -> SafeString:
        return moment(grant.expires_at) if grant.expires_at else quiet("never")

    @admin.display(description="Id")
    def grant_id(self, grant: CreditGrant) -> SafeString:
        return code(str(grant.pk))

    @admin.display(description="Taken back since")
    def ending(self, grant: CreditGrant) -> SafeString:
        return moment(grant.ending_at)

    @admin.display(description="Voided")
    def voided(self, grant: CreditGrant) -> SafeString:
        return moment(grant.voided_at)

    @admin.display(description="External id")
    def external(self, grant: CreditGrant) -> SafeString:
        return code(grant.external_id or "")


class GrantDrawInline(ReadOnlyInline):
    """Which grants paid the entry."""

    model = GrantDraw
    verbose_name_plural = "Paid from"
    fields = ("grant_link", "amount_figure", "left")
    readonly_fields = fields
    ordering = ("id",)
    per_page = 50

    @admin.display(description="Grant")
    def grant_link(self, draw: GrantDraw) -> SafeString:
        return link(reverse("admin:credits_creditgrant_change", args=[draw.grant_id]), str(draw.grant))

    @admin.display(description="Paid")
    def amount_figure(self, draw: GrantDraw) -> SafeString:
        return figure(draw.amount)

    @admin.display(description="Left in the grant now")
    def left(self, draw: GrantDraw) -> SafeString:
        return figure(draw.grant.remaining)

    def get_queryset(self, request: HttpRequest) -> QuerySet[GrantDraw]:
        queryset: QuerySet[GrantDraw] = super().get_queryset(request)
        return queryset.select_related("grant")


@admin.register(CreditTransaction)
class LedgerAdmin(OfAccountAdmin):
    """The ledger: inserted by services, read here. Newest first by its own key, never counted."""

    list_display = ("entry", "created", "customer", "kind_label", "signed", "reason", "key", "actor")
    list_filter = ("type", "kind", DayFilter, CustomerFilter)
    actions_detail = ("refund",)
    fields = (
        "created",
        "customer",
        "type",
        "kind",
        "signed",
        "reason",
        "actor",
        "key",
        "operation_id",
        "refund_links",
        "charged_total",
        "epoch",
        "seq",
        "credit_seq",
    )
    readonly_fields = fields
    inlines = (GrantDrawInline,)
    ordering = ("-id",)

    def has_refund_permission(self, request: HttpRequest, object_id: object = None) -> bool:
        return request.user.has_perm("credits.add_refund")

    def get_actions_detail(self, request: HttpRequest, object_id: Any) -> list[Any]:
        entry = self.get_object(request, object_id)
        refundable = entry is not None and refunds.is_refundable(entry)
        return super().get_actions_detail(request, object_id) if refundable else []

    @operation("Refund", icon="undo", permission="refund", url_path="refund")
    def refund(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Gives a charge back: `credits.refunds.refund`. The entry itself stays: a refund is one of its own."""
        entry = self.get_object(request, object_id)
        if entry is None or not refunds.is_refundable(entry):
            raise Http404
        return refund_page(self, request, entry)

    @admin.display(description="Entry")
    def entry(self, entry: CreditTransaction) -> SafeString:
        return figure(entry.pk)

    @labelled(
        "Kind", {"Top-up": "success", "Refund": "success", "Usage": "info", "Expiry": "warning", "Void": "danger"}
    )
    def kind_label(self, entry: CreditTransaction) -> str:
        return entry.get_kind_display().capitalize()

    @admin.display(description="Credits")
    def signed(self, entry: CreditTransaction) -> SafeString:
        return figure(entry.amount, sign="+" if entry.type == CreditTransaction.Type.CREDIT else "−")

    @admin.display(description="Key")
    def key(self, entry: CreditTransaction) -> SafeString:
        return code(entry.api_key)

    @admin.display(description="Refund")
    def refund_links(self, entry: CreditTransaction) -> SafeString:
        """Of a charge: its refunds. Of a refund: the grants that got the credits."""
        if entry.type == CreditTransaction.Type.CREDIT:
            parts = GrantReturn.objects.filter(refund__entry=entry).select_related("grant").order_by("id")
            rows = [
                (reverse("admin:credits_creditgrant_change", args=[part.grant_id]), f"{part.amount:,} to {part.grant}")
                for part in parts[:LINKS_MAX]
            ]
        elif entry.operation is not None:
            done = Refund.objects.filter(account_id=entry.account_id, operation=entry.operation).order_by("created_at")
            rows = [
                (reverse("admin:credits_credittransaction_change", args=[one.entry_id]), str(one))
                for one in done[:LINKS_MAX]
            ]
        else:
            rows = []
        links = [link(url, text) for url, text in rows]
        return format_html_join(", ", "{}", ((one,) for one in links)) if links else quiet("none")

    @admin.display(description="Operation")
    def operation_id(self, entry: CreditTransaction) -> SafeString:
        return code(str(entry.operation or ""))

    def get_inlines(self, request: HttpRequest, obj: Model | None) -> Any:
        return self.inlines if isinstance(obj, CreditTransaction) and obj.type == "debit" else ()


@admin.register(SetAside)
class SetAsideAdmin(OfAccountAdmin):
    """Journal events that were not booked, and why."""

    list_display = ("entry", "created", "customer", "reason", "debit_figure", "epoch", "seq")
    list_filter = ("reason", DayFilter, CustomerFilter)
    fields = ("created", "customer", "reason", "debit_figure", "epoch", "seq", "event")
    readonly_fields = fields
    ordering = ("-id",)

    @admin.display(description="Number")
    def entry(self, row: SetAside) -> SafeString:
        return figure(row.pk)

    @admin.display(description="Credits not charged")
    def debit_figure(self, row: SetAside) -> SafeString:
        return figure(row.debit)


@admin.register(Command)
class CommandAdmin(OfAccountAdmin):
    """What Redis has to learn of each account, in order."""

    list_display = ("credit_seq", "created", "customer", "kind", "amount_figure", "confirmed")
    list_filter = ("kind", ("confirmed_at", admin.EmptyFieldListFilter), CustomerFilter)
    fields = ("customer", "credit_seq", "kind", "amount_figure", "created", "confirmed", "epoch", "seq")
    readonly_fields = fields
    ordering = ("-id",)

    @admin.display(description="Told to Redis")
    def confirmed(self, row: Command) -> SafeString:
        return moment(row.confirmed_at) if row.confirmed_at else quiet("not yet")
