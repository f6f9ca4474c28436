-- One row per run, whose id sorts by time; `record` is the JSON that the program reads back.
CREATE TABLE runs (
    id BLOB PRIMARY KEY,
    under_way INTEGER NOT NULL,
    record TEXT NOT NULL
) STRICT;
CREATE INDEX runs_under_way ON runs (under_way) WHERE under_way = 1;

-- Which shard a worker held last, so that it gets the same one back and can prove its earlier runs.
CREATE TABLE holders (
    worker BLOB NOT NULL,
    plan BLOB NOT NULL,
    shard INTEGER NOT NULL,
    PRIMARY KEY (worker, plan)
) STRICT;
