//! Who used a token, when, and from where: one row for each delegate and address.

use std::collections::{BTreeMap, BTreeSet};

use legation_model::{
    Millis,
    ids::{DelegateId, TokenId},
    token_use::TokenUse,
};
use sqlx::any::AnyRow;

use crate::{
    Conn, Page, Paged, StoreError,
    conn::Statement,
    many, page,
    row::{Columns, integer},
};

/// Addresses that are kept of one delegate with one token, the newest: enough for a machine that moves, few enough for
/// one whose address changes with each connection.
pub const ADDRESSES_KEPT: u32 = 8;
/// Rows that are kept of one token, the newest: more than the ten thousand delegates that one token is made for, few
/// enough (3 MB) that machines which come and go by the hour do not fill the disk.
pub const ROWS_KEPT: u32 = 16_384;

const NEW: many::Into = many::Into {
    table: "token_uses",
    columns: "token, delegate, address, name, first_at, last_at, uses",
    conflict: "ON CONFLICT (token, delegate, address) DO UPDATE SET name = excluded.name, \
               uses = token_uses.uses + excluded.uses, last_at = CASE WHEN excluded.last_at > token_uses.last_at \
               THEN excluded.last_at ELSE token_uses.last_at END",
};
const LIST: &str = "SELECT * FROM token_uses WHERE token = $1 \
     AND (last_at < $2 OR (last_at = $2 AND delegate || '/' || address < $3)) \
     ORDER BY last_at DESC, delegate DESC, address DESC LIMIT $4";
const FORGET_ADDRESSES: &str = "DELETE FROM token_uses WHERE token = $1 AND delegate = $2 AND (last_at, address) < \
     (SELECT last_at, address FROM token_uses WHERE token = $1 AND delegate = $2 \
     ORDER BY last_at DESC, address DESC LIMIT 1 OFFSET $3)";
const FORGET_ROWS: &str = "DELETE FROM token_uses WHERE token = $1 AND (last_at, delegate, address) < \
     (SELECT last_at, delegate, address FROM token_uses WHERE token = $1 \
     ORDER BY last_at DESC, delegate DESC, address DESC LIMIT 1 OFFSET $2)";

/// Adds to what is known of tokens; the same delegate, address and token must not be there twice. What was let in
/// makes a row where there is none and counts for its token; what only goes on moves the time of a row that is there.
/// The oldest beyond [`ADDRESSES_KEPT`] and [`ROWS_KEPT`] are forgotten.
///
/// # Errors
/// [`StoreError::NotFound`] without its token.
pub async fn note(conn: &mut Conn, noted: &[TokenUse]) -> Result<(), StoreError> {
    let (new, still): (Vec<_>, Vec<_>) = noted.iter().cloned().partition(|noted| noted.uses > 0);
    many::insert(conn, NEW, &new, bind).await?;
    touch(conn, &still).await?;
    count(conn, noted).await?;
    forget(conn, &new).await
}

fn bind(query: Statement<'static>, noted: &TokenUse) -> Result<Statement<'static>, StoreError> {
    let query = query.bind(noted.token.to_string()).bind(noted.delegate.to_string()).bind(noted.address.to_string());
    Ok(query.bind(noted.name.to_string()).bind(noted.first_at).bind(noted.last_at).bind(integer(noted.uses)?))
}

async fn touch(conn: &mut Conn, still: &[TokenUse]) -> Result<(), StoreError> {
    for chunk in still.chunks(many::ROWS_MAX) {
        let text = format!(
            "WITH v (token, delegate, address, at) AS (VALUES {}) UPDATE token_uses SET last_at = v.at FROM v \
             WHERE token_uses.token = v.token AND token_uses.delegate = v.delegate \
             AND token_uses.address = v.address AND token_uses.last_at < v.at",
            many::values(0, chunk.len(), 4)
        );
        let bind = |query: Statement<'static>, noted: &TokenUse| {
            let query = query.bind(noted.token.to_string()).bind(noted.delegate.to_string());
            query.bind(noted.address.to_string()).bind(noted.last_at)
        };
        conn.run(chunk.iter().fold(many::passing(conn, &text), bind)).await?;
    }
    Ok(())
}

/// Adds to the tokens' own counts and times.
async fn count(conn: &mut Conn, noted: &[TokenUse]) -> Result<(), StoreError> {
    let mut tokens: BTreeMap<TokenId, (u64, Millis)> = BTreeMap::new();
    for noted in noted {
        let (uses, last_at) = tokens.entry(noted.token).or_default();
        *uses += noted.uses;
        *last_at = noted.last_at.max(*last_at);
    }
    for chunk in tokens.into_iter().collect::<Vec<_>>().chunks(many::ROWS_MAX) {
        let text = format!(
            "WITH v (id, uses, at) AS (VALUES {}) UPDATE tokens SET uses = tokens.uses + v.uses, last_used_at = \
             CASE WHEN COALESCE(tokens.last_used_at, 0) < v.at THEN v.at ELSE tokens.last_used_at END FROM v \
             WHERE tokens.id = v.id",
            many::values(0, chunk.len(), 3)
        );
        let mut query = many::passing(conn, &text);
        for (token, (uses, last_at)) in chunk {
            query = query.bind(token.to_string()).bind(integer(*uses)?).bind(*last_at);
        }
        conn.run(query).await?;
    }
    Ok(())
}

async fn forget(conn: &mut Conn, new: &[TokenUse]) -> Result<(), StoreError> {
    for (token, delegate) in with_many_addresses(conn, new).await? {
        let query = sqlx::query(FORGET_ADDRESSES).bind(token.to_string()).bind(delegate.to_string());
        conn.run(query.bind(i64::from(ADDRESSES_KEPT) - 1)).await?;
    }
    for token in new.iter().map(|noted| noted.token).collect::<BTreeSet<_>>() {
        conn.run(sqlx::query(FORGET_ROWS).bind(token.to_string()).bind(i64::from(ROWS_KEPT) - 1)).await?;
    }
    Ok(())
}

/// Which of these have more addresses than are kept: hardly ever any, so that those are asked for together.
async fn with_many_addresses(conn: &mut Conn, new: &[TokenUse]) -> Result<Vec<(TokenId, DelegateId)>, StoreError> {
    let pairs: BTreeSet<_> = new.iter().map(|noted| (noted.token, noted.delegate)).collect();
    let mut found = Vec::new();
    for chunk in pairs.into_iter().collect::<Vec<_>>().chunks(many::ROWS_MAX) {
        let text = format!(
            "WITH v (token, delegate) AS (VALUES {}) SELECT u.token, u.delegate FROM v JOIN token_uses u \
             ON u.token = v.token AND u.delegate = v.delegate GROUP BY u.token, u.delegate \
             HAVING COUNT(*) > {ADDRESSES_KEPT}",
            many::values(0, chunk.len(), 2)
        );
        let query = many::passing(conn, &text);
        let query = chunk.iter().fold(query, |query, (token, of)| query.bind(token.to_string()).bind(of.to_string()));
        for row in conn.all(query).await? {
            found.push((row.word("token")?, row.word("delegate")?));
        }
    }
    Ok(found)
}

/// Uses of a token, newest first.
///
/// # Errors
/// Those of the database; [`StoreError::Refused`] for a cursor of another list.
pub async fn list(conn: &mut Conn, token: TokenId, page: &Page) -> Result<Paged<TokenUse>, StoreError> {
    let (at, before) = page.border(Millis::MAX)?;
    let query = sqlx::query(LIST).bind(token.to_string()).bind(at).bind(before).bind(page.rows());
    let items = conn.all(query).await?.iter().map(token_use).collect::<Result<_, _>>()?;
    Ok(page.cut(items, |noted| page::border(noted.last_at, format!("{}/{}", noted.delegate, noted.address))))
}

fn token_use(row: &AnyRow) -> Result<TokenUse, StoreError> {
    Ok(TokenUse {
        token: row.word("token")?,
        delegate: row.word("delegate")?,
        name: row.word("name")?,
        address: row.word("address")?,
        first_at: row.time("first_at")?,
        last_at: row.time("last_at")?,
        uses: row.number("uses")?,
    })
}
