-- What is known of a worker's key. `standing` is what the owner said of it: unlisted (nothing), admitted or revoked.
CREATE TABLE workers (
    key BLOB PRIMARY KEY,
    name TEXT NOT NULL,
    standing TEXT NOT NULL CHECK (standing IN ('unlisted', 'admitted', 'revoked')),
    proved INTEGER NOT NULL,
    failed INTEGER NOT NULL,
    refused INTEGER NOT NULL,
    convicted INTEGER NOT NULL,
    last_seen_ms INTEGER NOT NULL
) STRICT;
