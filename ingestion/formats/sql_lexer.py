"""A dump as a sliding window of bytes: strings, comments and statements are passed over without being kept."""

import re

from ingestion.formats import limits
from ingestion.formats.encoding import Utf8Source
from ingestion.formats.sql_values import MYSQL, BadValue, Token, meaning, unescape_mysql, word_meaning

# No mark that is searched for is longer; the longest is a dollar quote's tag.
LOOKAHEAD = 80
_DOLLAR = rb"(?<![\w$\x80-\xff])\$(?:[A-Za-z_\x80-\xff][\w\x80-\xff]{0,60})?\$"
_SPACE = re.compile(rb"\s*+")
_LINE_END = re.compile(rb"\n")
_COMMENT_MARK = re.compile(rb"/\*|\*/")
_COMMENT_END = re.compile(rb"\*/")


class Incomplete(Exception):
    """What was begun is not at its end where the buffer ends."""


class Window:
    """The unread part of a dump: `buffer` from `at` on. `final`: the buffer reaches to the end of the dump."""

    def __init__(self, source: Utf8Source) -> None:
        self._source = source
        self.buffer, self.at, self.final = b"", 0, False

    def more(self) -> None:
        """Drops what lies before `at` and reads a block behind the rest."""
        data = self._source.read(limits.BLOCK_BYTES)
        self.final = not data
        self.buffer, self.at = self.buffer[self.at :] + data, 0

    def ensure(self, size: int) -> None:
        """Reads until `size` bytes lie ahead, or all that there are."""
        while len(self.buffer) - self.at < size and not self.final:
            self.more()

    def find(self, pattern: re.Pattern[bytes]) -> re.Match[bytes] | None:
        """The next match, with LOOKAHEAD bytes behind its beginning; what lies before it may be dropped. None at the end."""
        while True:
            match = pattern.search(self.buffer, self.at)
            if self.final or (match and match.start() + LOOKAHEAD <= len(self.buffer)):
                return match
            self.at = match.start() if match else max(self.at, len(self.buffer) - LOOKAHEAD)
            self.more()

    def to_end(self) -> None:
        self.at = len(self.buffer)


class Lexer:
    """Knows what a string and a comment are in one dialect. `backslashes`: in an ordinary string they escape."""

    def __init__(self, dialect: str, *, backslashes: bool) -> None:
        self.backslashes = backslashes
        self._mysql = dialect == MYSQL
        hash_comment, dollar = (rb"|#", b"") if self._mysql else (b"", rb"|" + _DOLLAR)
        strings = rb"(?<![\w\x80-\xff])[Ee]'|'|\"|`"
        self._marks = re.compile(strings + rb"|--|/\*" + hash_comment + dollar + rb"|[;()]")
        body = rb"(?:[^'\\]++|''|\\.)*+" if backslashes else rb"(?:[^']++|'')*+"
        self.fast = re.compile(rb"\s*+(?:[Nn]?'(" + body + rb")'|([-+]?[\w.]++))\s*+([,)])", re.DOTALL)
        value = rb"\s*+(?:[Nn]?'" + body + rb"'|[-+]?[\w.]++)\s*+"
        self._plain_row = re.compile(value + rb"(?:," + value + rb")*+\)", re.DOTALL)
        # Text and whole strings, without a mark that needs a closer look.
        string = rb"'" + body + rb"'(?!\Z)"
        string = string if self._mysql else rb"(?<![Ee])" + string
        self._run = re.compile(rb"(?:[^'\"`;$#/-]++|-(?!-|\Z)|/(?!\*|\Z)|" + string + rb")*+", re.DOTALL)
        number = rb"|[-+]?\.?\d(?:[\w.]|(?<=[eE])[-+](?=\d))*"
        self._token = re.compile(
            rb"(?P<space>\s+|--[^\n]*\n|/\*.*?\*/" + (rb"|#[^\n]*\n" if self._mysql else b"") + rb")"
            rb"|(?P<string>[Ee]?'|\"|`)" + (b"" if self._mysql else rb"|(?P<dollar>" + _DOLLAR + rb")")
            + rb"|(?P<word>[A-Za-z_\x80-\xff][\w.$\x80-\xff]*" + number + rb")|(?P<mark>::|.)",
            re.DOTALL,
        )  # fmt: skip

    def skip_blank(self, window: Window) -> None:
        """Past white space and comments."""
        while True:
            window.ensure(LOOKAHEAD)
            found = _SPACE.match(window.buffer, window.at)
            window.at = found.end() if found else window.at
            if window.at == len(window.buffer) and not window.final:
                continue
            window.ensure(LOOKAHEAD)
            start = window.buffer[window.at : window.at + 2]
            if start in (b"--", b"/*") or start[:1] == b"#":
                window.at += 1 if start[:1] == b"#" else 2
                self._skip_comment(window, block=start == b"/*")
            else:
                return

    def skip_statement(self, window: Window, *, words: re.Pattern[bytes] | None = None) -> bool:
        """Past the next `;` that is none in a string or comment. With `words`, whether one of them stands outside of those."""
        seen = False
        while True:
            if words is None:
                self._skip_run(window)
            mark = self._next_mark(window)
            if mark is None:
                break
            if words is not None and words.search(window.buffer, window.at, mark.start()):
                seen = True
            window.at = mark.end()
            if mark[0] == b";":
                break
            if mark[0] not in b"()":
                self._skip_marked(window, mark[0])
        return seen

    def skip_parentheses(self, window: Window) -> bool:
        """From an opening parenthesis past its closing one; False when the dump ends before it."""
        depth = 0
        while mark := self._next_mark(window):
            window.at = mark.end()
            if mark[0] in b"()":
                depth += 1 if mark[0] == b"(" else -1
                if depth == 0:
                    return True
            elif mark[0] != b";":
                self._skip_marked(window, mark[0])
        return False

    def _skip_run(self, window: Window) -> None:
        """As far as one expression sees; not to the end of the buffer, where a mark may begin."""
        reach = len(window.buffer) if window.final else max(window.at, len(window.buffer) - LOOKAHEAD)
        match = self._run.match(window.buffer, window.at, reach)
        end = match.end() if match else window.at
        # The E of E'…' stays with its quote.
        window.at = end - 1 if end > window.at and window.buffer[end - 1] in b"eE" else end

    def _next_mark(self, window: Window) -> re.Match[bytes] | None:
        match = window.find(self._marks)
        if match is None:
            window.to_end()
        return match

    def _skip_marked(self, window: Window, mark: bytes) -> None:
        if mark in (b"--", b"/*", b"#"):
            self._skip_comment(window, block=mark == b"/*")
        elif mark[0:1] == b"$":
            end = window.find(re.compile(re.escape(mark)))
            window.at = end.end() if end else len(window.buffer)
        else:
            self._skip_string(window, mark)

    def _skip_comment(self, window: Window, *, block: bool) -> None:
        depth = 1
        while depth:
            end = window.find((_COMMENT_END if self._mysql else _COMMENT_MARK) if block else _LINE_END)
            if end is None:
                window.to_end()
                return
            window.at = end.end()
            depth += 1 if end[0] == b"/*" else -1

    def _skip_string(self, window: Window, opening: bytes) -> None:
        body = self._body(opening)
        while True:
            match = body.match(window.buffer, window.at)
            window.at = match.end() if match else window.at
            # One byte at the end of the buffer may be half of a pair.
            if window.at < len(window.buffer) - 1 or window.final:
                break
            window.more()
        window.at = min(len(window.buffer), window.at + 1)

    def _body(self, opening: bytes) -> re.Pattern[bytes]:
        escapes = opening[:1] in b"eE" or (self.backslashes and opening in b"'\"")
        return _BODIES[opening[-1:], escapes]

    def row(self, buffer: bytes, at: int, *, final: bool) -> tuple[list[bytes | None], int]:
        """The values of the row whose opening parenthesis lies before `at`, and where the row ends.

        Raises `Incomplete` when the buffer ends first, and `BadRow` with the row's end when a value cannot be read.
        """
        fast, backslashes = self.fast, self.backslashes
        plain = self._plain_row.match(buffer, at)
        if plain is not None:
            found = fast.findall(buffer, at, plain.end())
            return [word_meaning(word) if word else self._text(text) for text, word, _ in found], plain.end()
        values: list[bytes | None] = []
        bad = ""
        while True:
            match = fast.match(buffer, at)
            if match is not None:
                text, word, end = match.groups()
                at = match.end()
                value = word_meaning(word) if text is None else self._text(text)
            else:
                tokens, written, at, end = self._value(buffer, at, final=final)
                value = None
                try:
                    if tokens or values or end == b",":
                        value = meaning(tokens, written=written, backslashes=backslashes)
                except BadValue as exc:
                    bad = bad or str(exc)
            values.append(value)
            if end == b")":
                if bad:
                    raise BadRow(bad, at)
                return values, at

    def _text(self, body: bytes) -> bytes:
        """What an ordinary string says, by what stands between its quotes."""
        if b"'" in body:
            body = body.replace(b"''", b"'")
        return unescape_mysql(body) if self.backslashes and b"\\" in body else body

    def _value(self, buffer: bytes, at: int, *, final: bool) -> tuple[list[Token], bytes, int, bytes]:
        """The tokens of one value, its text as written, where it ends behind its `,` or `)`, and which of them that is."""
        tokens: list[Token] = []
        start, depth = at, 0
        while True:
            match = self._token.match(buffer, at)
            if match is None or (match.end() == len(buffer) and not final and match.lastgroup != "mark"):
                raise Incomplete
            kind, text, at = match.lastgroup, match[0], match.end()
            if kind == "string":
                token, at = self._string(buffer, at, text, final=final)
                tokens += [("word", b"E"), token] if text[:1] in b"eE" else [token]
            elif kind == "dollar":
                end = buffer.find(text, at)
                if end < 0:
                    raise Incomplete
                tokens.append(("string", buffer[at:end]))
                at = end + len(text)
            elif kind == "word":
                tokens.append(("word", text))
            elif kind == "mark":
                if depth == 0 and text in (b",", b")"):
                    return tokens, buffer[start : at - 1].strip(), at, text
                comment = text + buffer[at : at + 1] in (b"/*", b"--") or (self._mysql and text == b"#")
                if comment or (text in (b":", b"/", b"-", b"$") and at == len(buffer) and not final):
                    raise Incomplete
                depth += (text == b"(") - (text == b")")
                tokens.append(("mark", text))
            if len(tokens) > limits.COLUMNS_MAX:
                tokens.pop()

    def _string(self, buffer: bytes, at: int, opening: bytes, *, final: bool) -> tuple[Token, int]:
        match = self._body(opening).match(buffer, at)
        end = match.end() if match else at
        if end >= len(buffer) or buffer[end : end + 1] != opening[-1:] or (end + 1 == len(buffer) and not final):
            raise Incomplete
        text = buffer[at:end].replace(opening[-1:] * 2, opening[-1:])
        return ("raw" if opening[-1:] in b"'\"" else "string", text), end + 1


class BadRow(Exception):
    """A row with a value that cannot be read; it ends at `end`."""

    def __init__(self, why: str, end: int) -> None:
        super().__init__(why)
        self.end = end


_BODIES = {
    (quote, escapes): re.compile(
        rb"(?:[^"
        + quote
        + (rb"\\" if escapes else b"")
        + rb"]++|"
        + quote * 2
        + (rb"|\\." if escapes else b"")
        + rb")*+",
        re.DOTALL,
    )
    for quote in (b"'", b'"', b"`")
    for escapes in (False, True)
}
