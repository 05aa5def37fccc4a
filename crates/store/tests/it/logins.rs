//! Console sessions and passwords.

use legation_model::{
    Millis, Within,
    access::{Permission, PrincipalKind},
    ids::{LoginId, PrincipalId},
    login::LoginMethod,
};
use legation_store::{
    Page, StoreError,
    grants::{self, Grant},
    identities::{self, Identity},
    logins::{self, Login, LoginFilter},
    passwords,
    principals::{self, Principal},
    standing::{self, CredentialId},
};

use crate::{
    make::{NOW, id, name, scope},
    place::{Place, read, write},
};

const HOUR: Millis = 60 * 60 * 1000;

fn user(number: u64, place: Option<&str>) -> Principal {
    Principal {
        id: id(number),
        kind: PrincipalKind::User,
        scope: place.map(scope),
        name: name(&format!("User{number}")),
        description: Default::default(),
        disabled_at: None,
        created_at: NOW,
        created_by: "someone".to_owned(),
    }
}

fn login(number: u64, owner: PrincipalId) -> Login {
    Login {
        id: id(number),
        owner,
        method: LoginMethod::Password,
        hash: vec![number as u8; 32],
        address: "192.0.2.1".to_owned(),
        agent: "a browser".to_owned(),
        created_at: NOW + number as Millis,
        authenticated_at: NOW,
        last_used_at: NOW + number as Millis,
        expires_at: NOW + HOUR,
    }
}

pub(crate) async fn sessions(place: &Place) {
    let store = place.open().await;
    for principal in [user(1, None), user(2, Some("acme"))] {
        write!(store, |tx| principals::insert(tx, &principal).await).unwrap();
    }
    for (number, owner) in [(1, id(1)), (2, id(1)), (3, id(2)), (4, id(2))] {
        write!(store, |tx| logins::insert(tx, &login(number, owner)).await).unwrap();
    }
    let found = read!(store, |conn| logins::get(conn, id(3)).await).unwrap().unwrap();
    assert_eq!((found.login, found.owner_name, found.scope), (login(3, id(2)), name("User2"), Some(scope("acme"))));
    let list = async |within: Within, filter: LoginFilter| {
        let page = Page::first(10);
        let found = read!(store, |conn| logins::list(conn, &within, &filter, &page).await).unwrap();
        found.items.iter().map(|owned| owned.login.id).collect::<Vec<LoginId>>()
    };
    let all = LoginFilter { owner: None, own: id(9), now: NOW, used_after: NOW };
    assert_eq!(list(Within::Everywhere, all.clone()).await, [id(1), id(2), id(3), id(4)]);
    assert_eq!(list(Within::below([scope("acme")]), all.clone()).await, [id(3), id(4)], "those of owners within");
    let own = LoginFilter { own: id(1), ..all.clone() };
    assert_eq!(list(Within::below([]), own.clone()).await, [id(1), id(2)], "one's own, wherever one belongs");
    assert_eq!(list(Within::below([scope("acme")]), own).await.len(), 4);
    assert_eq!(list(Within::Everywhere, LoginFilter { owner: Some(id(2)), ..all.clone() }).await, [id(3), id(4)]);
    assert_eq!(list(Within::Everywhere, LoginFilter { used_after: NOW + 2, ..all.clone() }).await, [id(3), id(4)]);
    assert_eq!(list(Within::Everywhere, LoginFilter { now: NOW + HOUR, ..all.clone() }).await, []);

    write!(store, |tx| logins::set_authenticated(tx, id(1), NOW + 9).await).unwrap();
    assert_eq!(read!(store, |conn| logins::get(conn, id(1)).await).unwrap().unwrap().login.authenticated_at, NOW + 9);
    write!(store, |tx| standing::touch_used(tx, &[(CredentialId::Login(id(1)), NOW + 50)]).await).unwrap();
    write!(store, |tx| logins::delete_surplus(tx, &login(1, id(1)), 1).await).unwrap();
    assert_eq!(
        list(Within::Everywhere, all.clone()).await,
        [id(1), id(3), id(4)],
        "the one that was used last is left"
    );
    assert_eq!(write!(store, |tx| logins::delete_others(tx, id(2), Some(id(4))).await), Ok(1));
    assert_eq!(read!(store, |conn| logins::count(conn, id(2)).await), Ok(1));
    write!(store, |tx| logins::forget(tx, NOW, NOW + 4).await).unwrap();
    assert_eq!(list(Within::Everywhere, all.clone()).await, [id(1)]);
    write!(store, |tx| logins::forget(tx, NOW + HOUR, NOW).await).unwrap();
    assert_eq!(list(Within::Everywhere, all).await, []);
    assert_eq!(write!(store, |tx| logins::delete(tx, id(1)).await), Err(StoreError::NotFound));
}

pub(crate) async fn a_standing_of_a_session(place: &Place) {
    let store = place.open().await;
    write!(store, |tx| principals::insert(tx, &user(1, None)).await).unwrap();
    write!(store, |tx| logins::insert(tx, &login(1, id(1))).await).unwrap();
    let standing = async || read!(store, |conn| standing::standing(conn, CredentialId::Login(id(1))).await).unwrap();
    assert!(standing().await.unwrap().grants.is_empty());
    let given = Grant {
        id: id(1),
        principal: id(1),
        role: name("operator"),
        scope: Some(scope("acme")),
        created_at: NOW,
        created_by: String::new(),
    };
    write!(store, |tx| grants::insert(tx, &given).await).unwrap();
    let found = standing().await.unwrap();
    assert_eq!((found.owner(), found.credential.login()), (id(1), Some(&login(1, id(1)))));
    assert!(found.held.holds(Permission::TaskRun, Some(&scope("acme/shop"))));
    assert!(!found.held.holds(Permission::TaskView, None));
    write!(store, |tx| principals::set_disabled(tx, id(1), Some(NOW)).await).unwrap();
    assert_eq!(standing().await, None);
    write!(store, |tx| principals::delete(tx, id(1)).await).unwrap();
    assert_eq!(read!(store, |conn| logins::get(conn, id(1)).await), Ok(None), "a session outlived its owner");
}

pub(crate) async fn identities(place: &Place) {
    let store = place.open().await;
    for number in [1, 2] {
        write!(store, |tx| principals::insert(tx, &user(number, None)).await).unwrap();
    }
    let alice = Identity { issuer: "https://id.example.com".to_owned(), subject: "a".to_owned() };
    let other = Identity { issuer: "https://id.example.org".to_owned(), ..alice.clone() };
    let find = async |identity: &Identity| {
        let identity = identity.clone();
        read!(store, |conn| identities::find(conn, &identity).await).unwrap()
    };
    let bind = async |identity: &Identity, principal: PrincipalId| {
        let identity = identity.clone();
        write!(store, |tx| identities::insert(tx, &identity, principal, NOW).await)
    };
    assert_eq!(find(&alice).await, None);
    bind(&alice, id(1)).await.unwrap();
    assert_eq!((find(&alice).await, find(&other).await), (Some(id(1)), None), "the same subject of another issuer");
    assert_eq!(bind(&alice, id(2)).await, Err(StoreError::Taken), "one person is one user");
    assert_eq!(bind(&other, id(1)).await, Err(StoreError::Taken), "one user is one person");
    assert_eq!(read!(store, |conn| identities::of(conn, id(1)).await), Ok(Some(alice.clone())));
    assert_eq!(read!(store, |conn| identities::of(conn, id(2)).await), Ok(None));

    let given = |number: u64, role: &str| Grant {
        id: id(number),
        principal: id(1),
        role: name(role),
        scope: None,
        created_at: NOW,
        created_by: String::new(),
    };
    write!(store, |tx| grants::insert(tx, &given(1, "viewer")).await).unwrap();
    write!(store, |tx| grants::insert_mapped(tx, &given(2, "operator")).await).unwrap();
    assert_eq!(read!(store, |conn| grants::mapped(conn, id(1)).await), Ok(vec![given(2, "operator")]));
    assert_eq!(read!(store, |conn| grants::of(conn, id(1)).await).unwrap().len(), 2);
    write!(store, |tx| principals::delete(tx, id(1)).await).unwrap();
    assert_eq!(find(&alice).await, None, "an identity outlived its user");
}

pub(crate) async fn passwords(place: &Place) {
    let store = place.open().await;
    write!(store, |tx| principals::insert(tx, &user(1, None)).await).unwrap();
    let find = async |called: &str| {
        let called = name(called);
        read!(store, |conn| principals::user(conn, &called).await).unwrap().map(|user| user.id)
    };
    assert_eq!((find("user1").await, find("User2").await), (Some(id(1)), None));
    assert_eq!(read!(store, |conn| passwords::get(conn, id(1)).await), Ok(None));
    for hash in [b"first", b"other"] {
        write!(store, |tx| passwords::set(tx, id(1), hash, NOW, "someone").await).unwrap();
        assert_eq!(read!(store, |conn| passwords::get(conn, id(1)).await), Ok(Some(hash.to_vec())));
    }
    write!(store, |tx| principals::delete(tx, id(1)).await).unwrap();
    assert_eq!(read!(store, |conn| passwords::get(conn, id(1)).await), Ok(None));
}
