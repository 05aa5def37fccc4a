//! Who may do what: permissions, roles, and the one decision that everything else asks.

use serde::{Deserialize, Serialize};

use crate::{Scope, Within};

macro_rules! permissions {
    ($($(#[$doc:meta])* $name:ident = $word:literal, seen by $view:ident;)*) => {
        /// One thing that a route lets a caller do.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Permission {
            $($(#[$doc])* $name,)*
        }

        impl Permission {
            /// Every permission.
            pub const ALL: [Self; [$($word),*].len()] = [$(Self::$name),*];

            /// The name in documents and refusals.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $word,)* }
            }

            /// The permission without which the objects that this one is about do not exist for a caller.
            pub const fn view(self) -> Self {
                match self { $(Self::$name => Self::$view,)* }
            }
        }
    };
}

permissions! {
    /// See accounts and what is below them.
    AccountView = "core_account_view", seen by AccountView;
    /// Create and change accounts.
    AccountEdit = "core_account_edit", seen by AccountView;
    /// Delete accounts.
    AccountDelete = "core_account_delete", seen by AccountView;
    /// See delegates, tokens (never their values) and receipts.
    DelegateView = "core_delegate_view", seen by DelegateView;
    /// Create, issue and revoke tokens.
    DelegateEdit = "core_delegate_edit", seen by DelegateView;
    /// Delete revoked tokens.
    DelegateDelete = "core_delegate_delete", seen by DelegateView;
    /// See the value of a token again, where its account allows that.
    DelegateReveal = "core_delegate_reveal", seen by DelegateView;
    /// See tasks and their output.
    TaskView = "core_task_view", seen by TaskView;
    /// Submit and cancel tasks.
    TaskRun = "core_task_run", seen by TaskView;
    /// See users, service accounts, roles, grants and API keys.
    AccessView = "core_access_view", seen by AccessView;
    /// Create, change and delete users, service accounts, roles, grants and API keys.
    AccessEdit = "core_access_edit", seen by AccessView;
    /// Read the audit log.
    AuditView = "core_audit_view", seen by AuditView;
    /// Read the Manager's metrics.
    MetricsView = "core_metrics_view", seen by MetricsView;
}

crate::word::words!(Permission);

/// A set of permissions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Permissions(u32);

impl Permissions {
    /// These.
    pub const fn of(permissions: &[Permission]) -> Self {
        let (mut bits, mut at) = (0, 0);
        while at < permissions.len() {
            bits |= 1 << permissions[at] as u32;
            at += 1;
        }
        Self(bits)
    }

    /// All there are.
    pub const fn all() -> Self {
        Self::of(&Permission::ALL)
    }

    /// All but these.
    pub const fn all_but(permissions: &[Permission]) -> Self {
        Self(Self::all().0 & !Self::of(permissions).0)
    }

    /// Whether this one is among them.
    pub const fn contains(self, permission: Permission) -> bool {
        self.0 & 1 << permission as u32 != 0
    }

    /// Those that are in either.
    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Those that are not in the other.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether there are none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// One after the other, in the order of [`Permission::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Permission> {
        Permission::ALL.into_iter().filter(move |permission| self.contains(*permission))
    }
}

impl FromIterator<Permission> for Permissions {
    fn from_iter<I: IntoIterator<Item = Permission>>(permissions: I) -> Self {
        permissions.into_iter().fold(Self::default(), |all, one| all.or(Self::of(&[one])))
    }
}

/// A role that every Manager has and nobody can change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Everything.
    Admin,
    /// Everything but changing accounts and access, deleting, seeing the value of a token again, and reading the audit
    /// chain.
    Operator,
    /// Only looking, and not at who has access or at who did what.
    Viewer,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 3] = [Self::Admin, Self::Operator, Self::Viewer];

    /// What this role holds.
    pub const fn permissions(self) -> Permissions {
        use Permission as P;
        match self {
            Self::Admin => Permissions::all(),
            Self::Operator => Permissions::all_but(&[
                P::AccountEdit,
                P::AccountDelete,
                P::DelegateDelete,
                P::DelegateReveal,
                P::AccessEdit,
                P::AuditView,
            ]),
            Self::Viewer => Permissions::of(&[P::AccountView, P::DelegateView, P::TaskView, P::MetricsView]),
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

/// What somebody is who may be given grants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PrincipalKind {
    /// A person.
    User,
    /// A program.
    ServiceAccount,
}

impl PrincipalKind {
    /// Both.
    pub const ALL: [Self; 2] = [Self::User, Self::ServiceAccount];

    /// The word in rows and documents.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::ServiceAccount => "service_account",
        }
    }
}

crate::word::words!(PrincipalKind);

/// A grant as it counts: what its role holds, at a scope and below; everywhere without one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holding {
    /// What.
    pub permissions: Permissions,
    /// Where.
    pub scope: Option<Scope>,
}

impl Holding {
    /// Whether this holds at a place; `None` is the whole tree, and what belongs to no scope.
    fn reaches(&self, place: Option<&Scope>) -> bool {
        match (&self.scope, place) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(own), Some(place)) => own.contains(place),
        }
    }

    /// What is left of this within another scope.
    fn narrowed(self, to: &Scope) -> Option<Self> {
        match &self.scope {
            Some(own) if to.contains(own) => Some(self),
            Some(own) if !own.contains(to) => None,
            _ => Some(Self { scope: Some(to.clone()), ..self }),
        }
    }
}

/// What a caller is told about an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The caller may do it.
    Allowed,
    /// The caller may see the object, and not do this to it.
    Forbidden,
    /// The object does not exist for the caller.
    Hidden,
}

/// Everything that a caller holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held(Vec<Holding>);

impl Held {
    /// What these grants hold together; with a scope, what is left of it there and below.
    pub fn new(holdings: impl IntoIterator<Item = Holding>, narrowed: Option<&Scope>) -> Self {
        let narrow = |holding: Holding| match narrowed {
            None => Some(holding),
            Some(scope) => holding.narrowed(scope),
        };
        Self(holdings.into_iter().filter_map(narrow).collect())
    }

    /// The decision: whether something that needs a permission may be done to an object of a scope, or to one that
    /// belongs to none.
    pub fn decide(&self, needed: Permission, place: Option<&Scope>) -> Decision {
        if self.holds(needed, place) {
            Decision::Allowed
        } else if self.holds(needed.view(), place) {
            Decision::Forbidden
        } else {
            Decision::Hidden
        }
    }

    /// Whether a permission is held at this place.
    pub fn holds(&self, permission: Permission, place: Option<&Scope>) -> bool {
        self.0.iter().any(|holding| holding.permissions.contains(permission) && holding.reaches(place))
    }

    /// Whether a permission is held anywhere at all.
    pub fn holds_somewhere(&self, permission: Permission) -> bool {
        self.0.iter().any(|holding| holding.permissions.contains(permission))
    }

    /// Everything that is held at this place.
    pub fn at(&self, place: Option<&Scope>) -> Permissions {
        let reaching = self.0.iter().filter(|holding| holding.reaches(place));
        reaching.fold(Permissions::default(), |all, holding| all.or(holding.permissions))
    }

    /// Where a permission is held.
    pub fn within(&self, permission: Permission) -> Within {
        let holding = self.0.iter().filter(|holding| holding.permissions.contains(permission));
        let scopes: Option<Vec<Scope>> = holding.map(|holding| holding.scope.clone()).collect();
        scopes.map_or(Within::Everywhere, Within::below)
    }

    /// The first thing that the other holds and this does not, and where.
    pub fn lacks<'a>(&self, other: &'a Self) -> Option<(Permission, Option<&'a Scope>)> {
        other.0.iter().find_map(|holding| {
            let place = holding.scope.as_ref();
            holding.permissions.without(self.at(place)).iter().next().map(|permission| (permission, place))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(text: &str) -> Scope {
        text.parse().expect("a legal scope")
    }

    fn held(grants: &[(Role, Option<&str>)], narrowed: Option<&str>) -> Held {
        let holding =
            |(role, place): &(Role, Option<&str>)| Holding { permissions: role.permissions(), scope: place.map(scope) };
        Held::new(grants.iter().map(holding), narrowed.map(scope).as_ref())
    }

    #[test]
    fn a_viewer_changes_nothing_and_only_an_admin_deletes_or_gives_access() {
        use Permission as P;
        for permission in Permission::ALL {
            let looks = permission == permission.view() && !matches!(permission, P::AccessView | P::AuditView);
            assert_eq!(Role::Viewer.permissions().contains(permission), looks, "{permission}");
            assert!(Role::Admin.permissions().contains(permission));
            assert_eq!(permission.as_str().ends_with("_view"), permission == permission.view(), "{permission}");
        }
        let operator = Role::Operator.permissions();
        for admins in [P::AccountEdit, P::AccountDelete, P::DelegateDelete, P::DelegateReveal, P::AccessEdit] {
            assert!(!operator.contains(admins), "{admins}");
        }
        assert!(operator.contains(P::DelegateEdit) && !operator.contains(P::AuditView));
    }

    #[test]
    fn what_is_seen_and_may_not_be_done_is_told_from_what_does_not_exist() {
        use Permission as P;
        let held = held(&[(Role::Viewer, Some("a")), (Role::Admin, Some("a/x"))], None);
        let decide = |place: &str| held.decide(P::DelegateEdit, Some(&scope(place)));
        assert_eq!(decide("a/x/1"), Decision::Allowed);
        assert_eq!((decide("a"), decide("a/y")), (Decision::Forbidden, Decision::Forbidden));
        assert_eq!((decide("b"), held.decide(P::DelegateEdit, None)), (Decision::Hidden, Decision::Hidden));
        assert_eq!(held.within(P::DelegateView), Within::below([scope("a")]));
        assert_eq!(held.within(P::AccessEdit), Within::below([scope("a/x")]));
    }

    #[test]
    fn a_key_with_a_scope_holds_no_more_than_its_owner_and_nothing_outside() {
        use Permission as P;
        let all = [(Role::Admin, None)];
        assert_eq!(held(&all, Some("a")).within(P::AccessEdit), Within::below([scope("a")]));
        assert!(!held(&all, Some("a")).holds(P::AccountView, None));
        let some = [(Role::Viewer, Some("a/x")), (Role::Admin, Some("b"))];
        assert_eq!(held(&some, Some("a")).within(P::TaskView), Within::below([scope("a/x")]));
        assert!(!held(&some, Some("a")).holds_somewhere(P::TaskRun));
        assert_eq!(held(&some, None).within(P::TaskView), Within::below([scope("a/x"), scope("b")]));
    }

    #[test]
    fn what_another_holds_beyond_oneself_is_named() {
        let own = held(&[(Role::Operator, None), (Role::Admin, Some("a"))], None);
        assert_eq!(own.lacks(&held(&[(Role::Admin, Some("a/x")), (Role::Viewer, None)], None)), None);
        let (more, place) = (held(&[(Role::Admin, Some("b"))], None), scope("b"));
        assert_eq!(own.lacks(&more), Some((Permission::AccountEdit, Some(&place))));
        assert_eq!(own.lacks(&held(&[(Role::Admin, None)], None)), Some((Permission::AccountEdit, None)));
    }
}
