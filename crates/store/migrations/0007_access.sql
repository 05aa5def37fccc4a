-- Who may do what. A scope that is null is the whole tree.
CREATE TABLE principals (
    id TEXT PRIMARY KEY,
    kind TEXT NOT NULL,
    scope TEXT,
    name TEXT NOT NULL,
    -- What must not be there twice: a user's name anywhere, a service account's in its scope, in small letters.
    taken TEXT NOT NULL UNIQUE,
    description TEXT NOT NULL,
    disabled_at BIGINT,
    created_at BIGINT NOT NULL,
    created_by TEXT NOT NULL
);
CREATE INDEX principals_by_age ON principals (created_at, id);

CREATE TABLE roles (
    name TEXT PRIMARY KEY,
    taken TEXT NOT NULL UNIQUE,
    description TEXT NOT NULL,
    permissions TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    created_by TEXT NOT NULL
);

CREATE TABLE grants (
    id TEXT PRIMARY KEY,
    principal TEXT NOT NULL REFERENCES principals (id),
    role TEXT NOT NULL,
    scope TEXT,
    created_at BIGINT NOT NULL,
    created_by TEXT NOT NULL
);
CREATE UNIQUE INDEX grants_once ON grants (principal, role, COALESCE(scope, ''));
CREATE INDEX grants_by_age ON grants (created_at, id);
CREATE INDEX grants_by_role ON grants (role);

ALTER TABLE api_keys ADD COLUMN owner TEXT;
ALTER TABLE api_keys ADD COLUMN created_by TEXT;
ALTER TABLE api_keys ADD COLUMN last_used_at BIGINT;
CREATE INDEX api_keys_by_owner ON api_keys (owner);
CREATE INDEX api_keys_by_age ON api_keys (created_at, id);

-- The principal behind the keys that are made on the host. It is always there, and nobody can change it.
INSERT INTO principals (id, kind, scope, name, taken, description, created_at, created_by)
    VALUES ('prn_0000000000000000000000', 'service_account', NULL, 'break-glass', 'service_account::break-glass',
            'Keys that legation-manager admin reset makes on the host.', 0, 'system');
INSERT INTO grants (id, principal, role, scope, created_at, created_by)
    VALUES ('grt_0000000000000000000000', 'prn_0000000000000000000000', 'admin', NULL, 0, 'system');

-- Each key that was made before belonged to nobody: it gets a service account of its own with what it could do.
INSERT INTO principals (id, kind, scope, name, taken, description, created_at, created_by)
    SELECT 'prn_' || substr(id, 5), 'service_account', scope, substr(name, 1, 100) || '-' || substr(id, 5),
           'service_account:' || COALESCE(scope, '') || ':' || lower(substr(name, 1, 100) || '-' || substr(id, 5)),
           'Made for an API key that had no owner.', created_at, 'system'
    FROM api_keys WHERE owner IS NULL;
INSERT INTO grants (id, principal, role, scope, created_at, created_by)
    SELECT 'grt_' || substr(id, 5), 'prn_' || substr(id, 5), role, scope, created_at, 'system'
    FROM api_keys WHERE owner IS NULL;
UPDATE api_keys SET owner = 'prn_' || substr(id, 5), created_by = 'system' WHERE owner IS NULL;
