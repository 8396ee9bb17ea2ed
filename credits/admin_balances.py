"""An account's balances for operators."""

from django.urls import reverse
from django.utils import timezone
from django.utils.safestring import SafeString

from accounts.models import Account
from config.display import Tile, figure, quiet, short_figure
from credits import counters, selectors
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


def _booked(account: Account) -> str:
    """How much of the balance pays without Redis."""
    return f"booked; {account.reserve:,} in reserve" if account.reserve else "booked entries"


def balance_tiles(account: Account) -> list[Tile]:
    """Live available, held, ledger balance, open grants, what of them expires soon."""
    live = live_balances([account.number])[0]
    if live is not None and live.usable:
        available, held, note, tone = short_figure(live.available), short_figure(live.held), "can be spent now", ""
    else:
        available = held = quiet(live_state(live))
        note = "loaded at the next request" if live is not None else "the ledger's balance stands"
        tone = "" if live is not None else "warning"
    open_grants = CreditGrant.objects.filter(account=account, remaining__gt=0, voided_at=None).count()
    scheduled = CreditGrant.objects.filter(account=account, entered_at=None, voided_at=None).count()
    expiring = selectors.expiring_soon(account=account, now=timezone.now(), within=selectors.EXPIRING_SOON)
    ledger_url = f"{reverse('admin:credits_credittransaction_changelist')}?customer={account.number}"
    grants_url = f"{reverse('admin:credits_creditgrant_changelist')}?customer={account.number}"
    return [
        Tile("Live available", available, note, tone=tone),
        Tile("Held", held, "by requests that are running", tone=tone),
        Tile("Ledger balance", short_figure(account.balance), _booked(account), url=ledger_url),
        Tile(
            "Open grants",
            figure(open_grants),
            f"can pay; {scheduled} scheduled" if scheduled else "that can still pay",
            url=grants_url,
        ),
        Tile(
            "Expiring in 30 days",
            short_figure(expiring.total),
            f"the first {expiring.grants[0].expires_at:%Y-%m-%d}" if expiring.grants else "nothing expires",
            url=grants_url,
            tone="warning" if expiring.total else "",
        ),
    ]
