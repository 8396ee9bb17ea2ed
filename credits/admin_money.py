"""The operators' pages that move money: top up, adjust, void, refund. Each is one call of a service, booked once."""

import uuid
from collections.abc import Sequence
from typing import Any, TypeVar

from django.contrib.admin import ModelAdmin
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils import timezone
from django.utils.safestring import SafeString

from accounts.admin_pages import account_url, operation_page, result_page
from accounts.models import Account
from config.display import Tile, figure, link, moment
from config.errors import DomainError
from config.redis import RedisUnavailable
from credits import adjustments, decreases, refunds, services
from credits.admin_balances import balance_tiles, live_state
from credits.admin_forms import AdjustForm, MoneyForm, ReasonForm, RefundForm, TopUpForm
from credits.models import CreditGrant, CreditTransaction
from credits.refunds import Plan
from credits.selectors import live_balances

Form = TypeVar("Form", bound=MoneyForm)
Fact = tuple[str, str | SafeString]
PARTS_SHOWN_MAX = 10
_NEEDS_REDIS = "Redis cannot be reached, so nobody knows what is held. Nothing was changed; try again."


def top_up_page(model_admin: "ModelAdmin[Any]", request: HttpRequest, account: Account) -> HttpResponse:
    """Asks for amount, reason and dates, then shows the balance before and after."""
    form = _form(TopUpForm, request)
    if form.is_valid():
        before, given = services.spendable(account), form.cleaned_data
        try:
            done = services.top_up(
                account=account,
                amount=given["amount"],
                now=timezone.now(),
                reason=given["reason"],
                actor=request.user.get_username(),
                external_id=form.external_id,
                kind=given["kind"],
                priority=given["priority"],
                effective_at=given["effective_at"],
                expires_at=given["expires_at"],
            )
        except DomainError as error:
            form.refuse(error)
        else:
            return _topped_up(model_admin, request, account, before, done)
    return operation_page(
        model_admin,
        request,
        title="Top up",
        subtitle=str(account),
        form=form,
        submit="Top up",
        obj=account,
        tiles=balance_tiles(account),
        cancel_url=account_url(account.pk),
    )


def _topped_up(
    model_admin: "ModelAdmin[Any]", request: HttpRequest, account: Account, before: int, done: services.TopUp
) -> HttpResponse:
    grant, scheduled = done.grant, done.entry is None
    if not done.repeated:
        when = f" from {grant.effective_at:%Y-%m-%d %H:%M} UTC on" if scheduled else ""
        model_admin.log_change(request, account, f"Topped up {grant.amount:,} credits{when}: {grant.reason}")
    return _booked_page(
        model_admin,
        request,
        account,
        title="Booked already" if done.repeated else "Scheduled" if scheduled else "Topped up",
        before=before,
        after=done.balance,
        change=0 if done.repeated or scheduled else grant.amount,
        repeated="This top-up was booked before; sending it again books nothing." if done.repeated else "",
        done="The credits do not count yet; they are booked by themselves on their date."
        if scheduled
        else "The credits can be spent.",
        facts=[
            ("Amount", figure(grant.amount)),
            ("Kind", grant.get_kind_display()),
            ("Counts from", moment(grant.effective_at)),
            ("Expires", moment(grant.expires_at) if grant.expires_at else "never"),
            ("Reason", grant.reason),
            ("Booked by", grant.actor),
            ("Grant", _grant_link(grant)),
            *([("Ledger entry", _entry_link(done.entry))] if done.entry else []),
        ],
    )


def adjust_page(model_admin: "ModelAdmin[Any]", request: HttpRequest, account: Account) -> HttpResponse:
    """Adds, takes, or sets the balance to a figure; then shows the balance before and after."""
    form = _form(AdjustForm, request)
    if form.is_valid():
        before, given = services.spendable(account), form.cleaned_data
        said = {"reason": given["reason"], "actor": request.user.get_username(), "now": timezone.now()}
        try:
            if given["mode"] == "set":
                done = adjustments.set_balance(
                    account=account, target=given["amount"], external_id=form.external_id, **said
                )
            else:
                change = given["amount"] if given["mode"] == "add" else -given["amount"]
                done = adjustments.adjust(account=account, change=change, external_id=form.external_id, **said)
        except DomainError as error:
            form.refuse(error)
        except RedisUnavailable:
            form.add_error(None, _NEEDS_REDIS)
        else:
            return _adjusted(model_admin, request, account, before, done, given["reason"])
    return operation_page(
        model_admin,
        request,
        title="Adjust balance",
        subtitle=str(account),
        form=form,
        submit="Adjust balance",
        obj=account,
        tiles=balance_tiles(account),
        notes=[
            "The ledger is never changed: an adjustment is an entry of its own. For a charge, use Refund on its entry."
        ],
        cancel_url=account_url(account.pk),
    )


def _adjusted(
    model_admin: "ModelAdmin[Any]",
    request: HttpRequest,
    account: Account,
    before: int,
    done: adjustments.Adjustment,
    reason: str,
) -> HttpResponse:
    if not done.repeated:
        model_admin.log_change(
            request, account, f"Adjusted by {done.change:+,} credits, {before:,} → {done.balance:,}: {reason}"
        )
    taking = "The ledger shows it as soon as the drain has booked it, within about a second."
    return _booked_page(
        model_admin,
        request,
        account,
        title="Booked already" if done.repeated else "Adjusted",
        before=before,
        after=done.balance,
        change=0 if done.repeated else done.change,
        repeated="This adjustment was booked before; sending it again books nothing." if done.repeated else "",
        done="The credits can be spent." if done.grant else taking,
        facts=[
            ("Change", figure(abs(done.change), sign="+" if done.change > 0 else "−")),
            ("Reason", reason),
            ("Booked by", request.user.get_username()),
            *([("Grant", _grant_link(done.grant))] if done.grant else []),
        ],
    )


def void_page(model_admin: "ModelAdmin[Any]", request: HttpRequest, grant: CreditGrant) -> HttpResponse:
    """Takes back what a grant has left, or cancels it while it is scheduled."""
    account = grant.account
    form = ReasonForm(request.POST if request.method == "POST" else None)
    if form.is_valid():
        before, reason = services.spendable(account), form.cleaned_data["reason"]
        try:
            decrease = decreases.void_grant(
                grant=grant, reason=reason, actor=request.user.get_username(), now=timezone.now()
            )
        except DomainError as error:
            form.refuse(error)
        except RedisUnavailable:
            form.add_error(None, _NEEDS_REDIS)
        else:
            target = decrease.target if decrease else 0
            model_admin.log_change(request, grant, f"Voided {target or grant.amount:,} credits: {reason}")
            return _booked_page(
                model_admin,
                request,
                account,
                title="Voided" if decrease else "Cancelled",
                before=before,
                after=services.spendable(account),
                change=-target,
                done="What requests under way hold follows when they end."
                if decrease
                else "The grant had not begun to count.",
                facts=[
                    ("Grant", _grant_link(grant)),
                    ("To be taken back", figure(target)),
                    ("Reason", reason),
                    ("Booked by", request.user.get_username()),
                ],
            )
    scheduled = grant.entered_at is None
    what = "Cancel scheduled grant" if scheduled else "Void grant"
    return operation_page(
        model_admin,
        request,
        title=what,
        subtitle=f"{grant} of {account}",
        form=form,
        submit=what,
        obj=grant,
        tiles=[Tile("Left in the grant", figure(grant.remaining), "can be taken back"), *balance_tiles(account)],
        notes=[
            "The grant will never count."
            if scheduled
            else "What the grant has left is taken back. What requests under way hold is waited for."
        ],
        danger=True,
        cancel_url=_grant_url(grant),
    )


def refund_page(model_admin: "ModelAdmin[Any]", request: HttpRequest, entry: CreditTransaction) -> HttpResponse:
    """Shows which grants would get what, then gives a charge back, wholly or in part."""
    account, operation = entry.account, entry.operation
    if operation is None:
        raise ValueError(f"ledger entry {entry.pk} is no charge")
    plan, nothing_left = _plan(account, operation)
    form = _form(RefundForm, request, **({"amount": plan.amount} if plan else {}))
    if form.is_valid():
        before, given = services.spendable(account), form.cleaned_data
        try:
            done = refunds.refund(
                account=account,
                operation=operation,
                amount=given["amount"],
                reason=given["reason"],
                actor=request.user.get_username(),
                now=timezone.now(),
                external_id=form.external_id,
                expires_at=given["expires_at"],
            )
        except DomainError as error:
            form.refuse(error)
        else:
            return _refunded(model_admin, request, entry, before, done)
    return operation_page(
        model_admin,
        request,
        title="Refund",
        subtitle=f"entry {entry.pk} of {account}",
        form=form,
        submit="Refund",
        obj=entry,
        tiles=_refund_tiles(plan),
        notes=[nothing_left] if nothing_left else _plan_notes(plan),
        cancel_url=reverse("admin:credits_credittransaction_change", args=[entry.pk]),
    )


def _plan(account: Account, operation: uuid.UUID) -> tuple[Plan | None, str]:
    """(what a whole refund would do, why there is none)"""
    try:
        return refunds.preview(account=account, operation=operation, now=timezone.now()), ""
    except DomainError as error:
        return None, error.message


def _refund_tiles(plan: Plan | None) -> list[Tile]:
    if plan is None:
        return []
    return [
        Tile("Charged", figure(plan.charged), "for the whole operation"),
        Tile("Refunded before", figure(plan.refunded)),
        Tile("Can be refunded", figure(plan.amount), tone="good"),
    ]


def _plan_notes(plan: Plan | None) -> list[str]:
    if plan is None:
        return []
    notes = [
        f"{part.amount:,} to {str(part.grant).lower()}, "
        + ("which paid them." if part.goes_back else "which has ended: they go into a new grant.")
        for part in plan.parts[:PARTS_SHOWN_MAX]
    ]
    more = len(plan.parts) - len(notes)
    return ["A refund of the whole gives back, in this order:", *notes, *([f"and {more} more."] if more else [])]


def _refunded(
    model_admin: "ModelAdmin[Any]", request: HttpRequest, entry: CreditTransaction, before: int, done: refunds.Refunded
) -> HttpResponse:
    refund = done.refund
    if not done.repeated:
        model_admin.log_change(request, entry, f"Refunded {refund.amount:,} credits: {refund.entry.reason}")
    returns = list(refund.returns.select_related("grant").order_by("id")[:PARTS_SHOWN_MAX])
    return _booked_page(
        model_admin,
        request,
        entry.account,
        title="Booked already" if done.repeated else "Refunded",
        before=before,
        after=done.balance,
        change=0 if done.repeated else refund.amount,
        repeated="This refund was booked before; sending it again books nothing." if done.repeated else "",
        done="The credits can be spent.",
        facts=[
            ("Amount", figure(refund.amount)),
            ("Of entry", _entry_link(entry)),
            *(("To grant", link(_grant_url(part.grant), f"{part.amount:,} to {part.grant}")) for part in returns),
            ("Reason", refund.entry.reason),
            ("Booked by", refund.entry.actor),
            ("Ledger entry", _entry_link(refund.entry)),
        ],
    )


def _form(form: type[Form], request: HttpRequest, **initial: object) -> Form:
    if request.method == "POST":
        return form(request.POST)
    return form(initial={**form.blank_initial(), **initial})


def _booked_page(
    model_admin: "ModelAdmin[Any]",
    request: HttpRequest,
    account: Account,
    *,
    title: str,
    before: int,
    after: int,
    change: int,
    done: str,
    facts: Sequence[Fact],
    repeated: str = "",
) -> HttpResponse:
    """What came of it: the balance before and after, and every fact of the booking."""
    account.refresh_from_db()
    live = live_balances([account.number])[0]
    waits = live is None or not live.usable
    tiles = [
        Tile("Balance before", figure(before), "as booked" if waits else "could be spent before"),
        Tile("Taken" if change < 0 else "Added", figure(abs(change), sign="−" if change < 0 else "+"), "just now"),
        Tile(
            "Balance after",
            figure(after),
            "as booked" if waits else "can be spent now",
            tone="" if waits else "good",
        ),
        Tile("Ledger balance", figure(account.balance), "booked entries"),
    ]
    return result_page(
        model_admin,
        request,
        "admin/credits/booked.html",
        title=title,
        subtitle=str(account),
        obj=account,
        tiles=tiles,
        facts=facts,
        done=done,
        repeated=repeated,
        waits_for=live_state(live),
        back_url=account_url(account.pk),
    )


def _grant_url(grant: CreditGrant) -> str:
    return reverse("admin:credits_creditgrant_change", args=[grant.pk])


def _grant_link(grant: CreditGrant) -> SafeString:
    return link(_grant_url(grant), str(grant))


def _entry_link(entry: CreditTransaction) -> SafeString:
    return link(reverse("admin:credits_credittransaction_change", args=[entry.pk]), str(entry.pk))
