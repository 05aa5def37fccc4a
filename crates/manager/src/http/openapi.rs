//! The contract as OpenAPI 3.1, made from the handlers themselves.

use utoipa::{
    Modify, OpenApi,
    openapi::security::{Http, HttpAuthScheme, SecurityScheme},
};

use super::{
    accounts, api_keys, audit, delegates, grants, health, link, logins, oidc, output, passwords, principals, receipts,
    reveal, revoke, roles, scopes, signing_keys, tasks, token_uses, tokens, whoami, wraps,
};

#[derive(OpenApi)]
#[openapi(
    info(title = "Legation Manager", description = "The control plane of delegates.", license(name = "Apache-2.0")),
    paths(
        health::alive, health::ready, health::metrics, serve, whoami::show,
        accounts::list, accounts::create, accounts::show,
        scopes::list, scopes::create, scopes::show, scopes::update, scopes::delete,
        tokens::list, tokens::create, tokens::show, tokens::issue, tokens::update, tokens::delete,
        token_uses::list,
        reveal::reveal, wraps::open,
        revoke::many, revoke::revoke, revoke::cancel,
        delegates::list, delegates::show, delegates::stop, delegates::allow,
        tasks::submit, tasks::list, tasks::show, tasks::cancel, output::stream,
        receipts::list, receipts::show,
        audit::list, audit::show, audit::export, audit::tail, signing_keys::list, signing_keys::show, link::upgrade,
        principals::list, principals::create, principals::show, principals::disable, principals::enable,
        principals::delete, passwords::set, passwords::change,
        logins::log_in, logins::log_out, logins::reauthenticate, logins::list, logins::end,
        oidc::begin, oidc::end, oidc::open,
        roles::list, roles::create, roles::show, roles::update, roles::delete,
        grants::list, grants::create, grants::show, grants::delete,
        api_keys::list, api_keys::create, api_keys::show, api_keys::revoke,
    ),
    components(schemas(
        legation_api::revoke::RevokePreview, legation_api::tokens::IssuePreview, legation_api::tasks::Task,
        legation_api::audit_export::Behind,
    )),
    modifiers(&ApiKeys),
    security(("api_key" = [])),
)]
struct Contract;

struct ApiKeys;

impl Modify for ApiKeys {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let components = document.components.get_or_insert_with(Default::default);
        components.add_security_scheme("api_key", SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer)));
    }
}

/// The document, as it is committed in `docs/openapi.json`.
pub fn document() -> String {
    let mut text = Contract::openapi().to_pretty_json().expect("the document is made of plain values");
    text.push('\n');
    text
}

/// This document.
#[utoipa::path(get, path = "/api/v1/openapi.json", tag = "health", security(()),
    responses((status = 200, content_type = "application/json")))]
pub(super) async fn serve() -> ([(&'static str, &'static str); 1], String) {
    ([("content-type", "application/json")], document())
}
