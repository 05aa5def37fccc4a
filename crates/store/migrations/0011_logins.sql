-- How people get in. The hash of a password is sealed: without the key-encryption key nobody can guess at it.
CREATE TABLE passwords (
    principal TEXT PRIMARY KEY REFERENCES principals (id),
    sealed_hash BYTEA NOT NULL,
    set_at BIGINT NOT NULL,
    set_by TEXT NOT NULL
);

-- Console sessions.
CREATE TABLE logins (
    id TEXT PRIMARY KEY,
    principal TEXT NOT NULL REFERENCES principals (id),
    method TEXT NOT NULL,
    hash BYTEA NOT NULL,
    address TEXT NOT NULL,
    agent TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    -- When the person last showed who they are.
    authenticated_at BIGINT NOT NULL,
    last_used_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
);
CREATE INDEX logins_by_principal ON logins (principal);
CREATE INDEX logins_by_age ON logins (created_at, id);
