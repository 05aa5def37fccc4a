//! Lists in pages whose borders are rows, so that an insert shifts nothing.

use legation_model::{Millis, Scope, Within};
use sqlx::AssertSqlSafe;

use crate::{StoreError, conn::Statement};

/// The most rows on one page.
pub const PAGE_MAX: u32 = 1000;

/// Which part of a list is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// At most so many items, 1 to [`PAGE_MAX`]; more is cut to that.
    pub limit: u32,
    /// The `next` of the page before; the beginning without it.
    pub after: Option<String>,
}

impl Page {
    /// The first page of `limit` items.
    pub const fn first(limit: u32) -> Self {
        Self { limit, after: None }
    }

    /// One row more than wanted, which tells whether there is a next page.
    pub(crate) fn rows(&self) -> i64 {
        i64::from(self.limit.clamp(1, PAGE_MAX)) + 1
    }

    /// The border as a time and an id, or `start` on the first page.
    pub(crate) fn border(&self, start: Millis) -> Result<(Millis, String), StoreError> {
        let Some(after) = &self.after else {
            return Ok((start, String::new()));
        };
        let parts = after.split_once('.').and_then(|(at, id)| Some((at.parse().ok()?, id.to_owned())));
        parts.ok_or_else(|| StoreError::refused("not a cursor of this list: use the `next` of the page before"))
    }

    /// Cuts the extra row off and names the border of the next page.
    pub(crate) fn cut<T>(&self, mut items: Vec<T>, border: impl Fn(&T) -> String) -> Paged<T> {
        let limit = self.limit.clamp(1, PAGE_MAX) as usize;
        let more = items.len() > limit;
        items.truncate(limit);
        let next = items.last().filter(|_| more).map(border);
        Paged { items, next }
    }
}

/// One page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paged<T> {
    /// The items, in the list's order.
    pub items: Vec<T>,
    /// Where the next page begins; `None` on the last.
    pub next: Option<String>,
}

/// The cursor behind a row with this time and id.
pub(crate) fn border(at: Millis, id: impl ToString) -> String {
    format!("{at}.{}", id.to_string())
}

/// Where a list's statement has its condition on the scope.
const MARK: &str = "{within}";

/// The statement of a list, confined to a part of the scope tree: the condition stands where the text says `{within}`,
/// and its arguments come after the `before` others, by [`scopes`].
pub(crate) fn confined(text: &'static str, before: usize, within: &Within) -> Statement<'static> {
    debug_assert_eq!(text.matches(MARK).count(), 1, "{text}");
    let condition = match within {
        Within::Everywhere => "1 = 1".to_owned(),
        Within::Below(scopes) if scopes.is_empty() => "1 = 0".to_owned(),
        Within::Below(scopes) => {
            format!("({})", (before + 1..).zip(scopes).map(in_scope).collect::<Vec<_>>().join(" OR "))
        }
    };
    // Most callers see everything or one scope: those texts are few, and worth keeping prepared.
    let few = !matches!(within, Within::Below(scopes) if scopes.len() > 1);
    sqlx::query(AssertSqlSafe(text.replace(MARK, &condition))).persistent(few)
}

/// The scopes of a confined statement, after its other arguments.
pub(crate) fn scopes<'q>(statement: Statement<'q>, within: &Within) -> Statement<'q> {
    match within {
        Within::Everywhere => statement,
        Within::Below(scopes) => scopes.iter().fold(statement, |statement, scope| statement.bind(scope.to_string())),
    }
}

/// One scope and what lies below it: `0` is the character after `/`.
fn in_scope((n, _): (usize, &Scope)) -> String {
    format!("scope = ${n} OR (scope > ${n} || '/' AND scope < ${n} || '0')")
}
