//! Migrations: numbered texts inside the program, applied in order, each once, and never edited.
//!
//! A change first expands (new tables, nullable columns), and only a later version contracts, so that a
//! break-glass command of the next version never breaks a Manager that still runs.

use sha2::{Digest, Sha256};

use crate::{Conn, StoreError, row::Columns};

/// What shipped, in order; the number is the position, from 1.
const MIGRATIONS: &[(&str, &str)] = &[
    ("first", include_str!("../migrations/0001_first.sql")),
    ("audit_records", include_str!("../migrations/0002_audit_records.sql")),
    ("scopes", include_str!("../migrations/0003_scopes.sql")),
    ("token_changes", include_str!("../migrations/0004_token_changes.sql")),
    ("enrolment", include_str!("../migrations/0005_enrolment.sql")),
    ("audit_checkpoints", include_str!("../migrations/0006_audit_checkpoints.sql")),
    ("access", include_str!("../migrations/0007_access.sql")),
    ("canaries", include_str!("../migrations/0008_canaries.sql")),
    ("expiry_warnings", include_str!("../migrations/0009_expiry_warnings.sql")),
    ("admitted", include_str!("../migrations/0010_admitted.sql")),
    ("logins", include_str!("../migrations/0011_logins.sql")),
    ("token_uses", include_str!("../migrations/0012_token_uses.sql")),
    ("wraps", include_str!("../migrations/0013_wraps.sql")),
    ("reveal", include_str!("../migrations/0014_reveal.sql")),
    ("oidc", include_str!("../migrations/0014_oidc.sql")),
];

/// Brings the schema to this version, all or nothing.
pub(crate) async fn migrate(conn: &mut Conn) -> Result<(), StoreError> {
    conn.begin_migration().await?;
    let outcome = apply(conn, MIGRATIONS).await;
    let end = if outcome.is_ok() { "COMMIT" } else { "ROLLBACK" };
    outcome.and(conn.raw(end).await.map(|_| ()))
}

/// The migrations that built a database: name and checksum of each.
pub(crate) async fn applied(conn: &mut Conn) -> Result<Vec<(String, String)>, StoreError> {
    let rows = conn.all(sqlx::query("SELECT name, checksum FROM migrations ORDER BY number")).await?;
    let applied = rows
        .iter()
        .map(|row| Ok((row.text("name")?, row.text("checksum")?)))
        .collect::<Result<Vec<_>, StoreError>>()?;
    known(&applied)?;
    Ok(applied)
}

/// How many of ours these are, which must be the first ones.
pub(crate) fn known(applied: &[(String, String)]) -> Result<usize, StoreError> {
    if applied.len() > MIGRATIONS.len() {
        return Err(StoreError::refused(
            "a newer version has changed this database: run that version, or restore a backup from before it",
        ));
    }
    for ((_, sum), (name, text)) in applied.iter().zip(MIGRATIONS) {
        if *sum != checksum(text) {
            return Err(StoreError::refused(format!(
                "migration {name:?} is not the one that built this database: install an unmodified version"
            )));
        }
    }
    Ok(applied.len())
}

/// The tables that so many migrations make, each behind those that it refers to.
pub(crate) fn tables(count: usize) -> Vec<&'static str> {
    let made = |line: &'static str| line.strip_prefix("CREATE TABLE ")?.split([' ', '(']).next();
    MIGRATIONS.iter().take(count).flat_map(|(_, text)| text.lines().filter_map(made)).collect()
}

/// Builds the schema as it was after so many migrations, within the caller's transaction.
pub(crate) async fn apply_first(conn: &mut Conn, count: usize) -> Result<(), StoreError> {
    apply(conn, &MIGRATIONS[..count]).await
}

/// Brings the schema to this version, within the caller's transaction.
pub(crate) async fn apply_all(conn: &mut Conn) -> Result<(), StoreError> {
    apply(conn, MIGRATIONS).await
}

async fn apply(conn: &mut Conn, migrations: &[(&str, &str)]) -> Result<(), StoreError> {
    let table = "CREATE TABLE IF NOT EXISTS migrations \
                 (number BIGINT PRIMARY KEY, name TEXT NOT NULL, checksum TEXT NOT NULL)";
    let table = conn.database().schema(table);
    conn.raw(table).await?;
    let applied = applied(conn).await?.len();
    for (number, (name, text)) in (1_i64..).zip(migrations).skip(applied) {
        let schema = conn.database().schema(text);
        conn.raw(schema).await?;
        let insert = sqlx::query("INSERT INTO migrations (number, name, checksum) VALUES ($1, $2, $3)");
        conn.run(insert.bind(number).bind(*name).bind(checksum(text))).await?;
    }
    Ok(())
}

fn checksum(text: &str) -> String {
    Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// All of ours, as a database that they built lists them.
#[cfg(test)]
pub(crate) fn ours() -> Vec<(String, String)> {
    MIGRATIONS.iter().map(|(name, text)| ((*name).to_owned(), checksum(text))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A line is added for each new migration, and from the first release on none is ever changed: databases
    /// remember these sums and refuse a program with others.
    const SHIPPED: &[&str] = &[
        "2be72f8d065a2afd781d1bff0b1a90575f0c306abcdd432230ff82e923f147f0",
        "705e1820500e9553345201b36eb8948d207904eb9d0b8ea6309528e9eb5fe5cd",
        "91104979216702de2b95299844a2d71d3134a604ff9e22d9542458188740cb72",
        "d190b7d569941fd225d0345090e094d4a30ae3423734f1e214ae5b9b5786ff5c",
        "dc507db56ca024fa3a75e26d7584e17b0b8409bd1f9e42db437b8789ce92347a",
        "1c58c02d5f797a43bfea2ce05ebbb5572dbb90b8636c8bf6d121916e6e42ff34",
        "3c21a0d5d503f64ba97bcc766109a30d483dd8ed45a0d335c0454472b67aa7ad",
        "ee1ed7c066b5a1e622c95b0f0ad04393dba26cbffc33cd030731efd91bfb170a",
        "a440c01b32df7f2fff3dbee6d88cce3ff4cf3a604ecd5814130206290b5768ec",
        "688430c864aa0ab5d47c9f1d1c84c04ef60bee29d422391f8f412342d579272c",
        "e407935f55453bb03015d8cc1bb064ac5e3a87da4be9249f072c9e970391e622",
        "d6fbb86014a7d86cd1f77c9cef4c96f9f9ea55cef15acaf93244d47b9aca4686",
        "897e247c74718b66ed52c9958cf1c9829015b4b9a55c1a3e6b5a9160b46af1e8",
        "eac286b088c0565592e1d169987026047c721584b2eba55ff372e36642f281ef",
        "31775f242f695fffd8f6ea0b88677a7ab5e30cae9921ae50fb2d6077829632f8",
    ];

    #[test]
    fn what_shipped_is_never_edited() {
        let sums: Vec<_> = MIGRATIONS.iter().map(|(_, text)| checksum(text)).collect();
        assert_eq!(sums, SHIPPED);
    }
}
