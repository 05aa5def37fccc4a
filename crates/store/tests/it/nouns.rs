//! The nouns that stand still: what goes in comes out, and the rules that rows enforce.

use std::collections::BTreeSet;

use legation_model::{
    Millis, Within,
    audit::{self as audit_model, AuditRecord, Outcome},
    delegate::{CloneReport, DelegateStatus, Standing},
    ids::{DelegateId, TokenId},
    receipt::{Cause, Receipt, ReceiptLine},
    scope::{ScopeKind, WITHIN_MAX},
    token::{Schedule, TokenStatus},
    token_use::TokenUse,
};
use legation_store::{
    Page, Store, StoreError,
    audit::{self, AuditFilter},
    clones,
    delegates::{self, DelegateFilter},
    idempotency::{self, Answered},
    job, keys, receipts,
    scopes::{self, Contents},
    token_uses,
    tokens::{self, TokenFilter},
};

use crate::{
    make::{self, NOW, id, name, scope},
    place::{Place, read, write},
};

/// A store with one token, active.
pub(crate) async fn with_token(place: &Place) -> (Store, TokenId) {
    let store = place.open().await;
    let token = make::token(1);
    let token_id = token.id;
    write!(store, |tx| {
        tokens::insert(tx, &token).await?;
        tokens::issue(tx, token_id, 1, b"sealed", id(5), NOW).await
    })
    .unwrap();
    (store, token_id)
}

fn place(spelling: &str) -> scopes::Place {
    scopes::Place {
        scope: scope(spelling),
        description: "a place".parse().unwrap(),
        lease: None,
        version: 1,
        created_at: NOW,
        created_by: "someone".to_owned(),
    }
}

pub(crate) async fn scopes(place: &Place) {
    let store = place.open().await;
    for spelling in ["acme", "acme/shop", "acme-2", "beta"] {
        let new = self::place(spelling);
        let same = new.clone();
        write!(store, |tx| scopes::insert(tx, &new).await).unwrap();
        let wanted = same.scope.clone();
        let found = read!(store, |conn| scopes::get(conn, &wanted).await).unwrap();
        assert_eq!(found.as_ref(), Some(&same));
        assert_eq!(write!(store, |tx| scopes::insert(tx, &same).await), Err(StoreError::Taken));
    }
    let list = async |within: Within, kind: Option<ScopeKind>| {
        let page = Page::first(10);
        let paged = read!(store, |conn| scopes::list(conn, &within, kind, &page).await).unwrap();
        paged.items.iter().map(|place| place.scope.to_string()).collect::<Vec<_>>()
    };
    let below = |scopes: &[&str]| Within::below(scopes.iter().map(|text| scope(text)));
    let all = ["acme", "acme/shop", "acme-2", "beta"];
    assert_eq!(list(Within::Everywhere, None).await, all, "the order of the tree");
    assert_eq!(list(below(&["acme"]), None).await, ["acme", "acme/shop"]);
    assert_eq!(list(below(&["acme/shop"]), None).await, ["acme/shop"]);
    assert_eq!(list(Within::Everywhere, Some(ScopeKind::Account)).await, ["acme", "acme-2", "beta"]);
    assert_eq!(list(below(&["acme"]), Some(ScopeKind::Organization)).await, ["acme/shop"]);
    assert_eq!(list(below(&["beta", "acme/shop", "none"]), None).await, ["acme/shop", "beta"]);
    assert_eq!(list(below(&["acme", "acme/shop", "acme-2"]), None).await, ["acme", "acme/shop", "acme-2"]);
    assert_eq!(list(below(&[]), None).await, Vec::<String>::new());
    let many = (0..WITHIN_MAX - 1).map(|number| scope(&format!("a{number}"))).chain([scope("beta")]);
    assert_eq!(list(Within::below(many), None).await, ["beta"]);
    assert_eq!(read!(store, |conn| scopes::get(conn, &scope("none")).await), Ok(None));
    let asked: BTreeSet<_> = ["acme", "acme/none", "acme/shop", "none"].map(scope).into();
    let known = read!(store, |conn| scopes::known(conn, &asked).await).unwrap();
    assert_eq!(known.into_iter().collect::<Vec<_>>(), ["acme", "acme/shop"].map(scope));

    let change = async |version| {
        let text = "other".parse().unwrap();
        write!(store, |tx| scopes::update(tx, &scope("acme"), version, &text, Some(60_000)).await)
    };
    assert_eq!(change(2).await, Err(StoreError::NotFound), "another version");
    assert_eq!((change(1).await, change(1).await), (Ok(()), Err(StoreError::NotFound)));
    let found = read!(store, |conn| scopes::get(conn, &scope("acme")).await).unwrap().unwrap();
    assert_eq!((found.version, found.lease, found.description.as_str()), (2, Some(60_000), "other"));
    assert_eq!(read!(store, |conn| scopes::leases(conn).await), Ok(vec![(scope("acme"), 60_000)]));
}

pub(crate) async fn scopes_end_for_good(place: &Place) {
    let (store, token) = with_token(place).await;
    for spelling in ["acme", "acme/shop", "acme/shop/a"] {
        let new = self::place(spelling);
        write!(store, |tx| scopes::insert(tx, &new).await).unwrap();
    }
    let contents = async |of: &'static str| read!(store, |conn| scopes::contents(conn, &scope(of)).await).unwrap();
    let shop = contents("acme/shop").await;
    assert_eq!((shop.places, shop.tokens), ((vec![scope("acme/shop/a")], 1), (vec![name("token1")], 1)));
    assert_eq!(contents("acme").await.places, (vec![scope("acme/shop/a"), scope("acme/shop")], 2));
    for number in 10..20 {
        let mut more = make::token(number);
        more.scope = scope("acme/shop/a");
        write!(store, |tx| tokens::insert(tx, &more).await).unwrap();
    }
    assert_eq!(contents("acme/shop/a").await.tokens.1, 10);
    assert_eq!(contents("acme/shop/a").await.tokens.0.len(), 5, "some are named");
    assert_eq!(write!(store, |tx| tokens::bury_unissued(tx, &scope("acme/shop/a"), NOW).await), Ok(10));
    assert_eq!(contents("acme/shop/a").await, Contents::default());
    let found = read!(store, |conn| tokens::get(conn, id(10)).await).unwrap().unwrap();
    assert_eq!(found.status, TokenStatus::Deleted);
    assert_eq!(write!(store, |tx| tokens::bury_unissued(tx, &scope("acme/shop"), NOW).await), Ok(0), "it has a secret");
    let mut default = make::token(30);
    (default.scope, default.name) = (scope("acme/shop/a"), name("default_token"));
    write!(store, |tx| tokens::insert(tx, &default).await).unwrap();
    assert_eq!(contents("acme/shop/a").await, Contents::default(), "an unissued default token is nothing");
    write!(store, |tx| tokens::issue(tx, id(30), 1, b"sealed", id(5), NOW).await).unwrap();
    assert_eq!(contents("acme/shop/a").await.tokens.1, 1, "an issued one is something");

    let delete = async |of: &'static str| write!(store, |tx| scopes::delete(tx, &scope(of), NOW).await);
    assert_eq!((delete("acme/shop/a").await, delete("acme/shop/a").await), (Ok(()), Err(StoreError::NotFound)));
    assert_eq!(read!(store, |conn| scopes::get(conn, &scope("acme/shop/a")).await), Ok(None));
    let again = self::place("acme/shop/a");
    assert_eq!(write!(store, |tx| scopes::insert(tx, &again).await), Err(StoreError::Taken));
    let standing = async |of: &'static str| read!(store, |conn| scopes::standing(conn, &scope(of)).await).unwrap();
    assert_eq!(standing("acme/shop/a").await, scopes::Standing::Deleted);
    assert_eq!((standing("acme").await, standing("acme/b").await), (scopes::Standing::Taken, scopes::Standing::Free));
    let asked: BTreeSet<_> = ["acme/shop", "acme/shop/a"].map(scope).into();
    let known = read!(store, |conn| scopes::known(conn, &asked).await).unwrap();
    assert_eq!(known.into_iter().collect::<Vec<_>>(), [scope("acme/shop")]);
    assert_eq!(read!(store, |conn| tokens::get(conn, token).await).unwrap().unwrap().status, TokenStatus::Active);
}

pub(crate) async fn tokens(place: &Place) {
    let store = place.open().await;
    let token = make::token(1);
    let inserted = token.clone();
    write!(store, |tx| tokens::insert(tx, &inserted).await).unwrap();
    assert_eq!(read!(store, |conn| tokens::get(conn, token.id).await), Ok(Some(token.clone())));
    write!(store, |tx| tokens::issue(tx, id(1), 1, b"sealed", id(5), NOW).await).unwrap();
    let again = write!(store, |tx| tokens::issue(tx, id(1), 2, b"other", id(5), NOW).await);
    assert!(matches!(again, Err(StoreError::Refused(_))), "{again:?}");
    let secrets = read!(store, |conn| tokens::secrets(conn).await).unwrap();
    let [secret] = &secrets[..] else { panic!("{} secrets", secrets.len()) };
    assert_eq!((secret.token, secret.generation, &secret.sealed_psk[..]), (token.id, 1, &b"sealed"[..]));

    write!(store, |tx| tokens::touch_used(tx, &[(id(1), NOW + 5), (id(77), NOW)]).await).unwrap();
    write!(store, |tx| tokens::touch_used(tx, &[(id(1), NOW)]).await).unwrap();
    let found = read!(store, |conn| tokens::get(conn, token.id).await).unwrap().unwrap();
    assert_eq!((found.last_used_at, found.issued_at, found.generation), (Some(NOW + 5), Some(NOW), 1));
    let states = read!(store, |conn| tokens::states(conn).await).unwrap();
    assert_eq!(states, [(token.id, TokenStatus::Active, 2)]);

    let mut changed = make::token(1);
    (changed.name, changed.limits.max_delegates, changed.limits.expires_at) = (name("renamed"), None, Some(NOW + 9));
    let wanted = changed.clone();
    write!(store, |tx| tokens::change(tx, &wanted).await).unwrap();
    let found = read!(store, |conn| tokens::get(conn, token.id).await).unwrap().unwrap();
    assert_eq!((&found.name, &found.limits, found.version), (&changed.name, &changed.limits, 3));
    let mut other = make::token(2);
    write!(store, |tx| tokens::insert(tx, &make::token(2)).await).unwrap();
    other.name = name("renamed");
    assert_eq!(write!(store, |tx| tokens::change(tx, &other).await), Err(StoreError::Taken));
}

pub(crate) async fn token_names_and_tombstones(place: &Place) {
    let (store, first) = with_token(place).await;
    let namesake = move |number| {
        let mut token = make::token(number);
        token.name = name("token1");
        token
    };
    let insert = async |number| write!(store, |tx| tokens::insert(tx, &namesake(number)).await);
    assert_eq!(insert(2).await, Err(StoreError::Taken));
    write!(store, |tx| tokens::revoke(tx, first, Cause::Kill, NOW, "leaked", id(1)).await).unwrap();
    assert_eq!(insert(2).await, Err(StoreError::Taken));
    write!(store, |tx| tokens::delete(tx, first, NOW).await).unwrap();
    assert_eq!(insert(2).await, Ok(()));
    assert_eq!(insert(1).await, Err(StoreError::Taken), "the id of a tombstone was used again");
    let found = read!(store, |conn| tokens::get(conn, first).await).unwrap().unwrap();
    assert_eq!(found.status, TokenStatus::Deleted);
    let secrets = read!(store, |conn| tokens::secrets(conn).await).unwrap();
    assert_eq!(secrets.len(), 1, "its users must still be told the truth");
    let mut elsewhere = namesake(3);
    elsewhere.scope = scope("beta");
    write!(store, |tx| tokens::insert(tx, &elsewhere).await).unwrap();
}

pub(crate) async fn token_life(place: &Place) {
    let (store, token) = with_token(place).await;
    let revoke = async || write!(store, |tx| tokens::revoke(tx, token, Cause::Drained, NOW, "leaked", id(9)).await);
    let drain = async |at: Option<Millis>| {
        let schedule = at.map(|at| Schedule { at, by: "alice".to_owned(), reason: "old".to_owned() });
        write!(store, |tx| tokens::schedule(tx, token, TokenStatus::Draining, schedule.as_ref()).await)
    };
    let delete = async || write!(store, |tx| tokens::delete(tx, token, NOW).await);
    let refused = |outcome| assert!(matches!(outcome, Err(StoreError::Refused(_))), "{outcome:?}");
    refused(delete().await);
    drain(Some(NOW + 7)).await.unwrap();
    drain(Some(NOW + 8)).await.unwrap();
    let found = read!(store, |conn| tokens::get(conn, token).await).unwrap().unwrap();
    let schedule = found.schedule.expect("a schedule");
    assert_eq!((found.status, schedule.at, &*schedule.by), (TokenStatus::Draining, NOW + 8, "alice"));
    refused(write!(store, |tx| tokens::schedule(tx, token, TokenStatus::Active, None).await));
    revoke().await.unwrap();
    refused(revoke().await);
    refused(drain(None).await);
    let found = read!(store, |conn| tokens::get(conn, token).await).unwrap().unwrap();
    assert_eq!(found.revoked_reason.as_deref(), Some("leaked"));
    assert_eq!((found.revoked_at, found.receipt), (Some(NOW), Some(id(9))));
    assert_eq!((found.status, found.revoked_cause), (TokenStatus::Revoked, Some(Cause::Drained)));
    let shown = async |include_revoked| {
        let filter = TokenFilter { include_revoked, ..TokenFilter::default() };
        let page = Page::first(10);
        read!(store, |conn| tokens::list(conn, &Within::Everywhere, &filter, &page).await).unwrap().items.len()
    };
    assert_eq!((shown(false).await, shown(true).await), (0, 1));
    delete().await.unwrap();
    refused(delete().await);
    assert_eq!((shown(false).await, shown(true).await), (0, 0));
    let none = write!(store, |tx| tokens::delete(tx, id(404), NOW).await);
    assert_eq!(none, Err(StoreError::NotFound));
}

pub(crate) async fn token_uses(place: &Place) {
    let (store, token) = with_token(place).await;
    let used = |delegate: u64, address: u32, at: Millis| TokenUse {
        token,
        delegate: id(delegate),
        name: name("one"),
        address: std::net::Ipv4Addr::from(address).into(),
        first_at: NOW + at,
        last_at: NOW + at,
        uses: 1,
    };
    let note = async |noted: Vec<TokenUse>| write!(store, |tx| token_uses::note(tx, &noted).await);
    let list = async |limit, after| {
        let page = Page { limit, after };
        read!(store, |conn| token_uses::list(conn, token, &page).await).unwrap()
    };
    let lasts = |at: Millis| TokenUse { uses: 0, ..used(1, 1, at) };
    note(vec![]).await.unwrap();
    note(vec![lasts(9)]).await.unwrap();
    assert_eq!(list(9, None).await.items, [], "what only lasts makes no row");
    note(vec![used(1, 1, 5), used(2, 1, 6)]).await.unwrap();
    note(vec![used(1, 1, 3)]).await.unwrap();
    note(vec![lasts(8), TokenUse { uses: 0, ..used(2, 1, 4) }]).await.unwrap();
    let found = list(9, None).await.items;
    let one = TokenUse { last_at: NOW + 8, uses: 2, ..used(1, 1, 5) };
    assert_eq!(found, [one, used(2, 1, 6)], "newest first; an older time changes nothing");
    let of_token = read!(store, |conn| tokens::get(conn, token).await).unwrap().unwrap();
    assert_eq!((of_token.uses, of_token.last_used_at), (3, Some(NOW + 9)));
    let unknown = TokenUse { token: id(404), ..used(1, 1, 1) };
    assert_eq!(note(vec![unknown]).await, Err(StoreError::NotFound));

    // Of many addresses the newest are kept, of this delegate alone.
    for at in 10..30 {
        note(vec![used(1, at, Millis::from(at))]).await.unwrap();
    }
    let kept: Vec<_> = list(100, None).await.items.into_iter().map(|noted| noted.last_at - NOW).collect();
    let newest = (0..token_uses::ADDRESSES_KEPT).map(|back| Millis::from(29 - back)).chain([6]);
    assert_eq!(kept, newest.collect::<Vec<_>>());
    let (first, mut walked, mut after) = (list(100, None).await.items, Vec::new(), None);
    loop {
        let page = list(4, after).await;
        walked.extend(page.items);
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(walked, first);

    // Of many delegates too, whoever came in the same millisecond.
    let most = u64::from(token_uses::ROWS_KEPT);
    for first in (1000..1000 + most + 400).step_by(1000) {
        note((first..(first + 1000).min(1000 + most + 400)).map(|delegate| used(delegate, 1, 100)).collect())
            .await
            .unwrap();
    }
    let count = "SELECT COUNT(*) FROM token_uses";
    let row = sqlx::Executor::fetch_one(&mut place.behind().await, count).await.unwrap();
    assert_eq!(sqlx::Row::get::<i64, _>(&row, 0), i64::from(token_uses::ROWS_KEPT));
    assert_eq!(list(1, None).await.items[0].delegate, id(1000 + most + 399));
}

pub(crate) async fn delegates(place: &Place) {
    let (store, token) = with_token(place).await;
    let delegate = make::delegate(1, token);
    let first = delegate.clone();
    write!(store, |tx| delegates::upsert(tx, std::slice::from_ref(&first)).await).unwrap();
    let key = delegate.public_key;
    let found = read!(store, |conn| delegates::by_key(conn, &scope("acme/shop"), &key).await);
    assert_eq!(found, Ok(Some(delegate.clone())));

    let standing = Standing { reason: "leaving".to_owned(), by: "someone".to_owned(), at: NOW + 7 };
    let stood = standing.clone();
    write!(store, |tx| delegates::set_status(tx, id(1), DelegateStatus::Stopped, &stood).await).unwrap();
    let mut again = delegate.clone();
    (again.counter, again.name, again.first_seen) = (2, name("renamed"), NOW + 99);
    write!(store, |tx| delegates::upsert(tx, std::slice::from_ref(&again)).await).unwrap();
    let found = read!(store, |conn| delegates::get(conn, delegate.id).await).unwrap().unwrap();
    assert_eq!((found.counter, found.name), (2, name("renamed")));
    assert_eq!(found.status, DelegateStatus::Stopped, "a connection undid a stop");
    assert_eq!(found.standing, Some(standing));
    assert_eq!(found.former_boots.len(), 2);
    write!(store, |tx| delegates::forget_boots(tx, id(1)).await).unwrap();
    let found = read!(store, |conn| delegates::get(conn, delegate.id).await).unwrap().unwrap();
    assert_eq!(found.former_boots, []);
    assert_eq!(found.first_seen, delegate.first_seen);

    let mut thief = make::delegate(2, token);
    thief.public_key = delegate.public_key;
    assert_eq!(write!(store, |tx| delegates::upsert(tx, std::slice::from_ref(&thief)).await), Err(StoreError::Taken));
    let orphan = make::delegate(3, id(404));
    assert_eq!(
        write!(store, |tx| delegates::upsert(tx, std::slice::from_ref(&orphan)).await),
        Err(StoreError::NotFound)
    );

    write!(store, |tx| delegates::touch_seen(tx, &[(id(1), NOW + 50)]).await).unwrap();
    write!(store, |tx| delegates::touch_seen(tx, &[]).await).unwrap();
    let of_token = read!(store, |conn| delegates::holders(conn, token).await).unwrap();
    assert_eq!(of_token.iter().map(|found| found.last_seen).collect::<Vec<_>>(), [NOW + 50]);
    let list = async |filter: DelegateFilter| {
        let page = Page::first(10);
        read!(store, |conn| delegates::list(conn, &Within::Everywhere, &filter, &page).await).unwrap().items.len()
    };
    assert_eq!(list(DelegateFilter { name: Some(name("renamed")), ..Default::default() }).await, 1);
    assert_eq!(list(DelegateFilter { token: Some(id(404)), ..Default::default() }).await, 0);
    let within = async |scopes: &[&str]| {
        let within = Within::below(scopes.iter().map(|text| scope(text)));
        let (filter, page) = (DelegateFilter::default(), Page::first(10));
        read!(store, |conn| delegates::list(conn, &within, &filter, &page).await).unwrap().items.len()
    };
    assert_eq!((within(&["acme"]).await, within(&["beta"]).await, within(&["beta", "acme"]).await), (1, 0, 1));
}

pub(crate) async fn delegates_that_wait_and_that_go(place: &Place) {
    let (store, token) = with_token(place).await;
    let mut all: Vec<_> = (1..=4).map(|number| make::delegate(number, token)).collect();
    all[0].status = DelegateStatus::Pending;
    all[1].status = DelegateStatus::Stopped;
    all[2].last_seen = NOW + 50;
    let made = all.clone();
    write!(store, |tx| delegates::upsert(tx, &made).await).unwrap();
    assert_eq!(read!(store, |conn| delegates::count_pending(conn, token).await), Ok(1));
    assert_eq!(read!(store, |conn| delegates::count_pending(conn, id(404)).await), Ok(0));
    let holders = read!(store, |conn| delegates::holders(conn, token).await).unwrap();
    assert_eq!(holders.iter().map(|holder| holder.id).collect::<Vec<_>>(), [id(2), id(3), id(4)], "nobody who waits");
    let of = async |status| {
        let filter = DelegateFilter { status: Some(status), ..Default::default() };
        let page = Page::first(10);
        read!(store, |conn| delegates::list(conn, &Within::Everywhere, &filter, &page).await).unwrap().items.len()
    };
    assert_eq!((of(DelegateStatus::Pending).await, of(DelegateStatus::Allowed).await), (1, 2));

    // The stopped one must stay refused, the third was seen since, and the one that waits was never let in.
    let ids: Vec<DelegateId> = all.iter().map(|delegate| delegate.id).collect();
    let gone = write!(store, |tx| delegates::forget(tx, &ids, NOW + 1).await).unwrap();
    assert_eq!(gone, [id::<DelegateId>(4)]);
    assert_eq!(write!(store, |tx| delegates::forget_pending(tx, NOW).await), Ok(0));
    assert_eq!(write!(store, |tx| delegates::forget_pending(tx, NOW + 1).await), Ok(1));

    let clone = CloneReport { counted: (&all[1]).into(), returned: (&all[2]).into() };
    let newer = CloneReport { counted: (&all[2]).into(), returned: (&all[3]).into() };
    for clone in [clone, newer] {
        let put = clone.clone();
        write!(store, |tx| clones::put(tx, id(2), &put).await).unwrap();
        assert_eq!(read!(store, |conn| clones::get(conn, id(2)).await), Ok(Some(clone)));
    }
    assert_eq!(read!(store, |conn| clones::get(conn, id(3)).await), Ok(None));
}

pub(crate) async fn receipts(place: &Place) {
    let (store, token) = with_token(place).await;
    let receipt = make::receipt(1, token, 2);
    let head = Receipt { completed_at: None, lines: Vec::new(), statements: Vec::new(), ..receipt.clone() };
    let inserted = head.clone();
    write!(store, |tx| receipts::insert(tx, &inserted).await).unwrap();
    let get = async || read!(store, |conn| receipts::get(conn, id(1)).await).unwrap().unwrap();
    assert_eq!(get().await, head);
    let incomplete = async || read!(store, |conn| receipts::incomplete(conn).await).unwrap();
    assert_eq!(incomplete().await, [(id(1), token)]);
    let is_complete = async || read!(store, |conn| receipts::is_complete(conn, id(1)).await).unwrap();
    assert!(!is_complete().await);
    let stopped = async |delegate: DelegateId, at| {
        write!(store, |tx| receipts::stopped(tx, id(1), delegate, at, 3).await).unwrap().is_some()
    };
    assert!(!stopped(id(1), NOW + 3).await, "it has no line yet");

    let mut complete = Receipt { completed_at: Some(NOW + 4), ..receipt };
    complete.lines.iter_mut().for_each(|line| line.cut_at = Some(NOW + 2));
    let completed = complete.clone();
    let add = async |lines: Vec<ReceiptLine>| write!(store, |tx| receipts::add_lines(tx, id(1), &lines).await);
    assert_eq!(add(complete.lines[..1].to_vec()).await, Ok(1), "a first portion");
    let later = complete.lines.iter().map(|line| ReceiptLine { cut_at: Some(NOW + 9), ..line.clone() });
    assert_eq!(add(later.take(1).collect()).await, Ok(0), "a line was replaced");
    assert_eq!(add(complete.lines.clone()).await, Ok(1));
    write!(store, |tx| receipts::complete(tx, &completed).await).unwrap();
    assert_eq!(get().await, complete);
    assert!(is_complete().await && incomplete().await.is_empty());
    assert!(stopped(id(1), NOW + 3).await);
    assert!(!stopped(id(1), NOW + 8).await, "a second report replaced the first");
    assert!(!stopped(id(404), NOW + 3).await);
    let again = complete.clone();
    let twice = write!(store, |tx| receipts::complete(tx, &again).await);
    assert_eq!(twice, Err(StoreError::NotFound), "it was completed again");
    write!(store, |tx| receipts::add_statement(tx, id(1), &make::statement(1)).await).unwrap();
    let twice = write!(store, |tx| receipts::add_statement(tx, id(1), &make::statement(1)).await);
    assert_eq!(twice, Err(StoreError::Taken), "a statement was replaced");

    let found = get().await;
    assert_eq!((found.completed_at, found.statements.len()), (Some(NOW + 4), 2));
    assert_eq!((found.lines[1].stopped_reported_at, found.lines[1].tasks_killed), (Some(NOW + 3), Some(3)));
    assert_eq!(found.lines[0].stopped_reported_at, None);
    let page = Page::first(10);
    let list = read!(store, |conn| receipts::list(conn, &Within::Everywhere, None, &page).await).unwrap();
    assert_eq!(list.items.iter().map(|receipt| receipt.id).collect::<Vec<_>>(), [id(1)]);
}

pub(crate) async fn audit(place: &Place) {
    let store = place.open().await;
    assert_eq!(read!(store, |conn| audit::last(conn).await), Ok(None));
    let record = |number: u64| AuditRecord {
        number,
        format: 2,
        at: NOW,
        actor: "someone (key_1)".to_owned(),
        address: "::1".to_owned(),
        action: "token.revoke".to_owned(),
        object: "it".to_owned(),
        scope: (number != 2).then(|| scope("acme")),
        before: "{}".to_owned(),
        after: r#"{"a":1}"#.to_owned(),
        detail: "why".to_owned(),
        outcome: if number == 3 { Outcome::Refused } else { Outcome::Done },
        request: String::new(),
        previous: vec![number as u8 - 1; 32],
        hash: vec![number as u8; 32],
    };
    for number in 1..=3 {
        let record = record(number);
        write!(store, |tx| audit::append(tx, std::slice::from_ref(&record)).await).unwrap();
    }
    let fork = record(3);
    assert_eq!(write!(store, |tx| audit::append(tx, std::slice::from_ref(&fork)).await), Err(StoreError::Taken));
    assert_eq!(read!(store, |conn| audit::last(conn).await), Ok(Some((3, vec![3; 32]))));
    let page = Page::first(2);
    let all = AuditFilter::default();
    let list = read!(store, |conn| audit::list(conn, &AuditFilter::default(), &page).await).unwrap();
    assert_eq!(list.items, [record(3), record(2)]);
    let page = Page { limit: 2, after: list.next };
    let list = read!(store, |conn| audit::list(conn, &AuditFilter::default(), &page).await).unwrap();
    assert_eq!((list.items, list.next), (vec![record(1)], None));
    let some = |text: &str| text.to_owned();
    for (filter, numbers) in [
        // What belongs to no scope is in none.
        (AuditFilter { within: Within::below([scope("acme")]), ..all.clone() }, vec![3, 1]),
        (AuditFilter { actor: some("someone"), ..all.clone() }, vec![3, 2, 1]),
        (AuditFilter { actor: some("key_1"), ..all.clone() }, vec![3, 2, 1]),
        (AuditFilter { actor: some("someone (key_1)"), ..all.clone() }, vec![3, 2, 1]),
        (AuditFilter { actor: some("some"), ..all.clone() }, vec![]),
        (AuditFilter { actor: some("omeone (key_1"), ..all.clone() }, vec![]),
        (AuditFilter { actor: some("a much longer one than any record has, with %"), ..all.clone() }, vec![]),
        (AuditFilter { action: some("token"), ..all.clone() }, vec![3, 2, 1]),
        (AuditFilter { action: some("token.revoke"), ..all.clone() }, vec![3, 2, 1]),
        (AuditFilter { action: some("tok"), ..all.clone() }, vec![]),
        (AuditFilter { object: some("it"), outcome: Some(Outcome::Refused), ..all.clone() }, vec![3]),
        (AuditFilter { from: NOW + 1, ..all.clone() }, vec![]),
        (AuditFilter { from: NOW, until: NOW + 1, ..all.clone() }, vec![3, 2, 1]),
        (AuditFilter { until: NOW, ..all.clone() }, vec![]),
    ] {
        let (page, told) = (Page::first(9), format!("{filter:?}"));
        let found = read!(store, |conn| audit::list(conn, &filter, &page).await).unwrap();
        assert_eq!(found.items.iter().map(|record| record.number).collect::<Vec<_>>(), numbers, "{told}");
    }
    assert_eq!(read!(store, |conn| audit::get(conn, 2).await), Ok(Some(record(2))));
    assert_eq!(read!(store, |conn| audit::get(conn, u64::MAX).await), Ok(None));
    assert_eq!(read!(store, |conn| audit::range(conn, 1, 3).await), Ok(vec![record(2), record(3)]));
    store.close().await;
}

pub(crate) async fn audit_checkpoints(place: &Place) {
    use audit::Place::{Base, Checkpoint};
    let store = place.open().await;
    let signed = |number: u64, at, previous| audit_model::Checkpoint {
        number,
        hash: vec![number as u8; 32],
        at,
        previous,
        signature: vec![1; 64],
        key: [2; 32],
    };
    for checkpoint in [signed(2, NOW, 0), signed(3, NOW + 1, 2)] {
        write!(store, |tx| audit::sign(tx, Checkpoint, &checkpoint).await).unwrap();
    }
    let again = signed(3, NOW + 2, 2);
    assert_eq!(write!(store, |tx| audit::sign(tx, Checkpoint, &again).await), Err(StoreError::Taken));
    assert_eq!(read!(store, |conn| audit::last_place(conn, Checkpoint).await), Ok(Some(signed(3, NOW + 1, 2))));
    assert_eq!(read!(store, |conn| audit::last_place(conn, Base).await), Ok(None));
    assert_eq!(read!(store, |conn| audit::checkpoints(conn, 2, 9).await), Ok(vec![signed(3, NOW + 1, 2)]));
    assert_eq!(read!(store, |conn| audit::due(conn, 0, NOW - 1).await), Ok(None));
    assert_eq!(read!(store, |conn| audit::due(conn, 0, NOW + 9).await), Ok(Some(signed(2, NOW, 0))));
    assert_eq!(read!(store, |conn| audit::due(conn, 2, NOW).await), Ok(None));
    for base in [signed(1, NOW, 0), signed(2, NOW, 1)] {
        write!(store, |tx| audit::sign(tx, Base, &base).await).unwrap();
    }
    write!(store, |tx| audit::forget(tx, 2).await).unwrap();
    assert_eq!(read!(store, |conn| audit::last_place(conn, Base).await), Ok(Some(signed(2, NOW, 1))));
    assert_eq!(read!(store, |conn| audit::checkpoints(conn, 0, 9).await), Ok(vec![signed(3, NOW + 1, 2)]));
}

pub(crate) async fn keys(place: &Place) {
    let store = place.open().await;
    write!(store, |tx| keys::put(tx, "link", "a", b"public", b"sealed", NOW).await).unwrap();
    let again = write!(store, |tx| keys::put(tx, "link", "a", b"other", b"other", NOW).await);
    assert_eq!(again, Err(StoreError::Taken), "a key was overwritten");
    let all = read!(store, |conn| keys::all(conn).await).unwrap();
    assert_eq!(
        all.iter().map(|key| (&key.public[..], &key.sealed[..])).collect::<Vec<_>>(),
        [(&b"public"[..], &b"sealed"[..])]
    );
}

pub(crate) async fn idempotency(place: &Place) {
    let store = place.open().await;
    let put = async |actor: &'static str, at| {
        let answered = Answered { body_hash: vec![1], response: vec![2] };
        write!(store, |tx| idempotency::put(tx, actor, "k", &answered, at).await)
    };
    put("one", NOW).await.unwrap();
    put("two", NOW + 10).await.unwrap();
    assert_eq!(put("one", NOW).await, Err(StoreError::Taken));
    let get = async |actor: &'static str| read!(store, |conn| idempotency::get(conn, actor, "k").await).unwrap();
    assert_eq!(get("one").await.unwrap().response, [2]);
    assert_eq!(write!(store, |tx| idempotency::prune(tx, NOW + 1).await), Ok(1));
    assert!(get("one").await.is_none() && get("two").await.is_some());
}

pub(crate) async fn pages_stay_stable_under_inserts(place: &Place) {
    let store = place.open().await;
    let insert = async |number| write!(store, |tx| tokens::insert(tx, &make::token(number)).await).unwrap();
    for number in [10, 30, 20, 50, 40] {
        insert(number).await;
    }
    let page = async |after| {
        let (filter, page) = (TokenFilter::default(), Page { limit: 2, after });
        read!(store, |conn| tokens::list(conn, &Within::Everywhere, &filter, &page).await)
    };
    let mut seen = Vec::new();
    let mut after = None;
    loop {
        let paged = page(after).await.unwrap();
        seen.extend(paged.items.iter().map(|token| token.id));
        // One before the border and one behind it, between any two pages.
        let number = seen.len() as u64;
        insert(number).await;
        insert(100 + number).await;
        after = paged.next;
        if after.is_none() || seen.len() > 20 {
            break;
        }
    }
    let old: [TokenId; 5] = [id(10), id(20), id(30), id(40), id(50)];
    assert_eq!(seen[..5], old, "rows were skipped or shown twice");
    assert!(matches!(page(Some("rubbish".to_owned())).await, Err(StoreError::Refused(_))));
}

pub(crate) async fn long_lists_are_written_whole(place: &Place) {
    let (store, token) = with_token(place).await;
    let receipt = Receipt { completed_at: Some(NOW), ..make::receipt(1, token, 1234) };
    let count = receipt.lines.len();
    let write = store.write(job(move |tx| {
        Box::pin(async move {
            receipts::insert(tx, &receipt).await?;
            receipts::add_lines(tx, receipt.id, &receipt.lines).await
        })
    }));
    write.await.unwrap();
    let found = read!(store, |conn| receipts::get(conn, id(1)).await).unwrap().unwrap();
    assert_eq!(found.lines.len(), count);
}
