"""Credits over HTTP: what a key's account has and has used; top-ups and reconciliation for operators' programs."""

from datetime import date, timedelta
from typing import Any

from django.utils import timezone
from drf_spectacular.utils import OpenApiParameter, extend_schema, extend_schema_field, inline_serializer
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from accounts.services import find_account
from config.admin_secret import AdminSecretView
from config.errors import InvalidRequest
from config.fields import validated
from config.middleware import client_address
from config.openapi import ADMIN_SECRET, API_KEY
from credits import metering, rate, selectors, services, usage, verification
from credits.models import CreditGrant, VerificationRun

USAGE_DAYS_MAX = 366
USAGE_DAYS_DEFAULT = 30
PAYMENT_ID_LENGTH_MAX = 150


class GrantAnswer(serializers.Serializer[Any]):
    kind = serializers.CharField()
    amount = serializers.IntegerField()
    remaining = serializers.IntegerField()
    effective_at = serializers.DateTimeField()
    expires_at = serializers.DateTimeField(allow_null=True)


class ScheduledGrantAnswer(serializers.Serializer[Any]):
    kind = serializers.CharField()
    amount = serializers.IntegerField()
    effective_at = serializers.DateTimeField()
    expires_at = serializers.DateTimeField(allow_null=True)


class CreditsData(serializers.Serializer[Any]):
    balance = serializers.IntegerField(help_text="What can be spent now.")
    held = serializers.IntegerField(help_text="What requests under way hold.")
    ledger_balance = serializers.IntegerField(help_text="What is booked.")
    expiring_in_30_days = serializers.IntegerField(help_text="What expires within 30 days unless it is spent.")
    grants = GrantAnswer(many=True, help_text="Grants that can pay, the first to expire first.")
    scheduled = ScheduledGrantAnswer(many=True, help_text="Grants that do not count yet, the next first.")


_CREDITS_ANSWER = inline_serializer("CreditsAnswer", {"status": serializers.CharField(), "data": CreditsData()})


class CreditsView(APIView):
    """`GET /api/v1/credits`: the balance of the key's account. Free."""

    @extend_schema(
        operation_id="credits",
        summary="Balance, held credits and grants",
        description=(
            "Costs nothing. `balance` is what can be spent now; `held` belongs to requests under way. A grant that is "
            "`scheduled` counts from its `effective_at` on."
        ),
        responses={200: _CREDITS_ANSWER},
        tags=["Account"],
        auth=API_KEY,
    )
    def get(self, request: Request) -> Response:
        caller = identify(request, "credits")
        found = selectors.credits_of(account_number=caller.account_number, now=timezone.now())
        data = {
            "balance": found.available,
            "held": found.held,
            "ledger_balance": found.ledger,
            "expiring_in_30_days": found.expiring,
            "grants": GrantAnswer(found.grants, many=True).data,
            "scheduled": ScheduledGrantAnswer(found.scheduled, many=True).data,
        }
        return Response({"status": "success", "data": data}, headers=free_headers(caller, found.available))


class UsageQuery(serializers.Serializer[Any]):
    to = serializers.DateField(required=False, help_text="Last day, UTC. Default: today.")
    group_by = serializers.ChoiceField(
        choices=["day", "key", "endpoint"],
        default="day",
        error_messages={"invalid_choice": "must be day, key or endpoint"},
    )
    limit = serializers.IntegerField(min_value=1, max_value=usage.HISTORY_MAX, default=100)

    def get_fields(self) -> dict[str, serializers.Field[Any, Any, Any, Any]]:
        # `from` is a word of Python, so it cannot be declared above.
        return {"from": serializers.DateField(required=False), **super().get_fields()}


class UsageView(APIView):
    """`GET /api/v1/usage`: what the key's account asked and what it cost. Free."""

    @extend_schema(
        operation_id="usage",
        summary="Request history and totals",
        description="Costs nothing. Days are in UTC; at most 366 of them. Requests appear about a second after they ran.",
        parameters=[
            OpenApiParameter("from", date, description="First day. Default: 30 days before `to`."),
            OpenApiParameter("to", date, description="Last day. Default: today."),
            OpenApiParameter("group_by", str, enum=["day", "key", "endpoint"], default="day"),
            OpenApiParameter("limit", int, description="Requests to list, newest first: 1 to 1,000.", default=100),
        ],
        responses={200: dict},
        tags=["Account"],
        auth=API_KEY,
    )
    def get(self, request: Request) -> Response:
        caller = identify(request, "usage")
        query = validated(UsageQuery(data=request.query_params))
        until = query.get("to") or timezone.now().date()
        since = query.get("from") or until - timedelta(days=USAGE_DAYS_DEFAULT - 1)
        if not timedelta(0) <= until - since < timedelta(days=USAGE_DAYS_MAX):
            raise InvalidRequest(
                f"Give a range of 1 to {USAGE_DAYS_MAX} days.",
                details={"from": f"must not be after 'to' nor more than {USAGE_DAYS_MAX} days before it"},
            )
        report = usage.report(
            account_number=caller.account_number,
            since=since,
            until=until,
            group_by=query["group_by"],
            limit=query["limit"],
        )
        data = {
            "from": since,
            "to": until,
            "group_by": query["group_by"],
            "totals": {"requests": report.requests, "credits": report.credits},
            "groups": report.groups,
            "requests": report.history,
        }
        return Response({"status": "success", "data": data}, headers=free_headers(caller, None))


def identify(request: Request, endpoint: str) -> metering.Caller:
    """Who calls a free endpoint, named as `metering.SCOPES` has it. Raises what `metering.identify` raises."""
    return metering.identify(
        api_key=request.headers.get("X-API-Key"),
        endpoint=endpoint,
        address=client_address(request._request),  # noqa: SLF001 - DRF's documented name of the Django request
    )


def free_headers(caller: metering.Caller, remaining: int | None) -> dict[str, str]:
    """The headers of an answer that cost nothing; `remaining` is what the account can spend, None where it is not known."""
    headers = {"X-Credits-Used": "0", **rate.rate_headers(caller.rate)}
    return headers if remaining is None else {**headers, "X-Credits-Remaining": str(remaining)}


@extend_schema_field({"oneOf": [{"type": "string"}, {"type": "integer"}]})
class AccountReference(serializers.Field[Any, Any, Any, Any]):
    """An account's UUID or its customer number, as text or as a number."""

    default_error_messages = {"invalid": "give the account's UUID or its customer number"}

    def to_internal_value(self, data: Any) -> Any:
        if isinstance(data, bool) or not isinstance(data, int | str) or not str(data).strip() or len(str(data)) > 64:
            self.fail("invalid")
        return data

    def to_representation(self, value: Any) -> Any:
        return value


class WholeNumber(serializers.IntegerField):
    """An integer that is one already: no booleans, no fractions, no text."""

    def to_internal_value(self, data: Any) -> int:
        if isinstance(data, bool) or not isinstance(data, int):
            self.fail("invalid")
        return int(data)


class TopUpBody(serializers.Serializer[Any]):
    user_id = AccountReference(help_text="The account's UUID or its customer number.")
    amount = WholeNumber(min_value=1, max_value=services.TOP_UP_MAX)
    reason = serializers.CharField(max_length=255, required=False, default="", allow_blank=True)
    kind = serializers.ChoiceField(
        choices=CreditGrant.Kind.values,
        default=CreditGrant.Kind.PURCHASE.value,
        error_messages={"invalid_choice": f"must be one of {', '.join(CreditGrant.Kind.values)}"},
    )
    priority = WholeNumber(
        min_value=0,
        max_value=services.PRIORITY_MAX,
        default=services.PRIORITY_DEFAULT,
        help_text="Lower is spent first.",
    )
    effective_at = serializers.DateTimeField(
        required=False, allow_null=True, default=None, help_text="When the credits begin to count. Default: now."
    )
    expires_at = serializers.DateTimeField(
        required=False, allow_null=True, default=None, help_text="When unspent credits expire. Default: never."
    )
    payment_id = serializers.CharField(
        required=False,
        default="",
        max_length=PAYMENT_ID_LENGTH_MAX,
        help_text="The payment's own id: booked once, whether it comes from here, the admin or the command line.",
    )


class TopUpAnswer(serializers.Serializer[Any]):
    user_id = serializers.CharField()
    amount = serializers.IntegerField()
    balance = serializers.IntegerField(help_text="What the account can spend now.")
    transaction_id = serializers.IntegerField(
        allow_null=True, help_text="The ledger entry; null until `effective_at` where that lies ahead."
    )
    effective_at = serializers.DateTimeField(required=False, help_text="Only where the credits do not count yet.")


class TopUpView(AdminSecretView):
    """`POST /admin/topup`: gives an account credits."""

    @extend_schema(
        operation_id="topup",
        summary="Top up an account",
        description=(
            "With an `Idempotency-Key` header or a `payment_id` the same top-up sent again is booked once; with another "
            "account, amount or kind it is refused (422)."
        ),
        request=TopUpBody,
        responses={200: TopUpAnswer},
        parameters=[OpenApiParameter("Idempotency-Key", str, OpenApiParameter.HEADER)],
        tags=["Operators"],
        auth=ADMIN_SECRET,
    )
    def post(self, request: Request) -> Response:
        body = validated(TopUpBody(data=request.data))
        key = request.headers.get("Idempotency-Key", "").strip()
        if len(key) > metering.IDEMPOTENCY_KEY_LENGTH_MAX:
            raise InvalidRequest(
                "The Idempotency-Key is too long.",
                details={"Idempotency-Key": f"at most {metering.IDEMPOTENCY_KEY_LENGTH_MAX} characters"},
            )
        payment = body["payment_id"].strip()
        if key and payment:
            raise InvalidRequest(
                "Send an Idempotency-Key or a payment_id, not both: each says by itself which top-up this is.",
                details={"payment_id": "not beside an Idempotency-Key"},
            )
        done = services.top_up(
            account=find_account(str(body["user_id"])),
            amount=body["amount"],
            now=timezone.now(),
            reason=body["reason"] or "Top-up",
            actor="admin api",
            external_id=services.payment_id(payment) if payment else f"topup:{key}" if key else None,
            kind=body["kind"],
            priority=body["priority"],
            effective_at=body["effective_at"],
            expires_at=body["expires_at"],
        )
        answer = {
            "user_id": body["user_id"],
            "amount": body["amount"],
            "balance": done.balance,
            "transaction_id": done.entry.pk if done.entry else None,
        }
        if done.entry is None:
            answer["effective_at"] = done.grant.effective_at
        return Response(answer, headers={"Idempotent-Replayed": "true"} if done.repeated else None)


class SyncBody(serializers.Serializer[Any]):
    repair = serializers.BooleanField(required=False, default=False)


class SyncCreditsView(AdminSecretView):
    """`POST /admin/sync-credits`: drains the journal and proves every balance; repairs only when told to."""

    @extend_schema(
        operation_id="sync_credits",
        summary="Drain and verify the ledger",
        description=(
            "Books what the journal holds, then compares the ledger, accounts, grants and live balances. Changes nothing "
            'else unless the body says `{"repair": true}`: then live balances that differ are loaded from the ledger.'
        ),
        request=SyncBody,
        responses={200: dict},
        tags=["Operators"],
        auth=ADMIN_SECRET,
    )
    def post(self, request: Request) -> Response:
        body = validated(SyncBody(data=request.data))
        done = verification.run(
            now=timezone.now(), trigger=VerificationRun.Trigger.API, actor="admin api", repair=body["repair"]
        )
        return Response(
            {
                "ok": done.state == VerificationRun.State.PROVEN,
                "state": done.state,
                "accounts": done.accounts,
                "live_accounts": done.live_accounts,
                "behind": done.behind,
                "differences": [
                    {name: difference[name] for name in ("account", "what", "expected", "found")}
                    for difference in done.differences
                ],
                "repaired": done.repaired,
                "at": done.started_at,
            }
        )
