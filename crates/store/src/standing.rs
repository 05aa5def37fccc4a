//! What a caller stands on: the API key or console session that was presented, and all that decides about its requests.

use std::fmt;

use legation_model::{
    Millis, Name, Scope,
    access::{Held, Holding, Permissions, PrincipalKind, Role},
    ids::{ApiKeyId, LoginId, PrincipalId},
};
use sqlx::any::AnyRow;

use crate::{
    Conn, StoreError,
    api_keys::{self, ApiKey},
    logins::{self, Login},
    many,
    roles::permissions,
    row::Columns,
};

/// Which API key or which console session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CredentialId {
    /// An API key.
    Key(ApiKeyId),
    /// A console session.
    Login(LoginId),
}

impl fmt::Display for CredentialId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(id) => id.fmt(f),
            Self::Login(id) => id.fmt(f),
        }
    }
}

/// What a request was made with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credential {
    /// An API key.
    Key(ApiKey),
    /// A console session.
    Login(Login),
}

impl Credential {
    /// Its identity.
    pub const fn id(&self) -> CredentialId {
        match self {
            Self::Key(key) => CredentialId::Key(key.id),
            Self::Login(login) => CredentialId::Login(login.id),
        }
    }

    /// Whose it is.
    pub const fn owner(&self) -> PrincipalId {
        match self {
            Self::Key(key) => key.owner,
            Self::Login(login) => login.owner,
        }
    }

    /// Hash of its secret.
    pub fn hash(&self) -> &[u8] {
        match self {
            Self::Key(key) => &key.hash,
            Self::Login(login) => &login.hash,
        }
    }

    /// When it was last used, to within a few seconds.
    pub const fn last_used_at(&self) -> Option<Millis> {
        match self {
            Self::Key(key) => key.last_used_at,
            Self::Login(login) => Some(login.last_used_at),
        }
    }

    /// The console session that it is, if it is one.
    pub const fn login(&self) -> Option<&Login> {
        match self {
            Self::Key(_) => None,
            Self::Login(login) => Some(login),
        }
    }

    /// To what it narrows what its owner holds.
    const fn scope(&self) -> Option<&Scope> {
        match self {
            Self::Key(key) => key.scope.as_ref(),
            Self::Login(_) => None,
        }
    }
}

/// A grant of a caller, for showing; its role may hold nothing any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Granted {
    /// The role's name.
    pub role: Name,
    /// What the role holds.
    pub permissions: Permissions,
    /// At and below this scope; everywhere without one.
    pub scope: Option<Scope>,
}

/// An API key or a console session together with all that decides about its requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// What is presented.
    pub credential: Credential,
    /// What its owner is.
    pub kind: PrincipalKind,
    /// Its owner's name.
    pub owner_name: Name,
    /// Its owner's grants.
    pub grants: Vec<Granted>,
    /// What they hold, narrowed to the scope of an API key that has one.
    pub held: Held,
}

impl Standing {
    /// Whose it is.
    pub const fn owner(&self) -> PrincipalId {
        self.credential.owner()
    }
}

/// One row for each grant of the owner, one without a grant if it has none, no row if it is disabled.
const OF_KEY: &str = "SELECT k.id, k.owner, k.name, k.hash, k.scope, k.created_at, k.created_by, k.expires_at, \
     k.last_used_at, p.kind, p.name AS owner_name, g.role AS granted, g.scope AS granted_at, r.permissions \
     FROM api_keys k JOIN principals p ON p.id = k.owner LEFT JOIN grants g ON g.principal = p.id \
     LEFT JOIN roles r ON r.name = g.role WHERE k.id = $1 AND p.disabled_at IS NULL ORDER BY g.created_at, g.id";
/// The same for a console session.
const OF_LOGIN: &str = "SELECT l.id, l.principal, l.method, l.hash, l.address, l.agent, l.created_at, \
     l.authenticated_at, l.last_used_at, l.expires_at, p.kind, p.name AS owner_name, g.role AS granted, \
     g.scope AS granted_at, r.permissions \
     FROM logins l JOIN principals p ON p.id = l.principal LEFT JOIN grants g ON g.principal = p.id \
     LEFT JOIN roles r ON r.name = g.role WHERE l.id = $1 AND p.disabled_at IS NULL ORDER BY g.created_at, g.id";

/// The one with this id and what it may do; `None` also when its owner is disabled.
///
/// # Errors
/// Those of the database.
pub async fn standing(conn: &mut Conn, id: CredentialId) -> Result<Option<Standing>, StoreError> {
    let text = match id {
        CredentialId::Key(_) => OF_KEY,
        CredentialId::Login(_) => OF_LOGIN,
    };
    let rows = conn.all(sqlx::query(text).bind(id.to_string())).await?;
    let Some(first) = rows.first() else { return Ok(None) };
    let credential = match id {
        CredentialId::Key(_) => Credential::Key(api_keys::key(first, "scope")?),
        CredentialId::Login(_) => Credential::Login(logins::login(first)?),
    };
    let grants = rows.iter().filter_map(|row| granted(row).transpose()).collect::<Result<Vec<_>, _>>()?;
    let holding = |grant: &Granted| Holding { permissions: grant.permissions, scope: grant.scope.clone() };
    let held = Held::new(grants.iter().map(holding), credential.scope());
    Ok(Some(Standing { kind: first.word("kind")?, owner_name: first.word("owner_name")?, grants, held, credential }))
}

/// Notes when keys and sessions were last used; an older time than the noted one changes nothing.
///
/// # Errors
/// Those of the database.
pub async fn touch_used(conn: &mut Conn, used: &[(CredentialId, Millis)]) -> Result<(), StoreError> {
    for (table, is_of_it) in [("api_keys", is_key as fn(&CredentialId) -> bool), ("logins", is_login)] {
        let touch = many::Touch { table, column: "last_used_at" };
        let times = used.iter().filter(|(id, _)| is_of_it(id)).map(|(id, at)| (id.to_string(), *at));
        many::touch(conn, touch, times).await?;
    }
    Ok(())
}

const fn is_key(id: &CredentialId) -> bool {
    matches!(id, CredentialId::Key(_))
}

const fn is_login(id: &CredentialId) -> bool {
    matches!(id, CredentialId::Login(_))
}

/// The grant in a row of a standing; one of a role that is neither built in nor stored holds nothing.
fn granted(row: &AnyRow) -> Result<Option<Granted>, StoreError> {
    let Some(role) = row.maybe_word::<Name>("granted")? else { return Ok(None) };
    let stored: Option<String> = row.plain("permissions")?;
    let permissions = match role.as_str().parse::<Role>() {
        Ok(role) => role.permissions(),
        Err(_) => stored.as_deref().map(permissions).unwrap_or_default(),
    };
    Ok(Some(Granted { role, permissions, scope: row.maybe_word("granted_at")? }))
}
