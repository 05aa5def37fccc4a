-- A token that no delegate of ours uses: whoever proves it has found or stolen it.
ALTER TABLE tokens ADD COLUMN canary BIGINT NOT NULL DEFAULT 0;
