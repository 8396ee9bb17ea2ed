"""A ClickHouse HTTP server over chDB: the real engine in one process, for many client processes at once.

It speaks the part of ClickHouse's HTTP interface that clickhouse-connect uses: queries and bound parameters, settings
in the query string, streamed results, inserts in any input format, compression both ways, errors with their codes,
KILL QUERY. There are no HTTP sessions: `SET`, `USE` and temporary tables last for their own request alone.
"""
