"""How figures, times and states are shown in the operator admin: one visual language for every app's pages.

All functions return safe HTML; the classes are those of `static/meterhouse/console.css`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.timesince import timesince
from unfold.decorators import display

NOTHING = "–"
ID_CHARACTERS_MAX = 40  # up to here a code is an id, and an id is not broken over lines
_UNITS = ((10**12, "T"), (10**9, "G"), (10**6, "M"))

Shown = TypeVar("Shown", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Tile:
    """A figure with its name; `note` says what it means or as of when, `url` leads to the list behind it."""

    title: str
    value: str | SafeString
    note: str = ""
    url: str = ""
    tone: str = ""  # "", good, warning, bad


def figure(value: int | None, *, sign: str = "") -> SafeString:
    """A whole number, thousands separated, in tabular numerals; `sign` stands before it."""
    if value is None:
        return quiet(NOTHING)
    return format_html('<span class="mh-figure">{}{}</span>', sign, f"{value:,}")


def short_figure(value: int | None) -> SafeString:
    """A number for a tile: from a million on shortened (`12.4 M`), the exact value on hover."""
    if value is None:
        return quiet(NOTHING)
    for size, unit in _UNITS:
        if abs(value) >= size:
            # Cut off, not rounded: a balance must never look larger than it is.
            tenths = abs(value) * 10 // size
            shortened = f"{'-' if value < 0 else ''}{tenths // 10:,}.{tenths % 10} {unit}"
            return format_html('<span class="mh-figure" title="{}">{}</span>', f"{value:,}", shortened)
    return figure(value)


def moment(value: datetime | None, *, now: datetime | None = None) -> SafeString:
    """A time in UTC to the second, and how long ago (or ahead) it is."""
    if value is None:
        return quiet(NOTHING)
    now = now or timezone.now()
    distance = f"in {timesince(now, value, depth=1)}" if value > now else f"{timesince(value, now, depth=1)} ago"
    return format_html(
        '<time class="mh-moment" datetime="{}"><span class="mh-figure">{}</span> <span class="mh-quiet">{}</span></time>',
        value.isoformat(),
        f"{value:%Y-%m-%d %H:%M:%S} UTC",
        distance,
    )


def quiet(text: str) -> SafeString:
    """Text that says that there is no value, or explains one."""
    return format_html('<span class="mh-quiet">{}</span>', text)


def two_lines(text: str, below: str) -> SafeString:
    """A name with what belongs to it in small print below."""
    return format_html('<span class="mh-two-lines">{}<span class="mh-quiet">{}</span></span>', text, below)


def code(text: str) -> SafeString:
    """An id or a masked key, in monospace."""
    if not text:
        return quiet(NOTHING)
    whole = " mh-whole" if len(text) <= ID_CHARACTERS_MAX else ""
    return format_html('<code class="mh-code{}">{}</code>', whole, text)


def link(url: str, text: str | SafeString) -> SafeString:
    """A link inside a list or a page."""
    return format_html('<a class="mh-link" href="{}">{}</a>', url, text)


def labelled(description: str, tones: Mapping[str, str], *, ordering: str | None = None) -> Callable[[Shown], Shown]:
    """Decorates a column of words, each shown as a coloured label: word → success, info, warning or danger."""
    decorate: Callable[[Shown], Shown] = display(description=description, label=dict(tones), ordering=ordering)
    return decorate
