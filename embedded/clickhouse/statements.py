"""Telling statements apart: inserts that carry data, KILL QUERY, and statements that change a connection's state."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from embedded.clickhouse.tokens import tokens

# How far into a body an INSERT's own text may reach before its data begins.
INSERT_HEAD_MAX_BYTES = 1024 * 1024

_FIRST_WORD = re.compile(r"(?:\s|--[^\n]*\n|/\*.*?\*/|\()*(\w+)", re.DOTALL)
_KILL = re.compile(
    r"\s*KILL\s+QUERY\s+WHERE\s+query_id\s*(?:=|IN)\s*(?P<what>.+?)\s*(?P<mode>SYNC|ASYNC|TEST)?\s*"
    r"(?:FORMAT\s+(?P<format>\w+))?\s*;?\s*",
    re.IGNORECASE | re.DOTALL,
)
_KILL_IDS = re.compile(r"'((?:[^'\\]|\\.)*)'|\{\s*(\w+)\s*:\s*String\s*\}")
_STATEFUL = re.compile(r"\s*(?:SET|USE|CREATE\s+(?:OR\s+REPLACE\s+)?TEMPORARY|ATTACH\s+TEMPORARY)\s", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class DataInsert:
    """An INSERT whose rows follow as data: `head` without the FORMAT clause, and where in the text they start."""

    head: str
    data_format: str
    data_offset: int


@dataclass(frozen=True, slots=True)
class Kill:
    """A KILL QUERY for some ids; `wait` is SYNC, `output_format` what its answer shall have."""

    query_ids: tuple[str, ...]
    wait: bool
    output_format: str


def first_word(statement: str) -> str:
    """The statement's first keyword in lower case, "" when there is none."""
    match = _FIRST_WORD.match(statement)
    return match.group(1).lower() if match else ""


def changes_connection(statement: str) -> bool:
    """Whether the statement leaves something behind in the connection that runs it."""
    return _STATEFUL.match(statement) is not None


def data_insert(text: str) -> DataInsert | None:
    """The INSERT at the start of the text, if its rows come as data (`FORMAT …`, or `VALUES` at its end), else None."""
    depth = 0
    previous = ""
    for token in tokens(text):
        if token.kind == "sign":
            depth += {"(": 1, ")": -1}.get(token.text, 0)
        elif depth == 0 and token.kind == "word":
            if previous == "format":
                return DataInsert(
                    text[: token.end - len(token.text)].rstrip()[:-6], token.text, _data_start(text, token.end)
                )
            if token.name == "values" and not text[token.end :].strip():
                return DataInsert(text[: token.end - len("values")], "Values", token.end)
            if token.name in {"select", "with", "watch"}:
                return None
        previous = token.name if token.kind == "word" else ""
    return None


def insert_from_file(head: str, data_format: str, path: str) -> str:
    """The statement that inserts a file's data, of an INSERT's text without its FORMAT clause."""
    depth = 0
    for token in tokens(head):
        if token.kind == "sign":
            depth += {"(": 1, ")": -1}.get(token.text, 0)
        elif depth == 0 and token.kind == "word" and token.name == "settings":
            start = token.end - len(token.text)
            return f"{head[:start]}FROM INFILE '{path}' {head[start:]} FORMAT {data_format}"
    return f"{head} FROM INFILE '{path}' FORMAT {data_format}"


def _data_start(text: str, offset: int) -> int:
    """Where data starts after the format's name: behind blanks and one line break, as ClickHouse reads it."""
    while offset < len(text) and text[offset] in " \t\f;":
        offset += 1
    if text.startswith("\r\n", offset):
        return offset + 2
    return offset + 1 if text.startswith("\n", offset) else offset


def kill_query(statement: str, params: Mapping[str, str]) -> Kill | None:
    """The statement as a KILL QUERY by query id, with its bound parameters put in; None when it is something else."""
    match = _KILL.fullmatch(statement)
    if match is None:
        return None
    ids = [literal or params.get(name, "") for literal, name in _KILL_IDS.findall(match["what"])]
    return Kill(tuple(ids), (match["mode"] or "").upper() == "SYNC", match["format"] or "")
