//! Who may open a database, and in which state.

use legation_store::{Store, StoreError, tokens};
use sqlx::{Executor as _, Row as _, any::AnyRow};

use crate::{
    make::{self, id},
    place::{Place, read, write},
    writing::behind,
};

async fn refusal(url: &str) -> String {
    match Store::open(url).await.err() {
        Some(StoreError::Refused(sentence)) => sentence,
        other => panic!("{other:?}"),
    }
}

pub(crate) async fn a_second_manager_is_refused_by_name(place: &Place) {
    let store = place.open().await;
    let sentence = refusal(&place.url).await;
    let me = format!("legation process {}", std::process::id());
    assert!(sentence.contains(&me) && sentence.contains("stop it first"), "{sentence}");
    let epoch = store.epoch();
    store.close().await;
    let store = place.open().await;
    assert_eq!(store.epoch(), epoch + 1);
    drop(store);
}

/// A server shows the locks of all its databases to everyone.
#[tokio::test]
async fn a_second_manager_is_told_the_holder_of_its_own_database() {
    let mut held = Vec::new();
    for _ in 0..4 {
        let place = Place::postgres().await;
        let store = place.open().await;
        held.push((place, store));
    }
    for (place, _store) in &held {
        let sentence = refusal(&place.url).await;
        let mut conn = place.behind().await;
        let own = "SELECT pid::text FROM pg_stat_activity WHERE datname = current_database()";
        let own = conn.fetch_all(own).await.unwrap();
        let named = |row: &AnyRow| sentence.contains(&format!("server process {})", row.get::<String, _>(0)));
        assert!(own.iter().any(named), "{sentence}");
    }
}

pub(crate) async fn beside_takes_no_lock_and_no_epoch(place: &Place) {
    let fresh = Store::open_beside(&place.url).await.unwrap();
    write!(fresh, |tx| tokens::insert(tx, &make::token(9)).await).unwrap();
    fresh.close().await;
    let store = place.open().await;
    let beside = Store::open_beside(&place.url).await.unwrap();
    assert_eq!(beside.epoch(), store.epoch());
    write!(beside, |tx| tokens::insert(tx, &make::token(1)).await).unwrap();
    write!(store, |tx| tokens::insert(tx, &make::token(2)).await).unwrap();
    assert!(read!(store, |conn| tokens::get(conn, id(1)).await).unwrap().is_some());
}

pub(crate) async fn an_overtaken_manager_writes_nothing(place: &Place) {
    let store = place.open().await;
    behind(&place.url, "UPDATE manager SET epoch = epoch + 1").await;
    let insert = async |number| write!(store, |tx| tokens::insert(tx, &make::token(number)).await);
    assert_eq!(insert(1).await, Err(StoreError::Fenced));
    let urgent = store.write_first(|tx| Box::pin(async { tokens::insert(tx, &make::token(2)).await })).await;
    assert_eq!(urgent, Err(StoreError::Fenced));
    assert_eq!(read!(store, |conn| tokens::states(conn).await), Ok(vec![]));
}

pub(crate) async fn readers_cannot_write(place: &Place) {
    let store = place.open().await;
    let outcome = read!(store, |conn| tokens::insert(conn, &make::token(1)).await);
    assert!(matches!(outcome, Err(StoreError::Unavailable(_))), "{outcome:?}");
    write!(store, |tx| tokens::insert(tx, &make::token(1)).await).unwrap();
}

pub(crate) async fn an_edited_migration_is_refused(place: &Place) {
    place.open().await.close().await;
    behind(&place.url, "UPDATE migrations SET checksum = 'other'").await;
    let sentence = refusal(&place.url).await;
    assert!(sentence.contains("\"first\"") && sentence.contains("unmodified"), "{sentence}");
}

pub(crate) async fn a_newer_database_is_refused(place: &Place) {
    place.open().await.close().await;
    behind(&place.url, "INSERT INTO migrations (number, name, checksum) VALUES (99, 'later', '')").await;
    assert!(refusal(&place.url).await.contains("newer version"));
}

pub(crate) async fn nothing_legal_is_misread(place: &Place) {
    let store = place.open().await;
    let mut token = make::token(1);
    token.created_by = "'; DROP TABLE tokens; -- \u{1F4A5} \\ $1 %s".to_owned();
    token.description = "x' OR '1'='1".parse().unwrap();
    let kept = token.clone();
    write!(store, |tx| tokens::insert(tx, &token).await).unwrap();
    assert_eq!(read!(store, |conn| tokens::get(conn, id(1)).await), Ok(Some(kept)));
    // Names are refused by their type before any SQL sees them.
    assert!("a".repeat(10 << 20).parse::<legation_model::Name>().is_err());
    assert!("x'; DROP TABLE tokens".parse::<legation_model::Name>().is_err());
}
