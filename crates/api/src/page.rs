//! Lists in pages.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Items on one page when a request names no limit.
pub const LIMIT_DEFAULT: u32 = 100;
/// Items on one page at most, so that one answer stays small.
pub const LIMIT_MAX: u32 = 1000;

/// One page of a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct List<T> {
    /// The items: tasks, receipts and uses of a token newest first, everything else oldest first.
    pub items: Vec<T>,
    /// Where the next page begins: pass it as `cursor`. `null` on the last page.
    pub next: Option<String>,
}

/// The limit a request gets for the one it asked for: 1 to [`LIMIT_MAX`].
pub fn limit(asked: Option<u32>) -> u32 {
    asked.unwrap_or(LIMIT_DEFAULT).clamp(1, LIMIT_MAX)
}

/// The query of a list that is only paged.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct PageQuery {
    /// Items on the page, 1 to 1000; 100 when absent.
    pub limit: Option<u32>,
    /// `next` of the page before.
    pub cursor: Option<String>,
}

/// The query of a request that can be tried without consequences.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct DryRun {
    /// Only say what would happen.
    #[serde(default)]
    pub dry_run: bool,
}
