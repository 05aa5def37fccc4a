//! Delegates: one row per key within a scope.

use legation_model::{
    Millis, Name, Scope, Within,
    delegate::{Delegate, DelegateStatus, Standing},
    ids::{BootId, DelegateId, TokenId},
};
use sqlx::any::AnyRow;

use crate::{
    Conn, Page, Paged, StoreError,
    conn::Statement,
    many, page,
    row::{Columns, integer, join},
};

/// Which delegates a list shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DelegateFilter {
    /// Only those that last proved this token.
    pub token: Option<TokenId>,
    /// Only those of this group.
    pub name: Option<Name>,
    /// Only those of this status.
    pub status: Option<DelegateStatus>,
}

/// Columns of a delegate, and what a connection brings up to date of one that is known.
const DELEGATES: many::Into = many::Into {
    table: "delegates",
    columns: "id, scope, public_key, token, name, host, tags, description, version, isolation, capacity, status, boot, \
              counter, former_boots, first_seen, last_seen, address, admitted",
    conflict: "ON CONFLICT (id) DO UPDATE SET token = excluded.token, name = excluded.name, host = excluded.host, \
               tags = excluded.tags, description = excluded.description, version = excluded.version, \
               isolation = excluded.isolation, capacity = excluded.capacity, boot = excluded.boot, \
               counter = excluded.counter, former_boots = excluded.former_boots, last_seen = excluded.last_seen, \
               address = excluded.address, admitted = excluded.admitted",
};
const GET: &str = "SELECT * FROM delegates WHERE id = $1";
const BY_KEY: &str = "SELECT * FROM delegates WHERE scope = $1 AND public_key = $2";
const HOLDERS: &str = "SELECT id, boot, name, host, last_seen FROM delegates \
     WHERE token = $1 AND admitted = 1 ORDER BY first_seen, id";
const ADDRESSES: &str = "SELECT id, address FROM delegates WHERE token = $1";
const LIST: &str = "SELECT * FROM delegates WHERE (first_seen, id) > ($1, $2) AND ($3 = '' OR token = $3) \
     AND ($4 = '' OR name = $4) AND ($5 = '' OR status = $5) AND {within} ORDER BY first_seen, id LIMIT $6";
const SET_STATUS: &str =
    "UPDATE delegates SET status = $2, status_reason = $3, status_by = $4, status_at = $5 WHERE id = $1";
const FORGET_BOOTS: &str = "UPDATE delegates SET former_boots = '' WHERE id = $1";
const PENDING: &str = "SELECT COUNT(*) AS pending FROM delegates WHERE token = $1 AND status = 'pending'";
const FORGET_PENDING: &str = "DELETE FROM delegates WHERE status = 'pending' AND last_seen < $1";

/// Adds delegates, or brings what their connections say up to date; none may be there twice. Scope, key, first
/// connection and status of one that exists stay as they are: a connection must not undo a stop ([`set_status`]
/// does).
///
/// # Errors
/// [`StoreError::Taken`] when another id has a key in its scope, [`StoreError::NotFound`] without its token.
pub async fn upsert(conn: &mut Conn, delegates: &[Delegate]) -> Result<(), StoreError> {
    many::insert(conn, DELEGATES, delegates, bind).await.map(drop)
}

fn bind(query: Statement<'static>, delegate: &Delegate) -> Result<Statement<'static>, StoreError> {
    let query = query
        .bind(delegate.id.to_string())
        .bind(delegate.scope.to_string())
        .bind(delegate.public_key.to_vec())
        .bind(delegate.token.to_string())
        .bind(delegate.name.to_string())
        .bind(delegate.host.to_string())
        .bind(join(&delegate.tags))
        .bind(delegate.description.to_string())
        .bind(delegate.version.clone())
        .bind(delegate.isolation.as_str())
        .bind(i64::from(delegate.capacity))
        .bind(delegate.status.as_str())
        .bind(delegate.boot.to_string())
        .bind(integer(delegate.counter)?)
        .bind(join(&delegate.former_boots))
        .bind(delegate.first_seen)
        .bind(delegate.last_seen)
        .bind(delegate.address.clone())
        .bind(i64::from(delegate.status != DelegateStatus::Pending));
    Ok(query)
}

/// The one with this id.
///
/// # Errors
/// Those of the database.
pub async fn get(conn: &mut Conn, id: DelegateId) -> Result<Option<Delegate>, StoreError> {
    conn.maybe(sqlx::query(GET).bind(id.to_string())).await?.as_ref().map(delegate).transpose()
}

/// The one that has this key in exactly this scope.
///
/// # Errors
/// Those of the database.
pub async fn by_key(conn: &mut Conn, scope: &Scope, public_key: &[u8; 32]) -> Result<Option<Delegate>, StoreError> {
    let query = sqlx::query(BY_KEY).bind(scope.to_string()).bind(public_key.to_vec());
    conn.maybe(query).await?.as_ref().map(delegate).transpose()
}

/// Those that have one of these keys in exactly this scope.
///
/// # Errors
/// Those of the database.
pub async fn by_keys(conn: &mut Conn, scope: &Scope, keys: &[[u8; 32]]) -> Result<Vec<Delegate>, StoreError> {
    let mut found = Vec::new();
    for chunk in keys.chunks(many::ROWS_MAX) {
        let arguments = many::arguments(1, chunk.len());
        let text = format!("SELECT * FROM delegates WHERE scope = $1 AND public_key IN ({arguments})");
        let query = many::passing(conn, &text).bind(scope.to_string());
        let query = chunk.iter().fold(query, |query, key| query.bind(key.to_vec()));
        for row in conn.all(query).await? {
            found.push(delegate(&row)?);
        }
    }
    Ok(found)
}

/// Those within that the filter lets through, in the order of their first connection.
///
/// # Errors
/// Those of the database; [`StoreError::Refused`] for a cursor of another list.
pub async fn list(
    conn: &mut Conn,
    within: &Within,
    filter: &DelegateFilter,
    page: &Page,
) -> Result<Paged<Delegate>, StoreError> {
    let (at, id) = page.border(Millis::MIN)?;
    let query = page::confined(LIST, 6, within)
        .bind(at)
        .bind(id)
        .bind(filter.token.map(|id| id.to_string()).unwrap_or_default())
        .bind(filter.name.as_ref().map(Name::to_string).unwrap_or_default())
        .bind(filter.status.map(DelegateStatus::as_str).unwrap_or_default())
        .bind(page.rows());
    let items = conn.all(page::scopes(query, within)).await?.iter().map(delegate).collect::<Result<_, _>>()?;
    Ok(page.cut(items, |delegate| page::border(delegate.first_seen, delegate.id)))
}

/// What a revocation needs of a delegate: ten thousand may hold one token, and each column counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Identity.
    pub id: DelegateId,
    /// Its newest start.
    pub boot: BootId,
    /// Its group.
    pub name: Name,
    /// Its machine.
    pub host: Name,
    /// Last answered heartbeat that was noted.
    pub last_seen: Millis,
}

/// All that last proved this token and were ever let in.
///
/// # Errors
/// Those of the database.
pub async fn holders(conn: &mut Conn, token: TokenId) -> Result<Vec<Holder>, StoreError> {
    conn.all(sqlx::query(HOLDERS).bind(token.to_string())).await?.iter().map(holder).collect()
}

/// From where those that last proved this token connected.
///
/// # Errors
/// Those of the database.
pub async fn addresses(conn: &mut Conn, token: TokenId) -> Result<Vec<(DelegateId, String)>, StoreError> {
    let rows = conn.all(sqlx::query(ADDRESSES).bind(token.to_string())).await?;
    rows.iter().map(|row| Ok((row.word("id")?, row.text("address")?))).collect()
}

/// Notes when delegates were last seen; an older time than the noted one changes nothing.
///
/// # Errors
/// Those of the database.
pub async fn touch_seen(conn: &mut Conn, seen: &[(DelegateId, Millis)]) -> Result<(), StoreError> {
    const TOUCH: many::Touch = many::Touch { table: "delegates", column: "last_seen" };
    many::touch(conn, TOUCH, seen.iter().map(|(id, at)| (id.to_string(), *at))).await
}

/// Allows, stops or quarantines a key.
///
/// # Errors
/// [`StoreError::NotFound`].
pub async fn set_status(
    conn: &mut Conn,
    id: DelegateId,
    status: DelegateStatus,
    standing: &Standing,
) -> Result<(), StoreError> {
    let query = sqlx::query(SET_STATUS).bind(id.to_string()).bind(status.as_str()).bind(standing.reason.clone());
    conn.run_one(query.bind(standing.by.clone()).bind(standing.at)).await
}

/// Forgets the starts that were superseded: none of them counts as a clone when it comes back.
///
/// # Errors
/// [`StoreError::NotFound`].
pub async fn forget_boots(conn: &mut Conn, id: DelegateId) -> Result<(), StoreError> {
    conn.run_one(sqlx::query(FORGET_BOOTS).bind(id.to_string())).await
}

/// How many wait to be let in with this token.
///
/// # Errors
/// Those of the database.
pub async fn count_pending(conn: &mut Conn, token: TokenId) -> Result<u64, StoreError> {
    conn.maybe(sqlx::query(PENDING).bind(token.to_string())).await?.map_or(Ok(0), |row| row.number("pending"))
}

/// Forgets those that wait and were not heard since; how many.
///
/// # Errors
/// Those of the database.
pub async fn forget_pending(conn: &mut Conn, since: Millis) -> Result<u64, StoreError> {
    conn.run(sqlx::query(FORGET_PENDING).bind(since)).await
}

/// Forgets those of these that may come in, run nothing and were not seen since; which. One that was stopped or quarantined
/// stays, because its key must stay refused.
///
/// # Errors
/// Those of the database.
pub async fn forget(conn: &mut Conn, ids: &[DelegateId], since: Millis) -> Result<Vec<DelegateId>, StoreError> {
    let mut forgotten = Vec::new();
    for chunk in ids.chunks(many::ROWS_MAX) {
        let text = format!(
            "DELETE FROM delegates WHERE status = 'allowed' AND last_seen < $1 AND NOT EXISTS \
             (SELECT 1 FROM tasks t WHERE t.delegate = delegates.id AND t.finished_at IS NULL) \
             AND id IN ({}) RETURNING id",
            many::arguments(1, chunk.len())
        );
        let query = many::passing(conn, &text).bind(since);
        for row in conn.all(chunk.iter().fold(query, |query, id| query.bind(id.to_string()))).await? {
            forgotten.push(row.word("id")?);
        }
    }
    Ok(forgotten)
}

fn standing(row: &AnyRow) -> Result<Option<Standing>, StoreError> {
    let Some(at) = row.maybe_number("status_at")? else { return Ok(None) };
    Ok(Some(Standing { reason: row.text("status_reason")?, by: row.text("status_by")?, at }))
}

fn holder(row: &AnyRow) -> Result<Holder, StoreError> {
    Ok(Holder {
        id: row.word("id")?,
        boot: row.word("boot")?,
        name: row.word("name")?,
        host: row.word("host")?,
        last_seen: row.time("last_seen")?,
    })
}

fn delegate(row: &AnyRow) -> Result<Delegate, StoreError> {
    Ok(Delegate {
        id: row.word("id")?,
        scope: row.word("scope")?,
        public_key: row.key("public_key")?,
        token: row.word("token")?,
        name: row.word("name")?,
        host: row.word("host")?,
        tags: row.words("tags")?,
        description: row.word("description")?,
        version: row.text("version")?,
        isolation: row.word("isolation")?,
        capacity: row.number("capacity")?,
        status: row.word("status")?,
        standing: standing(row)?,
        boot: row.word("boot")?,
        counter: row.number("counter")?,
        former_boots: row.words("former_boots")?,
        first_seen: row.time("first_seen")?,
        last_seen: row.time("last_seen")?,
        address: row.text("address")?,
    })
}
