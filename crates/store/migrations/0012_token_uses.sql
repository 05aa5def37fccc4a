-- Connections that were let in with a token.
ALTER TABLE tokens ADD COLUMN uses BIGINT NOT NULL DEFAULT 0;
-- Who connected with a token, from where, when first and last, and how often. It names no row of delegates, which may be
-- forgotten, and outlives the token's deletion.
CREATE TABLE token_uses (
    token TEXT NOT NULL REFERENCES tokens (id),
    delegate TEXT NOT NULL,
    address TEXT NOT NULL,
    name TEXT NOT NULL,
    first_at BIGINT NOT NULL,
    last_at BIGINT NOT NULL,
    uses BIGINT NOT NULL,
    PRIMARY KEY (token, delegate, address)
);
CREATE INDEX token_uses_by_age ON token_uses (token, last_at, delegate, address);
