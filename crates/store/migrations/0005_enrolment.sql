-- Whether a new delegate key may join with a token, and whether its delegates are forgotten when their leases end.
ALTER TABLE tokens ADD COLUMN enrolment TEXT NOT NULL DEFAULT 'open';
ALTER TABLE tokens ADD COLUMN ephemeral BIGINT NOT NULL DEFAULT 0;

-- Who gave a delegate its present status, when and why; nothing for one that has the status it came with.
ALTER TABLE delegates ADD COLUMN status_reason TEXT;
ALTER TABLE delegates ADD COLUMN status_by TEXT;
ALTER TABLE delegates ADD COLUMN status_at BIGINT;
CREATE INDEX delegates_pending ON delegates (token, last_seen) WHERE status = 'pending';

-- The two processes that used one key, as they showed themselves when that was found out: 0 the one that counted, 1 the one
-- that came back.
CREATE TABLE clone_sides (
    delegate TEXT NOT NULL,
    side BIGINT NOT NULL,
    boot TEXT NOT NULL,
    name TEXT NOT NULL,
    host TEXT NOT NULL,
    address TEXT NOT NULL,
    version TEXT NOT NULL,
    tags TEXT NOT NULL,
    description TEXT NOT NULL,
    seen_at BIGINT NOT NULL,
    PRIMARY KEY (delegate, side)
);
