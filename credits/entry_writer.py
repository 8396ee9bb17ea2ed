"""Writes debits into the ledger by COPY, with their draws."""

import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any, NamedTuple

from django.db import connection

ROWS_A_BLOCK = 500


class Entry(NamedTuple):
    """A debit to be written. `charged_total`, `epoch` and `seq` are those of its event, if it has one."""

    account_id: uuid.UUID
    kind: str
    booked: int
    draws: list[tuple[uuid.UUID, int]]
    operation: uuid.UUID
    created_at: datetime
    charged_total: int | None = None
    epoch: int | None = None
    seq: int | None = None
    key_id: str = ""
    reason: str = ""
    actor: str = ""


class EntryWriter:
    """An open COPY into the ledger: Postgres takes in one part while the next is being booked."""

    def __init__(self, copy: Any, ids: Iterator[int]) -> None:
        self._copy = copy
        self._ids = ids
        self._draws: list[str] = []
        self._drawn: dict[uuid.UUID, int] = {}

    def write(self, entries: Sequence[Entry]) -> None:
        """Sends the entries, in blocks; their draws follow when the COPY ends."""
        for start in range(0, len(entries), ROWS_A_BLOCK):
            lines = []
            for entry in entries[start : start + ROWS_A_BLOCK]:
                entry_id = next(self._ids)
                lines.append(_entry_line(entry_id, entry))
                for grant_id, part in entry.draws:
                    self._drawn[grant_id] = self._drawn.get(grant_id, 0) + part
                    self._draws.append(f"{entry_id}\t{grant_id.hex}\t{part}\n")
            self._copy.write("".join(lines))

    def write_draws(self, cursor: Any) -> None:
        """Writes the draws and takes them off what the grants have left."""
        if not self._draws:
            return
        with _copying(cursor, "COPY credits_grantdraw (entry_id, grant_id, amount) FROM STDIN") as copy:
            for start in range(0, len(self._draws), ROWS_A_BLOCK):
                copy.write("".join(self._draws[start : start + ROWS_A_BLOCK]))
        cursor.execute(
            "UPDATE credits_creditgrant g SET remaining = g.remaining - t.amount"
            " FROM unnest(%s::uuid[], %s::bigint[]) AS t(id, amount) WHERE g.id = t.id",
            [list(self._drawn), list(self._drawn.values())],
        )


@contextmanager
def writing_entries(*, at_most: int) -> Iterator[EntryWriter]:
    """A writer of up to that many entries. Part of a transaction; no other statement may run on its connection meanwhile."""
    with connection.cursor() as cursor:
        cursor.execute(
            "WITH ids AS MATERIALIZED (SELECT pg_get_serial_sequence('credits_credittransaction', 'id')::regclass AS source)"
            " SELECT array_agg(nextval(source)) FROM ids, generate_series(1, %s)",
            [at_most],
        )
        ids: list[int] = cursor.fetchone()[0]
        with _copying(
            cursor,
            "COPY credits_credittransaction (id, account_id, type, kind, amount, reason, operation, charged_total,"
            " epoch, seq, api_key, actor, created_at) FROM STDIN",
        ) as copy:
            writer = EntryWriter(copy, iter(ids))
            yield writer
        writer.write_draws(cursor)


@contextmanager
def _copying(cursor: Any, statement: str) -> Iterator[Any]:
    """psycopg's COPY with the errors of Django, which are what callers wait for when Postgres goes away in the middle."""
    with connection.wrap_database_errors, cursor.copy(statement) as copy:
        yield copy


def _entry_line(entry_id: int, entry: Entry) -> str:
    """The entry as a line of COPY's text format."""
    account_id, kind, booked, _, operation, created_at, charged, epoch, seq, key_id, reason, actor = entry
    charged_epoch_seq = (
        f"{charged}\t{epoch}\t{seq}"
        if seq is not None
        else "\t".join("\\N" if value is None else str(value) for value in (charged, epoch, seq))
    )
    return (
        f"{entry_id}\t{account_id.hex}\tdebit\t{kind}\t{booked}\t{_copied(reason)}\t{operation.hex}\t{charged_epoch_seq}"
        f"\t{_copied(key_id)}\t{_copied(actor)}\t{created_at.isoformat()}\n"
    )


_COPY_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})


def _copied(text: str) -> str:
    """Text as COPY reads it: a tab would end the field, a newline the row, a backslash begins an escape."""
    return text if not text or text.isalnum() else text.translate(_COPY_ESCAPES)
