//! Statements over many rows at once: a round trip costs more than a row.

use legation_model::Millis;
use sqlx::AssertSqlSafe;

use crate::{Conn, StoreError, conn::Statement};

/// Rows in one statement, far below SQLite's 32,766 and PostgreSQL's 65,535 arguments with 16 columns a row.
pub(crate) const ROWS_MAX: usize = 500;

/// A column that holds the newest of the times it was given.
#[derive(Clone, Copy)]
pub(crate) struct Touch {
    pub(crate) table: &'static str,
    pub(crate) column: &'static str,
}

/// Sets the column for many ids; a time older than the present one changes nothing, unknown ids are skipped.
pub(crate) async fn touch(
    conn: &mut Conn,
    Touch { table, column }: Touch,
    times: impl Iterator<Item = (String, Millis)>,
) -> Result<(), StoreError> {
    for chunk in times.collect::<Vec<_>>().chunks(ROWS_MAX) {
        let text = format!(
            "WITH v (id, at) AS (VALUES {}) UPDATE {table} SET {column} = v.at FROM v \
             WHERE {table}.id = v.id AND COALESCE({table}.{column}, 0) < v.at",
            values(0, chunk.len(), 2)
        );
        let query = chunk.iter().fold(passing(conn, &text), |query, (id, at)| query.bind(id.clone()).bind(*at));
        conn.run(query).await?;
    }
    Ok(())
}

/// Where rows go.
#[derive(Clone, Copy)]
pub(crate) struct Into {
    pub(crate) table: &'static str,
    pub(crate) columns: &'static str,
    /// What becomes of a row that is there already; empty where none may be.
    pub(crate) conflict: &'static str,
}

/// Adds rows; how many. `bind` gives a statement the columns of one, in their order.
pub(crate) async fn insert<T>(
    conn: &mut Conn,
    Into { table, columns, conflict }: Into,
    rows: &[T],
    bind: impl Fn(Statement<'static>, &T) -> Result<Statement<'static>, StoreError>,
) -> Result<u64, StoreError> {
    let mut added = 0;
    for chunk in rows.chunks(ROWS_MAX) {
        let values = values(0, chunk.len(), columns.split(',').count());
        let text = format!("INSERT INTO {table} ({columns}) VALUES {values} {conflict}");
        // A single row is what most calls add, always with the same text.
        let query = passing(conn, &text).persistent(chunk.len() == 1);
        added += conn.run(chunk.iter().try_fold(query, &bind)?).await?;
    }
    Ok(added)
}

/// A statement whose text depends on the number of rows: built of constants, not worth keeping prepared. Its arguments
/// stand in the order of their numbers.
pub(crate) fn passing<'q>(conn: &Conn, text: &str) -> Statement<'q> {
    sqlx::query(AssertSqlSafe(conn.database().in_order(text))).persistent(false)
}

/// `($1, $2), ($3, $4)` for `rows` rows of `columns`, counting on after `before` arguments.
pub(crate) fn values(before: usize, rows: usize, columns: usize) -> String {
    let row = |row: usize| format!("({})", arguments(before + row * columns, columns));
    (0..rows).map(row).collect::<Vec<_>>().join(", ")
}

/// `$1, $2, $3`, counting on after `before` arguments.
pub(crate) fn arguments(before: usize, count: usize) -> String {
    (before + 1..=before + count).map(|number| format!("${number}")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_count_on() {
        assert_eq!(values(1, 2, 2), "($2, $3), ($4, $5)");
        assert_eq!(arguments(3, 2), "$4, $5");
    }
}
