-- Whether the values of tokens that are issued in an account are kept.
ALTER TABLE accounts ADD COLUMN reveal TEXT NOT NULL DEFAULT 'never';

-- Those that are. Each goes with the end of its token, and all of an account when it is to keep none any more.
CREATE TABLE token_values (
    token TEXT NOT NULL REFERENCES tokens (id),
    generation BIGINT NOT NULL,
    sealed BYTEA NOT NULL,
    PRIMARY KEY (token, generation)
);
