-- What is there was hashed in the first way, and says nothing of these.
ALTER TABLE audit ADD COLUMN format BIGINT NOT NULL DEFAULT 1;
ALTER TABLE audit ADD COLUMN address TEXT NOT NULL DEFAULT '';
ALTER TABLE audit ADD COLUMN old_values TEXT NOT NULL DEFAULT '';
ALTER TABLE audit ADD COLUMN new_values TEXT NOT NULL DEFAULT '';
ALTER TABLE audit ADD COLUMN outcome TEXT NOT NULL DEFAULT 'done';
