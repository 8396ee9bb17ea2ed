"""The operators' program interface: every call carries X-Admin-Secret."""

import hmac
from typing import Any

from django.conf import settings
from rest_framework.request import Request
from rest_framework.views import APIView

from config.errors import DomainError


class InvalidAdminSecret(DomainError):
    """401: the X-Admin-Secret header is missing or wrong."""

    status = 401
    code = "INVALID_ADMIN_SECRET"


class AdminSecretView(APIView):
    """Base of the operators' program interface: every call carries X-Admin-Secret."""

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        given = request.headers.get("X-Admin-Secret", "")
        if not hmac.compare_digest(given.encode("utf-8", "surrogateescape"), settings.ADMIN_SECRET.encode()):
            raise InvalidAdminSecret("Send the operators' secret in the X-Admin-Secret header.")
