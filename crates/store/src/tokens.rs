//! Delegate tokens and, in a table of their own, the sealed keys of their generations.

use std::collections::{BTreeMap, BTreeSet};

use legation_model::{
    Millis, Name, Scope, Within,
    ids::{ManagerKeyId, ReceiptId, TokenId},
    receipt::Cause,
    token::{DelegateToken, Schedule, TokenLimits, TokenStatus},
};
use sqlx::any::AnyRow;

use crate::{
    Conn, Page, Paged, StoreError,
    conn::Statement,
    many, page,
    row::{Columns, integer, join},
    token_values, wraps,
};

/// Which tokens a list shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenFilter {
    /// Also revoked ones. Deleted ones are listed only by their status.
    pub include_revoked: bool,
    /// Only those of this name.
    pub name: Option<Name>,
    /// Only those of this status, whichever it is; it counts before `include_revoked`.
    pub status: Option<TokenStatus>,
    /// Only those that have not ended and expire by then.
    pub expires_by: Option<Millis>,
    /// Only those that were created before and not used since.
    pub unused_since: Option<Millis>,
}

/// One generation's sealed pre-shared key.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenSecret {
    /// Whose.
    pub token: TokenId,
    /// Which generation.
    pub generation: u32,
    /// Sealed by the caller; the store cannot read it.
    pub sealed_psk: Vec<u8>,
}

const NEW: many::Into = many::Into {
    table: "tokens",
    columns: "id, scope, name, description, status, generation, expires_at, max_delegates, allowed_cidrs, \
              allowed_names, pinned_tags, created_at, created_by, issued_at, revoked_at, revoked_reason, receipt, \
              last_used_at, version, enrolment, ephemeral, canary",
    conflict: "",
};
const NEW_SECRETS: many::Into =
    many::Into { table: "token_secrets", columns: "token, generation, sealed_psk, manager_key", conflict: "" };
const GET: &str = "SELECT * FROM tokens WHERE id = $1";
// Whoever looks for something among tens of thousands has them read in the order of their age, which takes milliseconds; an
// index over the time of the last use would be written with every heartbeat.
const LIST: &str = "SELECT * FROM tokens WHERE (created_at, id) > ($1, $2) AND ($3 = '' OR name = $3) \
     AND (status = $4 OR ($4 = '' AND status <> 'deleted' AND ($5 = 1 OR status <> 'revoked'))) \
     AND ($6 = 9223372036854775807 OR (expires_at <= $6 AND status NOT IN ('revoked', 'deleted'))) \
     AND COALESCE(last_used_at, created_at) < $7 AND {within} ORDER BY created_at, id LIMIT $8";
const NOT_ENDED: &str = "SELECT * FROM tokens WHERE created_at < $1 AND status NOT IN ('revoked', 'deleted') \
     AND {within} ORDER BY created_at, id LIMIT $2";
const STATUS: &str = "SELECT status FROM tokens WHERE id = $1";
const STATES: &str = "SELECT id, status, version FROM tokens";
const ISSUE: &str = "UPDATE tokens SET status = 'active', generation = $2, issued_at = $3, version = version + 1 \
     WHERE id = $1 AND status = 'unissued'";
const CHANGE: &str = "UPDATE tokens SET name = $2, description = $3, expires_at = $4, max_delegates = $5, \
     allowed_cidrs = $6, allowed_names = $7, pinned_tags = $8, enrolment = $9, ephemeral = $10, \
     version = version + 1 WHERE id = $1";
const WARN: &str = "UPDATE tokens SET warned = $3, warned_of = $2 WHERE id = $1 AND expires_at = $2 \
     AND (warned_of IS NULL OR warned_of <> $2 OR warned > $3)";
const SCHEDULE: &str = "UPDATE tokens SET status = $2, revoke_at = $3, scheduled_by = $4, scheduled_reason = $5, \
     version = version + 1 WHERE id = $1";
const FORGET_SECRETS: &str = "DELETE FROM token_secrets WHERE token IN (SELECT id FROM tokens WHERE revoked_at < $1)";
const SECRETS: &str = "SELECT token, generation, sealed_psk FROM token_secrets ORDER BY token, generation";
const REVOKE: &str = "UPDATE tokens SET status = 'revoked', revoked_at = $2, revoked_reason = $3, revoked_cause = $4, \
     receipt = $5, version = version + 1 WHERE id = $1";
const BURY_UNISSUED: &str = "UPDATE tokens SET status = 'deleted', deleted_at = $2, version = version + 1 WHERE scope = $1 AND status = 'unissued'";
const DELETE: &str = "UPDATE tokens SET status = 'deleted', deleted_at = $2, version = version + 1 WHERE id = $1";

/// Adds one.
///
/// # Errors
/// As [`insert_all`].
pub async fn insert(conn: &mut Conn, token: &DelegateToken) -> Result<(), StoreError> {
    insert_all(conn, std::slice::from_ref(token)).await
}

/// Adds tokens, without the secrets of those that have one.
///
/// # Errors
/// [`StoreError::Taken`] when a token of its scope that is not deleted has the name of one, or when an id was ever used.
pub async fn insert_all(conn: &mut Conn, new: &[DelegateToken]) -> Result<(), StoreError> {
    many::insert(conn, NEW, new, bind).await.map(drop)
}

fn bind(query: Statement<'static>, token: &DelegateToken) -> Result<Statement<'static>, StoreError> {
    let limits = &token.limits;
    let query = query
        .bind(token.id.to_string())
        .bind(token.scope.to_string())
        .bind(token.name.to_string())
        .bind(token.description.to_string())
        .bind(token.status.as_str())
        .bind(i64::from(token.generation))
        .bind(limits.expires_at)
        .bind(limits.max_delegates.map(i64::from))
        .bind(join(&limits.allowed_cidrs))
        .bind(join(&limits.allowed_names))
        .bind(join(&limits.pinned_tags))
        .bind(token.created_at)
        .bind(token.created_by.clone())
        .bind(token.issued_at)
        .bind(token.revoked_at)
        .bind(token.revoked_reason.clone())
        .bind(token.receipt.map(|id| id.to_string()))
        .bind(token.last_used_at)
        .bind(integer(token.version)?)
        .bind(limits.enrolment.as_str())
        .bind(i64::from(limits.ephemeral))
        .bind(i64::from(limits.canary));
    Ok(query)
}

/// Adds sealed keys, derived for use with one of the Manager's own.
///
/// # Errors
/// [`StoreError::Taken`] when a generation has one, [`StoreError::NotFound`] without its token.
pub async fn add_secrets(conn: &mut Conn, new: &[TokenSecret], manager_key: ManagerKeyId) -> Result<(), StoreError> {
    let bind = |query: Statement<'static>, secret: &TokenSecret| {
        let query = query.bind(secret.token.to_string()).bind(i64::from(secret.generation));
        Ok(query.bind(secret.sealed_psk.clone()).bind(manager_key.to_string()))
    };
    many::insert(conn, NEW_SECRETS, new, bind).await.map(drop)
}

/// The one with this id, deleted or not.
///
/// # Errors
/// Those of the database.
pub async fn get(conn: &mut Conn, id: TokenId) -> Result<Option<DelegateToken>, StoreError> {
    conn.maybe(sqlx::query(GET).bind(id.to_string())).await?.as_ref().map(token).transpose()
}

/// Those within that the filter lets through, oldest first.
///
/// # Errors
/// Those of the database; [`StoreError::Refused`] for a cursor of another list.
pub async fn list(
    conn: &mut Conn,
    within: &Within,
    filter: &TokenFilter,
    page: &Page,
) -> Result<Paged<DelegateToken>, StoreError> {
    let (at, id) = page.border(Millis::MIN)?;
    let query = page::confined(LIST, 8, within)
        .bind(at)
        .bind(id)
        .bind(filter.name.as_ref().map(Name::to_string).unwrap_or_default())
        .bind(filter.status.map(TokenStatus::as_str).unwrap_or_default())
        .bind(i64::from(filter.include_revoked))
        .bind(filter.expires_by.unwrap_or(Millis::MAX))
        .bind(filter.unused_since.unwrap_or(Millis::MAX))
        .bind(page.rows());
    let items = conn.all(page::scopes(query, within)).await?.iter().map(token).collect::<Result<_, _>>()?;
    Ok(page.cut(items, |token| page::border(token.created_at, token.id)))
}

/// Tokens of a scope and below that have not ended, created before a time if one is given; oldest first, `most` of
/// them.
///
/// # Errors
/// Those of the database.
pub async fn not_ended(
    conn: &mut Conn,
    scope: &Scope,
    created_before: Option<Millis>,
    most: u32,
) -> Result<Vec<DelegateToken>, StoreError> {
    let within = Within::below([scope.clone()]);
    let query = page::confined(NOT_ENDED, 2, &within).bind(created_before.unwrap_or(Millis::MAX)).bind(i64::from(most));
    conn.all(page::scopes(query, &within)).await?.iter().map(token).collect()
}

/// Gives an unissued token its first secret and makes it active.
///
/// # Errors
/// [`StoreError::NotFound`], or [`StoreError::Refused`] when it is not unissued.
pub async fn issue(
    conn: &mut Conn,
    id: TokenId,
    generation: u32,
    sealed_psk: &[u8],
    manager_key: ManagerKeyId,
    now: Millis,
) -> Result<(), StoreError> {
    let query = sqlx::query(ISSUE).bind(id.to_string()).bind(i64::from(generation)).bind(now);
    if conn.run(query).await? == 0 {
        let status = lock_shared(conn, id).await?.ok_or(StoreError::NotFound)?;
        return Err(StoreError::refused(format!("the token is {status}: only an unissued one can be issued")));
    }
    let secret = TokenSecret { token: id, generation, sealed_psk: sealed_psk.to_vec() };
    add_secrets(conn, &[secret], manager_key).await
}

/// Every sealed key, also of revoked and deleted tokens, whose users must be told the truth.
///
/// # Errors
/// Those of the database.
pub async fn secrets(conn: &mut Conn) -> Result<Vec<TokenSecret>, StoreError> {
    conn.all(sqlx::query(SECRETS)).await?.iter().map(secret).collect()
}

/// Forgets the secrets of tokens that were revoked before this time; how many. Their delegates can then no longer
/// be told why they are refused.
///
/// # Errors
/// Those of the database.
pub async fn forget_secrets(conn: &mut Conn, before: Millis) -> Result<u64, StoreError> {
    conn.run(sqlx::query(FORGET_SECRETS).bind(before)).await
}

/// Writes a token's name, description and limits as they are here; its version grows by one.
///
/// # Errors
/// [`StoreError::NotFound`]; [`StoreError::Taken`] when another one of its scope has the name.
pub async fn change(conn: &mut Conn, token: &DelegateToken) -> Result<(), StoreError> {
    let limits = &token.limits;
    let query = sqlx::query(CHANGE)
        .bind(token.id.to_string())
        .bind(token.name.to_string())
        .bind(token.description.to_string())
        .bind(limits.expires_at)
        .bind(limits.max_delegates.map(i64::from))
        .bind(join(&limits.allowed_cidrs))
        .bind(join(&limits.allowed_names))
        .bind(join(&limits.pinned_tags))
        .bind(limits.enrolment.as_str())
        .bind(i64::from(limits.ephemeral));
    conn.run_one(query).await
}

/// Sets the revocation that is to come, or takes it back, and the status with it.
///
/// # Errors
/// [`StoreError::NotFound`], or [`StoreError::Refused`] when its life does not lead from where it is to `status`.
pub async fn schedule(
    conn: &mut Conn,
    id: TokenId,
    status: TokenStatus,
    schedule: Option<&Schedule>,
) -> Result<(), StoreError> {
    let present = lock_shared(conn, id).await?.ok_or(StoreError::NotFound)?;
    if present != status {
        step(conn, id, status).await?;
    }
    let query = sqlx::query(SCHEDULE)
        .bind(id.to_string())
        .bind(status.as_str())
        .bind(schedule.map(|schedule| schedule.at))
        .bind(schedule.map(|schedule| schedule.by.clone()))
        .bind(schedule.map(|schedule| schedule.reason.clone()));
    conn.run_one(query).await
}

/// Ends a token, and with it every value of it that is kept or waits under a one-time code.
///
/// # Errors
/// [`StoreError::NotFound`], or [`StoreError::Refused`] when it has ended.
pub async fn revoke(
    conn: &mut Conn,
    id: TokenId,
    cause: Cause,
    now: Millis,
    reason: &str,
    receipt: ReceiptId,
) -> Result<(), StoreError> {
    step(conn, id, TokenStatus::Revoked).await?;
    // Here and not with the caller: whatever ends a token, a restore as well, must leave nothing of it behind.
    wraps::end_of_token(conn, id, now).await?;
    token_values::forget(conn, id).await?;
    let query = sqlx::query(REVOKE).bind(id.to_string()).bind(now).bind(reason.to_owned());
    conn.run_one(query.bind(cause.as_str()).bind(receipt.to_string())).await
}

/// Leaves a tombstone: the id stays used, the name is free.
///
/// # Errors
/// [`StoreError::NotFound`], or [`StoreError::Refused`] when it is not revoked.
pub async fn delete(conn: &mut Conn, id: TokenId, now: Millis) -> Result<(), StoreError> {
    step(conn, id, TokenStatus::Deleted).await?;
    conn.run_one(sqlx::query(DELETE).bind(id.to_string()).bind(now)).await
}

/// Buries the tokens of a place that ends with it. Only such as never had a secret: there is nothing to revoke and nobody
/// to tell.
///
/// # Errors
/// Those of the database.
pub async fn bury_unissued(conn: &mut Conn, scope: &Scope, now: Millis) -> Result<u64, StoreError> {
    conn.run(sqlx::query(BURY_UNISSUED).bind(scope.to_string()).bind(now)).await
}

/// Notes that it was warned of this expiry so long before; whether nobody had warned of it then or later.
///
/// # Errors
/// Those of the database.
pub async fn warn(conn: &mut Conn, id: TokenId, expires_at: Millis, before: Millis) -> Result<bool, StoreError> {
    Ok(conn.run(sqlx::query(WARN).bind(id.to_string()).bind(expires_at).bind(before)).await? == 1)
}

/// Notes when tokens were last proved; an older time than the noted one changes nothing.
///
/// # Errors
/// Those of the database.
pub async fn touch_used(conn: &mut Conn, used: &[(TokenId, Millis)]) -> Result<(), StoreError> {
    const TOUCH: many::Touch = many::Touch { table: "tokens", column: "last_used_at" };
    many::touch(conn, TOUCH, used.iter().map(|(id, at)| (id.to_string(), *at))).await
}

/// The status, which on a shared database no one can change until this transaction ends.
///
/// # Errors
/// Those of the database.
pub async fn lock_shared(conn: &mut Conn, id: TokenId) -> Result<Option<TokenStatus>, StoreError> {
    let text = format!("{STATUS}{}", conn.for_share());
    let row = conn.maybe(sqlx::query(sqlx::AssertSqlSafe(text)).bind(id.to_string())).await?;
    row.map(|row| row.word("status")).transpose()
}

/// The same for several at once; those that do not exist are missing from the answer.
///
/// # Errors
/// Those of the database.
pub async fn lock_shared_all(
    conn: &mut Conn,
    ids: &BTreeSet<TokenId>,
) -> Result<BTreeMap<TokenId, TokenStatus>, StoreError> {
    let arguments = many::arguments(0, ids.len());
    let text = format!("SELECT id, status FROM tokens WHERE id IN ({arguments}){}", conn.for_share());
    let query = ids.iter().fold(many::passing(conn, &text), |query, id| query.bind(id.to_string()));
    conn.all(query).await?.iter().map(|row| Ok((row.word("id")?, row.word("status")?))).collect()
}

/// Every token's status and version, deleted ones included: what the sweep compares sessions with.
///
/// # Errors
/// Those of the database.
pub async fn states(conn: &mut Conn) -> Result<Vec<(TokenId, TokenStatus, u64)>, StoreError> {
    let rows = conn.all(sqlx::query(STATES)).await?;
    rows.iter().map(|row| Ok((row.word("id")?, row.word("status")?, row.number("version")?))).collect()
}

async fn step(conn: &mut Conn, id: TokenId, next: TokenStatus) -> Result<(), StoreError> {
    let status = lock_shared(conn, id).await?.ok_or(StoreError::NotFound)?;
    if status.may_become(next) {
        return Ok(());
    }
    Err(StoreError::refused(format!("the token is {status} and cannot become {next}")))
}

fn token(row: &AnyRow) -> Result<DelegateToken, StoreError> {
    Ok(DelegateToken {
        id: row.word("id")?,
        scope: row.word("scope")?,
        name: row.word("name")?,
        description: row.word("description")?,
        status: row.word("status")?,
        generation: row.number("generation")?,
        limits: TokenLimits {
            expires_at: row.maybe_number("expires_at")?,
            max_delegates: row.maybe_number("max_delegates")?,
            allowed_cidrs: row.words("allowed_cidrs")?,
            allowed_names: row.words("allowed_names")?,
            pinned_tags: row.words("pinned_tags")?,
            enrolment: row.word("enrolment")?,
            ephemeral: row.number::<i64>("ephemeral")? != 0,
            canary: row.number::<i64>("canary")? != 0,
        },
        version: row.number("version")?,
        schedule: schedule_of(row)?,
        created_at: row.time("created_at")?,
        created_by: row.text("created_by")?,
        issued_at: row.maybe_number("issued_at")?,
        revoked_at: row.maybe_number("revoked_at")?,
        revoked_reason: row.plain("revoked_reason")?,
        revoked_cause: row.maybe_word("revoked_cause")?,
        receipt: row.maybe_word("receipt")?,
        last_used_at: row.maybe_number("last_used_at")?,
        uses: row.number("uses")?,
    })
}

fn schedule_of(row: &AnyRow) -> Result<Option<Schedule>, StoreError> {
    let Some(at) = row.maybe_number("revoke_at")? else { return Ok(None) };
    Ok(Some(Schedule { at, by: row.text("scheduled_by")?, reason: row.text("scheduled_reason")? }))
}

fn secret(row: &AnyRow) -> Result<TokenSecret, StoreError> {
    Ok(TokenSecret {
        token: row.word("token")?,
        generation: row.number("generation")?,
        sealed_psk: row.bytes("sealed_psk")?,
    })
}
