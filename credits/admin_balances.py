"""An account's balances for operators, and the page that tops it up."""

from typing import Any

from django.contrib.admin import ModelAdmin
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils import timezone
from django.utils.safestring import SafeString

from accounts.admin_pages import account_url, operation_page, result_page
from accounts.models import Account
from config.display import Tile, figure, quiet, short_figure
from config.errors import DomainError
from credits import counters, services
from credits.admin_forms import TopUpForm
from credits.models import CreditGrant
from credits.selectors import live_balances


def live_state(live: counters.LiveBalance | None) -> str:
    """Why there is no live balance, in words; empty when there is one."""
    if live is None:
        return "Redis away"
    return "" if live.usable else "not loaded"


def available_figure(live: counters.LiveBalance | None) -> SafeString:
    """The credits that can be spent now, or in words why nobody knows."""
    return quiet(live_state(live)) if live is None or not live.usable else figure(live.available)


def balance_tiles(account: Account) -> list[Tile]:
    """Live available, held, ledger balance, open grants."""
    live = live_balances([account.number])[0]
    if live is not None and live.usable:
        available, held, note, tone = short_figure(live.available), short_figure(live.held), "can be spent now", ""
    else:
        available = held = quiet(live_state(live))
        note = "loaded at the next request" if live is not None else "the ledger's balance stands"
        tone = "" if live is not None else "warning"
    open_grants = CreditGrant.objects.filter(account=account, remaining__gt=0, voided_at=None).count()
    ledger_url = f"{reverse('admin:credits_credittransaction_changelist')}?customer={account.number}"
    grants_url = f"{reverse('admin:credits_creditgrant_changelist')}?customer={account.number}"
    return [
        Tile("Live available", available, note, tone=tone),
        Tile("Held", held, "by requests that are running", tone=tone),
        Tile("Ledger balance", short_figure(account.balance), "booked entries", url=ledger_url),
        Tile("Open grants", figure(open_grants), "that can still pay", url=grants_url),
    ]


def top_up_page(model_admin: "ModelAdmin[Any]", request: HttpRequest, account: Account) -> HttpResponse:
    """Asks for amount and reason, then shows the balance before and after. Booked once, however often it is sent."""
    form = TopUpForm(request.POST) if request.method == "POST" else TopUpForm.blank()
    if form.is_valid():
        before = services.spendable(account)
        try:
            top_up = services.top_up(
                account=account,
                amount=form.cleaned_data["amount"],
                now=timezone.now(),
                reason=form.cleaned_data["reason"],
                actor=request.user.get_username(),
                external_id=form.external_id,
            )
        except services.PaymentMismatch as error:
            form.refuse_mismatch(error)
        except DomainError as error:
            form.refuse(error)
        else:
            return _topped_up_page(model_admin, request, account, before, top_up)
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


def _topped_up_page(
    model_admin: "ModelAdmin[Any]", request: HttpRequest, account: Account, before: int, top_up: services.TopUp
) -> HttpResponse:
    grant = top_up.grant
    if not top_up.repeated:
        model_admin.log_change(request, account, f"Topped up {grant.amount:,} credits: {grant.reason}")
    account.refresh_from_db()
    live = live_balances([account.number])[0]
    waits = live is None or not live.usable
    tiles = [
        Tile("Balance before", figure(before), "as booked" if waits else "could be spent before"),
        Tile("Added", figure(0 if top_up.repeated else grant.amount, sign="+"), "just now"),
        Tile(
            "Balance after",
            figure(top_up.balance),
            "as booked" if waits else "can be spent now",
            tone="" if waits else "good",
        ),
        Tile("Ledger balance", figure(account.balance), "booked entries"),
    ]
    return result_page(
        model_admin,
        request,
        "admin/credits/topped_up.html",
        title="Booked already" if top_up.repeated else "Topped up",
        subtitle=str(account),
        obj=account,
        tiles=tiles,
        entry=top_up.entry,
        repeated=top_up.repeated,
        waits_for=live_state(live),
    )
