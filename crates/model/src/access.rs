//! Who may do what: permissions, roles and the table that joins them.

use serde::{Deserialize, Serialize};

/// One thing that a route lets a caller do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Permission {
    /// See accounts.
    AccountView,
    /// Create accounts.
    AccountEdit,
    /// See delegates, tokens (never their values) and receipts.
    DelegateView,
    /// Create, issue and revoke tokens.
    DelegateEdit,
    /// Delete revoked tokens.
    DelegateDelete,
    /// See tasks and their output.
    TaskView,
    /// Submit and cancel tasks.
    TaskRun,
    /// Read the Manager's metrics.
    MetricsView,
    /// Read the audit chain.
    AuditView,
}

impl Permission {
    /// Every permission.
    pub const ALL: [Self; 9] = [
        Self::AccountView,
        Self::AccountEdit,
        Self::DelegateView,
        Self::DelegateEdit,
        Self::DelegateDelete,
        Self::TaskView,
        Self::TaskRun,
        Self::MetricsView,
        Self::AuditView,
    ];

    /// The name in documents and refusals.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AccountView => "core_account_view",
            Self::AccountEdit => "core_account_edit",
            Self::DelegateView => "core_delegate_view",
            Self::DelegateEdit => "core_delegate_edit",
            Self::DelegateDelete => "core_delegate_delete",
            Self::TaskView => "core_task_view",
            Self::TaskRun => "core_task_run",
            Self::MetricsView => "core_metrics_view",
            Self::AuditView => "core_audit_view",
        }
    }
}

crate::word::words!(Permission);

/// A named set of permissions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Everything.
    Admin,
    /// Everything but creating accounts, deleting, and reading the audit chain.
    Operator,
    /// Only looking.
    Viewer,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 3] = [Self::Admin, Self::Operator, Self::Viewer];

    /// The table: whether this role holds that permission.
    pub const fn holds(self, permission: Permission) -> bool {
        use Permission as P;
        match self {
            Self::Admin => true,
            Self::Operator => !matches!(permission, P::AccountEdit | P::DelegateDelete | P::AuditView),
            Self::Viewer => {
                matches!(permission, P::AccountView | P::DelegateView | P::TaskView | P::MetricsView)
            }
        }
    }

    /// The word in rows and documents.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Operator => "operator",
            Self::Viewer => "viewer",
        }
    }
}

crate::word::words!(Role);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_viewer_changes_nothing_and_only_an_admin_deletes() {
        for permission in Permission::ALL {
            let looks = permission.as_str().ends_with("_view") && permission != Permission::AuditView;
            assert_eq!(Role::Viewer.holds(permission), looks, "{permission}");
            assert!(Role::Admin.holds(permission));
        }
        assert!(!Role::Operator.holds(Permission::DelegateDelete));
        assert!(Role::Operator.holds(Permission::DelegateEdit));
    }
}
