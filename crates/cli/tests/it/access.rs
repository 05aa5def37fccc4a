//! Users, service accounts, roles, grants and API keys.

use insta::assert_snapshot;
use legation_api::{
    api_keys::{ApiKey, IssuedApiKey, RevokedApiKey},
    grants::{DeletedGrant, Grant},
    principals::{ChangedPrincipal, Principal},
    roles::Role,
    whoami::{Granted, Whoami},
};
use legation_cli::exit_codes;
use legation_model::{
    access::PrincipalKind,
    ids::{ApiKeyId, GrantId, PrincipalId},
    secret::SecretText,
};
use serde_json::{Value, json};

use crate::{
    fake::Fake,
    nouns::{AT, list},
    run::{Home, Ran},
};

const PRINCIPAL: PrincipalId = PrincipalId([7; 16]);
const OTHER: PrincipalId = PrincipalId([8; 16]);
const GRANT: GrantId = GrantId([7; 16]);
const KEY: ApiKeyId = ApiKeyId([7; 16]);

fn principal(id: PrincipalId, kind: PrincipalKind, scope: Option<&str>) -> Principal {
    Principal {
        id,
        kind,
        scope: scope.map(|scope| scope.parse().expect("a scope")),
        name: "deployer".parse().expect("a name"),
        description: "deploys".parse().expect("a text"),
        disabled_at: None,
        created_at: AT,
        created_by: "alice".to_owned(),
    }
}

fn deployer() -> Principal {
    principal(PRINCIPAL, PrincipalKind::ServiceAccount, Some("default"))
}

fn grant() -> Grant {
    let scope = Some("default/shop".parse().expect("a scope"));
    let role = "operator".parse().expect("a name");
    Grant { id: GRANT, principal: PRINCIPAL, role, scope, created_at: AT, created_by: "alice".to_owned() }
}

fn key() -> ApiKey {
    ApiKey {
        id: KEY,
        owner: PRINCIPAL,
        name: "ci".parse().expect("a name"),
        scope: None,
        created_at: AT,
        created_by: "alice".to_owned(),
        expires_at: Some(AT + 1000),
        last_used_at: None,
    }
}

fn role() -> Role {
    Role {
        name: "revoker".parse().expect("a name"),
        built_in: false,
        description: "stops delegates".to_owned(),
        permissions: vec!["core_delegate_view".to_owned(), "core_delegate_edit".to_owned()],
        created_at: Some(AT),
        created_by: Some("alice".to_owned()),
    }
}

async fn run(fake: &Fake, arguments: &str) -> Ran {
    Home::of(fake).run(&arguments.split(' ').collect::<Vec<_>>()).await
}

async fn shown(fake: &Fake, arguments: &str) -> String {
    let ran = run(fake, arguments).await;
    assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{ran:?}");
    ran.out
}

fn last_body(fake: &Fake) -> Value {
    serde_json::from_slice(&fake.asked().last().expect("a request").body).expect("JSON")
}

#[tokio::test]
async fn lists_in_columns_and_one_of_each() {
    let fake = Fake::start().await;
    fake.on("GET /api/v1/principals?kind=service_account&limit=500", &list(vec![deployer()]))
        .on(&format!("GET /api/v1/principals/{PRINCIPAL}"), &deployer())
        .on("GET /api/v1/grants?limit=500", &list(vec![grant(), Grant { scope: None, ..grant() }]))
        .on(&format!("GET /api/v1/grants/{GRANT}"), &grant())
        .on("GET /api/v1/roles?limit=500", &list(vec![role()]))
        .on("GET /api/v1/roles/revoker", &role())
        .on("GET /api/v1/api-keys?limit=500", &list(vec![key()]))
        .on(&format!("GET /api/v1/api-keys/{KEY}"), &key());
    let mut all = String::new();
    for arguments in [
        "service-account ls".to_owned(),
        format!("service-account show {PRINCIPAL}"),
        "grant ls".to_owned(),
        format!("grant show {GRANT}"),
        "role ls".to_owned(),
        "role show revoker".to_owned(),
        "api-key ls".to_owned(),
        format!("api-key show {KEY}"),
        "grant ls -o name".to_owned(),
    ] {
        all += &format!("$ legation {arguments}\n{}\n", shown(&fake, &arguments).await);
    }
    assert_snapshot!("access_nouns", all);
    let json = shown(&fake, "role show revoker -o json").await;
    assert_eq!(serde_json::from_str::<Role>(&json).expect("JSON"), role());
}

#[tokio::test]
async fn a_name_stands_for_one_principal_or_for_none() {
    let fake = Fake::start().await;
    let line = "GET /api/v1/principals?name=deployer";
    fake.on(line, &list(vec![deployer(), principal(OTHER, PrincipalKind::User, None)]));
    fake.on("GET /api/v1/principals?name=nobody", &list(Vec::<Principal>::new()));
    let ran = run(&fake, "grant create deployer operator --everywhere").await;
    assert_eq!(ran.code, i32::from(exit_codes::USAGE), "{ran:?}");
    assert!(ran.err.contains(&PRINCIPAL.to_string()) && ran.err.contains(&OTHER.to_string()), "{}", ran.err);
    assert_eq!(run(&fake, "grant create nobody operator --everywhere").await.code, i32::from(exit_codes::NOT_FOUND));
    // An id of the other kind is not what was meant.
    fake.on(&format!("GET /api/v1/principals/{OTHER}"), &principal(OTHER, PrincipalKind::User, None));
    let ran = run(&fake, &format!("service-account rm --yes {OTHER}")).await;
    assert_eq!(ran.code, i32::from(exit_codes::USAGE), "{ran:?}");
    assert!(ran.err.contains("legation user"), "{}", ran.err);
    assert!(fake.asked().iter().all(|asked| asked.line.starts_with("GET ")), "something was done");
}

#[tokio::test]
async fn a_grant_says_where_it_counts() {
    let fake = Fake::start().await;
    fake.on("GET /api/v1/principals?name=deployer", &list(vec![deployer()])).on("POST /api/v1/grants", &grant());
    for arguments in ["grant create deployer operator", "grant create deployer operator --scope a --everywhere"] {
        assert_eq!(run(&fake, arguments).await.code, i32::from(exit_codes::USAGE), "{arguments}");
    }
    assert!(fake.asked().is_empty());
    shown(&fake, "grant create deployer operator --everywhere").await;
    assert_eq!(last_body(&fake), json!({"principal": PRINCIPAL, "role": "operator", "scope": null}));
    shown(&fake, "grant create deployer operator --scope default/shop").await;
    assert_eq!(last_body(&fake)["scope"], "default/shop");
}

#[tokio::test]
async fn a_keys_value_is_on_standard_output_alone() {
    let fake = Fake::start().await;
    let value = Some(SecretText::new("lak_value".to_owned()));
    fake.on("GET /api/v1/principals?name=deployer", &list(vec![deployer()]))
        .on("POST /api/v1/api-keys", &IssuedApiKey { key: key(), value, code: None });
    let ran = run(&fake, "api-key create deployer ci --scope default").await;
    assert_eq!((ran.code, ran.out.as_str()), (0, "lak_value\n"));
    assert!(ran.err.contains("only this once") && !ran.err.contains("lak_value"), "{}", ran.err);
    assert_eq!(last_body(&fake), json!({"owner": PRINCIPAL, "name": "ci", "scope": "default", "expires_at": null}));
}

#[tokio::test]
async fn what_can_hurt_is_shown_first_and_done_only_when_asked() {
    let fake = Fake::start().await;
    let changed = ChangedPrincipal { principal: deployer(), grants: vec![grant()], api_keys: 2, sessions: 1 };
    let principal = format!("/api/v1/principals/{PRINCIPAL}");
    fake.on(&format!("GET {principal}"), &deployer())
        .on(&format!("POST {principal}/disable?dry_run=true"), &changed)
        .on(&format!("POST {principal}/disable?dry_run=false"), &changed)
        .on(&format!("DELETE {principal}?dry_run=true"), &changed)
        .on(&format!("DELETE /api/v1/grants/{GRANT}?dry_run=true"), &DeletedGrant { grant: grant() })
        .on(&format!("DELETE /api/v1/api-keys/{KEY}?dry_run=true"), &RevokedApiKey { key: key() })
        .on("GET /api/v1/roles/revoker", &role());
    for arguments in [
        format!("service-account disable {PRINCIPAL}"),
        format!("service-account rm {PRINCIPAL}"),
        format!("grant rm {GRANT}"),
        format!("api-key revoke {KEY}"),
        "role edit revoker --add core_task_view".to_owned(),
    ] {
        assert_eq!(run(&fake, &arguments).await.code, i32::from(exit_codes::NOT_CONFIRMED), "{arguments}");
        let ran = run(&fake, &format!("{arguments} --dry-run")).await;
        assert!(ran.code == 0 && ran.err.starts_with("would "), "{ran:?}");
    }
    let done = |line: &str| line.ends_with("dry_run=false") || line.starts_with("PUT ");
    assert!(!fake.asked().iter().any(|asked| done(&asked.line)), "something was done");
    let ran = run(&fake, &format!("service-account disable {PRINCIPAL} --yes")).await;
    assert!(ran.code == 0 && fake.asked().iter().any(|asked| done(&asked.line)), "{ran:?}");
}

#[tokio::test]
async fn an_edited_role_keeps_what_was_not_named() {
    let fake = Fake::start().await;
    fake.on("GET /api/v1/roles/revoker", &role()).on("PUT /api/v1/roles/revoker", &role());
    shown(&fake, "role edit revoker --add core_task_view --remove core_delegate_edit --yes").await;
    let expected = json!({"description": "stops delegates", "permissions": ["core_delegate_view", "core_task_view"]});
    assert_eq!(last_body(&fake), expected);
    assert_eq!(run(&fake, "role edit revoker --add core_everything --yes").await.code, i32::from(exit_codes::USAGE));
}

#[tokio::test]
async fn whoami_shows_the_grants() {
    let fake = Fake::start().await;
    let granted = |role: &str, scope: Option<&str>| Granted {
        role: role.parse().expect("a name"),
        scope: scope.map(|scope| scope.parse().expect("a scope")),
        permissions: vec!["core_task_view".to_owned()],
    };
    let whoami = Whoami {
        principal: PRINCIPAL,
        kind: PrincipalKind::ServiceAccount,
        name: "deployer".parse().expect("a name"),
        key: Some(KEY),
        key_name: "ci".parse().ok(),
        session: None,
        authenticated_at: None,
        key_scope: None,
        grants: vec![granted("viewer", None), granted("looker", Some("default"))],
        expires_at: None,
        manager_version: "0.1.0".to_owned(),
    };
    fake.on("GET /api/v1/whoami", &whoami);
    assert_snapshot!("whoami", shown(&fake, "whoami").await);
}
