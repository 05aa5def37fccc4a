//! Principals: users and service accounts, who hold grants and own API keys.

use legation_model::{Millis, Name, Scope, Text, Within, access::PrincipalKind, ids::PrincipalId};
use sqlx::any::AnyRow;

use crate::{Conn, Page, Paged, StoreError, page, row::Columns};

/// The principal that owns the keys made on the host. It is always there, and is never changed.
pub const BREAK_GLASS: PrincipalId = PrincipalId([0; 16]);

/// A user or a service account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// Identity.
    pub id: PrincipalId,
    /// A person or a program.
    pub kind: PrincipalKind,
    /// Where it belongs: who may see or change it there may see or change it. `None` for the whole tree.
    pub scope: Option<Scope>,
    /// Unique among users; among service accounts unique in its scope. Small and capital letters count as the same.
    pub name: Name,
    /// Free text.
    pub description: Text,
    /// Since when it can do nothing.
    pub disabled_at: Option<Millis>,
    /// When it was made.
    pub created_at: Millis,
    /// Who made it.
    pub created_by: String,
}

/// What no two principals may have in common.
fn taken(kind: PrincipalKind, scope: Option<&Scope>, name: &Name) -> String {
    let scope = match kind {
        PrincipalKind::ServiceAccount => scope.map(Scope::as_str).unwrap_or_default(),
        PrincipalKind::User => "",
    };
    format!("{kind}:{scope}:{}", name.as_str().to_ascii_lowercase())
}

/// Which principals a list shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PrincipalFilter {
    /// Only users, or only service accounts.
    pub kind: Option<PrincipalKind>,
    /// Only those of this name.
    pub name: Option<Name>,
}

const INSERT: &str = "INSERT INTO principals (id, kind, scope, name, taken, description, disabled_at, created_at, \
     created_by) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";
const GET: &str = "SELECT * FROM principals WHERE id = $1";
const USER: &str = "SELECT * FROM principals WHERE taken = $1";
const LIST: &str = "SELECT * FROM principals WHERE (created_at, id) > ($1, $2) AND ($3 = '' OR kind = $3) \
     AND ($4 = '' OR name = $4) AND {within} ORDER BY created_at, id LIMIT $5";
const SET_DISABLED: &str = "UPDATE principals SET disabled_at = $2 WHERE id = $1";
const DELETE_KEYS: &str = "DELETE FROM api_keys WHERE owner = $1";
const DELETE_LOGINS: &str = "DELETE FROM logins WHERE principal = $1";
const DELETE_PASSWORD: &str = "DELETE FROM passwords WHERE principal = $1";
const DELETE_IDENTITY: &str = "DELETE FROM identities WHERE principal = $1";
const DELETE_GRANTS: &str = "DELETE FROM grants WHERE principal = $1";
const DELETE: &str = "DELETE FROM principals WHERE id = $1";

/// Adds one.
///
/// # Errors
/// [`StoreError::Taken`] when its name is in use.
pub async fn insert(conn: &mut Conn, principal: &Principal) -> Result<(), StoreError> {
    let query = sqlx::query(INSERT)
        .bind(principal.id.to_string())
        .bind(principal.kind.as_str())
        .bind(principal.scope.as_ref().map(Scope::to_string))
        .bind(principal.name.to_string())
        .bind(taken(principal.kind, principal.scope.as_ref(), &principal.name))
        .bind(principal.description.to_string())
        .bind(principal.disabled_at)
        .bind(principal.created_at)
        .bind(principal.created_by.clone());
    conn.run_one(query).await
}

/// The one with this id.
///
/// # Errors
/// Those of the database.
pub async fn get(conn: &mut Conn, id: PrincipalId) -> Result<Option<Principal>, StoreError> {
    conn.maybe(sqlx::query(GET).bind(id.to_string())).await?.as_ref().map(principal).transpose()
}

/// The user of this name, small and capital letters being the same.
///
/// # Errors
/// Those of the database.
pub async fn user(conn: &mut Conn, name: &Name) -> Result<Option<Principal>, StoreError> {
    let taken = taken(PrincipalKind::User, None, name);
    conn.maybe(sqlx::query(USER).bind(taken)).await?.as_ref().map(principal).transpose()
}

/// Those within that the filter lets through, oldest first.
///
/// # Errors
/// Those of the database; [`StoreError::Refused`] for a cursor of another list.
pub async fn list(
    conn: &mut Conn,
    within: &Within,
    filter: &PrincipalFilter,
    page: &Page,
) -> Result<Paged<Principal>, StoreError> {
    let (at, id) = page.border(Millis::MIN)?;
    let query = page::confined(LIST, 5, within)
        .bind(at)
        .bind(id)
        .bind(filter.kind.map(PrincipalKind::as_str).unwrap_or_default())
        .bind(filter.name.as_ref().map(Name::to_string).unwrap_or_default())
        .bind(page.rows());
    let items = conn.all(page::scopes(query, within)).await?.iter().map(principal).collect::<Result<_, _>>()?;
    Ok(page.cut(items, |principal| page::border(principal.created_at, principal.id)))
}

/// Disables one from a time on, or enables it again.
///
/// # Errors
/// [`StoreError::NotFound`].
pub async fn set_disabled(conn: &mut Conn, id: PrincipalId, since: Option<Millis>) -> Result<(), StoreError> {
    conn.run_one(sqlx::query(SET_DISABLED).bind(id.to_string()).bind(since)).await
}

/// Removes one, with its keys, sessions, password, identity and grants.
///
/// # Errors
/// [`StoreError::NotFound`].
pub async fn delete(conn: &mut Conn, id: PrincipalId) -> Result<(), StoreError> {
    for text in [DELETE_KEYS, DELETE_LOGINS, DELETE_PASSWORD, DELETE_IDENTITY, DELETE_GRANTS] {
        conn.run(sqlx::query(text).bind(id.to_string())).await?;
    }
    conn.run_one(sqlx::query(DELETE).bind(id.to_string())).await
}

fn principal(row: &AnyRow) -> Result<Principal, StoreError> {
    Ok(Principal {
        id: row.word("id")?,
        kind: row.word("kind")?,
        scope: row.maybe_word("scope")?,
        name: row.word("name")?,
        description: row.word("description")?,
        disabled_at: row.maybe_number("disabled_at")?,
        created_at: row.time("created_at")?,
        created_by: row.text("created_by")?,
    })
}
