//! Values under one-time codes: each ends once, and nothing of it is left then.

use legation_model::{
    ids::{TokenId, WrapId},
    wrap::Wrap,
};
use legation_store::{
    Store, StoreError, tokens,
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

    let of = all[2].wrap.token;
    assert_eq!(write!(store, |tx| wraps::end_of_token(tx, of, NOW + 9).await), Ok(1));
    assert_eq!(write!(store, |tx| wraps::end_of_token(tx, of, NOW + 9).await), Ok(0));
    assert_eq!((row(&store, ended).await.1, row(&store, waits).await.1), (false, true));
}

async fn read_due(store: &Store, now: i64, most: u32) -> Vec<WrapId> {
    read!(store, |conn| wraps::due(conn, now, most).await).unwrap().into_iter().map(|wrap| wrap.id).collect()
}
