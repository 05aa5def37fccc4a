//! Console sessions, by the hash of their secret.

use legation_model::{
    Millis, Name, Scope, Within,
    ids::{LoginId, PrincipalId},
    login::LoginMethod,
};
use sqlx::any::AnyRow;

use crate::{Conn, Page, Paged, StoreError, page, row::Columns};

/// What a person has who logged in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    /// Identity.
    pub id: LoginId,
    /// Whose.
    pub owner: PrincipalId,
    /// How they showed who they are.
    pub method: LoginMethod,
    /// Hash of the secret.
    pub hash: Vec<u8>,
    /// From which network address it was made; empty if nobody knows.
    pub address: String,
    /// What the browser or program called itself.
    pub agent: String,
    /// When it was made.
    pub created_at: Millis,
    /// When its owner last showed who they are.
    pub authenticated_at: Millis,
    /// When it was last used, to within a few seconds.
    pub last_used_at: Millis,
    /// From when on it is refused, however much it is used.
    pub expires_at: Millis,
}

/// A session in a list, with what says whose it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnedLogin {
    /// The session.
    pub login: Login,
    /// Its owner's name.
    pub owner_name: Name,
    /// Where its owner belongs.
    pub scope: Option<Scope>,
}

/// Which sessions a list shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoginFilter {
    /// Only those of this principal.
    pub owner: Option<PrincipalId>,
    /// Those of this one are shown wherever it belongs.
    pub own: PrincipalId,
    /// Only those that end after this time.
    pub now: Millis,
    /// Only those that were used after this time.
    pub used_after: Millis,
}

const INSERT: &str = "INSERT INTO logins (id, principal, method, hash, address, agent, created_at, authenticated_at, \
     last_used_at, expires_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";
const GET: &str = "SELECT l.id, l.principal, l.method, l.hash, l.address, l.agent, l.created_at, l.authenticated_at, \
     l.last_used_at, l.expires_at, p.scope, p.name AS owner_name FROM logins l JOIN principals p ON p.id = l.principal \
     WHERE l.id = $1";
const LIST: &str = "SELECT * FROM (SELECT l.id, l.principal, l.method, l.hash, l.address, l.agent, l.created_at, \
     l.authenticated_at, l.last_used_at, l.expires_at, p.scope, p.name AS owner_name \
     FROM logins l JOIN principals p ON p.id = l.principal) AS open \
     WHERE (created_at, id) > ($1, $2) AND ($3 = '' OR principal = $3) AND expires_at > $4 AND last_used_at > $5 \
     AND (principal = $6 OR {within}) ORDER BY created_at, id LIMIT $7";
const COUNT: &str = "SELECT COUNT(*) AS logins FROM logins WHERE principal = $1";
const SET_AUTHENTICATED: &str = "UPDATE logins SET authenticated_at = $2 WHERE id = $1";
const DELETE: &str = "DELETE FROM logins WHERE id = $1";
const DELETE_OTHERS: &str = "DELETE FROM logins WHERE principal = $1 AND id <> $2";
const DELETE_SURPLUS: &str = "DELETE FROM logins WHERE principal = $1 AND id <> $4 AND id NOT IN \
     (SELECT id FROM logins WHERE principal = $2 AND id <> $5 ORDER BY last_used_at DESC, id LIMIT $3)";
const FORGET: &str = "DELETE FROM logins WHERE expires_at <= $1 OR last_used_at <= $2";

/// Adds one.
///
/// # Errors
/// [`StoreError::Taken`] when the id exists.
pub async fn insert(conn: &mut Conn, login: &Login) -> Result<(), StoreError> {
    let query = sqlx::query(INSERT)
        .bind(login.id.to_string())
        .bind(login.owner.to_string())
        .bind(login.method.as_str())
        .bind(login.hash.clone())
        .bind(login.address.clone())
        .bind(login.agent.clone())
        .bind(login.created_at)
        .bind(login.authenticated_at)
        .bind(login.last_used_at)
        .bind(login.expires_at);
    conn.run_one(query).await
}

/// The one with this id, ended or not.
///
/// # Errors
/// Those of the database.
pub async fn get(conn: &mut Conn, id: LoginId) -> Result<Option<OwnedLogin>, StoreError> {
    conn.maybe(sqlx::query(GET).bind(id.to_string())).await?.as_ref().map(owned).transpose()
}

/// Those whose owners are within, and one's own, that the filter lets through, oldest first.
///
/// # Errors
/// Those of the database; [`StoreError::Refused`] for a cursor of another list.
pub async fn list(
    conn: &mut Conn,
    within: &Within,
    filter: &LoginFilter,
    page: &Page,
) -> Result<Paged<OwnedLogin>, StoreError> {
    let (at, id) = page.border(Millis::MIN)?;
    let query = page::confined(LIST, 7, within)
        .bind(at)
        .bind(id)
        .bind(filter.owner.map(|owner| owner.to_string()).unwrap_or_default())
        .bind(filter.now)
        .bind(filter.used_after)
        .bind(filter.own.to_string())
        .bind(page.rows());
    let items = conn.all(page::scopes(query, within)).await?.iter().map(owned).collect::<Result<_, _>>()?;
    Ok(page.cut(items, |owned| page::border(owned.login.created_at, owned.login.id)))
}

/// How many one principal has.
///
/// # Errors
/// Those of the database.
pub async fn count(conn: &mut Conn, owner: PrincipalId) -> Result<u64, StoreError> {
    let row = conn.maybe(sqlx::query(COUNT).bind(owner.to_string())).await?.ok_or(StoreError::NotFound)?;
    row.number("logins")
}

/// Notes that its owner showed once more who they are.
///
/// # Errors
/// [`StoreError::NotFound`].
pub async fn set_authenticated(conn: &mut Conn, id: LoginId, at: Millis) -> Result<(), StoreError> {
    conn.run_one(sqlx::query(SET_AUTHENTICATED).bind(id.to_string()).bind(at)).await
}

/// Removes one.
///
/// # Errors
/// [`StoreError::NotFound`].
pub async fn delete(conn: &mut Conn, id: LoginId) -> Result<(), StoreError> {
    conn.run_one(sqlx::query(DELETE).bind(id.to_string())).await
}

/// Removes all of a principal but one; how many.
///
/// # Errors
/// Those of the database.
pub async fn delete_others(conn: &mut Conn, owner: PrincipalId, kept: Option<LoginId>) -> Result<u64, StoreError> {
    let kept = kept.map(|kept| kept.to_string()).unwrap_or_default();
    conn.run(sqlx::query(DELETE_OTHERS).bind(owner.to_string()).bind(kept)).await
}

/// Leaves a principal so many: the newest one, whatever the clock says of the others, and of those the ones that were used
/// last. How many it removed.
///
/// # Errors
/// Those of the database.
pub async fn delete_surplus(conn: &mut Conn, newest: &Login, left: u32) -> Result<u64, StoreError> {
    let (owner, id, others) = (newest.owner.to_string(), newest.id.to_string(), i64::from(left.saturating_sub(1)));
    let query = sqlx::query(DELETE_SURPLUS).bind(owner.clone()).bind(owner).bind(others).bind(id.clone()).bind(id);
    conn.run(query).await
}

/// Removes those that have ended by now, and those that were not used since.
///
/// # Errors
/// Those of the database.
pub async fn forget(conn: &mut Conn, now: Millis, used_before: Millis) -> Result<(), StoreError> {
    conn.run(sqlx::query(FORGET).bind(now).bind(used_before)).await.map(drop)
}

fn owned(row: &AnyRow) -> Result<OwnedLogin, StoreError> {
    Ok(OwnedLogin { login: login(row)?, owner_name: row.word("owner_name")?, scope: row.maybe_word("scope")? })
}

pub(crate) fn login(row: &AnyRow) -> Result<Login, StoreError> {
    Ok(Login {
        id: row.word("id")?,
        owner: row.word("principal")?,
        method: row.word("method")?,
        hash: row.bytes("hash")?,
        address: row.text("address")?,
        agent: row.text("agent")?,
        created_at: row.time("created_at")?,
        authenticated_at: row.time("authenticated_at")?,
        last_used_at: row.time("last_used_at")?,
        expires_at: row.time("expires_at")?,
    })
}
