//! The scope tree by the names of its levels.

use insta::assert_snapshot;
use legation_api::{
    Code,
    scopes::{DeletedScope, Scope},
};
use legation_cli::exit_codes;
use legation_model::reveal::Reveal;

use crate::{
    fake::Fake,
    nouns::{AT, list},
    run::Home,
};

fn place(scope: &str) -> Scope {
    let scope: legation_model::Scope = scope.parse().expect("a scope");
    Scope {
        kind: scope.kind(),
        id: scope.own().to_owned(),
        lease_ms: scope.parent().is_none().then_some(60_000),
        reveal: scope.parent().is_none().then_some(Reveal::Audited),
        scope,
        description: "the shop".parse().expect("a text"),
        version: 7,
        created_at: AT,
        created_by: "up".to_owned(),
    }
}

#[tokio::test]
async fn the_tree_and_each_of_its_levels() {
    let fake = Fake::start().await;
    let tree = list(["acme", "acme/eng", "acme/eng/web"].map(place).to_vec());
    fake.on("GET /api/v1/scopes?limit=500", &tree)
        .on("GET /api/v1/scopes?parent=acme&kind=organization&limit=500", &tree)
        .on("GET /api/v1/scopes/acme.eng.web", &place("acme/eng/web"))
        .on("GET /api/v1/scopes/acme", &place("acme"));
    let home = Home::of(&fake);
    assert_snapshot!("scope_ls", home.run(&["scope", "ls"]).await.out);
    assert_eq!(home.run(&["org", "ls", "--parent", "acme", "-o", "name"]).await.out, "acme\nacme/eng\nacme/eng/web\n");
    assert_snapshot!("account_show", home.run(&["account", "show", "acme"]).await.out);
    assert_snapshot!("project_show", home.run(&["project", "show", "acme/eng/web"]).await.out);
    let json = home.run(&["scope", "show", "acme/eng/web", "-o", "json"]).await.out;
    assert_eq!(serde_json::from_str::<Scope>(&json).expect("JSON"), place("acme/eng/web"));
}

#[tokio::test]
async fn a_level_takes_its_own_kind_of_place_only() {
    let fake = Fake::start().await;
    for (noun, scope) in [("account", "acme/eng"), ("org", "acme"), ("organization", "a/b/c"), ("project", "acme/eng")]
    {
        for verb in ["create", "show", "rm"] {
            let ran = Home::of(&fake).run(&[noun, verb, scope]).await;
            assert_eq!(ran.code, i32::from(exit_codes::USAGE), "{noun} {verb} {scope}: {ran:?}");
            assert!(ran.err.contains("legation scope"), "{ran:?}");
        }
    }
    assert!(fake.asked().is_empty());
}

#[tokio::test]
async fn an_edit_is_of_the_version_that_was_read_or_named() {
    let fake = Fake::start().await;
    let line = |dry_run: bool| format!("PATCH /api/v1/scopes/acme?dry_run={dry_run}");
    fake.on("GET /api/v1/scopes/acme", &place("acme")).on(&line(false), &place("acme")).on(&line(true), &place("acme"));
    let home = Home::of(&fake);
    let ran = home.run(&["account", "edit", "acme", "--description", "x", "--default-lease"]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    let deed = fake.asked().into_iter().find(|asked| asked.line == line(false)).expect("a change");
    assert_eq!(deed.body, r#"{"description":"x","lease_ms":null}"#);
    assert_eq!(deed.seen.as_deref(), Some("\"7\""));
    assert_eq!(home.run(&["account", "edit", "acme", "--lease", "30s", "--version", "3", "--dry-run"]).await.code, 0);
    let tried = fake.asked().into_iter().find(|asked| asked.line == line(true)).expect("a preview");
    assert_eq!((tried.seen.as_deref(), &tried.body[..]), (Some("\"3\""), &br#"{"lease_ms":30000}"#[..]));
    assert_eq!(home.run(&["account", "edit", "acme"]).await.code, i32::from(exit_codes::USAGE));

    // What erases something asks first.
    let asked = fake.asked().len();
    let ran = home.run(&["account", "edit", "acme", "--reveal", "never", "--version", "3"]).await;
    assert_eq!(ran.code, i32::from(exit_codes::NOT_CONFIRMED), "{ran:?}");
    assert_eq!(fake.asked().len(), asked);
    for (policy, yes) in [("never", "--yes"), ("audited", "--version=7")] {
        assert_eq!(home.run(&["account", "edit", "acme", "--reveal", policy, yes]).await.code, 0);
        let deed = fake.asked().pop().expect("a change");
        assert_eq!(deed.body, format!(r#"{{"reveal":"{policy}"}}"#));
    }
}

#[tokio::test]
async fn rm_asks_and_says_what_is_in_the_way() {
    let fake = Fake::start().await;
    let line = |dry_run: bool| format!("DELETE /api/v1/scopes/acme.eng?dry_run={dry_run}");
    let deleted = DeletedScope { scope: place("acme/eng") };
    fake.on(&line(true), &deleted).on(&line(false), &deleted);
    fake.refuse("DELETE /api/v1/scopes/acme?dry_run=true", Code::ScopeNotEmpty);
    let home = Home::of(&fake);
    assert_eq!(home.run(&["org", "rm", "acme/eng"]).await.code, i32::from(exit_codes::NOT_CONFIRMED));
    assert!(home.run(&["org", "rm", "acme/eng", "--dry-run"]).await.err.contains("would delete organization acme/eng"));
    assert!(fake.asked().iter().all(|asked| asked.line != line(false)));
    assert_eq!(home.run(&["org", "rm", "acme/eng", "--yes", "-o", "name"]).await.out, "acme/eng\n");
    let full = home.run(&["account", "rm", "acme", "--yes"]).await;
    assert_eq!(full.code, i32::from(exit_codes::REFUSED), "{full:?}");
    assert!(full.err.contains("fix: delete what is in it first"), "{full:?}");
}
