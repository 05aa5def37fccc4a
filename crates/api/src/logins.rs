//! Console sessions: what people get who log in.

use legation_model::{
    Millis, Name,
    ids::{LoginId, PrincipalId},
    login::LoginMethod,
    secret::SecretText,
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// Logs in with a password.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LogIn {
    /// The user's name.
    #[schema(value_type = String, example = "alice")]
    pub name: Name,
    /// The user's password.
    #[serde(with = "crate::spelled::secret")]
    #[schema(value_type = String)]
    pub password: SecretText,
    /// Whether the session is for a browser: its value then comes as a cookie that no script can read, and not in the
    /// answer.
    #[serde(default)]
    pub cookie: bool,
}

/// A console session; nothing in it is secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ConsoleSession {
    /// Public id.
    #[schema(value_type = String, example = "lgn_0EwJTn1ZSVbNSVqHsUMxqW")]
    pub id: LoginId,
    /// Whose.
    #[schema(value_type = String)]
    pub principal: PrincipalId,
    /// Their name.
    #[schema(value_type = String, example = "alice")]
    pub name: Name,
    /// How they showed who they are.
    #[schema(schema_with = crate::schema::login_method)]
    pub method: LoginMethod,
    /// From which network address; empty if nobody knows.
    pub address: String,
    /// What the browser or program called itself, cut short.
    pub agent: String,
    /// When it began.
    pub created_at: Millis,
    /// When its owner last showed who they are.
    pub authenticated_at: Millis,
    /// The last time it was used, to within some ten seconds.
    pub last_used_at: Millis,
    /// From this time on it is refused; earlier if it is not used.
    pub expires_at: Millis,
    /// Whether this request was made with it.
    pub current: bool,
}

/// The answer to a login: the only place where the session's value is ever shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LoggedIn {
    /// The session.
    pub session: ConsoleSession,
    /// The whole value, once, to be sent as `Authorization: Bearer`; `null` if it came as a cookie.
    #[serde(with = "crate::tokens::value")]
    #[schema(value_type = Option<String>)]
    pub value: Option<SecretText>,
}

/// Shows once more who holds a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Reauthenticate {
    /// The user's password.
    #[serde(with = "crate::spelled::secret")]
    #[schema(value_type = String)]
    pub password: SecretText,
}

/// What ending a session would do now, and what it did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EndedSession {
    /// The session.
    pub session: ConsoleSession,
}

/// Which sessions to list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct SessionsQuery {
    /// Only those of this user.
    #[param(value_type = Option<String>)]
    pub principal: Option<PrincipalId>,
    /// Items on the page, 1 to 1000; 100 when absent.
    pub limit: Option<u32>,
    /// `next` of the page before.
    pub cursor: Option<String>,
}
