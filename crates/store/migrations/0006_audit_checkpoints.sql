-- Signed places in the audit chain: checkpoints, and the base behind which the oldest records were deleted.
CREATE TABLE audit_checkpoints (
    kind TEXT NOT NULL,
    number BIGINT NOT NULL,
    hash BYTEA NOT NULL,
    at BIGINT NOT NULL,
    previous BIGINT NOT NULL,
    signature BYTEA NOT NULL,
    public_key BYTEA NOT NULL,
    PRIMARY KEY (kind, number)
);
-- Keys of the Manager that nothing new is made with; what was made with them is still checked or opened.
ALTER TABLE keys ADD COLUMN retired_at BIGINT;
