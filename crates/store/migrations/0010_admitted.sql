-- Whether a delegate was ever let in: one that a person has approved and that has not come since holds no lease.
ALTER TABLE delegates ADD COLUMN admitted BIGINT NOT NULL DEFAULT 1;
UPDATE delegates SET admitted = 0 WHERE status = 'pending';
