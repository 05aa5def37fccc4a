CREATE TABLE manager (
    one BIGINT PRIMARY KEY CHECK (one = 1),
    epoch BIGINT NOT NULL,
    longest_lease BIGINT NOT NULL,
    leases_end_by BIGINT NOT NULL
);
INSERT INTO manager (one, epoch, longest_lease, leases_end_by) VALUES (1, 0, 0, 0);

CREATE TABLE accounts (
    scope TEXT PRIMARY KEY,
    description TEXT NOT NULL,
    lease BIGINT,
    created_at BIGINT NOT NULL,
    created_by TEXT NOT NULL
);

CREATE TABLE tokens (
    id TEXT PRIMARY KEY,
    scope TEXT NOT NULL,
    name TEXT NOT NULL,
    description TEXT NOT NULL,
    status TEXT NOT NULL,
    generation BIGINT NOT NULL,
    expires_at BIGINT,
    max_delegates BIGINT,
    allowed_cidrs TEXT NOT NULL,
    allowed_names TEXT NOT NULL,
    pinned_tags TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    created_by TEXT NOT NULL,
    issued_at BIGINT,
    revoked_at BIGINT,
    revoked_reason TEXT,
    deleted_at BIGINT,
    receipt TEXT,
    last_used_at BIGINT
);
-- A deleted token keeps its row, so that its id is never used again; its name is free at once.
CREATE UNIQUE INDEX tokens_by_name ON tokens (scope, name) WHERE status <> 'deleted';
CREATE INDEX tokens_by_age ON tokens (created_at, id);

CREATE TABLE token_secrets (
    token TEXT NOT NULL REFERENCES tokens (id),
    generation BIGINT NOT NULL,
    sealed_psk BYTEA NOT NULL,
    manager_key TEXT NOT NULL,
    retired_at BIGINT,
    PRIMARY KEY (token, generation)
);

CREATE TABLE delegates (
    id TEXT PRIMARY KEY,
    scope TEXT NOT NULL,
    public_key BYTEA NOT NULL,
    token TEXT NOT NULL REFERENCES tokens (id),
    name TEXT NOT NULL,
    host TEXT NOT NULL,
    tags TEXT NOT NULL,
    description TEXT NOT NULL,
    version TEXT NOT NULL,
    isolation TEXT NOT NULL,
    capacity BIGINT NOT NULL,
    status TEXT NOT NULL,
    boot TEXT NOT NULL,
    counter BIGINT NOT NULL,
    former_boots TEXT NOT NULL,
    first_seen BIGINT NOT NULL,
    last_seen BIGINT NOT NULL,
    address TEXT NOT NULL,
    UNIQUE (scope, public_key)
);
CREATE INDEX delegates_by_token ON delegates (token);
CREATE INDEX delegates_by_age ON delegates (first_seen, id);

-- The newest attempt stands in the task's own row: a life-step is one statement.
CREATE TABLE tasks (
    id TEXT PRIMARY KEY,
    scope TEXT NOT NULL,
    kind TEXT NOT NULL,
    selectors TEXT NOT NULL,
    state TEXT NOT NULL,
    reason TEXT NOT NULL,
    exit_code BIGINT,
    timeout BIGINT NOT NULL,
    queue_deadline BIGINT NOT NULL,
    output_limit BIGINT NOT NULL,
    retries_left BIGINT NOT NULL,
    created_by TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    assigned_at BIGINT,
    started_at BIGINT,
    finished_at BIGINT,
    cancel_requested BIGINT NOT NULL DEFAULT 0,
    attempt TEXT,
    delegate TEXT,
    boot TEXT,
    token TEXT,
    sealed_secrets BYTEA,
    work BYTEA NOT NULL
);
CREATE UNIQUE INDEX tasks_by_attempt ON tasks (attempt) WHERE attempt IS NOT NULL;
CREATE INDEX tasks_by_age ON tasks (created_at, id);
CREATE INDEX tasks_open ON tasks (state, created_at, id) WHERE finished_at IS NULL;
CREATE INDEX tasks_by_token ON tasks (token) WHERE finished_at IS NULL;

-- Attempts that another one of the same task replaced.
CREATE TABLE former_attempts (
    id TEXT PRIMARY KEY,
    task TEXT NOT NULL REFERENCES tasks (id),
    delegate TEXT NOT NULL,
    boot TEXT NOT NULL,
    token TEXT NOT NULL,
    ended_at BIGINT NOT NULL
);

-- What a delegate reported of an attempt that was over by then.
CREATE TABLE late_results (
    attempt TEXT PRIMARY KEY,
    task TEXT NOT NULL REFERENCES tasks (id),
    state TEXT NOT NULL,
    exit_code BIGINT,
    reason TEXT NOT NULL,
    at BIGINT NOT NULL
);

CREATE TABLE output (
    attempt TEXT NOT NULL,
    begins BIGINT NOT NULL,
    ends BIGINT NOT NULL,
    stream TEXT NOT NULL,
    bytes BYTEA NOT NULL,
    PRIMARY KEY (attempt, begins)
);

CREATE TABLE receipts (
    id TEXT PRIMARY KEY,
    token TEXT NOT NULL REFERENCES tokens (id),
    scope TEXT NOT NULL,
    cause TEXT NOT NULL,
    reason TEXT NOT NULL,
    actor TEXT NOT NULL,
    revoked_at BIGINT NOT NULL,
    completed_at BIGINT,
    attempts_lost BIGINT NOT NULL
);
CREATE INDEX receipts_by_age ON receipts (revoked_at, id);

CREATE TABLE receipt_lines (
    receipt TEXT NOT NULL REFERENCES receipts (id),
    delegate TEXT NOT NULL,
    boot TEXT NOT NULL,
    name TEXT NOT NULL,
    connected BIGINT NOT NULL,
    cut_at BIGINT,
    stopped_at BIGINT,
    tasks_killed BIGINT,
    lease_ends_by BIGINT NOT NULL,
    PRIMARY KEY (receipt, delegate)
);

CREATE TABLE receipt_statements (
    receipt TEXT NOT NULL REFERENCES receipts (id),
    number BIGINT NOT NULL,
    body TEXT NOT NULL,
    signature BYTEA NOT NULL,
    public_key BYTEA NOT NULL,
    PRIMARY KEY (receipt, number)
);

CREATE TABLE audit (
    number BIGINT PRIMARY KEY,
    at BIGINT NOT NULL,
    actor TEXT NOT NULL,
    action TEXT NOT NULL,
    object TEXT NOT NULL,
    scope TEXT NOT NULL,
    detail TEXT NOT NULL,
    request TEXT NOT NULL,
    previous BYTEA NOT NULL,
    hash BYTEA NOT NULL
);

CREATE TABLE keys (
    kind TEXT NOT NULL,
    id TEXT NOT NULL,
    public BYTEA NOT NULL,
    sealed BYTEA NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (kind, id)
);

CREATE TABLE api_keys (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    hash BYTEA NOT NULL,
    role TEXT NOT NULL,
    scope TEXT,
    created_at BIGINT NOT NULL,
    expires_at BIGINT
);

CREATE TABLE idempotency (
    actor TEXT NOT NULL,
    request TEXT NOT NULL,
    body_hash BYTEA NOT NULL,
    response BYTEA NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (actor, request)
);
CREATE INDEX idempotency_by_age ON idempotency (created_at);
