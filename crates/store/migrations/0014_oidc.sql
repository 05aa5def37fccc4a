-- Users who log in at an identity provider: each is bound to what that says of nobody else, never to a name.
CREATE TABLE identities (
    issuer TEXT NOT NULL,
    subject TEXT NOT NULL,
    principal TEXT NOT NULL UNIQUE REFERENCES principals (id),
    created_at BIGINT NOT NULL,
    PRIMARY KEY (issuer, subject)
);
-- Whether the mapping of groups made a grant; what it made it takes away.
ALTER TABLE grants ADD COLUMN mapped BIGINT NOT NULL DEFAULT 0;
