//! The route table: every route, its permission, whether a session must be fresh for it, and the function that runs.

mod accounts;
mod api_keys;
mod audit;
mod cookie;
mod delegates;
mod grants;
mod guard;
mod health;
mod link;
mod logins;
mod oidc;
mod openapi;
mod output;
mod passwords;
mod principals;
mod receipts;
mod request;
mod respond;
mod reveal;
mod revoke;
mod roles;
mod scopes;
mod signing_keys;
mod tasks;
mod token_uses;
mod tokens;
mod whoami;
mod wraps;

use std::sync::Arc;

use axum::{
    Router,
    handler::Handler,
    http::Method,
    middleware::{from_fn, from_fn_with_state},
    routing::{MethodFilter, MethodRouter, on},
};
use legation_api::routes;
use legation_model::access::Permission;

use crate::Manager;

pub use guard::Access;
use guard::Rule;
pub use openapi::document;

/// One line of the route table.
pub struct Route {
    /// Method.
    pub method: Method,
    /// Path, with its placeholder.
    pub path: &'static str,
    /// Who may.
    pub access: Access,
    /// Whether a console session must have been shown anew a moment ago whose it is.
    pub fresh: bool,
    handler: MethodRouter<Arc<Manager>>,
}

/// The route table.
pub fn table() -> Vec<Route> {
    use Access::{AnyKey, Needs, OwnOr, Public};
    use Permission as P;
    vec![
        get(routes::HEALTHZ, Public, health::alive),
        get(routes::READYZ, Public, health::ready),
        get(routes::METRICS, Needs(P::MetricsView), health::metrics),
        get(routes::OPENAPI, Public, openapi::serve),
        get(routes::WHOAMI, AnyKey, whoami::show),
        get(routes::ACCOUNTS, Needs(P::AccountView), accounts::list),
        post(routes::ACCOUNTS, Needs(P::AccountEdit), accounts::create),
        get(routes::ACCOUNT, Needs(P::AccountView), accounts::show),
        get(routes::SCOPES, Needs(P::AccountView), scopes::list),
        post(routes::SCOPES, Needs(P::AccountEdit), scopes::create),
        get(routes::SCOPE, Needs(P::AccountView), scopes::show),
        patch(routes::SCOPE, Needs(P::AccountEdit), scopes::update),
        delete(routes::SCOPE, Needs(P::AccountDelete), scopes::delete),
        get(routes::TOKENS, Needs(P::DelegateView), tokens::list),
        post(routes::TOKENS, Needs(P::DelegateEdit), tokens::create),
        get(routes::TOKEN, Needs(P::DelegateView), tokens::show),
        patch(routes::TOKEN, Needs(P::DelegateEdit), tokens::update),
        delete(routes::TOKEN, Needs(P::DelegateDelete), tokens::delete),
        get(routes::TOKEN_USES, Needs(P::DelegateView), token_uses::list),
        post(routes::TOKEN_ISSUE, Needs(P::DelegateEdit), tokens::issue),
        post(routes::TOKEN_REVEAL, Needs(P::DelegateReveal), reveal::reveal).fresh(),
        post(routes::UNWRAP, Public, wraps::open),
        post(routes::TOKENS_REVOKE, Needs(P::DelegateEdit), revoke::many).fresh(),
        post(routes::TOKEN_REVOKE, Needs(P::DelegateEdit), revoke::revoke),
        delete(routes::TOKEN_REVOKE, Needs(P::DelegateEdit), revoke::cancel),
        get(routes::DELEGATES, Needs(P::DelegateView), delegates::list),
        get(routes::DELEGATE, Needs(P::DelegateView), delegates::show),
        post(routes::DELEGATE_STOP, Needs(P::DelegateEdit), delegates::stop),
        post(routes::DELEGATE_ALLOW, Needs(P::DelegateEdit), delegates::allow),
        get(routes::TASKS, Needs(P::TaskView), tasks::list),
        post(routes::TASKS, Needs(P::TaskRun), tasks::submit),
        get(routes::TASK, Needs(P::TaskView), tasks::show),
        post(routes::TASK_CANCEL, Needs(P::TaskRun), tasks::cancel),
        get(routes::TASK_OUTPUT, Needs(P::TaskView), output::stream),
        get(routes::RECEIPTS, Needs(P::DelegateView), receipts::list),
        get(routes::RECEIPT, Needs(P::DelegateView), receipts::show),
        get(routes::AUDIT, Needs(P::AuditView), audit::list),
        get(routes::AUDIT_RECORD, Needs(P::AuditView), audit::show),
        get(routes::AUDIT_EXPORT, Needs(P::AuditView), audit::export),
        get(routes::AUDIT_TAIL, Needs(P::AuditView), audit::tail),
        get(routes::SIGNING_KEYS, Public, signing_keys::list),
        get(routes::SIGNING_KEY, Public, signing_keys::show),
        get(routes::PRINCIPALS, Needs(P::AccessView), principals::list),
        post(routes::PRINCIPALS, Needs(P::AccessEdit), principals::create).fresh(),
        get(routes::PRINCIPAL, Needs(P::AccessView), principals::show),
        delete(routes::PRINCIPAL, Needs(P::AccessEdit), principals::delete).fresh(),
        post(routes::PRINCIPAL_DISABLE, Needs(P::AccessEdit), principals::disable).fresh(),
        post(routes::PRINCIPAL_ENABLE, Needs(P::AccessEdit), principals::enable).fresh(),
        put(routes::PRINCIPAL_PASSWORD, Needs(P::AccessEdit), passwords::set).fresh(),
        put(routes::PASSWORD, AnyKey, passwords::change),
        post(routes::LOGIN, Public, logins::log_in),
        get(routes::LOGIN_OIDC, Public, oidc::begin),
        get(routes::LOGIN_OIDC_CALLBACK, Public, oidc::end),
        post(routes::LOGIN_OIDC_CODE, Public, oidc::open),
        post(routes::LOGOUT, AnyKey, logins::log_out),
        post(routes::REAUTHENTICATE, AnyKey, logins::reauthenticate),
        get(routes::SESSIONS, OwnOr(P::AccessView), logins::list),
        delete(routes::SESSION, OwnOr(P::AccessEdit), logins::end),
        get(routes::ROLES, Needs(P::AccessView), roles::list),
        post(routes::ROLES, Needs(P::AccessEdit), roles::create).fresh(),
        get(routes::ROLE, Needs(P::AccessView), roles::show),
        put(routes::ROLE, Needs(P::AccessEdit), roles::update).fresh(),
        delete(routes::ROLE, Needs(P::AccessEdit), roles::delete).fresh(),
        get(routes::GRANTS, Needs(P::AccessView), grants::list),
        post(routes::GRANTS, Needs(P::AccessEdit), grants::create).fresh(),
        get(routes::GRANT, Needs(P::AccessView), grants::show),
        delete(routes::GRANT, Needs(P::AccessEdit), grants::delete).fresh(),
        get(routes::API_KEYS, Needs(P::AccessView), api_keys::list),
        post(routes::API_KEYS, Needs(P::AccessEdit), api_keys::create).fresh(),
        get(routes::API_KEY, Needs(P::AccessView), api_keys::show),
        delete(routes::API_KEY, Needs(P::AccessEdit), api_keys::revoke).fresh(),
        link_route(),
    ]
}

/// The delegate link: public here, because Noise decides who speaks on it.
fn link_route() -> Route {
    get(routes::LINK, Access::Public, link::upgrade)
}

/// The API, with the delegate link unless that has a listener of its own.
pub fn router(manager: Arc<Manager>, with_link: bool) -> Router {
    let table = table().into_iter().filter(|route| with_link || route.path != routes::LINK);
    build(manager, table)
}

/// The delegate link alone, with the health that a load balancer asks for.
pub fn link_router(manager: Arc<Manager>) -> Router {
    build(manager, [link_route(), get(routes::HEALTHZ, Access::Public, health::alive)])
}

fn build(manager: Arc<Manager>, table: impl IntoIterator<Item = Route>) -> Router {
    let mut router = Router::new();
    for route in table {
        let rule = Rule { access: route.access, fresh: route.fresh };
        let guard = from_fn_with_state((Arc::clone(&manager), rule), guard::check);
        router = router.route(route.path, route.handler.layer(guard));
    }
    router
        .fallback(respond::no_such_path)
        .method_not_allowed_fallback(respond::no_such_method)
        .layer(from_fn(respond::with_request_id))
        .layer(tower_http::catch_panic::CatchPanicLayer::custom(respond::panicked))
        .with_state(manager)
}

impl Route {
    fn new(method: Method, path: &'static str, access: Access, handler: MethodRouter<Arc<Manager>>) -> Self {
        Self { method, path, access, fresh: false, handler }
    }

    /// Refused to a console session whose owner has not shown for a while who they are.
    fn fresh(self) -> Self {
        Self { fresh: true, ..self }
    }
}

fn get<H: Handler<T, Arc<Manager>>, T: 'static>(path: &'static str, access: Access, handler: H) -> Route {
    Route::new(Method::GET, path, access, on(MethodFilter::GET, handler))
}

fn post<H: Handler<T, Arc<Manager>>, T: 'static>(path: &'static str, access: Access, handler: H) -> Route {
    Route::new(Method::POST, path, access, on(MethodFilter::POST, handler))
}

fn patch<H: Handler<T, Arc<Manager>>, T: 'static>(path: &'static str, access: Access, handler: H) -> Route {
    Route::new(Method::PATCH, path, access, on(MethodFilter::PATCH, handler))
}

fn put<H: Handler<T, Arc<Manager>>, T: 'static>(path: &'static str, access: Access, handler: H) -> Route {
    Route::new(Method::PUT, path, access, on(MethodFilter::PUT, handler))
}

fn delete<H: Handler<T, Arc<Manager>>, T: 'static>(path: &'static str, access: Access, handler: H) -> Route {
    Route::new(Method::DELETE, path, access, on(MethodFilter::DELETE, handler))
}
