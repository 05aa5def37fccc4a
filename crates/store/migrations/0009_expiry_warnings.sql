-- The nearest warning of a token's expiry that was given, in milliseconds before it, and of which expiry that was: one that is
-- moved is warned of anew.
ALTER TABLE tokens ADD COLUMN warned BIGINT;
ALTER TABLE tokens ADD COLUMN warned_of BIGINT;
