//! The routes about access as methods. Every one may fail as [`ClientError`] tells.

use legation_model::{
    Name,
    ids::{ApiKeyId, GrantId, LoginId, PrincipalId},
};

use super::{
    Client, ClientError,
    calls::{DRY_RUN, FOR_REAL, Nothing},
};
use crate::{
    List,
    api_keys::{ApiKey, ApiKeysQuery, CreateApiKey, IssuedApiKey, RevokedApiKey},
    grants::{CreateGrant, DeletedGrant, Grant, GrantsQuery},
    logins::{ConsoleSession, EndedSession, LogIn, LoggedIn, Reauthenticate, SessionsQuery},
    oidc::LogInByCode,
    page::PageQuery,
    passwords::{ChangePassword, PasswordSet, SetPassword},
    principals::{ChangedPrincipal, CreatePrincipal, Principal, PrincipalsQuery},
    roles::{CreateRole, DeletedRole, Role, UpdateRole},
    routes::{self, fill},
};

#[expect(clippy::missing_errors_doc, reason = "every method fails as the module's one error type tells")]
impl Client {
    /// A page of users and service accounts.
    pub async fn principals(&self, query: &PrincipalsQuery) -> Result<List<Principal>, ClientError> {
        self.get(routes::PRINCIPALS, query).await
    }

    /// One user or service account.
    pub async fn principal(&self, id: PrincipalId) -> Result<Principal, ClientError> {
        self.get(&fill(routes::PRINCIPAL, &id), &Nothing {}).await
    }

    /// Creates a user or a service account.
    pub async fn create_principal(&self, request: &CreatePrincipal) -> Result<Principal, ClientError> {
        self.post(routes::PRINCIPALS, &Nothing {}, request).await
    }

    /// What disabling would do.
    pub async fn preview_disable(&self, id: PrincipalId) -> Result<ChangedPrincipal, ClientError> {
        self.post(&fill(routes::PRINCIPAL_DISABLE, &id), &DRY_RUN, &Nothing {}).await
    }

    /// Ends all that a principal can do.
    pub async fn disable_principal(&self, id: PrincipalId) -> Result<ChangedPrincipal, ClientError> {
        self.post(&fill(routes::PRINCIPAL_DISABLE, &id), &FOR_REAL, &Nothing {}).await
    }

    /// What enabling would do.
    pub async fn preview_enable(&self, id: PrincipalId) -> Result<ChangedPrincipal, ClientError> {
        self.post(&fill(routes::PRINCIPAL_ENABLE, &id), &DRY_RUN, &Nothing {}).await
    }

    /// Lets a principal do again what its grants say.
    pub async fn enable_principal(&self, id: PrincipalId) -> Result<ChangedPrincipal, ClientError> {
        self.post(&fill(routes::PRINCIPAL_ENABLE, &id), &FOR_REAL, &Nothing {}).await
    }

    /// What deleting would do.
    pub async fn preview_delete_principal(&self, id: PrincipalId) -> Result<ChangedPrincipal, ClientError> {
        self.delete(&fill(routes::PRINCIPAL, &id), &DRY_RUN).await
    }

    /// Deletes a principal, its grants and its keys.
    pub async fn delete_principal(&self, id: PrincipalId) -> Result<ChangedPrincipal, ClientError> {
        self.delete(&fill(routes::PRINCIPAL, &id), &FOR_REAL).await
    }

    /// Gives a user a password.
    pub async fn set_password(&self, id: PrincipalId, request: &SetPassword) -> Result<PasswordSet, ClientError> {
        self.put(&fill(routes::PRINCIPAL_PASSWORD, &id), request).await
    }

    /// Changes the caller's own password.
    pub async fn change_password(&self, request: &ChangePassword) -> Result<PasswordSet, ClientError> {
        self.put(routes::PASSWORD, request).await
    }

    /// Begins a console session; the client goes on without it.
    pub async fn log_in(&self, request: &LogIn) -> Result<LoggedIn, ClientError> {
        self.post(routes::LOGIN, &Nothing {}, request).await
    }

    /// Opens the session of a login at the identity provider; the client goes on without it.
    pub async fn log_in_by_code(&self, request: &LogInByCode) -> Result<LoggedIn, ClientError> {
        self.post(routes::LOGIN_OIDC_CODE, &Nothing {}, request).await
    }

    /// Ends the console session that this client has.
    pub async fn log_out(&self) -> Result<EndedSession, ClientError> {
        self.post(routes::LOGOUT, &Nothing {}, &Nothing {}).await
    }

    /// Shows once more who holds the console session that this client has.
    pub async fn reauthenticate(&self, request: &Reauthenticate) -> Result<ConsoleSession, ClientError> {
        self.post(routes::REAUTHENTICATE, &Nothing {}, request).await
    }

    /// A page of console sessions.
    pub async fn sessions(&self, query: &SessionsQuery) -> Result<List<ConsoleSession>, ClientError> {
        self.get(routes::SESSIONS, query).await
    }

    /// Which console session would be ended.
    pub async fn preview_end_session(&self, id: LoginId) -> Result<EndedSession, ClientError> {
        self.delete(&fill(routes::SESSION, &id), &DRY_RUN).await
    }

    /// Ends a console session.
    pub async fn end_session(&self, id: LoginId) -> Result<EndedSession, ClientError> {
        self.delete(&fill(routes::SESSION, &id), &FOR_REAL).await
    }

    /// A page of roles, the built-in ones first.
    pub async fn roles(&self, query: &PageQuery) -> Result<List<Role>, ClientError> {
        self.get(routes::ROLES, query).await
    }

    /// One role.
    pub async fn role(&self, name: &Name) -> Result<Role, ClientError> {
        self.get(&fill(routes::ROLE, name), &Nothing {}).await
    }

    /// Creates a role.
    pub async fn create_role(&self, request: &CreateRole) -> Result<Role, ClientError> {
        self.post(routes::ROLES, &Nothing {}, request).await
    }

    /// Replaces what a role holds.
    pub async fn update_role(&self, name: &Name, request: &UpdateRole) -> Result<Role, ClientError> {
        self.put(&fill(routes::ROLE, name), request).await
    }

    /// What deleting would do.
    pub async fn preview_delete_role(&self, name: &Name) -> Result<DeletedRole, ClientError> {
        self.delete(&fill(routes::ROLE, name), &DRY_RUN).await
    }

    /// Deletes a role that nobody has.
    pub async fn delete_role(&self, name: &Name) -> Result<DeletedRole, ClientError> {
        self.delete(&fill(routes::ROLE, name), &FOR_REAL).await
    }

    /// A page of grants.
    pub async fn grants(&self, query: &GrantsQuery) -> Result<List<Grant>, ClientError> {
        self.get(routes::GRANTS, query).await
    }

    /// One grant.
    pub async fn grant(&self, id: GrantId) -> Result<Grant, ClientError> {
        self.get(&fill(routes::GRANT, &id), &Nothing {}).await
    }

    /// Gives a principal a role.
    pub async fn create_grant(&self, request: &CreateGrant) -> Result<Grant, ClientError> {
        self.post(routes::GRANTS, &Nothing {}, request).await
    }

    /// What taking a grant away would do.
    pub async fn preview_delete_grant(&self, id: GrantId) -> Result<DeletedGrant, ClientError> {
        self.delete(&fill(routes::GRANT, &id), &DRY_RUN).await
    }

    /// Takes a grant away.
    pub async fn delete_grant(&self, id: GrantId) -> Result<DeletedGrant, ClientError> {
        self.delete(&fill(routes::GRANT, &id), &FOR_REAL).await
    }

    /// A page of API keys.
    pub async fn api_keys(&self, query: &ApiKeysQuery) -> Result<List<ApiKey>, ClientError> {
        self.get(routes::API_KEYS, query).await
    }

    /// One API key.
    pub async fn api_key(&self, id: ApiKeyId) -> Result<ApiKey, ClientError> {
        self.get(&fill(routes::API_KEY, &id), &Nothing {}).await
    }

    /// Makes an API key; the answer has its value, once.
    pub async fn create_api_key(&self, request: &CreateApiKey) -> Result<IssuedApiKey, ClientError> {
        self.post(routes::API_KEYS, &Nothing {}, request).await
    }

    /// What revoking would do.
    pub async fn preview_revoke_api_key(&self, id: ApiKeyId) -> Result<RevokedApiKey, ClientError> {
        self.delete(&fill(routes::API_KEY, &id), &DRY_RUN).await
    }

    /// Ends an API key.
    pub async fn revoke_api_key(&self, id: ApiKeyId) -> Result<RevokedApiKey, ClientError> {
        self.delete(&fill(routes::API_KEY, &id), &FOR_REAL).await
    }
}
