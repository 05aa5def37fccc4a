//! What is known of the two processes that used one delegate key.

use legation_model::{
    delegate::{CloneReport, CloneSide},
    ids::DelegateId,
};
use sqlx::any::AnyRow;

use crate::{
    Conn, StoreError,
    conn::Statement,
    many,
    row::{Columns, join},
};

const SIDES: many::Into = many::Into {
    table: "clone_sides",
    columns: "delegate, side, boot, name, host, address, version, tags, description, seen_at",
    conflict: "ON CONFLICT (delegate, side) DO UPDATE SET boot = excluded.boot, name = excluded.name, \
               host = excluded.host, address = excluded.address, version = excluded.version, tags = excluded.tags, \
               description = excluded.description, seen_at = excluded.seen_at",
};
const GET: &str = "SELECT * FROM clone_sides WHERE delegate = $1 ORDER BY side";

/// Notes both; what was noted of an earlier time is replaced.
///
/// # Errors
/// Those of the database.
pub async fn put(conn: &mut Conn, id: DelegateId, clone: &CloneReport) -> Result<(), StoreError> {
    let sides: Vec<(i64, &CloneSide)> = (0..).zip([&clone.counted, &clone.returned]).collect();
    let bind = |query: Statement<'static>, (number, side): &(i64, &CloneSide)| {
        let query = query.bind(id.to_string()).bind(*number).bind(side.boot.to_string()).bind(side.name.to_string());
        let query = query.bind(side.host.to_string()).bind(side.address.clone()).bind(side.version.clone());
        Ok(query.bind(join(&side.tags)).bind(side.description.to_string()).bind(side.seen_at))
    };
    many::insert(conn, SIDES, &sides, bind).await.map(drop)
}

/// Both, if the key was ever used twice.
///
/// # Errors
/// Those of the database.
pub async fn get(conn: &mut Conn, id: DelegateId) -> Result<Option<CloneReport>, StoreError> {
    let rows = conn.all(sqlx::query(GET).bind(id.to_string())).await?;
    match &rows[..] {
        [counted, returned] => Ok(Some(CloneReport { counted: side(counted)?, returned: side(returned)? })),
        _ => Ok(None),
    }
}

fn side(row: &AnyRow) -> Result<CloneSide, StoreError> {
    Ok(CloneSide {
        boot: row.word("boot")?,
        name: row.word("name")?,
        host: row.word("host")?,
        address: row.text("address")?,
        version: row.text("version")?,
        tags: row.words("tags")?,
        description: row.word("description")?,
        seen_at: row.time("seen_at")?,
    })
}
