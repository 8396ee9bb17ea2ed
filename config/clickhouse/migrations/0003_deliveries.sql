-- Which jobs delivered a record besides the one that `records` names: one row for each record that was there already, from
-- another job. Written by ingestion/loader before the rest of its chunk, so that rolling a job back leaves what another job
-- delivered as well. The same pair may be written again: read it with GROUP BY or FINAL.
CREATE TABLE IF NOT EXISTS deliveries
(
    id UUID,
    job_id UUID CODEC(ZSTD(1))
)
ENGINE = ReplacingMergeTree
ORDER BY (id, job_id);
