//! OpenAPI schemas of the model's closed word lists, built from the lists themselves.

use legation_model::{
    access::PrincipalKind,
    audit::Outcome,
    delegate::{DelegateStatus, Isolation},
    login::LoginMethod,
    receipt::Cause,
    scope::ScopeKind,
    task::{TaskKind, TaskState},
    token::{Enrolment, TokenStatus},
};
use utoipa::openapi::{Object, ObjectBuilder, schema::Type};

macro_rules! words {
    ($($function:ident = $words:ty;)*) => {$(
        pub(crate) fn $function() -> Object {
            ObjectBuilder::new()
                .schema_type(Type::String)
                .enum_values(Some(<$words>::ALL.map(<$words>::as_str)))
                .build()
        }
    )*};
}

words! {
    principal_kind = PrincipalKind;
    login_method = LoginMethod;
    outcome = Outcome;
    delegate_status = DelegateStatus;
    isolation = Isolation;
    scope_kind = ScopeKind;
    cause = Cause;
    task_kind = TaskKind;
    task_state = TaskState;
    token_status = TokenStatus;
    enrolment = Enrolment;
    code = crate::Code;
}
