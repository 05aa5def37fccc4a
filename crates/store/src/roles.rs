//! Roles that people made of permissions. The built-in ones are the model's and have no rows.

use legation_model::{
    Millis, Name, Text,
    access::{Permission, Permissions},
};
use sqlx::any::AnyRow;

use crate::{Conn, Page, Paged, StoreError, row::Columns};

/// A role of people's own making.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CustomRole {
    /// Identity; small and capital letters count as the same.
    pub name: Name,
    /// Free text.
    pub description: Text,
    /// What it holds.
    pub permissions: Permissions,
    /// When it was made.
    pub created_at: Millis,
    /// Who made it.
    pub created_by: String,
}

const INSERT: &str = "INSERT INTO roles (name, taken, description, permissions, created_at, created_by) \
     VALUES ($1, $2, $3, $4, $5, $6)";
const GET: &str = "SELECT * FROM roles WHERE name = $1";
const LIST: &str = "SELECT * FROM roles WHERE name > $1 ORDER BY name LIMIT $2";
const UPDATE: &str = "UPDATE roles SET description = $2, permissions = $3 WHERE name = $1";
const DELETE: &str = "DELETE FROM roles WHERE name = $1";

/// Adds one.
///
/// # Errors
/// [`StoreError::Taken`] when its name is in use.
pub async fn insert(conn: &mut Conn, role: &CustomRole) -> Result<(), StoreError> {
    let query = sqlx::query(INSERT)
        .bind(role.name.to_string())
        .bind(role.name.as_str().to_ascii_lowercase())
        .bind(role.description.to_string())
        .bind(spelled(role.permissions))
        .bind(role.created_at)
        .bind(role.created_by.clone());
    conn.run_one(query).await
}

/// The one of this name.
///
/// # Errors
/// Those of the database.
pub async fn get(conn: &mut Conn, name: &Name) -> Result<Option<CustomRole>, StoreError> {
    conn.maybe(sqlx::query(GET).bind(name.to_string())).await?.as_ref().map(role).transpose()
}

/// All, by name.
///
/// # Errors
/// Those of the database.
pub async fn list(conn: &mut Conn, page: &Page) -> Result<Paged<CustomRole>, StoreError> {
    let query = sqlx::query(LIST).bind(page.after.clone().unwrap_or_default()).bind(page.rows());
    let items = conn.all(query).await?.iter().map(role).collect::<Result<_, _>>()?;
    Ok(page.cut(items, |role| role.name.to_string()))
}

/// Changes what one holds, and its description.
///
/// # Errors
/// [`StoreError::NotFound`].
pub async fn update(
    conn: &mut Conn,
    name: &Name,
    description: &Text,
    permissions: Permissions,
) -> Result<(), StoreError> {
    let query = sqlx::query(UPDATE).bind(name.to_string()).bind(description.to_string()).bind(spelled(permissions));
    conn.run_one(query).await
}

/// Removes one. Grants of it, if there are any, hold nothing any more.
///
/// # Errors
/// [`StoreError::NotFound`].
pub async fn delete(conn: &mut Conn, name: &Name) -> Result<(), StoreError> {
    conn.run_one(sqlx::query(DELETE).bind(name.to_string())).await
}

fn spelled(permissions: Permissions) -> String {
    permissions.iter().map(Permission::as_str).collect::<Vec<_>>().join(" ")
}

/// Reads permissions; one that only a newer version knows is not held.
pub(crate) fn permissions(text: &str) -> Permissions {
    text.split_whitespace().filter_map(|word| word.parse::<Permission>().ok()).collect()
}

fn role(row: &AnyRow) -> Result<CustomRole, StoreError> {
    Ok(CustomRole {
        name: row.word("name")?,
        description: row.word("description")?,
        permissions: permissions(&row.text("permissions")?),
        created_at: row.time("created_at")?,
        created_by: row.text("created_by")?,
    })
}
