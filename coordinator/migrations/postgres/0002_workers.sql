-- What is known of a worker's key. `standing` is what the owner said of it: unlisted (nothing), admitted or revoked.
CREATE TABLE workers (
    key BYTEA PRIMARY KEY,
    name TEXT NOT NULL,
    standing TEXT NOT NULL CHECK (standing IN ('unlisted', 'admitted', 'revoked')),
    proved BIGINT NOT NULL,
    failed BIGINT NOT NULL,
    refused BIGINT NOT NULL,
    convicted BIGINT NOT NULL,
    last_seen_ms BIGINT NOT NULL
);
