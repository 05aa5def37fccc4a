//! What a request presents: a key or session in a header, as programs do, or a session in a browser's cookie.
//!
//! A browser sends a cookie with whatever asks it to. So a change by cookie must come from a page of the Manager itself,
//! which browsers say in `Sec-Fetch-Site` or `Origin`, and as JSON, which no other page can send without being asked.

use axum::http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{AUTHORIZATION, CONTENT_TYPE, COOKIE, HOST, ORIGIN},
    request::Parts,
};
use legation_api::Code;
use legation_model::{Millis, secret::SecretText};

use crate::{config::Config, error::Refusal, oidc::ROUND_LASTS};

/// The cookie's name over https: by this prefix browsers take it from nobody but this host, and only over https.
const SECURE: &str = "__Host-legation";
/// Its name over plain http, on the machine itself or where nobody said that a proxy speaks https.
const PLAIN: &str = "legation";
/// The cookie of a login at the identity provider, with the prefix where the session's has it. Unlike that it must come along
/// when the provider's page sends the browser back.
const ROUND: &str = "legation-login";
/// By which browsers say what kind of page a request comes from.
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// What a request presents.
pub(super) enum Presented<'a> {
    /// In a header, which only who knows it can send.
    Header(&'a str),
    /// In a cookie.
    Cookie(&'a str),
}

/// What stands in `Authorization: Bearer` or `x-api-key`, or else in the cookie. Two of a kind would leave open which one
/// counts.
pub(super) fn presented<'a>(request: &'a Parts, config: &Config) -> Result<Presented<'a>, Refusal> {
    let headers = &request.headers;
    let mut found = headers.get_all(AUTHORIZATION).iter().chain(headers.get_all("x-api-key"));
    let Some(value) = found.next() else { return cookie(headers, name(config)).map(Presented::Cookie) };
    if found.next().is_some() {
        return Err(Refusal::new(Code::Unauthenticated, "the request has more than one API key"));
    }
    let text = value.to_str().map_err(|_| none())?.trim();
    match text.split_once(' ') {
        Some((scheme, key)) if scheme.eq_ignore_ascii_case("bearer") => Ok(Presented::Header(key.trim())),
        Some(_) => Err(none()),
        None => Ok(Presented::Header(text)),
    }
}

impl<'a> Presented<'a> {
    /// The key or session.
    pub(super) const fn value(&self) -> &'a str {
        match self {
            Self::Header(value) | Self::Cookie(value) => value,
        }
    }

    /// Refuses a change by cookie unless it comes from a page of the Manager's own.
    ///
    /// # Errors
    /// `cross_origin`.
    pub(super) fn require_own_page(&self, request: &Parts, config: &Config) -> Result<(), Refusal> {
        if matches!(self, Self::Header(_)) || request.method.is_safe() {
            return Ok(());
        }
        if !is_own_page(&request.headers, config) {
            return Err(Refusal::new(
                Code::CrossOrigin,
                "a change by cookie that no page of the Manager's own has sent",
            ));
        }
        let kind = text(&request.headers, &CONTENT_TYPE).unwrap_or_default();
        if kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json")) {
            return Ok(());
        }
        Err(Refusal::new(Code::CrossOrigin, "a change by cookie without Content-Type: application/json"))
    }
}

/// Whether the browser says so. One that says nothing about the site says at least the origin.
fn is_own_page(headers: &HeaderMap, config: &Config) -> bool {
    if let Some(site) = headers.get(FETCH_SITE) {
        return site == "same-origin";
    }
    let Some(origin) = text(headers, &ORIGIN) else { return false };
    if let Some(public) = &config.public_url {
        return origin == public;
    }
    let scheme = if config.by_https() { "https://" } else { "http://" };
    let host = text(headers, &HOST);
    host.is_some_and(|host| origin.strip_prefix(scheme).is_some_and(|own| own.eq_ignore_ascii_case(host)))
}

fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Result<&'a str, Refusal> {
    let lines = headers.get_all(COOKIE).iter().filter_map(|line| line.to_str().ok());
    let pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    let mut found = pairs.filter(|(key, _)| *key == name).map(|(_, value)| value);
    let value = found.next().ok_or_else(none)?;
    if found.next().is_some() {
        return Err(Refusal::new(Code::Unauthenticated, "the request has more than one session"));
    }
    Ok(value)
}

/// A header that makes a browser keep a session, for as long as it may last.
pub(super) fn keep(value: &SecretText, lifetime: Millis, config: &Config) -> Option<HeaderValue> {
    set(name(config), value.expose(), "Strict", lifetime, config)
}

/// A header that makes a browser drop its session.
pub(super) fn clear(config: &Config) -> Option<HeaderValue> {
    set(name(config), "", "Strict", 0, config)
}

/// A header that makes a browser keep what binds a login to it, for as long as that may take.
pub(super) fn keep_round(word: &SecretText, config: &Config) -> Option<HeaderValue> {
    set(&round_name(config), word.expose(), "Lax", ROUND_LASTS, config)
}

/// What binds a login to this browser.
pub(super) fn round<'a>(headers: &'a HeaderMap, config: &Config) -> Result<&'a str, Refusal> {
    cookie(headers, &round_name(config))
}

fn set(name: &str, value: &str, same_site: &str, lasts: Millis, config: &Config) -> Option<HeaderValue> {
    let (secure, seconds) = (if config.by_https() { "; Secure" } else { "" }, lasts / 1000);
    let text = format!("{name}={value}; Path=/; HttpOnly; SameSite={same_site}; Max-Age={seconds}{secure}");
    let mut header = HeaderValue::try_from(text).ok()?;
    header.set_sensitive(true);
    Some(header)
}

fn round_name(config: &Config) -> String {
    if config.by_https() { format!("__Host-{ROUND}") } else { ROUND.to_owned() }
}

fn name(config: &Config) -> &'static str {
    if config.by_https() { SECURE } else { PLAIN }
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

fn none() -> Refusal {
    Refusal::new(Code::Unauthenticated, "the request has no API key and no session")
}
