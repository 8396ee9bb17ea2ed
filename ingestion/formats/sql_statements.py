"""The statements of a dump: the rows of INSERT and COPY, the columns of CREATE TABLE; everything else is passed over."""

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from ingestion.formats import limits
from ingestion.formats.batches import unique_names
from ingestion.formats.encoding import Utf8Source
from ingestion.formats.sql_lexer import BadRow, Incomplete, Lexer, Window
from ingestion.formats.sql_values import MYSQL, BadValue, unescape_postgresql

HEAD_BYTES = 128 * 1024
_IDENTIFIER = rb"(?:`(?:[^`]++|``)++`|\"(?:[^\"]++|\"\")++\"|\[[^\]]++\]|[A-Za-z_\x80-\xff][\w$\x80-\xff]*+)"
_NAME = _IDENTIFIER + rb"(?:\s*+\.\s*+" + _IDENTIFIER + rb"){0,2}"
_COLUMNS = rb"\(\s*+(" + _IDENTIFIER + rb"(?:\s*+,\s*+" + _IDENTIFIER + rb")*+)\s*+\)"
_ONE = re.compile(_IDENTIFIER)
_INSERT = re.compile(
    rb"(?:INSERT|REPLACE)\s+(?:(?:LOW_PRIORITY|DELAYED|HIGH_PRIORITY|IGNORE|OR\s+[A-Z]+)\s+)*(?:INTO\s+)?(" + _NAME + rb")\s*",
    re.IGNORECASE,
)  # fmt: skip
_VALUES = re.compile(rb"(?:" + _COLUMNS + rb")?\s*(?:OVERRIDING\s+\w+\s+VALUE\s+)?VALUES?\s*(?=\()", re.IGNORECASE)
_COPY = re.compile(
    rb"COPY\s+(" + _NAME + rb")\s*(?:" + _COLUMNS + rb")?\s*FROM\s+STDIN\b([^;]{0,500});[ \t]*\r?\n", re.IGNORECASE
)
_CREATE = re.compile(
    rb"CREATE\s+(?:(?:GLOBAL|LOCAL|TEMP|TEMPORARY|UNLOGGED|FOREIGN)\s+)*TABLE\s+(?:IF\s+NOT\s+EXISTS\s+)?("
    + _NAME + rb")\s*(?=\()",
    re.IGNORECASE,
)  # fmt: skip
_ROUTINE = re.compile(rb"CREATE\s+[^;(]{0,300}?\b(?:TRIGGER|FUNCTION|PROCEDURE|EVENT)\b", re.IGNORECASE)
_BEGIN = re.compile(rb"\bBEGIN\b", re.IGNORECASE)
_ROUTINE_END = re.compile(rb"END\s*+;", re.IGNORECASE)
_DELIMITER = re.compile(rb"DELIMITER[ \t]+(\S+)[^\n]*", re.IGNORECASE)
_DELIMITER_BACK = re.compile(rb"\n[ \t]*DELIMITER[ \t]+;[ \t\r]*(?=\n|\Z)", re.IGNORECASE)
_BLANK = re.compile(rb"(?:\s++|--[^\n]*+\n|/\*.*?\*/)*+", re.DOTALL)
_NEXT_ROW = re.compile(rb"\s*+,\s*+(?=\()")
# A line that begins so is a statement, unless it stands in a string: in a row that cannot be read, one whose quote is missing.
_STATEMENT_LINE = re.compile(
    rb"(?<=\n)(?:(?:INSERT|REPLACE)\s+(?:IGNORE\s+|OR\s+[A-Z]+\s+)?INTO|CREATE\s+TABLE|DROP\s+TABLE|COPY)\s",
    re.IGNORECASE,
)
_NEW_LINE = re.compile(rb"\n")
_OTHER_COPY = re.compile(rb"csv|binary|delimiter|null", re.IGNORECASE)
_CONSTRAINTS = (b"CONSTRAINT", b"PRIMARY", b"UNIQUE", b"FOREIGN", b"CHECK", b"EXCLUDE", b"LIKE", b"PERIOD")
_MYSQL_CONSTRAINTS = (*_CONSTRAINTS, b"KEY", b"INDEX", b"FULLTEXT", b"SPATIAL")
_DEFINITION = re.compile(rb"'(?:[^'\\]++|''|\\.)*+'|\"[^\"]*+\"|`[^`]*+`|--[^\n]*+|/\*.*?\*/|[(),;]", re.DOTALL)


class SqlRow(NamedTuple):
    """A row of a table as it stands in the dump. `values` is None when it cannot be read: `reason` and `message` say why."""

    table: str
    columns: tuple[str, ...]
    values: list[bytes | None] | None
    raw: bytes
    reason: str = ""
    message: str = ""


class Statements:
    """The rows of a dump in order: of every table, or of the one named `table`. Nothing is executed."""

    def __init__(self, source: Utf8Source, *, dialect: str, backslashes: bool, table: str | None = None) -> None:
        self._window = Window(source)
        self._lexer = Lexer(dialect, backslashes=backslashes)
        self._mysql = dialect == MYSQL
        self._table = table
        self.columns: dict[str, tuple[str, ...]] = {}

    def __iter__(self) -> Iterator[SqlRow]:
        window, lexer = self._window, self._lexer
        while True:
            lexer.skip_blank(window)
            window.ensure(HEAD_BYTES)
            buffer, at = window.buffer, window.at
            if at >= len(buffer):
                return
            if buffer[at : at + 1] == b"\\":  # a command of psql, to the end of its line
                self._skip_line()
            elif match := _INSERT.match(buffer, at):
                yield from self._insert(match)
            elif match := _COPY.match(buffer, at):
                yield from self._copy(match)
            elif match := _CREATE.match(buffer, at):
                self._create(match)
            elif match := _DELIMITER.match(buffer, at):
                # Between two DELIMITER lines stand routines: their INSERTs are no rows.
                if match[1] != b";":
                    end = window.find(_DELIMITER_BACK)
                    window.at = end.end() if end else len(window.buffer)
                else:
                    window.at = match.end()
            elif _ROUTINE.match(buffer, at):
                self._skip_routine()
            else:
                lexer.skip_statement(window)

    def _skip_line(self) -> None:
        end = self._window.find(_NEW_LINE)
        self._window.at = end.end() if end else len(self._window.buffer)

    def _skip_routine(self) -> None:
        """Past CREATE TRIGGER and the like. One with a body is at its end where a statement is END alone."""
        if not self._lexer.skip_statement(self._window, words=_BEGIN):
            return
        while True:
            self._lexer.skip_blank(self._window)
            self._window.ensure(HEAD_BYTES)
            if self._window.at >= len(self._window.buffer):
                return
            ended = _ROUTINE_END.match(self._window.buffer, self._window.at)
            self._lexer.skip_statement(self._window)
            if ended:
                return

    def _create(self, match: re.Match[bytes]) -> None:
        name = _plain_name(match[1])
        window = self._window
        window.at = match.end()
        window.ensure(limits.ROW_BYTES_MAX)
        if len(self.columns) < limits.TABLES_MAX:
            self.columns.setdefault(name, self._defined(window.buffer, window.at))
        self._lexer.skip_statement(window)

    def _defined(self, buffer: bytes, at: int) -> tuple[str, ...]:
        """The columns that a table definition names; () when its end is not in the buffer."""
        constraints = _MYSQL_CONSTRAINTS if self._mysql else _CONSTRAINTS
        starts, depth = [at + 1], 0
        for mark in _DEFINITION.finditer(buffer, at):
            if mark[0] == b"(":
                depth += 1
            elif mark[0] == b")":
                depth -= 1
                if depth == 0:
                    found = [_ONE.search(buffer, _blank_end(buffer, start), mark.start()) for start in starts]
                    return _usable(one[0] for one in found if one and one[0].upper() not in constraints)
            elif mark[0] == b"," and depth == 1:
                starts.append(mark.end())
            elif mark[0] == b";" or len(starts) > limits.COLUMNS_MAX:
                break
        return ()

    def _wanted(self, name: str) -> bool:
        return self._table is None or name == self._table

    def _insert(self, match: re.Match[bytes]) -> Iterator[SqlRow]:
        window, name = self._window, _plain_name(match[1])
        values = _VALUES.match(window.buffer, match.end())
        window.at = match.end()
        if not self._wanted(name):
            self._lexer.skip_statement(window)
            return
        if values is None:
            raw = window.buffer[match.start() : match.start() + limits.RAW_TEXT_MAX]
            yield SqlRow(
                name, (), None, raw, "NOT_VALUES", "the INSERT holds no VALUES that can be read without a server"
            )
            self._lexer.skip_statement(window)
            return
        window.at = values.end()
        columns = _listed(values[1]) if values[1] else self.columns.get(name, ())
        while True:
            row = self._row(name, columns)
            columns = columns or self._numbered(row)
            yield row
            if row.reason == "UNCLOSED_ROW":
                return
            if following := _NEXT_ROW.match(window.buffer, window.at):
                window.at = following.end()
                continue
            self._lexer.skip_blank(window)
            if window.buffer[window.at : window.at + 1] == b",":
                window.at += 1
                self._lexer.skip_blank(window)
            if window.buffer[window.at : window.at + 1] != b"(":
                if row.reason not in ("BAD_VALUE", "RAGGED_ROW") or not self._at_statement_line():
                    self._lexer.skip_statement(window)
                return

    def _row(self, name: str, columns: tuple[str, ...]) -> SqlRow:
        """The row at the window's place, which moves behind it."""
        window = self._window
        while True:
            start = window.at
            try:
                values, end = self._lexer.row(window.buffer, start + 1, final=window.final)
            except Incomplete:
                if len(window.buffer) - start <= limits.ROW_BYTES_MAX and not window.final:
                    window.more()
                    continue
                raw = window.buffer[start : start + limits.RAW_TEXT_MAX]
                if self._at_statement_line():
                    return _unclosed(name, columns, raw)
                if self._lexer.skip_parentheses(window):
                    return _too_long(name, raw)
                return _unclosed(name, columns, raw)
            except BadRow as exc:
                if self._at_statement_line(before=exc.end):
                    return _unclosed(name, columns, window.buffer[start : window.at])
                window.at = exc.end
                return SqlRow(name, columns, None, window.buffer[start : exc.end], "BAD_VALUE", str(exc))
            raw = window.buffer[start:end]
            row = _too_long(name, raw) if len(raw) > limits.ROW_BYTES_MAX else _checked(name, columns, values, raw)
            if row.reason == "RAGGED_ROW" and self._at_statement_line(before=end):
                return _unclosed(name, columns, window.buffer[start : window.at])
            window.at = end
            return row

    def _at_statement_line(self, *, before: int | None = None) -> bool:
        """Moves to the next line that begins like a statement, if there is one in the buffer (or `before` a place in it).

        Whoever leaves a quote open turns all that follows inside out. The next statement is where it is right again.
        """
        window = self._window
        match = _STATEMENT_LINE.search(window.buffer, window.at + 1, len(window.buffer) if before is None else before)
        if match is None:
            return False
        window.at = match.start()
        return True

    def _numbered(self, row: SqlRow) -> tuple[str, ...]:
        """The columns of a table that the dump does not name: as many as its first row has."""
        if row.values is not None and len(self.columns) < limits.TABLES_MAX:
            self.columns[row.table] = row.columns
        return row.columns if row.values is not None else ()

    def _copy(self, match: re.Match[bytes]) -> Iterator[SqlRow]:
        window, name = self._window, _plain_name(match[1])
        columns = _listed(match[2]) if match[2] else self.columns.get(name, ())
        other = _OTHER_COPY.search(match[3]) is not None
        wanted = self._wanted(name)
        window.at = match.end()
        while True:
            end = window.buffer.find(b"\n", window.at)
            if end < 0 and not window.final:
                if len(window.buffer) - window.at <= limits.ROW_BYTES_MAX:
                    window.more()
                    continue
                if wanted:
                    yield _too_long(name, window.buffer[window.at : window.at + limits.RAW_TEXT_MAX])
                self._skip_line()
                continue
            cut_off = end < 0
            line = window.buffer[window.at : None if cut_off else end].removesuffix(b"\r")
            window.at = len(window.buffer) if cut_off else end + 1
            if line == b"\\." or (cut_off and not line):
                return
            if wanted:
                row = _copied(name, columns, line, other=other, cut_off=cut_off)
                columns = columns or self._numbered(row)
                yield row
            if cut_off:
                return


def _copied(name: str, columns: tuple[str, ...], line: bytes, *, other: bool, cut_off: bool) -> SqlRow:
    if cut_off:
        return SqlRow(name, columns, None, line, "UNCLOSED_ROW", "the dump ends in the middle of this row")
    if other:
        return SqlRow(name, columns, None, line, "COPY_FORMAT", "of COPY the text format is read, as pg_dump writes it")
    if len(line) > limits.ROW_BYTES_MAX:
        return _too_long(name, line)
    values: list[bytes | None] = list(line.split(b"\t"))
    if b"\\" in line:
        try:
            values = [None if value == b"\\N" else unescape_postgresql(value or b"") for value in values]
        except BadValue as exc:
            return SqlRow(name, columns, None, line, "BAD_VALUE", str(exc))
    return _checked(name, columns, values, line)


def _checked(name: str, columns: tuple[str, ...], values: list[bytes | None], raw: bytes) -> SqlRow:
    columns = columns or tuple(f"column_{place}" for place in range(1, len(values) + 1))
    if len(values) != len(columns):
        message = f"expected {len(columns)} columns, found {len(values)}"
        return SqlRow(name, columns, None, raw, "RAGGED_ROW", message)
    if len(raw) > limits.FIELD_BYTES_MAX and max(len(value or b"") for value in values) > limits.FIELD_BYTES_MAX:
        message = f"a field is longer than {limits.FIELD_BYTES_MAX} bytes"
        return SqlRow(name, columns, None, raw, "FIELD_TOO_LONG", message)
    if len(values) > limits.COLUMNS_MAX:
        return SqlRow(name, columns, None, raw, "TOO_MANY_FIELDS", f"more than {limits.COLUMNS_MAX} fields")
    return SqlRow(name, columns, values, raw)


def _unclosed(name: str, columns: tuple[str, ...], raw: bytes) -> SqlRow:
    return SqlRow(name, columns, None, raw, "UNCLOSED_ROW", "the row has no end: a quote or parenthesis is open")


def _too_long(name: str, raw: bytes) -> SqlRow:
    message = f"the row is longer than {limits.ROW_BYTES_MAX} bytes"
    return SqlRow(name, (), None, raw, "ROW_TOO_LONG", message)


def _blank_end(buffer: bytes, at: int) -> int:
    match = _BLANK.match(buffer, at)
    return match.end() if match else at


def _plain(identifier: bytes) -> str:
    if identifier[:1] in b'`"':
        quote = identifier[:1]
        identifier = identifier[1:-1].replace(quote * 2, quote)
    elif identifier[:1] == b"[":
        identifier = identifier[1:-1]
    return identifier.decode("utf-8", "replace")


def _plain_name(name: bytes) -> str:
    """`"public"."customer"` as public.customer."""
    return ".".join(_plain(part[0]) for part in _ONE.finditer(name))


def _listed(columns: bytes) -> tuple[str, ...]:
    return _usable(part[0] for part in _ONE.finditer(columns))


def _usable(identifiers: Iterable[bytes]) -> tuple[str, ...]:
    return tuple(unique_names([_plain(identifier) for identifier in identifiers]))
