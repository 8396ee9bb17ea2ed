"""Keys over HTTP, for operators' programs and for the hour in which the admin cannot be reached."""

from typing import Any

from django.utils import timezone
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from accounts import revocation
from config.admin_secret import AdminSecretView
from config.fields import validated
from config.openapi import ADMIN_SECRET


class RevokeKeyBody(serializers.Serializer[Any]):
    key = serializers.CharField(max_length=64, help_text="The key's public id; a whole key is understood, too.")
    reason = serializers.CharField(max_length=revocation.REASON_MAX, required=False, default="", allow_blank=True)


class RevokeKeyAnswer(serializers.Serializer[Any]):
    key = serializers.CharField(help_text="The key's public id.")
    state = serializers.ChoiceField(choices=["revoked", "pending"])
    known_by = serializers.ListField(child=serializers.ChoiceField(choices=["postgres", "redis"]))
    message = serializers.CharField()


class RevokeKeyView(AdminSecretView):
    """`POST /admin/revoke-key`: ends a key for good."""

    http_method_names = ["post"]

    @extend_schema(
        operation_id="revoke_key",
        summary="Revoke an API key",
        description=(
            "200 `revoked`: PostgreSQL and Redis know, every process refuses the key. 202 `pending`: one of them could not "
            "be told and will be, without another call; `message` says which and what that means. 503: neither, the key works "
            "on. Sent again it changes nothing and answers the present state."
        ),
        request=RevokeKeyBody,
        responses={200: RevokeKeyAnswer, 202: RevokeKeyAnswer},
        tags=["Operators"],
        auth=ADMIN_SECRET,
    )
    def post(self, request: Request) -> Response:
        body = validated(RevokeKeyBody(data=request.data))
        done = revocation.revoke_key(
            public_id=body["key"], now=timezone.now(), actor="admin api", reason=body["reason"]
        )
        return Response(
            {"key": done.public_id, "state": done.state, "known_by": done.known_by, "message": done.meaning},
            status=202 if done.pending else 200,
        )
