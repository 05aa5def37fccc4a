//! The routes as methods. Every one may fail as [`ClientError`] tells.

use legation_model::{
    Scope as Place,
    ids::{DelegateId, ManagerKeyId, ReceiptId, TaskId, TokenId},
    scope::Dotted,
};
use reqwest::Method;
use serde::Serialize;

use super::{AuditExport, AuditTail, CALL_TIMEOUT, Client, ClientError, OutputStream};
use crate::{
    List,
    accounts::{Account, AccountsQuery, CreateAccount},
    audit::{AuditQuery, AuditRecord},
    audit_export::ExportQuery,
    delegates::{AllowDelegate, Delegate, DelegatesQuery, StopDelegate, StoppedDelegate},
    health::Health,
    output::OutputQuery,
    page::{DryRun, PageQuery},
    receipts::{Receipt, ReceiptsQuery},
    revoke::{RevokeMany, RevokePreview, RevokeToken, RevokedMany},
    routes::{self, fill},
    scopes::{CreateScope, DeletedScope, Scope, ScopesQuery, UpdateScope},
    signing_keys::SigningKey,
    tasks::{CancelledTask, SubmitTask, Task, TasksQuery},
    token_update::UpdateToken,
    token_uses::TokenUse,
    tokens::{CreateToken, DeletedToken, IssuePreview, IssueToken, IssuedToken, Token, TokensQuery},
    whoami::Whoami,
    wraps::{OpenWrap, Unwrapped},
};

pub(super) const FOR_REAL: DryRun = DryRun { dry_run: false };
pub(super) const DRY_RUN: DryRun = DryRun { dry_run: true };

/// A request without a query or a body.
#[derive(Serialize)]
pub(super) struct Nothing {}

fn one(scope: &Place) -> String {
    fill(routes::SCOPE, &Dotted(scope.clone()))
}

#[expect(clippy::missing_errors_doc, reason = "every method fails as the module's one error type tells")]
impl Client {
    /// Whether the Manager serves.
    pub async fn ready(&self) -> Result<Health, ClientError> {
        self.get(routes::READYZ, &Nothing {}).await
    }

    /// Counters, gauges and histograms in Prometheus' text format.
    pub async fn metrics(&self) -> Result<String, ClientError> {
        let response = self.send(self.request(Method::GET, routes::METRICS).timeout(CALL_TIMEOUT)).await?;
        String::from_utf8(self.body(response).await?)
            .map_err(|_| ClientError::unexpected(format!("{} sent no text", self.url())))
    }

    /// Who this client is to the Manager.
    pub async fn whoami(&self) -> Result<Whoami, ClientError> {
        self.get(routes::WHOAMI, &Nothing {}).await
    }

    /// A page of accounts.
    pub async fn accounts(&self, query: &AccountsQuery) -> Result<List<Account>, ClientError> {
        self.get(routes::ACCOUNTS, query).await
    }

    /// One account.
    pub async fn account(&self, id: &Place) -> Result<Account, ClientError> {
        self.get(&fill(routes::ACCOUNT, id), &Nothing {}).await
    }

    /// Creates an account.
    pub async fn create_account(&self, request: &CreateAccount) -> Result<Account, ClientError> {
        self.post(routes::ACCOUNTS, &Nothing {}, request).await
    }

    /// A page of the scope tree.
    pub async fn scopes(&self, query: &ScopesQuery) -> Result<List<Scope>, ClientError> {
        self.get(routes::SCOPES, query).await
    }

    /// One place in the scope tree.
    pub async fn scope(&self, scope: &Place) -> Result<Scope, ClientError> {
        self.get(&one(scope), &Nothing {}).await
    }

    /// Creates a place in the scope tree.
    pub async fn create_scope(&self, request: &CreateScope) -> Result<Scope, ClientError> {
        self.post(routes::SCOPES, &Nothing {}, request).await
    }

    /// Changes a place that is still at this version.
    pub async fn update_scope(&self, scope: &Place, version: u64, change: &UpdateScope) -> Result<Scope, ClientError> {
        self.patch(&one(scope), version, &FOR_REAL, change).await
    }

    /// The place as a change would make it.
    pub async fn preview_update_scope(
        &self,
        scope: &Place,
        version: u64,
        change: &UpdateScope,
    ) -> Result<Scope, ClientError> {
        self.patch(&one(scope), version, &DRY_RUN, change).await
    }

    /// What deleting a place would do.
    pub async fn preview_delete_scope(&self, scope: &Place) -> Result<DeletedScope, ClientError> {
        self.delete(&one(scope), &DRY_RUN).await
    }

    /// Deletes a place in which nothing is.
    pub async fn delete_scope(&self, scope: &Place) -> Result<DeletedScope, ClientError> {
        self.delete(&one(scope), &FOR_REAL).await
    }

    /// A page of tokens.
    pub async fn tokens(&self, query: &TokensQuery) -> Result<List<Token>, ClientError> {
        self.get(routes::TOKENS, query).await
    }

    /// One token.
    pub async fn token(&self, id: TokenId) -> Result<Token, ClientError> {
        self.get(&fill(routes::TOKEN, &id), &Nothing {}).await
    }

    /// A page of who used a token, newest first.
    pub async fn token_uses(&self, id: TokenId, query: &PageQuery) -> Result<List<TokenUse>, ClientError> {
        self.get(&fill(routes::TOKEN_USES, &id), query).await
    }

    /// Creates a token; the answer has its value, once.
    pub async fn create_token(&self, request: &CreateToken) -> Result<IssuedToken, ClientError> {
        self.post(routes::TOKENS, &Nothing {}, request).await
    }

    /// What issuing would do.
    pub async fn preview_issue(&self, id: TokenId) -> Result<IssuePreview, ClientError> {
        self.post(&fill(routes::TOKEN_ISSUE, &id), &DRY_RUN, &Nothing {}).await
    }

    /// Issues an unissued token; the answer has its value or its one-time code, once.
    pub async fn issue_token(&self, id: TokenId, request: &IssueToken) -> Result<IssuedToken, ClientError> {
        self.post(&fill(routes::TOKEN_ISSUE, &id), &FOR_REAL, request).await
    }

    /// Opens a one-time code, for which no API key is needed.
    pub async fn unwrap(&self, request: &OpenWrap) -> Result<Unwrapped, ClientError> {
        self.post(routes::UNWRAP, &Nothing {}, request).await
    }

    /// Changes a token that is still at this version.
    pub async fn update_token(&self, id: TokenId, version: u64, change: &UpdateToken) -> Result<Token, ClientError> {
        self.patch(&fill(routes::TOKEN, &id), version, &FOR_REAL, change).await
    }

    /// The token as a change would make it.
    pub async fn preview_update(&self, id: TokenId, version: u64, change: &UpdateToken) -> Result<Token, ClientError> {
        self.patch(&fill(routes::TOKEN, &id), version, &DRY_RUN, change).await
    }

    /// What revoking would do.
    pub async fn preview_revoke(&self, id: TokenId) -> Result<RevokePreview, ClientError> {
        self.post(&fill(routes::TOKEN_REVOKE, &id), &DRY_RUN, &RevokeToken::default()).await
    }

    /// Revokes a token now (`kill`) and returns when every live session of it is closed.
    pub async fn revoke_token(&self, id: TokenId, request: &RevokeToken) -> Result<Receipt, ClientError> {
        self.post(&fill(routes::TOKEN_REVOKE, &id), &FOR_REAL, request).await
    }

    /// Sets a token's end (`drain`, `at`) and returns the token as it is from now on.
    pub async fn schedule_revoke(&self, id: TokenId, request: &RevokeToken) -> Result<Token, ClientError> {
        self.post(&fill(routes::TOKEN_REVOKE, &id), &FOR_REAL, request).await
    }

    /// Takes back the end that was set for a token.
    pub async fn cancel_revoke(&self, id: TokenId) -> Result<Token, ClientError> {
        self.delete(&fill(routes::TOKEN_REVOKE, &id), &Nothing {}).await
    }

    /// Which tokens a bulk revocation would end.
    pub async fn preview_revoke_many(&self, request: &RevokeMany) -> Result<RevokedMany, ClientError> {
        self.post(routes::TOKENS_REVOKE, &DRY_RUN, request).await
    }

    /// Revokes many tokens; repeat it while there are more.
    pub async fn revoke_many(&self, request: &RevokeMany) -> Result<RevokedMany, ClientError> {
        self.post(routes::TOKENS_REVOKE, &FOR_REAL, request).await
    }

    /// What deleting would do.
    pub async fn preview_delete(&self, id: TokenId) -> Result<DeletedToken, ClientError> {
        self.delete(&fill(routes::TOKEN, &id), &DRY_RUN).await
    }

    /// Deletes a revoked token.
    pub async fn delete_token(&self, id: TokenId) -> Result<DeletedToken, ClientError> {
        self.delete(&fill(routes::TOKEN, &id), &FOR_REAL).await
    }

    /// A page of delegates.
    pub async fn delegates(&self, query: &DelegatesQuery) -> Result<List<Delegate>, ClientError> {
        self.get(routes::DELEGATES, query).await
    }

    /// One delegate.
    pub async fn delegate(&self, id: DelegateId) -> Result<Delegate, ClientError> {
        self.get(&fill(routes::DELEGATE, &id), &Nothing {}).await
    }

    /// What stopping a delegate would do.
    pub async fn preview_stop_delegate(&self, id: DelegateId) -> Result<StoppedDelegate, ClientError> {
        self.post(&fill(routes::DELEGATE_STOP, &id), &DRY_RUN, &StopDelegate::default()).await
    }

    /// Stops a delegate; its session is closed when this returns.
    pub async fn stop_delegate(&self, id: DelegateId, request: &StopDelegate) -> Result<StoppedDelegate, ClientError> {
        self.post(&fill(routes::DELEGATE_STOP, &id), &FOR_REAL, request).await
    }

    /// The delegate as it is before it is allowed.
    pub async fn preview_allow_delegate(&self, id: DelegateId) -> Result<Delegate, ClientError> {
        self.post(&fill(routes::DELEGATE_ALLOW, &id), &DRY_RUN, &AllowDelegate::default()).await
    }

    /// Lets a delegate in, or in again.
    pub async fn allow_delegate(&self, id: DelegateId, request: &AllowDelegate) -> Result<Delegate, ClientError> {
        self.post(&fill(routes::DELEGATE_ALLOW, &id), &FOR_REAL, request).await
    }

    /// A page of tasks.
    pub async fn tasks(&self, query: &TasksQuery) -> Result<List<Task>, ClientError> {
        self.get(routes::TASKS, query).await
    }

    /// One task.
    pub async fn task(&self, id: TaskId) -> Result<Task, ClientError> {
        self.get(&fill(routes::TASK, &id), &Nothing {}).await
    }

    /// Submits a task.
    pub async fn submit_task(&self, request: &SubmitTask) -> Result<Task, ClientError> {
        self.post(routes::TASKS, &Nothing {}, request).await
    }

    /// What cancelling would do.
    pub async fn preview_cancel(&self, id: TaskId) -> Result<CancelledTask, ClientError> {
        self.post(&fill(routes::TASK_CANCEL, &id), &DRY_RUN, &Nothing {}).await
    }

    /// Asks for a task to be cancelled.
    pub async fn cancel_task(&self, id: TaskId) -> Result<CancelledTask, ClientError> {
        self.post(&fill(routes::TASK_CANCEL, &id), &FOR_REAL, &Nothing {}).await
    }

    /// A task's output from its beginning. Nothing is sent before the first [`OutputStream::next`].
    pub fn output(&self, id: TaskId, query: OutputQuery) -> OutputStream {
        OutputStream::new(self.clone(), id, query)
    }

    /// A page of receipts.
    pub async fn receipts(&self, query: &ReceiptsQuery) -> Result<List<Receipt>, ClientError> {
        self.get(routes::RECEIPTS, query).await
    }

    /// One receipt.
    pub async fn receipt(&self, id: ReceiptId) -> Result<Receipt, ClientError> {
        self.get(&fill(routes::RECEIPT, &id), &Nothing {}).await
    }

    /// A page of audit records.
    pub async fn audit(&self, query: &AuditQuery) -> Result<List<AuditRecord>, ClientError> {
        self.get(routes::AUDIT, query).await
    }

    /// One audit record.
    pub async fn audit_record(&self, number: u64) -> Result<AuditRecord, ClientError> {
        self.get(&fill(routes::AUDIT_RECORD, &number), &Nothing {}).await
    }

    /// Everything in the audit chain behind a number, 0 for all of it.
    pub async fn export_audit(&self, after: u64) -> Result<AuditExport, ClientError> {
        let request = self.request(Method::GET, routes::AUDIT_EXPORT).query(&ExportQuery { after });
        Ok(AuditExport::new(self.clone(), self.send(request).await?))
    }

    /// Audit records as they are written: behind a number, or only new ones. Nothing is sent before the first
    /// [`AuditTail::next`].
    pub fn tail_audit(&self, after: Option<u64>) -> AuditTail {
        AuditTail::new(self.clone(), after)
    }

    /// The public keys that receipts and audit checkpoints are signed with.
    pub async fn signing_keys(&self) -> Result<List<SigningKey>, ClientError> {
        self.get(routes::SIGNING_KEYS, &Nothing {}).await
    }

    /// One of them.
    pub async fn signing_key(&self, id: ManagerKeyId) -> Result<SigningKey, ClientError> {
        self.get(&fill(routes::SIGNING_KEY, &id), &Nothing {}).await
    }
}
