"""Just enough of ClickHouse's lexer to look into a statement without being fooled by strings and comments."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_TOKEN = re.compile(
    r"""
      (?P<space>\s+|--[^\n]*|\#[!\ ][^\n]*|/\*.*?(?:\*/|\Z))
    | (?P<string>'(?:[^'\\]|\\.|'')*(?:'|\Z)|\$(?P<tag>\w*)\$.*?\$(?P=tag)\$)
    | (?P<quoted>`(?:[^`\\]|\\.|``)*(?:`|\Z)|"(?:[^"\\]|\\.|"")*(?:"|\Z))
    | (?P<word>[^\W\d]\w*)
    | (?P<number>\d[\w.]*)
    | (?P<sign>.)
    """,
    re.VERBOSE | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Token:
    """`kind` is string, quoted (an identifier), word, number or sign; `end` is its offset's end in the statement."""

    kind: str
    text: str
    end: int

    @property
    def name(self) -> str:
        """An identifier or keyword as it compares: lower case, without its quotes."""
        return (self.text[1:-1] if self.kind == "quoted" else self.text).lower()


def tokens(statement: str) -> Iterator[Token]:
    """The statement's tokens, white space and comments left out."""
    for match in _TOKEN.finditer(statement):
        kind = match.lastgroup or ""
        if kind == "tag":
            kind = "string"
        if kind != "space":
            yield Token(kind, match.group(), match.end())
