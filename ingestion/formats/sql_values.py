"""SQL literals to text: what MySQL, PostgreSQL and SQLite write into their dumps. Nothing is evaluated. Pure."""

import re
from collections.abc import Callable

MYSQL, POSTGRESQL, SQLITE = "mysql", "postgresql", "sqlite"

_MYSQL_ESCAPES = {
    b"0": b"\0",
    b"b": b"\b",
    b"n": b"\n",
    b"r": b"\r",
    b"t": b"\t",
    b"Z": b"\x1a",
    b"%": b"\\%",
    b"_": b"\\_",
}
_POSTGRESQL_ESCAPES = {b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t", b"v": b"\v"}
_MYSQL_ESCAPE = re.compile(rb"\\(.)", re.DOTALL)
_POSTGRESQL_ESCAPE = re.compile(
    rb"\\(?:([0-7]{1,3})|x([0-9A-Fa-f]{1,2})|u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|(.))", re.DOTALL
)
_SQLITE_UNISTR = re.compile(rb"\\(?:(\\)|u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|\+([0-9A-Fa-f]{6})|([0-9A-Fa-f]{4}))")
_HEX = re.compile(rb"(?:[0-9A-Fa-f]{2})+")


class BadValue(Exception):
    """A value that cannot be read; the text says why."""


def _character(digits: bytes) -> bytes:
    try:
        return chr(int(digits, 16)).encode()
    except (ValueError, OverflowError) as exc:
        raise BadValue("an escape is no character") from exc


def unescape_mysql(body: bytes) -> bytes:
    """The text of a MySQL string between its quotes, doubled quotes aside."""
    return _MYSQL_ESCAPE.sub(lambda match: _MYSQL_ESCAPES.get(match[1], match[1]), body)


def unescape_postgresql(body: bytes) -> bytes:
    """The text of a PostgreSQL E'…' string or of a field of COPY. Raises `BadValue` for an escape that is no character."""

    def one(match: re.Match[bytes]) -> bytes:
        octal, hexadecimal, short, long, plain = match.groups()
        if plain is not None:
            return _POSTGRESQL_ESCAPES.get(plain, plain)
        if short or long:
            return _character(short or long)
        return bytes([int(octal, 8) & 0xFF if octal else int(hexadecimal, 16)])

    return _POSTGRESQL_ESCAPE.sub(one, body)


def unescape_unistr(body: bytes) -> bytes:
    """The text that SQLite's unistr() makes of its argument."""
    return _SQLITE_UNISTR.sub(
        lambda match: b"\\" if match[1] else _character(match[2] or match[3] or match[4] or match[5]), body
    )


def from_hex(digits: bytes, written: bytes) -> bytes:
    """The text that a hex literal spells, or the literal as written when what it spells is no readable text."""
    if not _HEX.fullmatch(digits):
        return written
    spelt = bytes.fromhex(digits.decode())
    try:
        readable = spelt.decode().isprintable()
    except UnicodeDecodeError:
        readable = False
    return spelt if readable else written


Token = tuple[
    str, bytes
]  # "string" (its text), "raw" (a string between its quotes, doubled ones undone), "word", "mark"


def meaning(tokens: list[Token], *, written: bytes, backslashes: bool) -> bytes | None:
    """The text of one value of a row, None for NULL. `written` is the value as it stands in the dump.

    A call such as now() is kept as it is written, for it cannot be known what it gave. Raises `BadValue` for what is neither.
    """
    if not tokens:
        raise BadValue("a value is missing")
    tokens = _without_cast(tokens)
    kinds = "".join(kind[0] for kind, _ in tokens)
    last = tokens[-1][1]
    plain: Callable[[bytes], bytes] = unescape_mysql if backslashes else bytes
    if kinds == "w":
        return word_meaning(last)
    if kinds == "s":
        return last
    if kinds == "r":
        return plain(last)
    if kinds == "wr":
        return _prefixed(tokens[0][1].upper(), last, plain=plain, written=written)
    if kinds == "mw" and tokens[0][1] in (b"-", b"+"):
        return tokens[0][1] + last
    if kinds[:2] == "wm" and tokens[1][1] == b"(" and last == b")":
        return _call(tokens, plain=plain, written=written)
    raise BadValue("a value is neither a literal nor a call")


def _without_cast(tokens: list[Token]) -> list[Token]:
    for place, (kind, text) in enumerate(tokens):
        if kind == "mark" and text == b"::" and place:
            return tokens[:place]
    return tokens


def word_meaning(word: bytes) -> bytes | None:
    """A value that is one word: a number, a name, a hex literal; None for NULL and DEFAULT."""
    if word.upper() in (b"NULL", b"DEFAULT"):
        return None
    if word[:2] in (b"0x", b"0X"):
        return from_hex(word[2:], word)
    return word


def _prefixed(prefix: bytes, body: bytes, *, plain: Callable[[bytes], bytes], written: bytes) -> bytes:
    if prefix == b"E":
        return unescape_postgresql(body)
    if prefix == b"X":
        return from_hex(body, written)
    if prefix in (b"N", b"B", b"DATE", b"TIME", b"TIMESTAMP") or prefix.startswith(b"_"):
        return plain(body)
    raise BadValue("a string follows a word that is no prefix of one")


def _call(tokens: list[Token], *, plain: Callable[[bytes], bytes], written: bytes) -> bytes:
    """The two calls that SQLite writes around text with line ends are undone; any other stays as written."""
    if tokens[0][1].lower() == b"unistr" and len(tokens) == 4 and tokens[2][0] == "raw":
        return unescape_unistr(tokens[2][1])
    nested = 0
    while tokens[2 * nested][1].lower() == b"replace" and tokens[2 * nested + 1][1] == b"(":
        nested += 1
    if not nested or tokens[2 * nested][0] != "raw":
        return written
    text = tokens[2 * nested][1]
    rest = tokens[2 * nested + 1 :]
    if len(rest) != 8 * nested:
        return written
    for start in range(0, len(rest), 8):
        comma, old, second, call, opened, number, closed, end = rest[start : start + 8]
        if (comma[1], second[1], call[1].lower(), opened[1], closed[1], end[1]) != (
            b",",
            b",",
            b"char",
            b"(",
            b")",
            b")",
        ):
            return written
        if old[0] != "raw" or number[1] not in (b"10", b"13"):
            return written
        text = text.replace(old[1], bytes([int(number[1])]))
    return text
