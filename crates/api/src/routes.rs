//! Where everything is: one constant per path, shared by the Manager's route table, the client and OpenAPI.

/// Answers as long as the process lives; public.
pub const HEALTHZ: &str = "/healthz";
/// Answers 200 once the Manager serves, 503 before that and while its store is away; public.
pub const READYZ: &str = "/readyz";
/// Metrics in Prometheus' text format.
pub const METRICS: &str = "/metrics";
/// Who the caller is.
pub const WHOAMI: &str = "/api/v1/whoami";
/// This contract as OpenAPI 3.1; public.
pub const OPENAPI: &str = "/api/v1/openapi.json";
/// Where delegates connect; secured by Noise, not by an API key.
pub const LINK: &str = "/api/v1/link";
/// All accounts.
pub const ACCOUNTS: &str = "/api/v1/accounts";
/// One account.
pub const ACCOUNT: &str = "/api/v1/accounts/{account}";
/// The scope tree.
pub const SCOPES: &str = "/api/v1/scopes";
/// One place in it, spelled with dots.
pub const SCOPE: &str = "/api/v1/scopes/{scope}";
/// All tokens.
pub const TOKENS: &str = "/api/v1/tokens";
/// One token.
pub const TOKEN: &str = "/api/v1/tokens/{token}";
/// Who used a token, when, and from where.
pub const TOKEN_USES: &str = "/api/v1/tokens/{token}/uses";
/// Makes the secret of an unissued token.
pub const TOKEN_ISSUE: &str = "/api/v1/tokens/{token}/issue";
/// Shows the value of a token again.
pub const TOKEN_REVEAL: &str = "/api/v1/tokens/{token}/reveal";
/// Opens a one-time code; the code says who may.
pub const UNWRAP: &str = "/api/v1/unwrap";
/// Revokes tokens of a scope.
pub const TOKENS_REVOKE: &str = "/api/v1/tokens/revoke";
/// Revokes a token, or takes back that it will be.
pub const TOKEN_REVOKE: &str = "/api/v1/tokens/{token}/revoke";
/// All delegates.
pub const DELEGATES: &str = "/api/v1/delegates";
/// One delegate.
pub const DELEGATE: &str = "/api/v1/delegates/{delegate}";
/// Refuses a delegate's key from now on.
pub const DELEGATE_STOP: &str = "/api/v1/delegates/{delegate}/stop";
/// Lets a delegate's key in, or in again.
pub const DELEGATE_ALLOW: &str = "/api/v1/delegates/{delegate}/allow";
/// All tasks.
pub const TASKS: &str = "/api/v1/tasks";
/// One task.
pub const TASK: &str = "/api/v1/tasks/{task}";
/// Asks for a task to be cancelled.
pub const TASK_CANCEL: &str = "/api/v1/tasks/{task}/cancel";
/// A task's output as server-sent events.
pub const TASK_OUTPUT: &str = "/api/v1/tasks/{task}/output";
/// All receipts.
pub const RECEIPTS: &str = "/api/v1/receipts";
/// One receipt.
pub const RECEIPT: &str = "/api/v1/receipts/{receipt}";
/// All users and service accounts.
pub const PRINCIPALS: &str = "/api/v1/principals";
/// One user or service account.
pub const PRINCIPAL: &str = "/api/v1/principals/{principal}";
/// Ends all that a principal can do.
pub const PRINCIPAL_DISABLE: &str = "/api/v1/principals/{principal}/disable";
/// Lets a principal do again what its grants say.
pub const PRINCIPAL_ENABLE: &str = "/api/v1/principals/{principal}/enable";
/// Gives a user a password.
pub const PRINCIPAL_PASSWORD: &str = "/api/v1/principals/{principal}/password";
/// Changes the caller's own password.
pub const PASSWORD: &str = "/api/v1/password";
/// Begins a console session; public.
pub const LOGIN: &str = "/api/v1/login";
/// Begins a login at the identity provider, in a browser; public.
pub const LOGIN_OIDC: &str = "/api/v1/login/oidc";
/// Where the identity provider sends a browser back to; public.
pub const LOGIN_OIDC_CALLBACK: &str = "/api/v1/login/oidc/callback";
/// Opens the session of a login that a program began; public.
pub const LOGIN_OIDC_CODE: &str = "/api/v1/login/oidc/code";
/// Ends the console session that is presented.
pub const LOGOUT: &str = "/api/v1/logout";
/// Shows once more who holds the console session that is presented.
pub const REAUTHENTICATE: &str = "/api/v1/reauthenticate";
/// Console sessions.
pub const SESSIONS: &str = "/api/v1/sessions";
/// One console session.
pub const SESSION: &str = "/api/v1/sessions/{session}";
/// All roles.
pub const ROLES: &str = "/api/v1/roles";
/// One role.
pub const ROLE: &str = "/api/v1/roles/{role}";
/// All grants.
pub const GRANTS: &str = "/api/v1/grants";
/// One grant.
pub const GRANT: &str = "/api/v1/grants/{grant}";
/// All API keys.
pub const API_KEYS: &str = "/api/v1/api-keys";
/// One API key.
pub const API_KEY: &str = "/api/v1/api-keys/{key}";

/// Audit records.
pub const AUDIT: &str = "/api/v1/audit";
/// One audit record, by its number.
pub const AUDIT_RECORD: &str = "/api/v1/audit/{number}";
/// The whole audit chain with its checkpoints, as JSON lines.
pub const AUDIT_EXPORT: &str = "/api/v1/audit/export";
/// Audit records as they are written, as server-sent events.
pub const AUDIT_TAIL: &str = "/api/v1/audit/tail";
/// The public keys that receipts and audit checkpoints are signed with; public.
pub const SIGNING_KEYS: &str = "/api/v1/signing-keys";
/// One of them; public.
pub const SIGNING_KEY: &str = "/api/v1/signing-keys/{key}";

/// Every path above, for tests that compare it with the route table.
pub const ALL: &[&str] = &[
    HEALTHZ,
    READYZ,
    METRICS,
    WHOAMI,
    OPENAPI,
    LINK,
    ACCOUNTS,
    ACCOUNT,
    SCOPES,
    SCOPE,
    TOKENS,
    TOKEN,
    TOKEN_USES,
    TOKEN_ISSUE,
    TOKEN_REVEAL,
    UNWRAP,
    TOKENS_REVOKE,
    TOKEN_REVOKE,
    DELEGATES,
    DELEGATE,
    DELEGATE_STOP,
    DELEGATE_ALLOW,
    TASKS,
    TASK,
    TASK_CANCEL,
    TASK_OUTPUT,
    RECEIPTS,
    RECEIPT,
    AUDIT,
    AUDIT_RECORD,
    AUDIT_EXPORT,
    AUDIT_TAIL,
    SIGNING_KEYS,
    SIGNING_KEY,
    PRINCIPALS,
    PRINCIPAL,
    PRINCIPAL_DISABLE,
    PRINCIPAL_ENABLE,
    PRINCIPAL_PASSWORD,
    PASSWORD,
    LOGIN,
    LOGIN_OIDC,
    LOGIN_OIDC_CALLBACK,
    LOGIN_OIDC_CODE,
    LOGOUT,
    REAUTHENTICATE,
    SESSIONS,
    SESSION,
    ROLES,
    ROLE,
    GRANTS,
    GRANT,
    API_KEYS,
    API_KEY,
];

/// The path with its one placeholder replaced. Ids and identifiers need no percent-encoding.
pub fn fill(route: &str, value: &impl std::fmt::Display) -> String {
    match (route.find('{'), route.find('}')) {
        (Some(open), Some(close)) => format!("{}{value}{}", &route[..open], &route[close + 1..]),
        _ => route.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_placeholder_is_replaced_and_the_rest_kept() {
        assert_eq!(fill(TOKEN_REVOKE, &"x"), "/api/v1/tokens/x/revoke");
        assert_eq!(fill(TOKENS, &"x"), TOKENS);
    }
}
