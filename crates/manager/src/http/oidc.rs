//! Logins at an identity provider over HTTP. People see these answers in a browser, so they are pages.

use std::sync::Arc;

use axum::{
    extract::State,
    http::{
        HeaderValue, StatusCode,
        header::{CONTENT_SECURITY_POLICY, LOCATION, REFERRER_POLICY, SET_COOKIE},
        request::Parts,
    },
    response::{IntoResponse, Response},
};
use legation_api::{
    Problem,
    logins::LoggedIn,
    oidc::{BeginOidc, LogInByCode},
};
use serde::Deserialize;

use super::{
    cookie,
    request::{Body, Nothing, Params},
    respond::{Json, typed},
};
use crate::{
    Manager,
    access::Caller,
    error::Refusal,
    logins::{Visitor, shown},
    oidc::{Brought, Ended},
};

/// What the identity provider adds to the callback's address. It may add more.
#[derive(Deserialize)]
pub(super) struct Callback {
    #[serde(default)]
    state: String,
    code: Option<String>,
    error: Option<String>,
}

/// Begins a login at the identity provider: sends the browser there.
#[utoipa::path(get, path = "/api/v1/login/oidc", tag = "access", security(()), params(BeginOidc),
    responses((status = 303, description = "to the identity provider"),
        (status = 404, description = "no identity provider is set"), (status = 429), (status = 503)))]
pub(super) async fn begin(
    State(manager): State<Arc<Manager>>,
    from: Visitor,
    parts: Parts,
    Params(asked): Params<BeginOidc>,
) -> Response {
    let caller = if asked.fresh { holder(&manager, &parts, &from).await } else { None };
    match manager.begin_oidc(asked, &from, caller.as_ref()).await {
        Ok(begun) => to(&begun.address, cookie::keep_round(&begun.browser, &manager.config)),
        Err(refusal) => told(&refusal),
    }
}

/// Whose session the browser has, for a login that is to show that anew.
async fn holder(manager: &Manager, parts: &Parts, from: &Visitor) -> Option<Caller> {
    let presented = cookie::presented(parts, &manager.config).ok()?;
    manager.authenticate(presented.value(), from.request.clone()).await.ok()
}

/// Ends a login at the identity provider: the browser gets its session as a cookie, or goes on to the program that waits.
#[utoipa::path(get, path = "/api/v1/login/oidc/callback", tag = "access", security(()),
    params(("state" = String, Query), ("code" = Option<String>, Query), ("error" = Option<String>, Query)),
    responses((status = 200, content_type = "text/html"), (status = 303, description = "to the program that waits"),
        (status = 401, content_type = "text/html"), (status = 503, content_type = "text/html")))]
pub(super) async fn end(
    State(manager): State<Arc<Manager>>,
    from: Visitor,
    parts: Parts,
    Params(Callback { state, code, error }): Params<Callback>,
) -> Response {
    let browser = cookie::round(&parts.headers, &manager.config).unwrap_or_default().to_owned();
    match manager.end_oidc(Brought { state, code, error, browser }, from).await {
        Ok(Ended::Program(address)) => to(&address, None),
        Ok(Ended::Again(session)) => page(
            StatusCode::OK,
            "That was you",
            &format!("{} can go on. You may close this window.", session.owner_name),
        ),
        Ok(Ended::Browser(begun)) => {
            let text = format!("You are logged in as {}. You may close this window.", begun.session.owner_name);
            let cookie = cookie::keep(&begun.value, manager.config.console.lifetime, &manager.config);
            let mut response = page(StatusCode::OK, "Logged in", &text);
            if let Some(cookie) = cookie {
                response.headers_mut().insert(SET_COOKIE, cookie);
            }
            response
        }
        Err(refusal) => told(&refusal),
    }
}

/// Opens the session of a login that a program began: the answer has its value, this once.
#[utoipa::path(post, path = "/api/v1/login/oidc/code", tag = "access", request_body = LogInByCode, security(()),
    responses((status = 201, body = LoggedIn), (status = 401, body = Problem), (status = 404, body = Problem),
        (status = 429, body = Problem)))]
pub(super) async fn open(
    State(manager): State<Arc<Manager>>,
    from: Visitor,
    Params(Nothing {}): Params<Nothing>,
    body: Body<LogInByCode>,
) -> Result<Json<LoggedIn>, Refusal> {
    let begun = manager.log_in_by_code(body.value, from).await?;
    Ok(Json(StatusCode::CREATED, LoggedIn { session: shown(&begun.session, None), value: Some(begun.value) }))
}

/// Sends the browser elsewhere. The address may hold a code, so that no other page may learn of it.
fn to(address: &str, cookie: Option<HeaderValue>) -> Response {
    let mut response = StatusCode::SEE_OTHER.into_response();
    let headers = response.headers_mut();
    if let Ok(address) = HeaderValue::from_str(address) {
        headers.insert(LOCATION, address);
    }
    headers.insert("cache-control", HeaderValue::from_static("no-store"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    if let Some(cookie) = cookie {
        headers.insert(SET_COOKIE, cookie);
    }
    response
}

/// A refusal as a page.
fn told(refusal: &Refusal) -> Response {
    let status = StatusCode::from_u16(refusal.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    page(status, &refusal.0.title, &format!("{}. What to do: {}.", refusal.0.detail, refusal.0.fix))
}

/// A page of one sentence, which nothing can be loaded into.
fn page(status: StatusCode, title: &str, text: &str) -> Response {
    let (title, text) = (escaped(title), escaped(text));
    let html = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>{title} – Legation</title>\
         <h1>{title}</h1><p>{text}</p></html>\n"
    );
    let mut response = typed(status, "text/html; charset=utf-8", html.into_bytes());
    let headers = response.headers_mut();
    let policy = HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'; base-uri 'none'");
    headers.insert(CONTENT_SECURITY_POLICY, policy);
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}

fn escaped(text: &str) -> String {
    text.chars().fold(String::new(), |mut all, c| {
        match c {
            '&' => all.push_str("&amp;"),
            '<' => all.push_str("&lt;"),
            '>' => all.push_str("&gt;"),
            '"' => all.push_str("&quot;"),
            c if c.is_control() => all.push(' '),
            c => all.push(c),
        }
        all
    })
}
