"""Alerts over HTTP: a customer's programs choose when and where they are told, read the log and try it out. Free."""

from typing import Any

from django.utils import timezone
from drf_spectacular.utils import OpenApiParameter, extend_schema, inline_serializer
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from accounts.models import Account
from config.fields import validated
from config.openapi import API_KEY, errors
from credits import alert_log, alert_messages, alert_settings, alerts, metering
from credits.alert_models import Alert
from credits.alert_settings import Preferences
from credits.amounts import CREDITS_MAX
from credits.api import WholeNumber, free_headers, identify

SCOPE_NAME = "alerts"
# An answer that holds a secret is nobody's to keep.
_NOT_KEPT = {"Cache-Control": "no-store"}


class AlertsBody(serializers.Serializer[Any]):
    low_credits = WholeNumber(
        min_value=0,
        max_value=CREDITS_MAX,
        allow_null=True,
        default=None,
        help_text="Told when the balance is this or less; 0: never; null: the operator's default.",
    )
    low_percent = WholeNumber(
        min_value=0,
        max_value=alert_settings.PERCENT_MAX,
        allow_null=True,
        default=None,
        help_text="The same in percent of the credits that your open grants were given with.",
    )
    expiring_days = WholeNumber(
        min_value=0,
        max_value=alert_settings.EXPIRING_DAYS_MAX,
        allow_null=True,
        default=None,
        help_text="Told so many days before credits expire; 0: never; null: the operator's default.",
    )
    emails = serializers.ListField(
        child=serializers.CharField(max_length=254),
        max_length=alert_settings.EMAILS_MAX,
        allow_null=True,
        default=None,
        help_text="Who gets an e-mail, at most 10; []: nobody; null: the account's own address.",
    )
    webhook_url = serializers.CharField(
        allow_blank=True, default="", help_text="Public HTTPS address that events are sent to; empty: none."
    )


class PreferencesAnswer(serializers.Serializer[Any]):
    """What counts now, defaults filled in. It can be sent back as it is."""

    low_credits = serializers.IntegerField()
    low_percent = serializers.IntegerField()
    expiring_days = serializers.IntegerField()
    emails = serializers.ListField(child=serializers.CharField())
    webhook_url = serializers.CharField()


class AlertsAnswer(serializers.Serializer[Any]):
    settings = PreferencesAnswer()
    webhook_secret = serializers.CharField(
        allow_null=True, help_text="`whsec_…`, in the one answer that made it; null in every other."
    )
    previous_secret_until = serializers.DateTimeField(
        allow_null=True, help_text="Until then requests are signed with the secret before this one, too."
    )


class DeliveryAnswer(serializers.Serializer[Any]):
    channel = serializers.CharField(help_text="email or webhook.")
    target = serializers.CharField()
    state = serializers.CharField(help_text="pending, failed (tried again at next_attempt_at), delivered or gave_up.")
    attempts = serializers.IntegerField()
    next_attempt_at = serializers.DateTimeField(allow_null=True)
    response_status = serializers.IntegerField(allow_null=True)
    last_error = serializers.CharField()


def _envelope(name: str, data: serializers.BaseSerializer[Any]) -> Any:
    """The documentation of a successful answer. A serializer class cannot have a field called `data`, this can."""
    return inline_serializer(name, {"status": serializers.ChoiceField(choices=["success"]), "data": data})


_ALERT_FIELDS: dict[str, Any] = {
    "id": serializers.CharField(help_text="The event's id, the same in `webhook-id` at every attempt."),
    "type": serializers.CharField(help_text="credits.low_balance, credits.expiring_soon or alerts.test."),
    "timestamp": serializers.DateTimeField(),
    "account": serializers.DictField(help_text="`id` and `number` of the account."),
    "data": serializers.DictField(help_text="The figures of that moment, as in the webhook."),
    "deliveries": DeliveryAnswer(many=True),
}
_ALERT: Any = inline_serializer("AlertAnswer", _ALERT_FIELDS)
_LOG_FIELDS: dict[str, Any] = {
    "alerts": serializers.ListSerializer(child=_ALERT),
    "next": serializers.CharField(allow_null=True, help_text="What to give as `before` for the page after this one."),
}
_SETTINGS_DOCUMENTED = _envelope("AlertsEnvelope", AlertsAnswer())
_ALERT_DOCUMENTED = _envelope("AlertEnvelope", _ALERT)
_LOG_DOCUMENTED = _envelope("AlertLogEnvelope", inline_serializer("AlertLogAnswer", _LOG_FIELDS))


def _account(caller: metering.Caller) -> Account:
    return Account.objects.get(number=caller.account_number)


def _answer(caller: metering.Caller, data: dict[str, Any], headers: dict[str, str] | None = None) -> Response:
    return Response({"status": "success", "data": data}, headers={**free_headers(caller, None), **(headers or {})})


def _shown(preferences: Preferences, secret: str | None) -> dict[str, Any]:
    answer = {
        "settings": preferences,
        "webhook_secret": secret,
        "previous_secret_until": preferences.previous_secret_until,
    }
    shown: dict[str, Any] = AlertsAnswer(answer).data
    return shown


def _alert(alert: Alert) -> dict[str, Any]:
    deliveries = [
        {
            "channel": delivery.channel,
            "target": delivery.target,
            "state": delivery.state,
            "attempts": delivery.attempts,
            "next_attempt_at": None if delivery.finished_at else delivery.next_attempt_at,
            "response_status": delivery.response_status,
            "last_error": delivery.last_error,
        }
        for delivery in alert.deliveries.all()
    ]
    return {**alert_messages.event(alert), "deliveries": deliveries}


class AlertsView(APIView):
    """`GET` and `PUT /api/v1/alerts`: when and where the account is told."""

    @extend_schema(
        operation_id="alerts",
        summary="When and where you are told",
        description="Costs nothing. `settings` is what counts now, defaults filled in.",
        responses={200: _SETTINGS_DOCUMENTED},
        tags=["Alerts"],
        auth=API_KEY,
    )
    def get(self, request: Request) -> Response:
        caller = identify(request, SCOPE_NAME)
        return _answer(caller, _shown(alert_settings.preferences_of(_account(caller)), None))

    @extend_schema(
        operation_id="set_alerts",
        summary="Choose when and where you are told",
        description=(
            "Costs nothing. Replaces all settings: a field that is left out follows the default. A new webhook's signing "
            "secret is in this answer and never shown again. An address that is not public is refused: WEBHOOK_ADDRESS_REFUSED."
        ),
        request=AlertsBody,
        responses={200: _SETTINGS_DOCUMENTED},
        tags=["Alerts"],
        auth=API_KEY,
        extensions=errors(413, 415),
    )
    def put(self, request: Request) -> Response:
        caller = identify(request, SCOPE_NAME)
        body = validated(AlertsBody(data=request.data))
        saved = alert_settings.save(account=_account(caller), now=timezone.now(), **body)
        return _answer(caller, _shown(saved.preferences, saved.secret), _NOT_KEPT)


class AlertSecretView(APIView):
    """`POST /api/v1/alerts/secret`: a new signing secret."""

    @extend_schema(
        operation_id="rotate_webhook_secret",
        summary="Renew the webhook's signing secret",
        description="Costs nothing. For 24 hours requests carry a signature of the old secret beside that of the new one.",
        request=None,
        responses={200: _SETTINGS_DOCUMENTED},
        tags=["Alerts"],
        auth=API_KEY,
    )
    def post(self, request: Request) -> Response:
        caller = identify(request, SCOPE_NAME)
        saved = alert_settings.rotate_secret(account=_account(caller), now=timezone.now())
        return _answer(caller, _shown(saved.preferences, saved.secret), _NOT_KEPT)


class AlertTestView(APIView):
    """`POST /api/v1/alerts/test`: an alert that means nothing."""

    @extend_schema(
        operation_id="send_test_alert",
        summary="Send a test alert to everything that is set",
        description="Costs nothing. At most 5 an hour for each account. It leaves within seconds; the log says how it ended.",
        request=None,
        responses={200: _ALERT_DOCUMENTED},
        tags=["Alerts"],
        auth=API_KEY,
    )
    def post(self, request: Request) -> Response:
        caller = identify(request, SCOPE_NAME)
        return _answer(caller, _alert(alerts.send_test(account=_account(caller), now=timezone.now())))


class LogQuery(serializers.Serializer[Any]):
    limit = serializers.IntegerField(min_value=1, max_value=alert_log.PAGE_MAX, default=alert_log.PAGE_DEFAULT)
    before = serializers.CharField(max_length=64, required=False, default="")


class AlertLogView(APIView):
    """`GET /api/v1/alerts/log`: what the account was told, and whether it arrived."""

    @extend_schema(
        operation_id="alert_log",
        summary="What you were told, newest first",
        description="Costs nothing.",
        parameters=[
            OpenApiParameter("limit", int, description="1 to 100.", default=alert_log.PAGE_DEFAULT),
            OpenApiParameter("before", str, description="`next` of the page before."),
        ],
        responses={200: _LOG_DOCUMENTED},
        tags=["Alerts"],
        auth=API_KEY,
    )
    def get(self, request: Request) -> Response:
        caller = identify(request, SCOPE_NAME)
        query = validated(LogQuery(data=request.query_params))
        page = alert_log.page_of(account=_account(caller), limit=query["limit"], before=query["before"])
        return _answer(caller, {"alerts": [_alert(alert) for alert in page.alerts], "next": page.next})
