//! The end of a token: now, after draining, or at a time; of one or of many; and what it would hit.

use legation_model::{
    Millis, Name, Scope, Text,
    ids::{DelegateId, ReceiptId, TaskId, TokenId},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{Problem, tokens::Token};

/// The longest time ahead that an end may be set for, in milliseconds: ten years. What lies further is a mistake in the
/// unit.
pub const AHEAD_MAX: Millis = 10 * 366 * 24 * 60 * 60 * 1000;

/// How a token ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RevokeMode {
    /// Now: its delegates are cut off and stop.
    #[default]
    Kill,
    /// In a while: no new delegate, no new task; known processes may reconnect and finish. Then as `kill`.
    Drain,
    /// At a time, until which nothing changes. Then as `kill`.
    At,
}

impl RevokeMode {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands it over so")]
    const fn is_kill(&self) -> bool {
        matches!(self, Self::Kill)
    }
}

/// How a token should end, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RevokeToken {
    /// For the receipt and the audit record.
    #[serde(default)]
    #[schema(value_type = String)]
    pub reason: Text,
    /// Now unless said otherwise.
    #[serde(default, skip_serializing_if = "RevokeMode::is_kill")]
    pub mode: RevokeMode,
    /// With `drain`: for how long, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain_ms: Option<Millis>,
    /// With `at`: when, in milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Millis>,
}

/// When a token ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// At once.
    Now,
    /// At this wall-clock millisecond, draining until then.
    Drain(Millis),
    /// At this wall-clock millisecond.
    At(Millis),
}

impl RevokeToken {
    /// At once, for this reason.
    pub fn kill(reason: Text) -> Self {
        Self { reason, ..Self::default() }
    }

    /// When it is to end; `now` is the Manager's wall clock.
    ///
    /// # Errors
    /// `invalid_request` for a time that is missing, has passed, or belongs to another mode.
    pub fn end(&self, now: Millis) -> Result<End, Problem> {
        let ahead = format!("use 1 to {AHEAD_MAX} milliseconds");
        match (self.mode, self.drain_ms, self.at) {
            (RevokeMode::Kill, None, None) => Ok(End::Now),
            (RevokeMode::Drain, Some(drain), None) if (1..=AHEAD_MAX).contains(&drain) => Ok(End::Drain(now + drain)),
            (RevokeMode::Drain, Some(_), None) => Err(Problem::invalid("drain_ms", "the time is out of range", ahead)),
            (RevokeMode::Drain, None, _) => Err(Problem::invalid("drain_ms", "`drain` needs it", ahead)),
            (RevokeMode::At, None, Some(at)) if at > now && at - now <= AHEAD_MAX => Ok(End::At(at)),
            (RevokeMode::At, None, Some(_)) => {
                let fix = format!("use a time after {now}, in milliseconds since 1970 and less than ten years away");
                Err(Problem::invalid("at", "the time has passed or is too far away", fix))
            }
            (RevokeMode::At, _, None) => {
                Err(Problem::invalid("at", "`at` needs it", "use a time in milliseconds since 1970"))
            }
            (RevokeMode::Kill | RevokeMode::At, Some(_), _) => {
                Err(Problem::invalid("drain_ms", "only `drain` takes it", "leave it out, or use the mode `drain`"))
            }
            (RevokeMode::Kill | RevokeMode::Drain, _, Some(_)) => {
                Err(Problem::invalid("at", "only `at` takes it", "leave it out, or use the mode `at`"))
            }
        }
    }
}

/// What a revocation would do now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RevokePreview {
    /// The token as it stands.
    pub token: Token,
    /// Every delegate that may hold a lease and would get a line on the receipt.
    pub delegates: Vec<RevokePreviewLine>,
    /// Attempts that would be lost.
    pub attempts_lost: u32,
    /// Tasks that wait and that only delegates of this token could take now.
    pub queued_without_capacity: u32,
    /// Of those, the conditions of the tasks and how many have each; the most frequent first, 100 at most.
    pub conditions_without_capacity: Vec<LostCapacity>,
    /// Other tokens whose delegates are connected under a name that delegates of this one have: they carry on.
    pub covered_by: Vec<Covering>,
}

/// One delegate that a revocation would stop.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RevokePreviewLine {
    /// Which delegate.
    #[schema(value_type = String)]
    pub delegate: DelegateId,
    /// Its name.
    #[schema(value_type = String)]
    pub name: Name,
    /// Its machine.
    #[schema(value_type = String)]
    pub host: Name,
    /// Whether it is connected now; if not, it may still hold a lease.
    pub connected: bool,
    /// Tasks it is running.
    pub tasks_running: u32,
    /// Their ids, 100 at most.
    #[schema(value_type = Vec<String>)]
    pub tasks: Vec<TaskId>,
}

/// Tasks that nobody else could take.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LostCapacity {
    /// Where they belong.
    #[schema(value_type = String)]
    pub scope: Scope,
    /// What they ask of a delegate; empty for nothing.
    pub selectors: Vec<String>,
    /// How many wait.
    pub tasks: u32,
}

/// A token whose delegates would carry on in a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Covering {
    /// The name that delegates of both have.
    #[schema(value_type = String)]
    pub name: Name,
    /// The other token.
    #[schema(value_type = String)]
    pub token: TokenId,
    /// Its connected delegates of that name.
    pub delegates: u32,
}

/// Ends many tokens at once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RevokeMany {
    /// All tokens of this scope and below that have not ended.
    #[schema(value_type = String)]
    pub scope: Scope,
    /// Only those created before this time, in milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_before: Option<Millis>,
    /// For the receipts and the audit records.
    #[serde(default)]
    #[schema(value_type = String)]
    pub reason: Text,
}

/// What became of many tokens, or would.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RevokedMany {
    /// One line for each token, oldest first.
    pub tokens: Vec<RevokedOne>,
    /// There are more than one call ends: repeat it.
    pub more: bool,
}

/// One of many.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RevokedOne {
    /// Which token.
    #[schema(value_type = String)]
    pub token: TokenId,
    /// Its scope.
    #[schema(value_type = String)]
    pub scope: Scope,
    /// Its name.
    #[schema(value_type = String)]
    pub name: Name,
    /// Its delegates that are connected, or that were cut off.
    pub connected: u32,
    /// The record of its revocation; none in a preview, and none when it failed.
    #[schema(value_type = Option<String>)]
    pub receipt: Option<ReceiptId>,
    /// Why it could not be revoked: repeat the call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_mode_takes_its_own_time_and_no_other() {
        let asked = |mode, drain_ms, at| RevokeToken { mode, drain_ms, at, ..RevokeToken::default() }.end(1_000);
        assert_eq!(asked(RevokeMode::Kill, None, None), Ok(End::Now));
        assert_eq!(asked(RevokeMode::Drain, Some(5), None), Ok(End::Drain(1_005)));
        assert_eq!(asked(RevokeMode::At, None, Some(1_001)), Ok(End::At(1_001)));
        for (mode, drain_ms, at, field) in [
            (RevokeMode::Kill, Some(5), None, "drain_ms"),
            (RevokeMode::Kill, None, Some(2_000), "at"),
            (RevokeMode::Drain, None, None, "drain_ms"),
            (RevokeMode::Drain, Some(0), None, "drain_ms"),
            (RevokeMode::Drain, Some(AHEAD_MAX + 1), None, "drain_ms"),
            (RevokeMode::Drain, Some(5), Some(2_000), "at"),
            (RevokeMode::At, None, None, "at"),
            (RevokeMode::At, None, Some(1_000), "at"),
            (RevokeMode::At, None, Some(Millis::MAX), "at"),
            (RevokeMode::At, Some(5), Some(2_000), "drain_ms"),
        ] {
            let refused = asked(mode, drain_ms, at).expect_err("a rule is broken");
            assert!(refused.detail.starts_with(field), "{mode:?} {drain_ms:?} {at:?}: {refused}");
        }
    }
}
