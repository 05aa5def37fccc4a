-- Organizations and projects have rows beside the accounts. A deleted place keeps its row, so that nobody who comes later
-- gets its name and with it what is recorded about it.
ALTER TABLE accounts ADD COLUMN version BIGINT NOT NULL DEFAULT 1;
ALTER TABLE accounts ADD COLUMN deleted_at BIGINT;
-- A parent, then all below it, then its next neighbour: a space comes before every character of an identifier.
CREATE INDEX accounts_by_tree ON accounts (REPLACE(scope, '/', ' '));

-- Whether places that were in use before they had rows have been given one.
ALTER TABLE manager ADD COLUMN places_filled BIGINT NOT NULL DEFAULT 0;
