-- One row per run, whose id sorts by time. `record` is the JSON that the program reads back, without what has its own table.
CREATE TABLE runs (
    id BYTEA PRIMARY KEY,
    under_way BIGINT NOT NULL,
    record TEXT NOT NULL
);
CREATE INDEX runs_under_way ON runs (id) WHERE under_way = 1;

-- The receipt that counts for a shard of a run.
CREATE TABLE receipts (
    run BYTEA NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    shard BIGINT NOT NULL,
    attempt BIGINT NOT NULL,
    worker BYTEA NOT NULL,
    receipt TEXT NOT NULL,
    PRIMARY KEY (run, shard)
);

-- The request for the proof of a shard of a run. `attempt` fences late completions; `proof` is an artifact in JSON, or empty.
CREATE TABLE jobs (
    run BYTEA NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    shard BIGINT NOT NULL,
    attempt BIGINT NOT NULL,
    state TEXT NOT NULL,
    proof TEXT NOT NULL,
    PRIMARY KEY (run, shard)
);

-- Which shard a worker held last, so that it gets the same one back and can prove its earlier runs.
CREATE TABLE holders (
    worker BYTEA NOT NULL,
    plan BYTEA NOT NULL,
    shard BIGINT NOT NULL,
    PRIMARY KEY (worker, plan)
);

-- Setups that are done, each under the digest of all that it depends on.
CREATE TABLE setups (
    id BYTEA PRIMARY KEY,
    setup TEXT NOT NULL
);

-- Which process serves. Every write of state names its `term` and fails under another; `beat` counts its signs of life.
CREATE TABLE leases (
    service TEXT PRIMARY KEY,
    owner BYTEA NOT NULL,
    holder BYTEA NOT NULL,
    term BIGINT NOT NULL,
    beat BIGINT NOT NULL,
    released BIGINT NOT NULL
);
