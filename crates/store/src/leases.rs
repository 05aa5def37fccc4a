//! How long delegates may act that an earlier Manager of this database spoke to.
//!
//! A Manager counts in memory when it answered whom. What its predecessor answered it cannot know, and the lease
//! may have been longer then; so each leaves behind the longest that it grants.

use legation_model::Millis;

use crate::{Conn, StoreError, row::Columns};

// The right-hand sides see the row as the predecessor left it.
const BEGIN: &str = "UPDATE manager SET longest_lease = $1, leases_end_by = CASE \
     WHEN leases_end_by > $2 + longest_lease THEN leases_end_by ELSE $2 + longest_lease END \
     WHERE one = 1 RETURNING leases_end_by";
const RAISE: &str = "UPDATE manager SET longest_lease = $1 WHERE one = 1 AND longest_lease < $1";

/// Notes the longest lease that this Manager grants from `now` on, and answers by when every lease of its
/// predecessors has ended.
///
/// # Errors
/// Those of the database.
pub async fn begin(conn: &mut Conn, longest: Millis, now: Millis) -> Result<Millis, StoreError> {
    let row = conn.maybe(sqlx::query(BEGIN).bind(longest).bind(now)).await?;
    row.ok_or_else(|| StoreError::Corrupt("the manager's row is missing".to_owned()))?.time("leases_end_by")
}

/// Notes a longer lease, before it is granted for the first time.
///
/// # Errors
/// Those of the database.
pub async fn raise(conn: &mut Conn, lease: Millis) -> Result<(), StoreError> {
    conn.run(sqlx::query(RAISE).bind(lease)).await.map(drop)
}
