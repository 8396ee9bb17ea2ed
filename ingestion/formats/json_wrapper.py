"""The list of records in a JSON document that is one object around it: `{"meta": {…}, "data": [{…}, …]}`.

The document is scanned once, as a stream, for its largest array of objects; where it begins is what the reader must know.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path

from ingestion.formats import limits
from ingestion.formats.encoding import Utf8Source

# Keys from the document's own object to the list, and brackets within brackets altogether.
PATH_KEYS_MAX = 4
BRACKETS_MAX = 1000
TOP_KEYS_MAX = 1000
LOOK_AHEAD = 64
_TOKEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*("|\\?\Z)|[\[\]{}]', re.DOTALL)
# The next bracket, strings left out, in one step: all that counts where no key can lead to the list.
_BRACKET = re.compile(rb'(?:[^{}\[\]"]++|"[^"\\]*+(?:\\.[^"\\]*+)*+")*+([\[\]{}])', re.DOTALL)
_COLON = re.compile(rb"\s*:\s*")

# What only somebody's own object says: then the document is one record, whatever lists it holds.
_PERSONAL = frozenset(
    {
        "email", "emailaddress", "mail", "phone", "phonenumber", "telephone", "mobile", "firstname", "lastname", "fullname",
        "surname", "givenname", "familyname",
    }
)  # fmt: skip
# What a person says, and a wrapper may: it decides unless the list is called what wrappers call it.
_MAYBE_PERSONAL = frozenset({"name", "address", "street", "city", "birthday", "dateofbirth", "bio"})
_LIST_NAMES = frozenset(
    {
        "data", "results", "result", "items", "records", "rows", "entries", "hits", "docs", "documents", "list", "values",
        "value", "objects", "features", "people", "persons", "users", "customers", "members", "contacts", "clients",
        "employees", "subscribers", "accounts", "profiles",
    }
)  # fmt: skip


@dataclass(frozen=True)
class Wrapped:
    """Where a document keeps its records: the keys to the list, joined by dots, and where its `[` is in the UTF-8 content."""

    path: str
    at: int


@dataclass
class _Open:
    """A bracket that is open. `keys`: those that lead to it, None inside of a list."""

    bracket: bytes
    keys: tuple[str, ...] | None
    at: int
    objects: int = 0


class _NoWrapper(Exception):
    """The document is not one object, or not JSON: it is read as rows."""


@dataclass
class _Scan:
    stack: list[_Open] = field(default_factory=list)
    ended: bool = False
    key: bytes = b""  # the last key, and where its value begins
    value_at: int = -1
    best: _Open | None = None
    top_keys: dict[str, bytes] = field(default_factory=dict)

    @property
    def deep(self) -> bool:
        """Whether keys do not matter here: inside of a list."""
        return bool(self.stack) and (self.stack[-1].bracket == b"[" or self.stack[-1].keys is None)

    def keyed(self, key: bytes, value_at: int, begins_with: bytes) -> None:
        self.key, self.value_at = key, value_at
        if len(self.stack) == 1 and len(self.top_keys) < TOP_KEYS_MAX:
            self.top_keys.setdefault(_plain(_text(key)), begins_with)

    def bracket(self, bracket: bytes, at: int) -> None:
        if bracket in b"[{":
            self.opened(bracket, at)
        else:
            self.closed(bracket)

    def opened(self, bracket: bytes, at: int) -> None:
        if not self.stack:
            if self.ended or bracket != b"{":
                raise _NoWrapper
            self.stack.append(_Open(bracket, (), at))
            return
        parent = self.stack[-1]
        keys: tuple[str, ...] | None = None
        if parent.bracket == b"[":
            parent.objects += bracket == b"{"
        elif parent.keys is not None and len(parent.keys) < PATH_KEYS_MAX:
            if self.value_at != at:
                raise _NoWrapper
            keys = (*parent.keys, _text(self.key))
        if len(self.stack) >= BRACKETS_MAX:
            raise _NoWrapper
        self.stack.append(_Open(bracket, keys, at))

    def closed(self, bracket: bytes) -> None:
        if not self.stack or self.stack[-1].bracket != (b"{" if bracket == b"}" else b"["):
            raise _NoWrapper
        self.judge(self.stack.pop())
        self.ended = not self.stack

    def judge(self, found: _Open) -> None:
        """The largest list of objects so far; of two alike the first."""
        if (
            found.bracket == b"["
            and found.keys
            and found.objects
            and (self.best is None or found.objects > self.best.objects)
        ):
            self.best = found


def find_records(path: Path, encoding: str) -> Wrapped | None:
    """Where a document keeps its records; None when it is no single object, or is a record itself. Memory: a block."""
    scan = _Scan()
    try:
        with Utf8Source(path, encoding) as source:
            _scan(source, scan)
    except _NoWrapper:
        return None
    for unfinished in scan.stack:  # the file ends early
        scan.judge(unfinished)
    best = scan.best
    if best is None or best.keys is None or _is_record(scan.top_keys, best.keys):
        return None
    return Wrapped(".".join(best.keys), best.at)


def _scan(source: Utf8Source, scan: _Scan) -> None:
    buffer, base, final = b"", 0, False
    while not final:
        data = source.read(limits.BLOCK_BYTES)
        final = not data
        buffer += data
        at = 0
        while match := (_BRACKET.match if scan.deep else _TOKEN.search)(buffer, at):
            if match.re is _BRACKET:
                scan.bracket(match[1], base + match.start(1))
            elif match[0][:1] != b'"':
                scan.bracket(match[0], base + match.start())
            else:
                # A key, its colon and the beginning of its value are looked at together: a block's end waits for more.
                if match[1] != b'"' or (match.end() + LOOK_AHEAD > len(buffer) and not final):
                    break
                colon = _COLON.match(buffer, match.end(), match.end() + LOOK_AHEAD)
                if colon is not None:
                    scan.keyed(match[0], base + colon.end(), buffer[colon.end() : colon.end() + 1])
            at = match.end()
        if len(buffer) - at > limits.BLOCK_BYTES + limits.ROW_BYTES_MAX:
            raise _NoWrapper  # a string without an end
        buffer, base = buffer[at:], base + at


def _is_record(top_keys: dict[str, bytes], keys: tuple[str, ...]) -> bool:
    if top_keys.keys() & _PERSONAL:
        return True
    if any(top_keys.get(key) == b"{" for key in ("name", "id")):
        return True
    return bool(top_keys.keys() & _MAYBE_PERSONAL) and _plain(keys[-1]) not in _LIST_NAMES


def _plain(key: str) -> str:
    return re.sub(r"[^a-z0-9]", "", key.lower())


def _text(token: bytes) -> str:
    return token[1:-1].decode("utf-8", "backslashreplace")[:100]
