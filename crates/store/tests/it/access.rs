//! Principals, roles, grants and API keys, and what they come to together.

use legation_model::{
    Scope, Within,
    access::{Permission, Permissions, PrincipalKind},
    ids::PrincipalId,
};
use legation_store::{
    Page, Store, StoreError, api_keys,
    grants::{self, Grant, GrantFilter},
    principals::{self, BREAK_GLASS, Principal, PrincipalFilter},
    roles::{self, CustomRole},
    standing::{self, Credential, CredentialId::Key},
};
use sqlx::{AssertSqlSafe, Executor as _};

use crate::{
    make::{self, NOW, id, name, scope},
    place::{Place, read, write},
};

fn principal(number: u64, kind: PrincipalKind, place: Option<&str>, called: &str) -> Principal {
    Principal {
        id: id(number),
        kind,
        scope: place.map(scope),
        name: name(called),
        description: "for tests".parse().unwrap(),
        disabled_at: None,
        created_at: NOW + number as i64,
        created_by: "someone".to_owned(),
    }
}

fn grant(number: u64, principal: PrincipalId, role: &str, place: Option<&str>) -> Grant {
    let created_by = "someone".to_owned();
    Grant { id: id(number), principal, role: name(role), scope: place.map(scope), created_at: NOW, created_by }
}

async fn add(store: &Store, principal: Principal) -> Result<(), StoreError> {
    write!(store, |tx| principals::insert(tx, &principal).await)
}

async fn give(store: &Store, grant: Grant) -> Result<(), StoreError> {
    write!(store, |tx| grants::insert(tx, &grant).await)
}

fn below(scopes: &[&str]) -> Within {
    Within::below(scopes.iter().map(|text| scope(text)))
}

pub(crate) async fn principals(place: &Place) {
    use PrincipalKind::{ServiceAccount, User};
    let store = place.open().await;
    let alice = principal(1, User, None, "Alice");
    let deployer = principal(2, ServiceAccount, Some("acme/shop"), "deployer");
    for one in [&alice, &deployer] {
        add(&store, one.clone()).await.unwrap();
        let id = one.id;
        assert_eq!(read!(store, |conn| principals::get(conn, id).await), Ok(Some(one.clone())));
    }
    // A user's name is one everywhere, however it is written; a service account's is one in its scope.
    assert_eq!(add(&store, principal(3, User, Some("acme"), "alice")).await, Err(StoreError::Taken));
    assert_eq!(add(&store, principal(3, ServiceAccount, Some("acme/shop"), "Deployer")).await, Err(StoreError::Taken));
    assert_eq!(add(&store, principal(3, ServiceAccount, Some("acme"), "deployer")).await, Ok(()));
    assert_eq!(add(&store, principal(4, ServiceAccount, None, "alice")).await, Ok(()));

    let list = async |within: Within, kind: Option<PrincipalKind>| {
        let (filter, page) = (PrincipalFilter { kind, name: None }, Page::first(10));
        let found = read!(store, |conn| principals::list(conn, &within, &filter, &page).await).unwrap();
        found.items.iter().map(|principal| principal.id).collect::<Vec<_>>()
    };
    assert_eq!(list(Within::Everywhere, None).await, [BREAK_GLASS, id(1), id(2), id(3), id(4)]);
    assert_eq!(list(Within::Everywhere, Some(User)).await, [id(1)]);
    assert_eq!(list(below(&["acme"]), None).await, [id(2), id(3)], "one of no scope is only seen from everywhere");

    write!(store, |tx| principals::set_disabled(tx, id(1), Some(NOW)).await).unwrap();
    let found = read!(store, |conn| principals::get(conn, id(1)).await).unwrap().unwrap();
    assert_eq!(found.disabled_at, Some(NOW));
    give(&store, grant(1, id(2), "viewer", None)).await.unwrap();
    let key = make::api_key(1, id(2));
    write!(store, |tx| api_keys::insert(tx, &key).await).unwrap();
    write!(store, |tx| principals::delete(tx, id(2)).await).unwrap();
    assert_eq!(read!(store, |conn| principals::get(conn, id(2)).await), Ok(None));
    assert_eq!(read!(store, |conn| api_keys::get(conn, id(1)).await), Ok(None));
    assert_eq!(read!(store, |conn| grants::of(conn, id(2)).await), Ok(vec![]));
    assert_eq!(write!(store, |tx| principals::delete(tx, id(2)).await), Err(StoreError::NotFound));
}

pub(crate) async fn roles(place: &Place) {
    let store = place.open().await;
    let role = CustomRole {
        name: name("revoker"),
        description: "may stop".parse().unwrap(),
        permissions: Permissions::of(&[Permission::DelegateEdit, Permission::DelegateView]),
        created_at: NOW,
        created_by: "someone".to_owned(),
    };
    let insert = async |role: CustomRole| write!(store, |tx| roles::insert(tx, &role).await);
    assert_eq!(insert(role.clone()).await, Ok(()));
    assert_eq!(insert(CustomRole { name: name("Revoker"), ..role.clone() }).await, Err(StoreError::Taken));
    assert_eq!(read!(store, |conn| roles::get(conn, &name("revoker")).await), Ok(Some(role.clone())));
    let less = Permissions::of(&[Permission::DelegateView]);
    write!(store, |tx| roles::update(tx, &name("revoker"), &"looks".parse().unwrap(), less).await).unwrap();
    let page = Page::first(10);
    let all = read!(store, |conn| roles::list(conn, &page).await).unwrap().items;
    assert_eq!(all, [CustomRole { permissions: less, description: "looks".parse().unwrap(), ..role }]);
    write!(store, |tx| roles::delete(tx, &name("revoker")).await).unwrap();
    assert_eq!(read!(store, |conn| roles::get(conn, &name("revoker")).await), Ok(None));
    assert_eq!(write!(store, |tx| roles::delete(tx, &name("revoker")).await), Err(StoreError::NotFound));
}

pub(crate) async fn grants(place: &Place) {
    let store = place.open().await;
    for number in 1..=2 {
        let one = principal(number, PrincipalKind::ServiceAccount, Some("acme"), &format!("p{number}"));
        add(&store, one).await.unwrap();
    }
    assert_eq!(give(&store, grant(1, id(1), "admin", None)).await, Ok(()));
    assert_eq!(give(&store, grant(2, id(1), "admin", None)).await, Err(StoreError::Taken), "twice the same");
    assert_eq!(give(&store, grant(2, id(1), "admin", Some("acme/x"))).await, Ok(()));
    assert_eq!(give(&store, grant(3, id(2), "viewer", Some("beta"))).await, Ok(()));
    assert_eq!(give(&store, grant(4, id(9), "viewer", None)).await, Err(StoreError::NotFound), "of nobody");
    assert_eq!(read!(store, |conn| grants::get(conn, id(3)).await), Ok(Some(grant(3, id(2), "viewer", Some("beta")))));
    assert_eq!(read!(store, |conn| grants::of(conn, id(1)).await).unwrap().len(), 2);
    assert_eq!(read!(store, |conn| grants::uses(conn, &name("admin")).await), Ok(3));
    let list = async |within: Within, filter: GrantFilter| {
        let page = Page::first(10);
        let found = read!(store, |conn| grants::list(conn, &within, &filter, &page).await).unwrap();
        found.items.iter().map(|grant| grant.id).collect::<Vec<_>>()
    };
    assert_eq!(list(Within::Everywhere, GrantFilter::default()).await, [id(0), id(1), id(2), id(3)]);
    assert_eq!(list(below(&["acme", "beta"]), GrantFilter::default()).await, [id(2), id(3)]);
    let admins = GrantFilter { role: Some(name("admin")), principal: Some(id(1)) };
    assert_eq!(list(Within::Everywhere, admins).await, [id(1), id(2)]);

    let admins = async || read!(store, |conn| grants::admins(conn).await).unwrap();
    assert_eq!(admins().await, [(id(1), id(1))], "everywhere, enabled, and not the one on the host");
    write!(store, |tx| principals::set_disabled(tx, id(1), Some(NOW)).await).unwrap();
    assert_eq!(admins().await, []);
    write!(store, |tx| grants::delete(tx, id(1)).await).unwrap();
    assert_eq!(write!(store, |tx| grants::delete(tx, id(1)).await), Err(StoreError::NotFound));
}

pub(crate) async fn api_keys(place: &Place) {
    let store = place.open().await;
    add(&store, principal(1, PrincipalKind::ServiceAccount, Some("acme"), "deployer")).await.unwrap();
    let mut key = make::api_key(1, id(1));
    key.scope = Some(scope("acme/shop"));
    key.expires_at = Some(NOW + 1000);
    for key in [key.clone(), make::api_key(2, BREAK_GLASS)] {
        write!(store, |tx| api_keys::insert(tx, &key).await).unwrap();
    }
    assert_eq!(read!(store, |conn| api_keys::get(conn, id(1)).await), Ok(Some(key.clone())));
    write!(store, |tx| standing::touch_used(tx, &[(Key(id(1)), NOW + 5), (Key(id(9)), NOW)]).await).unwrap();
    write!(store, |tx| standing::touch_used(tx, &[(Key(id(1)), NOW)]).await).unwrap();
    key.last_used_at = Some(NOW + 5);
    let list = async |within: Within, owner: Option<PrincipalId>| {
        let page = Page::first(10);
        read!(store, |conn| api_keys::list(conn, &within, owner, &page).await).unwrap().items
    };
    assert_eq!(list(below(&["acme"]), None).await, [key.clone()], "those of owners within");
    assert_eq!(list(below(&["acme/shop"]), None).await, [], "where a key counts is not where it belongs");
    assert_eq!(list(Within::Everywhere, Some(id(1))).await, [key]);
    assert_eq!(list(Within::Everywhere, None).await.len(), 2);
    assert_eq!(read!(store, |conn| api_keys::count(conn, id(1)).await), Ok(1));
    write!(store, |tx| api_keys::delete(tx, id(1)).await).unwrap();
    assert_eq!(write!(store, |tx| api_keys::delete(tx, id(1)).await), Err(StoreError::NotFound));
    assert_eq!(read!(store, |conn| api_keys::get(conn, id(1)).await), Ok(None));
}

pub(crate) async fn a_standing_is_what_the_owner_holds(place: &Place) {
    let store = place.open().await;
    add(&store, principal(1, PrincipalKind::User, None, "alice")).await.unwrap();
    let role = CustomRole {
        name: name("revoker"),
        description: Default::default(),
        permissions: Permissions::of(&[Permission::DelegateEdit]),
        created_at: NOW,
        created_by: String::new(),
    };
    write!(store, |tx| roles::insert(tx, &role).await).unwrap();
    let narrow = api_keys::ApiKey { scope: Some(scope("acme")), ..make::api_key(2, id(1)) };
    for key in [make::api_key(1, id(1)), narrow] {
        write!(store, |tx| api_keys::insert(tx, &key).await).unwrap();
    }
    let standing = async |key: u64| read!(store, |conn| standing::standing(conn, Key(id(key))).await).unwrap();
    let nothing = standing(1).await.unwrap();
    assert!(nothing.grants.is_empty() && !nothing.held.holds_somewhere(Permission::AccountView));
    give(&store, grant(1, id(1), "viewer", None)).await.unwrap();
    give(&store, grant(2, id(1), "revoker", Some("acme/shop"))).await.unwrap();
    give(&store, grant(3, id(1), "gone", None)).await.unwrap();
    let holds = |standing: &standing::Standing, permission, place: Option<&str>| {
        standing.held.holds(permission, place.map(scope).as_ref())
    };
    let (whole, narrow) = (standing(1).await.unwrap(), standing(2).await.unwrap());
    assert_eq!((whole.kind, whole.owner_name.as_str(), whole.grants.len()), (PrincipalKind::User, "alice", 3));
    assert!(holds(&whole, Permission::TaskView, None) && holds(&narrow, Permission::TaskView, Some("acme")));
    assert!(!holds(&narrow, Permission::TaskView, None) && !holds(&narrow, Permission::TaskView, Some("beta")));
    for one in [&whole, &narrow] {
        assert!(holds(one, Permission::DelegateEdit, Some("acme/shop/web")));
        assert!(!holds(one, Permission::DelegateEdit, Some("acme")));
    }
    write!(store, |tx| principals::set_disabled(tx, id(1), Some(NOW)).await).unwrap();
    assert_eq!(standing(1).await, None);
    write!(store, |tx| principals::set_disabled(tx, id(1), None).await).unwrap();
    assert!(standing(1).await.is_some());
}

/// A key that was made before keys had owners goes on with what it could do.
pub(crate) async fn keys_of_before_get_owners(place: &Place) {
    let first = include_str!("../../migrations/0001_first.sql");
    let text = if place.is_postgres() {
        first.replace(" TEXT", " TEXT COLLATE \"C\"")
    } else {
        first.replace(" BYTEA", " BLOB")
    };
    let bytes = if place.is_postgres() { "'a'::BYTEA" } else { "X'61'" };
    if let Some(path) = place.url.strip_prefix("sqlite://") {
        std::fs::File::create(path).unwrap();
    }
    let mut other = place.behind().await;
    let sum = sha256(first);
    let old = format!(
        "{text}; CREATE TABLE migrations (number BIGINT PRIMARY KEY, name TEXT NOT NULL, checksum TEXT NOT NULL); \
         INSERT INTO migrations VALUES (1, 'first', '{sum}'); \
         INSERT INTO api_keys (id, name, hash, role, scope, created_at, expires_at) VALUES \
         ('{}', 'ci', {bytes}, 'operator', 'acme', 5, NULL), ('{}', 'ci', {bytes}, 'admin', NULL, 6, 77);",
        id::<legation_model::ids::ApiKeyId>(1),
        id::<legation_model::ids::ApiKeyId>(2),
    );
    other.execute(sqlx::raw_sql(AssertSqlSafe(old))).await.unwrap();
    drop(other);
    let store = place.open().await;
    let standing = async |key: u64| read!(store, |conn| standing::standing(conn, Key(id(key))).await).unwrap().unwrap();
    let expiry = |credential: &Credential| match credential {
        Credential::Key(key) => key.expires_at,
        Credential::Login(_) => panic!("a session"),
    };
    let (scoped, admin) = (standing(1).await, standing(2).await);
    let acme: Scope = scope("acme");
    assert!(scoped.held.holds(Permission::DelegateEdit, Some(&acme)) && !scoped.held.holds(Permission::TaskView, None));
    assert!(!scoped.held.holds(Permission::AccessEdit, Some(&acme)));
    assert!(admin.held.holds(Permission::AccessEdit, None));
    assert_eq!((expiry(&admin.credential), scoped.owner()), (Some(77), id(1)));
    let owner = read!(store, |conn| principals::get(conn, id(1)).await).unwrap().unwrap();
    assert_eq!((owner.scope, owner.kind), (Some(acme), PrincipalKind::ServiceAccount));
    assert!(owner.name.as_str().starts_with("ci-"), "{}", owner.name);
}

fn sha256(text: &str) -> String {
    use sha2::{Digest as _, Sha256};
    Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}
