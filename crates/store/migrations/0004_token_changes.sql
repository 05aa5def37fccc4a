-- Counts the changes of a token, so that nobody changes what he has not seen.
ALTER TABLE tokens ADD COLUMN version BIGINT NOT NULL DEFAULT 1;
-- A revocation that is to come; a draining token has one.
ALTER TABLE tokens ADD COLUMN revoke_at BIGINT;
ALTER TABLE tokens ADD COLUMN scheduled_by TEXT;
ALTER TABLE tokens ADD COLUMN scheduled_reason TEXT;
ALTER TABLE tokens ADD COLUMN revoked_cause TEXT;
