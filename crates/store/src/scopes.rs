//! The places of the scope tree: accounts, organizations in them, and projects in those.

use std::collections::{BTreeMap, BTreeSet};

use legation_model::{
    Millis, Name, Scope, Text, Within,
    ids::{ApiKeyId, GrantId, PrincipalId},
    reveal::Reveal,
    scope::ScopeKind,
    token::DEFAULT_TOKEN,
};
use sqlx::any::AnyRow;

use crate::{
    Conn, Page, Paged, StoreError, many, page,
    row::{Columns, integer},
};

/// A place in the scope tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The place itself.
    pub scope: Scope,
    /// Free text.
    pub description: Text,
    /// Of an account: the lease of its delegates in milliseconds, where it is not the Manager's default.
    pub lease: Option<Millis>,
    /// Of an account: whether the values of tokens that are issued in it are kept.
    pub reveal: Reveal,
    /// How often it was written: 1 when it is new.
    pub version: u64,
    /// When it was created.
    pub created_at: Millis,
    /// Who created it.
    pub created_by: String,
}

/// What keeps a place from being deleted; of each kind of thing some, and how many there are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// Places below, the deepest of a branch before what it is in: the order in which they can be deleted.
    pub places: (Vec<Scope>, u64),
    /// Tokens that are not deleted, apart from a default token that was never issued.
    pub tokens: (Vec<Name>, u64),
    /// API keys that are narrowed to this place.
    pub keys: (Vec<ApiKeyId>, u64),
    /// Grants for this place.
    pub grants: (Vec<GrantId>, u64),
    /// Users and service accounts that belong to this place.
    pub principals: (Vec<PrincipalId>, u64),
    /// Tasks that have not ended.
    pub tasks: u64,
}

/// Whether a name may be used for a new place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It never was.
    Free,
    /// It is there.
    Taken,
    /// It was there, and is never used again.
    Deleted,
}

/// How many of each kind of thing [`contents`] names: enough to begin with.
const NAMED_MAX: i64 = 5;

const INSERT: &str = "INSERT INTO accounts (scope, description, lease, reveal, created_at, created_by, version) \
     VALUES ($1, $2, $3, $4, $5, $6, $7)";
const GET: &str = "SELECT * FROM accounts WHERE scope = $1 AND deleted_at IS NULL";
const STANDING: &str = "SELECT deleted_at FROM accounts WHERE scope = $1";
const LEASES: &str = "SELECT scope, lease FROM accounts WHERE lease IS NOT NULL AND deleted_at IS NULL";
const LONGEST_LEASE: &str = "SELECT MAX(lease) AS lease FROM accounts";
// The number of slashes is the depth.
const LIST: &str = "SELECT * FROM accounts WHERE REPLACE(scope, '/', ' ') > $1 AND {within} \
     AND ($2 < 0 OR LENGTH(scope) - LENGTH(REPLACE(scope, '/', '')) = $2) AND deleted_at IS NULL \
     ORDER BY REPLACE(scope, '/', ' ') LIMIT $3";
const UPDATE: &str = "UPDATE accounts SET description = $3, lease = $4, reveal = $5, version = version + 1 \
     WHERE scope = $1 AND version = $2 AND deleted_at IS NULL";
const DELETE: &str =
    "UPDATE accounts SET deleted_at = $2, version = version + 1 WHERE scope = $1 AND deleted_at IS NULL";
const BELOW: &str = "SELECT scope AS name FROM accounts WHERE scope > $1 || '/' AND scope < $1 || '0' \
     AND deleted_at IS NULL ORDER BY scope DESC";
const TOKENS: &str = "SELECT name FROM tokens WHERE scope = $1 AND status <> 'deleted' \
     AND NOT (name = $2 AND status = 'unissued') ORDER BY name";
const KEYS: &str = "SELECT id AS name FROM api_keys WHERE scope = $1 ORDER BY id";
const GRANTS: &str = "SELECT id AS name FROM grants WHERE scope = $1 ORDER BY id";
const PRINCIPALS: &str = "SELECT id AS name FROM principals WHERE scope = $1 ORDER BY id";
const OPEN_TASKS: &str = "SELECT COUNT(*) AS open FROM tasks WHERE scope = $1 AND finished_at IS NULL";
const FILLED: &str = "SELECT places_filled FROM manager WHERE one = 1";
const SET_FILLED: &str = "UPDATE manager SET places_filled = 1 WHERE one = 1";
const IN_USE: &str = "SELECT scope FROM tokens UNION SELECT scope FROM delegates UNION SELECT scope FROM tasks \
     UNION SELECT scope FROM api_keys WHERE scope IS NOT NULL UNION SELECT scope FROM accounts";
const WITHOUT_DEFAULT_TOKEN: &str = "SELECT scope FROM accounts WHERE deleted_at IS NULL AND scope NOT IN \
     (SELECT scope FROM tokens WHERE name = $1 AND status <> 'deleted') ORDER BY scope";

/// Adds one.
///
/// # Errors
/// [`StoreError::Taken`] when the scope exists or existed.
pub async fn insert(conn: &mut Conn, place: &Place) -> Result<(), StoreError> {
    let query = sqlx::query(INSERT).bind(place.scope.to_string()).bind(place.description.to_string());
    let query =
        query.bind(place.lease).bind(place.reveal.as_str()).bind(place.created_at).bind(place.created_by.clone());
    conn.run_one(query.bind(integer(place.version)?)).await
}

/// The one at this scope, unless it is deleted.
///
/// # Errors
/// Those of the database.
pub async fn get(conn: &mut Conn, scope: &Scope) -> Result<Option<Place>, StoreError> {
    conn.maybe(sqlx::query(GET).bind(scope.to_string())).await?.as_ref().map(place).transpose()
}

/// Whether the scope can become a new place.
///
/// # Errors
/// Those of the database.
pub async fn standing(conn: &mut Conn, scope: &Scope) -> Result<Standing, StoreError> {
    let Some(row) = conn.maybe(sqlx::query(STANDING).bind(scope.to_string())).await? else {
        return Ok(Standing::Free);
    };
    let deleted: Option<Millis> = row.maybe_number("deleted_at")?;
    Ok(if deleted.is_some() { Standing::Deleted } else { Standing::Taken })
}

/// Those of these scopes that exist, and what each says of values, in one statement.
///
/// # Errors
/// Those of the database.
pub async fn known(conn: &mut Conn, scopes: &BTreeSet<Scope>) -> Result<BTreeMap<Scope, Reveal>, StoreError> {
    let (asked, mut found) = (scopes.iter().collect::<Vec<_>>(), BTreeMap::new());
    for chunk in asked.chunks(many::ROWS_MAX) {
        let arguments = many::arguments(0, chunk.len());
        let text = format!("SELECT scope, reveal FROM accounts WHERE scope IN ({arguments}) AND deleted_at IS NULL");
        // One place is what most transactions ask for, always with the same text.
        let query = many::passing(conn, &text).persistent(chunk.len() == 1);
        let query = chunk.iter().fold(query, |query, scope| query.bind(scope.to_string()));
        for row in conn.all(query).await? {
            found.insert(row.word("scope")?, row.word("reveal")?);
        }
    }
    Ok(found)
}

/// The accounts that set a lease, and which.
///
/// # Errors
/// Those of the database.
pub async fn leases(conn: &mut Conn) -> Result<Vec<(Scope, Millis)>, StoreError> {
    let rows = conn.all(sqlx::query(LEASES)).await?;
    rows.iter().map(|row| Ok((row.word("scope")?, row.time("lease")?))).collect()
}

/// The longest lease that any account sets or set.
///
/// # Errors
/// Those of the database.
pub async fn longest_lease(conn: &mut Conn) -> Result<Option<Millis>, StoreError> {
    conn.maybe(sqlx::query(LONGEST_LEASE)).await?.map_or(Ok(None), |row| row.maybe_number("lease"))
}

/// Those within, of one kind if one is named, in the order of the tree: a place, all below it, its next neighbour.
///
/// # Errors
/// Those of the database.
pub async fn list(
    conn: &mut Conn,
    within: &Within,
    kind: Option<ScopeKind>,
    page: &Page,
) -> Result<Paged<Place>, StoreError> {
    let after = page.after.clone().unwrap_or_default().replace('/', " ");
    let depth = kind.map_or(-1, |kind| kind.depth() as i64);
    let query = page::confined(LIST, 3, within).bind(after).bind(depth).bind(page.rows());
    let items = conn.all(page::scopes(query, within)).await?.iter().map(place).collect::<Result<_, _>>()?;
    Ok(page.cut(items, |place| place.scope.to_string()))
}

/// Writes the description and the settings of one that still has this version; its version is the next one then.
///
/// # Errors
/// [`StoreError::NotFound`] when there is none of that version.
pub async fn update(conn: &mut Conn, version: u64, place: &Place) -> Result<(), StoreError> {
    let query = sqlx::query(UPDATE).bind(place.scope.to_string()).bind(integer(version)?);
    conn.run_one(query.bind(place.description.to_string()).bind(place.lease).bind(place.reveal.as_str())).await
}

/// Leaves a tombstone: the name is never used again.
///
/// # Errors
/// [`StoreError::NotFound`] when it is not there, or not any more.
pub async fn delete(conn: &mut Conn, scope: &Scope, now: Millis) -> Result<(), StoreError> {
    conn.run_one(sqlx::query(DELETE).bind(scope.to_string()).bind(now)).await
}

/// What is in a place.
///
/// # Errors
/// Those of the database.
pub async fn contents(conn: &mut Conn, scope: &Scope) -> Result<Contents, StoreError> {
    let scope = scope.to_string();
    let open = conn.maybe(sqlx::query(OPEN_TASKS).bind(scope.clone())).await?;
    let default = [scope.clone(), DEFAULT_TOKEN.to_owned()];
    Ok(Contents {
        places: some_of(conn, BELOW, std::slice::from_ref(&scope)).await?,
        tokens: some_of(conn, TOKENS, &default).await?,
        keys: some_of(conn, KEYS, std::slice::from_ref(&scope)).await?,
        grants: some_of(conn, GRANTS, std::slice::from_ref(&scope)).await?,
        principals: some_of(conn, PRINCIPALS, std::slice::from_ref(&scope)).await?,
        tasks: open.map_or(Ok(0), |row| row.number("open"))?,
    })
}

/// The first few names that a statement finds, and how many it finds.
async fn some_of<T: std::str::FromStr>(
    conn: &mut Conn,
    text: &str,
    arguments: &[String],
) -> Result<(Vec<T>, u64), StoreError> {
    let bound = |text: String| {
        let query = sqlx::query(sqlx::AssertSqlSafe(text));
        arguments.iter().fold(query, |query, argument| query.bind(argument.clone()))
    };
    let count = conn.maybe(bound(format!("SELECT COUNT(*) AS found FROM ({text}) AS all_of_them"))).await?;
    let rows = conn.all(bound(format!("{text} LIMIT {NAMED_MAX}"))).await?;
    let names = rows.iter().map(|row| row.word("name")).collect::<Result<_, _>>()?;
    Ok((names, count.map_or(Ok(0), |row| row.number("found"))?))
}

/// Whether places that were in use before they had rows have been given one.
///
/// # Errors
/// Those of the database.
pub async fn filled(conn: &mut Conn) -> Result<bool, StoreError> {
    let row = conn.maybe(sqlx::query(FILLED)).await?;
    Ok(row.map_or(Ok(0), |row| row.number::<i64>("places_filled"))? != 0)
}

/// Notes that they have.
///
/// # Errors
/// Those of the database.
pub async fn set_filled(conn: &mut Conn) -> Result<(), StoreError> {
    conn.run_one(sqlx::query(SET_FILLED)).await
}

/// Every scope that a row names, and those above it, that has no row of its own; those above first.
///
/// # Errors
/// Those of the database.
pub async fn without_row(conn: &mut Conn) -> Result<BTreeSet<Scope>, StoreError> {
    let mut wanted = BTreeSet::new();
    for row in conn.all(sqlx::query(IN_USE)).await? {
        let scope: Scope = row.word("scope")?;
        wanted.extend(scope.above());
        wanted.insert(scope);
    }
    let mut missing = BTreeSet::new();
    for scope in wanted {
        if standing(conn, &scope).await? == Standing::Free {
            missing.insert(scope);
        }
    }
    Ok(missing)
}

/// Places that lack the token each is born with.
///
/// # Errors
/// Those of the database.
pub async fn without_default_token(conn: &mut Conn) -> Result<Vec<Scope>, StoreError> {
    conn.all(sqlx::query(WITHOUT_DEFAULT_TOKEN).bind(DEFAULT_TOKEN))
        .await?
        .iter()
        .map(|row| row.word("scope"))
        .collect()
}

fn place(row: &AnyRow) -> Result<Place, StoreError> {
    Ok(Place {
        scope: row.word("scope")?,
        description: row.word("description")?,
        lease: row.maybe_number("lease")?,
        reveal: row.word("reveal")?,
        version: row.number("version")?,
        created_at: row.time("created_at")?,
        created_by: row.text("created_by")?,
    })
}
