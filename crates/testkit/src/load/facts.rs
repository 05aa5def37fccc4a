//! Everything durable of a token.
//!
//! It is read from the database itself: what the Manager says of it would be the word of the examined.

use std::{collections::BTreeSet, ops::RangeInclusive};

use legation_model::{Millis, ids::TokenId};
use sqlx::{AnyConnection, Connection as _, Row as _};

use crate::World;

/// One text for each row that tells of the token, with all of it that its delegates can change. Tasks are found by
/// their age, because no index leads from a token to those that have ended.
const FACTS: &str = "\
    SELECT 'token ' || status || ' used ' || COALESCE(CAST(last_used_at AS TEXT), '-') AS fact \
    FROM tokens WHERE id = $1 \
    UNION ALL SELECT 'use ' || delegate || ' from ' || address || ' until ' || CAST(last_at AS TEXT) || ' times ' || \
    CAST(uses AS TEXT) FROM token_uses WHERE token = $1 \
    UNION ALL SELECT 'delegate ' || id || ' boot ' || boot || ' counter ' || CAST(counter AS TEXT) || ' seen ' || \
    CAST(last_seen AS TEXT) || ' at ' || address || ' ' || status \
    FROM delegates WHERE token = $1 \
    UNION ALL SELECT 'task ' || id || ' ' || state || ' ' || reason || ' ' || COALESCE(CAST(exit_code AS TEXT), '-') || \
    ' on ' || COALESCE(attempt, '-') || ' assigned ' || COALESCE(CAST(assigned_at AS TEXT), '-') || \
    ' started ' || COALESCE(CAST(started_at AS TEXT), '-') || ' ended ' || COALESCE(CAST(finished_at AS TEXT), '-') \
    FROM tasks WHERE created_at BETWEEN $2 AND $3 AND token = $1 \
    UNION ALL SELECT 'open ' || id FROM tasks WHERE token = $1 AND finished_at IS NULL \
    UNION ALL SELECT 'former ' || f.id FROM tasks t JOIN former_attempts f ON f.task = t.id \
    WHERE t.created_at BETWEEN $2 AND $3 AND f.token = $1 \
    UNION ALL SELECT 'output ' || o.attempt || ' chunks ' || CAST(COUNT(*) AS TEXT) || ' to ' || CAST(MAX(ends) AS TEXT) \
    FROM tasks t JOIN output o ON o.attempt = t.attempt \
    WHERE t.created_at BETWEEN $2 AND $3 AND t.token = $1 GROUP BY o.attempt \
    UNION ALL SELECT 'late ' || l.attempt || ' ' || l.state || ' ' || CAST(l.at AS TEXT) \
    FROM tasks t JOIN late_results l ON l.attempt = t.attempt \
    WHERE t.created_at BETWEEN $2 AND $3 AND t.token = $1";

/// A connection to the Manager's database, past the Manager.
pub(super) struct Facts(AnyConnection);

impl Facts {
    /// Opens one.
    pub(super) async fn open(world: &World) -> anyhow::Result<Self> {
        sqlx::any::install_default_drivers();
        Ok(Self(AnyConnection::connect(world.database_url()).await?))
    }

    /// What is durable of a token at this moment, with tasks that were submitted within this time.
    pub(super) async fn of(
        &mut self,
        token: TokenId,
        within: &RangeInclusive<Millis>,
    ) -> anyhow::Result<BTreeSet<String>> {
        let query = sqlx::query(FACTS).bind(token.to_string()).bind(*within.start()).bind(*within.end());
        let rows = query.fetch_all(&mut self.0).await?;
        Ok(rows.iter().map(|row| row.try_get("fact")).collect::<Result<_, _>>()?)
    }
}
