"""System checks of the settings of alerts. They ask no store, so every command runs them."""

import ipaddress
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, register

from credits.alert_settings import EXPIRING_DAYS_MAX, PERCENT_MAX
from credits.amounts import CREDITS_MAX


@register("credits")
def check_alert_defaults(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """What counts for accounts that have not chosen is something that they could have chosen."""
    bounds = {"LOW_CREDITS": CREDITS_MAX, "LOW_PERCENT": PERCENT_MAX, "EXPIRING_DAYS": EXPIRING_DAYS_MAX}
    return [
        Error(f"ALERT_{name} is {value}.", hint=f"Set it to a whole number from 0 (off) to {most}.", id="credits.E041")
        for name, most in bounds.items()
        if not 0 <= (value := getattr(settings, f"ALERT_{name}")) <= most
    ]


@register("credits")
def check_webhook_networks(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """A network that is misspelt would refuse every webhook, or let through what was not meant."""
    wrong = [text for text in settings.ALERT_WEBHOOK_ALLOWED_NETWORKS if not _is_network(text)]
    return [
        Error(
            f"ALERT_WEBHOOK_ALLOWED_NETWORKS holds '{text}', which is no network.",
            hint="Write networks as 10.1.2.0/24 with no bits after the prefix, separated by commas.",
            id="credits.E042",
        )
        for text in wrong
    ]


def _is_network(text: str) -> bool:
    try:
        ipaddress.ip_network(text)
    except ValueError:
        return False
    return True
