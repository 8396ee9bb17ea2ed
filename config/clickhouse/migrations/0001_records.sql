-- What customers search: one row a person or place, written by ingestion/loader alone.
--
-- Text is never NULL: '' means "not given". id is the MD5 over the normalised values and the metadata, read as a UUID, so
-- the same record has the same id for ever; record_hash is that same MD5 as 32 hex digits and takes no space of its own.
-- metadata is a canonical JSON object as text ('{}' when empty): keys sorted, no spaces, every scalar a string.
--
-- WORDS. Ask for words through the column `words`, which stands for the indexed expression; never write the expression out:
--   hasAllTokens(words, {words:Array(String)})   every word
--   hasAnyTokens(words, {words:Array(String)})   at least one word
-- Words must be in lower case (lowerUTF8 of the text); a token is a run of ASCII letters, digits and any non-ASCII
-- characters, so 'ann@acme.com' is ann, acme, com and '+1 212' is 1, 212. Given a String instead of an array, both functions cut
-- it into tokens by the same rule. A request without a single token matches nothing. A plain count of words is answered
-- from the index alone.
--
-- KEYS. Equality on id, user_id, email and phone is answered through the projections below, which hold the value and the row's
-- place and work as secondary indexes: write `email = {v:String}`, with nothing around the column. Emails are stored in
-- lower case, phones as +E.164 where the country is known.
--
-- FILTER AND SORT. country, status, created_date in this order are the sort key.
CREATE TABLE IF NOT EXISTS records
(
    id UUID,
    record_hash String ALIAS replaceAll(toString(id), '-', ''),
    source_file LowCardinality(String),
    job_id UUID CODEC(ZSTD(1)),
    ingested_at DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    user_id String CODEC(ZSTD(1)),
    email String CODEC(ZSTD(1)),
    name String CODEC(ZSTD(1)),
    phone String CODEC(ZSTD(1)),
    address String CODEC(ZSTD(1)),
    city LowCardinality(String),
    country LowCardinality(String),
    created_date Nullable(Date32) CODEC(ZSTD(1)),
    status LowCardinality(String),
    metadata String CODEC(ZSTD(1)),
    data_quality_score Float32 CODEC(ZSTD(1)),
    validation_errors Array(LowCardinality(String)),
    words String ALIAS lowerUTF8(concatWithSeparator(' ', name, email, phone, address, city, user_id)),
    INDEX words_text lowerUTF8(concatWithSeparator(' ', name, email, phone, address, city, user_id)) TYPE text(tokenizer = 'splitByNonAlpha'),
    PROJECTION by_id (SELECT id, _part_offset ORDER BY id),
    PROJECTION by_user_id (SELECT user_id, _part_offset ORDER BY user_id),
    PROJECTION by_email (SELECT email, _part_offset ORDER BY email),
    PROJECTION by_phone (SELECT phone, _part_offset ORDER BY phone)
)
ENGINE = MergeTree
ORDER BY (country, status, created_date, id)
SETTINGS allow_nullable_key = 1, non_replicated_deduplication_window = 100;
