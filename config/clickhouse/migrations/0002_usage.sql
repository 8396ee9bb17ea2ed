-- What each metered request was and what it cost, written by credits/usage alone: at least once, so read it with FINAL and
-- under the account's prefix. event_id is the account's epoch and the journal's stream id: the same event, the same row.
CREATE TABLE IF NOT EXISTS usage
(
    account_number UInt64,
    at DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    event_id String CODEC(ZSTD(1)),
    request_id String CODEC(ZSTD(1)),
    operation UUID CODEC(ZSTD(1)),
    key_id LowCardinality(String),
    endpoint LowCardinality(String),
    status UInt16,
    rows UInt64 CODEC(ZSTD(1)),
    credits UInt64 CODEC(ZSTD(1)),
    duration_ms UInt32 CODEC(ZSTD(1)),
    query String CODEC(ZSTD(1))
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(at)
ORDER BY (account_number, at, event_id);
