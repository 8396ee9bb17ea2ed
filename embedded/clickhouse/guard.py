"""What the `reader` user may do: read, within limits that a request may lower but not raise.

The engine itself enforces `readonly=2` and the limits. Two things it does not do in this build, so they are done here:
refuse table functions and table names that reach files and networks, and keep `SETTINGS` from lifting the limits.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from embedded.clickhouse.errors import ACCESS_DENIED, READONLY, SETTING_CONSTRAINT_VIOLATION, ClickHouseError, refusal
from embedded.clickhouse.tokens import Token, tokens

READER_LIMITS: Mapping[str, int] = {
    "max_execution_time": 300,
    "max_memory_usage": 4_000_000_000,
    "max_result_rows": 1_100_000,
    "max_result_bytes": 8_000_000_000,
    "max_query_size": 4_000_000,
}
_FIXED = frozenset(
    {"readonly", "allow_ddl", "allow_introspection_functions", "log_comment", "max_memory_usage_for_user"}
)
_READING = frozenset({"select", "with", "show", "describe", "desc", "explain", "exists", "("})
_REACHING_OUT = frozenset(
    """
    arrowflight azureblobstorage azureblobstoragecluster cluster clusterallreplicas deltalake deltalakeazure
    deltalakecluster deltalakelocal deltalakes3 executable file filecluster filesystem gcs hdfs hdfscluster hudi
    hudicluster iceberg icebergazure icebergcluster iceberghdfs iceberglocal icebergs3 input jdbc mongodb mysql odbc oss
    cosn paimon paimonazure paimoncluster paimonhdfs paimonlocal paimons3 postgresql prometheusquery
    prometheusqueryrange python redis remote remotesecure s3 s3cluster sqlite url urlcluster ytsaurus
    icebergs3cluster icebergazurecluster iceberghdfscluster deltalakeazurecluster deltalakes3cluster
    catboostevaluate aigeneratesql
    """.split()  # noqa: SIM905 - sixty quoted names read worse
)


def check_setting(name: str, value: str) -> None:
    """Raise ClickHouseError when the reader may not give this setting this value."""
    if name in _FIXED:
        raise refusal(
            SETTING_CONSTRAINT_VIOLATION, f"Setting {name} should not be changed.", "SETTING_CONSTRAINT_VIOLATION"
        )
    limit = READER_LIMITS.get(name)
    if limit is None:
        return
    try:
        number = float(value)
    except ValueError:
        number = 0
    if not 0 < number <= limit:
        reason = f"Setting {name} should be between 1 and {limit}."
        raise refusal(SETTING_CONSTRAINT_VIOLATION, reason, "SETTING_CONSTRAINT_VIOLATION")


def check_statement(statement: str) -> None:
    """Raise ClickHouseError when the reader may not run this statement."""
    error = _objection(statement)
    if error is not None:
        raise ClickHouseError(*error)


@lru_cache(maxsize=2048)
def _objection(statement: str) -> tuple[int, str] | None:
    """What is wrong with the statement: (code, text) or None. Cached, because a program repeats its statements."""
    try:
        _inspect(list(tokens(statement)))
    except ClickHouseError as error:
        return error.code, error.text
    return None


def _inspect(parts: list[Token]) -> None:
    if not parts or parts[0].name not in _READING:
        raise refusal(READONLY, "reader: Cannot execute query in readonly mode.", "READONLY")
    end = Token("sign", "", 0)
    for token, follower in zip(parts, [*parts[1:], end], strict=True):
        if token.kind in {"word", "quoted"} and follower.text == "(" and token.name in _REACHING_OUT:
            raise refusal(ACCESS_DENIED, f"reader: Not allowed to use {token.name}().", "ACCESS_DENIED")
        if token.kind == "quoted" and any(sign in token.text[1:-1] for sign in "/\\:*?{"):
            raise refusal(ACCESS_DENIED, f"reader: Not allowed to read {token.text}.", "ACCESS_DENIED")
        if token.kind == "word" and token.name in {"from", "join"} and follower.kind == "string":
            raise refusal(ACCESS_DENIED, "reader: Not allowed to read files.", "ACCESS_DENIED")
        if token.kind == "word" and token.name == "outfile":
            raise refusal(ACCESS_DENIED, "reader: Not allowed to write files.", "ACCESS_DENIED")
        if token.text == ";" and follower is not end:
            raise refusal(ACCESS_DENIED, "reader: One statement in a request.", "ACCESS_DENIED")
    _inspect_settings(parts)


def _inspect_settings(parts: list[Token]) -> None:
    """Check every `name = value` that names a guarded setting: a comparison with such a column name is refused too."""
    for name, sign, value in zip(parts, parts[1:], parts[2:], strict=False):
        if sign.text == "=" and name.kind in {"word", "quoted"} and (name.name in _FIXED or name.name in READER_LIMITS):
            check_setting(name.name, value.text.strip("'"))
