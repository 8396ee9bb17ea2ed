"""What an alert says: the e-mail for people, the JSON for programs. Pure; made from the row alone, so that it never changes."""

from typing import Any

import orjson

from credits.alert_models import Alert

WEBHOOK_TYPES = {
    Alert.Kind.LOW_CREDITS: "credits.low_balance",
    Alert.Kind.LOW_PERCENT: "credits.low_balance",
    Alert.Kind.EXPIRING: "credits.expiring_soon",
    Alert.Kind.TEST: "alerts.test",
}


def event_id(alert: Alert) -> str:
    """The event's id for receivers, the same on every channel and at every attempt."""
    return f"evt_{alert.event_id.hex}"


def figures(alert: Alert) -> dict[str, Any]:
    """The alert's figures: those that its kind has."""
    data: dict[str, Any] = {"balance": alert.balance}
    match alert.kind:
        case Alert.Kind.LOW_CREDITS:
            data |= {"unit": "credits", "threshold": alert.threshold}
        case Alert.Kind.LOW_PERCENT:
            data |= {"unit": "percent", "threshold": alert.threshold, "granted": alert.granted}
        case Alert.Kind.EXPIRING:
            data |= {
                "expiring": alert.expiring,
                "grants": alert.expiring_grants,
                "expires_at": alert.expires_at,
                "days": alert.threshold,
            }
    return data


def event(alert: Alert) -> dict[str, Any]:
    """The alert as programs get it, from the log and by webhook."""
    return {
        "id": event_id(alert),
        "type": WEBHOOK_TYPES[Alert.Kind(alert.kind)],
        "timestamp": alert.created_at,
        "account": {"id": str(alert.account_id), "number": alert.account.number},
        "data": figures(alert),
    }


def webhook_body(alert: Alert) -> bytes:
    """The event as JSON, byte for byte the same each time."""
    return orjson.dumps(event(alert), option=orjson.OPT_UTC_Z | orjson.OPT_SORT_KEYS)


def email(alert: Alert) -> tuple[str, str]:
    """(subject, text) of the e-mail."""
    account = alert.account
    match alert.kind:
        case Alert.Kind.LOW_CREDITS:
            subject = f"Meterhouse: {alert.balance:,} credits left"
            what = (
                f"The balance has come down to {alert.balance:,} credits; you asked to be told at {alert.threshold:,}."
            )
            then = "Top up before it is used up: a search that the balance does not cover is refused with 402."
        case Alert.Kind.LOW_PERCENT:
            subject = f"Meterhouse: {alert.balance:,} credits left"
            what = (
                f"The balance has come down to {alert.balance:,} credits, {alert.threshold} % or less of the"
                f" {alert.granted:,} credits that your open grants were given with."
                if alert.granted
                else "All credits are used up."
            )
            then = "Top up before it is used up: a search that the balance does not cover is refused with 402."
        case Alert.Kind.EXPIRING:
            subject = f"Meterhouse: {alert.expiring:,} credits expire soon"
            several = f"in {alert.expiring_grants:,} grants, the first " if (alert.expiring_grants or 0) > 1 else ""
            what = (
                f"{alert.expiring:,} of your {alert.balance:,} credits expire within {alert.threshold} days:"
                f" {several}on {alert.expires_at:%Y-%m-%d at %H:%M} UTC."
            )
            then = "Use them until then. Credits that expire first are spent first; there is nothing to switch."
        case _:
            subject = "Meterhouse: test alert"
            what = f"This is a test. The balance is {alert.balance:,} credits."
            then = "Alerts reach this address: there is nothing to do."
    text = (
        f"Account: {' '.join(account.name.split())} (customer {account.number})\n\n{what}\n\n{then}\n\n"
        "GET /api/v1/credits shows the balance and when each grant expires. PUT /api/v1/alerts changes when and where you\n"
        f"are told.\n\nEvent {event_id(alert)}, {alert.created_at:%Y-%m-%d %H:%M:%S} UTC\n"
    )
    return subject, text
