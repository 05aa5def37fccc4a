//! Whom an identity provider means: its issuer and subject, and the user that they are here.

use legation_model::{Millis, ids::PrincipalId};

use crate::{Conn, StoreError, row::Columns};

/// What an identity provider says of one person and of nobody else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The provider.
    pub issuer: String,
    /// The person there.
    pub subject: String,
}

const INSERT: &str = "INSERT INTO identities (issuer, subject, principal, created_at) VALUES ($1, $2, $3, $4)";
const FIND: &str = "SELECT principal FROM identities WHERE issuer = $1 AND subject = $2";
const OF: &str = "SELECT issuer, subject FROM identities WHERE principal = $1";

/// Binds a user to a person at a provider.
///
/// # Errors
/// [`StoreError::Taken`] when either is bound already.
pub async fn insert(
    conn: &mut Conn,
    identity: &Identity,
    principal: PrincipalId,
    at: Millis,
) -> Result<(), StoreError> {
    let query = sqlx::query(INSERT).bind(identity.issuer.clone()).bind(identity.subject.clone());
    conn.run_one(query.bind(principal.to_string()).bind(at)).await
}

/// The user that somebody is here.
///
/// # Errors
/// Those of the database.
pub async fn find(conn: &mut Conn, identity: &Identity) -> Result<Option<PrincipalId>, StoreError> {
    let query = sqlx::query(FIND).bind(identity.issuer.clone()).bind(identity.subject.clone());
    conn.maybe(query).await?.as_ref().map(|row| row.word("principal")).transpose()
}

/// Whom a user is at a provider, if they log in there.
///
/// # Errors
/// Those of the database.
pub async fn of(conn: &mut Conn, principal: PrincipalId) -> Result<Option<Identity>, StoreError> {
    let row = conn.maybe(sqlx::query(OF).bind(principal.to_string())).await?;
    row.map(|row| Ok(Identity { issuer: row.text("issuer")?, subject: row.text("subject")? })).transpose()
}
