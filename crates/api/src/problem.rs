//! Refusals, as RFC 9457 problem documents with a stable code, the reason and the fix.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::ToSchema;

/// The media type of a [`Problem`].
pub const PROBLEM_JSON: &str = "application/problem+json";

/// One refusal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema, thiserror::Error)]
#[error("{detail}")]
pub struct Problem {
    /// A URI reference that names the kind of problem; follows from `code`.
    #[serde(rename = "type", default)]
    #[schema(example = "urn:legation:problem:not_found")]
    pub kind: String,
    /// The kind of problem in a few words; follows from `code`.
    #[serde(default)]
    pub title: String,
    /// The HTTP status; follows from `code`.
    pub status: u16,
    /// The stable word that programs compare.
    #[schema(schema_with = crate::schema::code)]
    pub code: Code,
    /// What happened this time, in one sentence.
    #[serde(default)]
    pub detail: String,
    /// What to do about it.
    #[serde(default)]
    pub fix: String,
    /// After how many seconds it may be worth to try again, where that is known; as in the Retry-After header.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<u64>,
}

impl Problem {
    /// A problem of that kind with the kind's own fix.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self {
            kind: format!("urn:legation:problem:{code}"),
            title: code.title().to_owned(),
            status: code.status(),
            code,
            detail: detail.into(),
            fix: code.fix().to_owned(),
            retry_after: None,
        }
    }

    /// The same problem with a better fix than the kind's own.
    #[must_use]
    pub fn with_fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = fix.into();
        self
    }

    /// The same problem, which may be over after this many seconds.
    #[must_use]
    pub const fn with_retry_after(mut self, seconds: u64) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    /// A request that breaks a rule: which field, which rule, what to write instead.
    pub fn invalid(field: &str, rule: &str, fix: impl Into<String>) -> Self {
        Self::new(Code::InvalidRequest, format!("{field}: {rule}")).with_fix(fix)
    }

    /// Something that does not exist or that the caller may not see; the two answer alike.
    pub fn not_found(kind: &str) -> Self {
        Self::new(Code::NotFound, format!("there is no such {kind}, or this API key may not see it"))
    }
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $word:literal, $status:literal, $title:literal, $fix:literal;)*) => {
        /// What kind of refusal it is. A word never changes its meaning and is never used again.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code {
            $($(#[$doc])* $name,)*
        }

        impl Code {
            /// Every code.
            pub const ALL: [Self; [$($word),*].len()] = [$(Self::$name),*];

            /// The word in documents.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $word,)* }
            }

            /// The HTTP status it travels with.
            pub const fn status(self) -> u16 {
                match self { $(Self::$name => $status,)* }
            }

            /// The kind of problem in a few words.
            pub const fn title(self) -> &'static str {
                match self { $(Self::$name => $title,)* }
            }

            /// What to do about it when nothing better is known.
            pub const fn fix(self) -> &'static str {
                match self { $(Self::$name => $fix,)* }
            }
        }
    };
}

codes! {
    /// The request breaks a rule; the detail names the field.
    InvalidRequest = "invalid_request", 400, "The request is not valid",
        "change the field that the detail names and send the request again";
    /// No API key or console session, or one that does not exist or has ended.
    Unauthenticated = "unauthenticated", 401, "The API key or console session is missing or not accepted",
        "send a valid API key as `Authorization: Bearer lak_…`, or log in; on the Manager's host `legation-manager admin reset` makes a new one";
    /// The API key's role or scope does not allow this.
    Forbidden = "forbidden", 403, "The API key may not do this",
        "use an API key whose role and scope allow it, or ask an administrator";
    /// Name and password do not belong together, or nobody may log in by them.
    LoginRefused = "login_refused", 401, "The login is refused",
        "check the name and the password; who may edit access can set a new one with `legation user password NAME`";
    /// The identity provider cannot be reached, or says what nobody can check.
    ProviderUnavailable = "provider_unavailable", 503, "The identity provider does not answer as it should",
        "try again; if it stays, look at the Manager's log and at the settings that begin with oidc";
    /// A console session whose owner has not shown for a while who they are.
    Reauthenticate = "reauthenticate", 403, "Show once more who you are",
        "send the password to /api/v1/reauthenticate, or log in again, and repeat the request";
    /// A change by a browser's cookie that another site may have caused.
    CrossOrigin = "cross_origin", 403, "The request may come from another site",
        "send it from a page of the Manager itself, as JSON; programs send the session's value as `Authorization: Bearer`";
    /// Only a console session can do this.
    NotASession = "not_a_session", 409, "This is not a console session",
        "log in first; an API key is ended with `legation api-key rm`";
    /// Somebody who has no password, or can have none.
    NoPassword = "no_password", 409, "There is no password",
        "who may edit access sets a user's with `legation user password NAME`; service accounts use API keys";
    /// No such thing, or not visible to this API key.
    NotFound = "not_found", 404, "Not found",
        "check the id or name, and the scope that the API key is for";
    /// The path exists, not with this method.
    MethodNotAllowed = "method_not_allowed", 405, "The path does not take this method",
        "use one of the methods that the Allow header names; /api/v1/openapi.json lists them all";
    /// Another token of this scope has the name.
    NameTaken = "name_taken", 409, "The name is taken",
        "choose another name, or delete what has it (a token is revoked before)";
    /// Only a revoked token can be deleted.
    TokenNotRevoked = "token_not_revoked", 409, "The token is not revoked",
        "revoke the token first, then delete it";
    /// The token has ended, or its time has come.
    TokenEnded = "token_ended", 409, "The token has ended",
        "nothing can be changed about it any more: create a new token";
    /// The token is draining, which cannot be taken back.
    TokenDraining = "token_draining", 409, "The token is draining",
        "let it drain for another time, or revoke it now";
    /// The token has a secret already, which is shown only once.
    AlreadyIssued = "already_issued", 409, "The token is issued already",
        "use the value that was shown then; if it is lost, create a new token and revoke this one";
    /// Only a scope in which nothing is can be deleted.
    ScopeNotEmpty = "scope_not_empty", 409, "The scope is not empty",
        "delete what is in it first";
    /// The task has ended already.
    TaskEnded = "task_ended", 409, "The task has ended",
        "nothing to do: look at its state and output";
    /// The object has changed since the version that `If-Match` names.
    Stale = "stale", 412, "The object has changed since",
        "read it again, look at what has changed, and repeat with the ETag of that answer as If-Match";
    /// A change without `If-Match`.
    PreconditionRequired = "precondition_required", 428, "The change names no version",
        "send the ETag of the object that was read as If-Match, so that nobody's change is overwritten";
    /// A role that somebody has.
    RoleInUse = "role_in_use", 409, "The role is in use",
        "take away the grants of the role first, then delete it";
    /// Nobody would be left who may do everything.
    LastAdmin = "last_admin", 409, "Nobody would be left who is admin everywhere",
        "give another enabled principal the role admin everywhere first";
    /// Something that every Manager has.
    BuiltIn = "built_in", 409, "It is built in and cannot be changed",
        "make one of your own beside it";
    /// The principal has that role there.
    AlreadyGranted = "already_granted", 409, "The grant exists already",
        "nothing to do: `legation grant ls` shows it";
    /// As many as there may be.
    LimitReached = "limit_reached", 409, "There are as many as there may be",
        "remove some that are not needed any more";
    /// The token's value is kept nowhere.
    NotRevealable = "not_revealable", 409, "The value is not kept",
        "use the value that was shown when the token was issued; if it is lost, create a new token and revoke this one";
    /// The one-time code has done its work, or somebody else has used it.
    AlreadyOpened = "already_opened", 410, "The one-time code was opened before",
        "if that was not you, somebody else has the token's value: revoke the token now";
    /// Nobody has opened the one-time code in time.
    CodeExpired = "code_expired", 410, "The one-time code has expired",
        "the value is lost: ask for a new token, and revoke this one";
    /// Too many attempts came from the same place, or with the same name.
    TooManyAttempts = "too_many_attempts", 429, "Too many attempts",
        "wait for the time in the Retry-After header, and try again";
    /// The idempotency key was used for another request.
    IdempotencyMismatch = "idempotency_mismatch", 409, "The Idempotency-Key belongs to another request",
        "use a new Idempotency-Key for a new request, and the same only to repeat the same body";
    /// A body, script or field beyond its bound.
    BodyTooLarge = "body_too_large", 413, "The request is too large",
        "send less: the bounds are in the reference of this route";
    /// A body that is not JSON.
    UnsupportedMediaType = "unsupported_media_type", 415, "The body is not JSON",
        "send the body as `Content-Type: application/json`";
    /// A fault of the Manager.
    Internal = "internal", 500, "The Manager failed",
        "try again; if it stays, report it with the x-request-id of this answer and the Manager's log";
    /// The database is away, locked or full: doubt denies.
    StoreUnavailable = "store_unavailable", 503, "The Manager's database does not answer",
        "try again; if it stays, look at the Manager's log and its database (away, locked, disk full)";
    /// Sessions are cut and admission is closed, but the revocation is not on disk yet.
    RevokedNotDurable = "revoked_not_durable", 503, "Revoked in memory only",
        "repeat the revoke until it succeeds: delegates are cut off, but a restart of the Manager would forget it";
    /// The wall clock moved against the boot clock: what goes by it waits.
    ClockInDoubt = "clock_in_doubt", 503, "The Manager's clock is in doubt",
        "set the clock of the Manager's machine right, restart the Manager, and try again";
    /// A named bound is reached; the request was shed.
    Overloaded = "overloaded", 503, "The Manager has too much to do",
        "try again after the time in the Retry-After header";
    /// The Manager is starting or shutting down.
    Unready = "unready", 503, "The Manager is starting or shutting down",
        "try again in a few seconds";
    /// A code that only a newer Manager knows.
    Unknown = "unknown", 500, "A kind of problem this program does not know",
        "read the detail; a newer version of this program may say more";
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Code {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let word = String::deserialize(deserializer)?;
        Ok(Self::ALL.into_iter().find(|code| code.as_str() == word).unwrap_or(Self::Unknown))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_code_is_unique_and_says_what_to_do() {
        let words: BTreeSet<_> = Code::ALL.map(Code::as_str).into();
        assert_eq!(words.len(), Code::ALL.len());
        for code in Code::ALL {
            assert!((400..600).contains(&code.status()), "{code}");
            assert!(code.fix().len() > 10 && code.title().len() > 5, "{code}");
            assert!(code.as_str().bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{code}");
        }
    }

    #[test]
    fn a_problem_comes_back_and_a_newer_code_is_read_as_unknown() {
        let problem = Problem::new(Code::NameTaken, "the scope has a token of that name");
        let text = serde_json::to_string(&problem).expect("JSON");
        assert_eq!(serde_json::from_str::<Problem>(&text).expect("a problem"), problem);
        let newer = r#"{"status":418,"code":"teapot","detail":"short and stout"}"#;
        assert_eq!(serde_json::from_str::<Problem>(newer).expect("a problem").code, Code::Unknown);
    }
}
