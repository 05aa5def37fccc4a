-- Values of tokens that wait for whoever has their one-time code. What is sealed opens with the code alone, and is erased
-- when it was opened, when its time has passed, and with the end of the token.
CREATE TABLE wraps (
    id TEXT PRIMARY KEY,
    token TEXT NOT NULL REFERENCES tokens (id),
    generation BIGINT NOT NULL,
    -- A keyed hash, by which the code is known also when nothing is left to open.
    hash BYTEA NOT NULL,
    sealed BYTEA,
    created_at BIGINT NOT NULL,
    created_by TEXT NOT NULL,
    expires_at BIGINT NOT NULL,
    ended_at BIGINT,
    opened_at BIGINT,
    opened_from TEXT,
    refused BIGINT NOT NULL DEFAULT 0,
    UNIQUE (token, generation)
);
CREATE INDEX wraps_waiting ON wraps (expires_at) WHERE ended_at IS NULL;
