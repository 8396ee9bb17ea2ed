"""Which form an API answer takes."""

from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from django.http import Http404
from rest_framework.exceptions import NotAcceptable
from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request


class AnswerAnyway(DefaultContentNegotiation):
    """What `Accept` asks for when the view has it, else the view's first form: refusing with 406 would help nobody."""

    def select_renderer(
        self, request: Request, renderers: Iterable[BaseRenderer], format_suffix: str | None = None
    ) -> Any:
        """The renderer and its media type."""
        forms = list(renderers)
        if len(forms) > 1:
            with suppress(NotAcceptable, Http404):
                return super().select_renderer(request, forms, format_suffix)
        return forms[0], forms[0].media_type
