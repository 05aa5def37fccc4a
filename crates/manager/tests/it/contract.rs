//! The route table, the OpenAPI document and the API crate's paths say the same.

use std::{collections::BTreeSet, fs};

use legation_api::routes;
use legation_manager::http;
use serde_json::Value;

#[test]
fn the_committed_openapi_document_is_fresh() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/openapi.json");
    if std::env::var_os("UPDATE").is_some() {
        fs::write(path, http::document()).expect("writable");
    }
    let committed = fs::read_to_string(path).unwrap_or_default();
    assert!(committed == http::document(), "run `UPDATE=1 cargo test -p legation-manager openapi`");
}

#[test]
fn every_route_is_documented_and_every_documented_route_exists() {
    let table: BTreeSet<String> =
        http::table().iter().map(|route| format!("{} {}", route.method.as_str().to_lowercase(), route.path)).collect();
    let document: Value = serde_json::from_str(&http::document()).expect("JSON");
    let paths = document["paths"].as_object().expect("paths");
    let documented: BTreeSet<String> = paths
        .iter()
        .flat_map(|(path, methods)| {
            methods.as_object().expect("methods").keys().map(move |method| format!("{method} {path}"))
        })
        .collect();
    assert_eq!(table, documented);
    let known: BTreeSet<&str> = http::table().iter().map(|route| route.path).collect();
    assert_eq!(known, routes::ALL.iter().copied().collect());
}

#[test]
fn delegates_dial_the_route_that_is_served() {
    assert_eq!(legation_link::LINK_PATH, routes::LINK);
}

#[test]
fn only_these_routes_are_public() {
    let public: BTreeSet<&str> =
        http::table().iter().filter(|route| route.access == http::Access::Public).map(|route| route.path).collect();
    assert_eq!(
        public,
        [
            routes::HEALTHZ,
            routes::READYZ,
            routes::OPENAPI,
            routes::LINK,
            routes::SIGNING_KEYS,
            routes::SIGNING_KEY,
            routes::LOGIN,
            routes::LOGIN_OIDC,
            routes::LOGIN_OIDC_CALLBACK,
            routes::LOGIN_OIDC_CODE,
            routes::UNWRAP,
        ]
        .into_iter()
        .collect()
    );
}
