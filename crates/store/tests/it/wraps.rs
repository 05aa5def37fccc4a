//! Values that wait under one-time codes or are kept: each ends once, and nothing of it is left then.

use legation_model::{
    ids::{TokenId, WrapId},
    receipt::Cause,
    token::DelegateToken,
    wrap::Wrap,
};
use legation_store::{
    Store, StoreError,
    token_values::{self, TokenValue},
    tokens,
    wraps::{self, NewWrap},
};

use crate::{
    make::{self, NOW, id},
    place::{Place, read, write},
};

fn new(number: u64, token: TokenId, expires_at: i64) -> NewWrap {
    let wrap = Wrap {
        id: id(number),
        token,
        generation: 1,
        created_at: NOW,
        created_by: "someone".to_owned(),
        expires_at,
        ended_at: None,
        opened_at: None,
        opened_from: None,
        refused: 0,
    };
    NewWrap { wrap, hash: vec![1; 32], sealed: vec![2; 200] }
}

/// The row's state, and whether its value is there.
async fn row(store: &Store, wrap: WrapId) -> (Wrap, bool) {
    let found = read!(store, |conn| wraps::get(conn, wrap).await).unwrap().unwrap();
    (found.wrap, found.sealed.is_some())
}

/// The end of a token takes along what was kept of it: nobody has to think of that.
async fn revoke(store: &Store, token: TokenId) {
    write!(store, |tx| tokens::revoke(tx, token, Cause::Kill, NOW + 9, "leaked", id(77)).await).unwrap();
}

pub(crate) async fn wraps(place: &Place) {
    let store = place.open().await;
    let mut all = Vec::new();
    for number in 1..=4 {
        let token = make::token(number);
        let (name, wrap) = (token.id, new(number, token.id, NOW + number as i64));
        all.push(wrap.clone());
        write!(store, |tx| {
            tokens::insert(tx, &token).await?;
            wraps::insert_all(tx, &[wrap]).await
        })
        .unwrap();
        let of = read!(store, |conn| wraps::of_tokens(conn, &[name, id(99)]).await).unwrap();
        assert_eq!(of.into_iter().collect::<Vec<_>>(), [(name, all[number as usize - 1].wrap.clone())]);
    }
    let twice = NewWrap { wrap: Wrap { id: id(50), ..all[0].wrap.clone() }, ..all[0].clone() };
    assert_eq!(write!(store, |tx| wraps::insert_all(tx, &[twice]).await), Err(StoreError::Taken));

    let [opened, late, ended, waits] = [1, 2, 3, 4].map(id::<WrapId>);
    write!(store, |tx| wraps::open(tx, opened, NOW + 9, "192.0.2.1").await).unwrap();
    assert_eq!(write!(store, |tx| wraps::open(tx, opened, NOW + 9, "192.0.2.2").await), Err(StoreError::NotFound));
    write!(store, |tx| wraps::refuse(tx, opened).await).unwrap();
    let (wrap, there) = row(&store, opened).await;
    assert_eq!((wrap.opened_at, wrap.opened_from.as_deref(), there), (Some(NOW + 9), Some("192.0.2.1"), false));
    assert_eq!((wrap.ended_at, wrap.refused), (Some(NOW + 9), 1));

    let due = |now, most| read_due(&store, now, most);
    assert_eq!(due(NOW + 3, 10).await, [late, ended], "what was opened is not lost");
    assert_eq!(due(NOW + 3, 1).await, [late]);
    assert_eq!(write!(store, |tx| wraps::end(tx, late, NOW + 9).await), Ok(true));
    assert_eq!(write!(store, |tx| wraps::end(tx, late, NOW + 10).await), Ok(false));
    let (wrap, there) = row(&store, late).await;
    assert_eq!((wrap.ended_at, wrap.opened_at, there), (Some(NOW + 9), None, false));

    revoke(&store, all[2].wrap.token).await;
    let (wrap, there) = row(&store, ended).await;
    assert_eq!((wrap.ended_at, there, row(&store, waits).await.1), (Some(NOW + 9), false, true));
}

pub(crate) async fn values_are_kept_and_erased(place: &Place) {
    let store = place.open().await;
    let kept =
        |number: u64, generation| TokenValue { token: id(number), generation, sealed: vec![generation as u8; 150] };
    for (number, scope) in [(1, "acme"), (2, "acme/shop"), (3, "acme-2"), (4, "beta")] {
        let token = DelegateToken { scope: make::scope(scope), ..make::token(number) };
        let new = kept(number, 1);
        write!(store, |tx| {
            tokens::insert(tx, &token).await?;
            token_values::insert_all(tx, &[new]).await
        })
        .unwrap();
    }
    let (again, newer) = (kept(1, 1), kept(4, 2));
    assert_eq!(write!(store, |tx| token_values::insert_all(tx, &[again]).await), Err(StoreError::Taken));
    write!(store, |tx| token_values::insert_all(tx, &[newer]).await).unwrap();
    let newest = async |number: u64| {
        let value = read!(store, |conn| token_values::newest(conn, id(number)).await).unwrap();
        value.map(|value| (value.generation, value.sealed.len()))
    };
    assert_eq!((newest(1).await, newest(4).await, newest(9).await), (Some((1, 150)), Some((2, 150)), None));
    let account = make::scope("acme");
    assert_eq!(write!(store, |tx| token_values::forget_below(tx, &account).await), Ok(2));
    assert_eq!((newest(1).await, newest(2).await, newest(3).await), (None, None, Some((1, 150))));
    revoke(&store, id(4)).await;
    assert_eq!(newest(4).await, None);

    // The end of a token takes its value along, and what waits under a code.
    let (token, wrap) = (id(3), new(60, id(3), NOW + 60));
    write!(store, |tx| {
        wraps::insert_all(tx, &[wrap]).await?;
        tokens::revoke(tx, token, Cause::Kill, NOW + 1, "for a test", id(1)).await
    })
    .unwrap();
    assert_eq!((newest(3).await, row(&store, id(60)).await.1), (None, false));
}

async fn read_due(store: &Store, now: i64, most: u32) -> Vec<WrapId> {
    read!(store, |conn| wraps::due(conn, now, most).await).unwrap().into_iter().map(|wrap| wrap.id).collect()
}
