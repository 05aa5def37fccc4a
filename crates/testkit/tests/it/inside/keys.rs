//! The Manager's own keys: public ones that everybody may have, and their rotation, killed at each step.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
};

use legation_api::client::ClientError;
use legation_manager::{keys::Keys, rotate, system::SystemEntropy};
use legation_model::{Millis, token::Token};
use legation_store::{Store, job, keys};
use legation_testkit::{Engine, Inside, Puppet, inside::Attempted, world::Issued};

super::on_both!(
    signing_keys_are_there_for_everybody,
    a_new_manager_key_is_for_new_tokens_and_the_old_one_goes_with_the_last_of_its_own,
    the_key_encryption_key_is_replaced_wherever_its_rotation_was_killed,
    keys_are_not_rotated_beside_a_running_manager,
);

const DAY: Millis = 24 * 60 * 60 * 1000;

async fn signing_keys_are_there_for_everybody(engine: Engine) {
    let inside = Inside::start(engine).await;
    let nobody = legation_api::client::Client::new(&inside.url, None, None).expect("a client");
    let keys = nobody.signing_keys().await.expect("a list").items;
    assert_eq!(keys.len(), 1);
    assert_eq!(nobody.signing_key(keys[0].id).await.expect("a key"), keys[0]);
    assert_eq!(keys[0].public_key.bytes(), inside.manager.keys.signing_public());
    assert_eq!((keys[0].algorithm.as_str(), keys[0].retired_at), ("ed25519", None));
    assert!(matches!(nobody.whoami().await, Err(ClientError::Problem(_))));
}

fn pinned(token: &Issued) -> [u8; 32] {
    token.value.expose().parse::<Token>().expect("a token").manager_key
}

/// Ids of manager keys with whether they are retired, oldest first.
async fn manager_keys(inside: &Inside) -> Vec<(String, bool)> {
    let rows = inside.manager.store.read(|conn| Box::pin(keys::all(conn))).await.expect("read");
    let of = rows.into_iter().filter(|row| row.kind == "manager");
    of.map(|row| {
        assert_eq!(row.retired_at.is_some(), row.sealed.is_empty(), "a retired key is erased");
        (row.id, row.retired_at.is_some())
    })
    .collect()
}

async fn rotate_manager_key(inside: &mut Inside) {
    let clock = inside.clock.clone();
    inside
        .restart_around(async |config| {
            rotate::manager_key(config, &*clock, &SystemEntropy).await.expect("rotated");
        })
        .await;
}

async fn joins(inside: &Inside, puppet: &mut Puppet) {
    puppet.redirect(&inside.url);
    puppet.join().await;
}

async fn a_new_manager_key_is_for_new_tokens_and_the_old_one_goes_with_the_last_of_its_own(engine: Engine) {
    let mut inside = Inside::start(engine).await;
    let old = inside.token("old").await;
    let mut of_old = inside.puppet("old", &old);
    joins(&inside, &mut of_old).await;
    rotate_manager_key(&mut inside).await;
    let new = inside.token("new").await;
    assert_ne!(pinned(&new), pinned(&old));
    assert_eq!(pinned(&new), inside.manager.keys.pinned());
    let mut of_new = inside.puppet("new", &new);
    joins(&inside, &mut of_new).await;
    joins(&inside, &mut of_old).await;
    inside.manager.forget_old().await;
    assert!(manager_keys(&inside).await.iter().all(|(_, retired)| !retired));

    // The old key is needed as long as somebody of it may have to be told to stop.
    inside.client.revoke_token(old.id, &Default::default()).await.expect("revoked");
    inside.restart().await;
    inside.manager.forget_old().await;
    inside.restart().await;
    of_old.redirect(&inside.url);
    assert!(matches!(of_old.connect().await, Attempted::Goodbye(_)), "it hears of the end");
    assert!(manager_keys(&inside).await.iter().all(|(_, retired)| !retired));
    inside.clock.advance(91 * DAY);
    inside.restart().await;
    inside.manager.forget_old().await;
    let retired = manager_keys(&inside).await;
    assert_eq!(retired.iter().map(|(_, retired)| *retired).collect::<Vec<_>>(), [true, false]);
    let records = super::audit::records(&inside).await;
    for action in ["manager_key.rotate", "manager_key.retire"] {
        assert!(records.iter().any(|record| record.action == action), "{action}");
    }
    inside.restart().await;
    joins(&inside, &mut of_new).await;
    assert_eq!(pinned(&inside.token("newer").await), pinned(&new));
}

async fn the_key_encryption_key_is_replaced_wherever_its_rotation_was_killed(engine: Engine) {
    let mut inside = Inside::start(engine).await;
    let token = inside.token("one").await;
    let mut puppet = inside.puppet("one", &token);
    let clock = inside.clock.clone();
    let directory = inside.directory().join("config");
    let (path, next) = (directory.join("kek"), directory.join("kek.new"));
    let read = |path: &std::path::Path| fs::read_to_string(path).ok();
    let first = read(&path).expect("a key");

    // Killed when the new key was drawn and nothing else.
    inside
        .restart_around(async |config| drop(rotate::draw_next(&config.config_dir, &SystemEntropy).expect("drawn")))
        .await;
    let drawn = read(&next).expect("it is still there");
    assert_eq!(read(&path).as_ref(), Some(&first), "the old key is in force");
    joins(&inside, &mut puppet).await;

    // Killed behind the transaction: the next start goes on with the new key.
    inside
        .restart_around(async |config| {
            let store = Store::open(config.database_url.as_deref().expect("a database")).await.expect("opened");
            let next = rotate::draw_next(&config.config_dir, &SystemEntropy).expect("the same");
            rotate::reseal(config, &store, &next, &*clock, &SystemEntropy).await.expect("sealed anew");
            store.close().await;
        })
        .await;
    assert_eq!((read(&path), read(&next)), (Some(drawn.clone()), None), "what was drawn first is in force");
    joins(&inside, &mut puppet).await;

    assert_eq!(kept(&directory), std::slice::from_ref(&first), "backups need it");

    // The same state met by another run of the command instead of a start, and then nobody kills it.
    inside
        .restart_around(async |config| {
            let store = Store::open(config.database_url.as_deref().expect("a database")).await.expect("opened");
            let next = rotate::draw_next(&config.config_dir, &SystemEntropy).expect("drawn");
            rotate::reseal(config, &store, &next, &*clock, &SystemEntropy).await.expect("sealed anew");
            store.close().await;
            // It was killed between the copy of the old key and the new one in its place: the copy is no obstacle.
            let old = fs::read(config.config_dir.join("kek")).expect("a key");
            rotate::replace(&config.config_dir).expect("kept and replaced");
            fs::rename(config.config_dir.join("kek"), config.config_dir.join("kek.new")).expect("renamed");
            fs::write(config.config_dir.join("kek"), old).expect("written");
            fs::set_permissions(config.config_dir.join("kek"), Permissions::from_mode(0o600)).expect("private");
            let last = rotate::kek(config, &*clock, &SystemEntropy).await.expect("rotated once more");
            assert_eq!(fs::metadata(last).expect("kept").permissions().mode() & 0o777, 0o600);
        })
        .await;
    let last = read(&path).expect("a key");
    assert!(last != first && last != drawn && read(&next).is_none());
    let all = kept(&directory);
    assert!(all.len() >= 3 && all.contains(&first) && all.contains(&drawn) && !all.contains(&last), "each is kept");
    joins(&inside, &mut puppet).await;
    assert_eq!(
        inside.client.whoami().await.expect("the API key is as good as before").key_name.expect("a key").to_string(),
        "test"
    );
    inside.token("another").await;

    // The old key opens nothing any more.
    let clock = inside.clock.clone();
    inside
        .restart_around(async |config| {
            fs::write(&path, &first).expect("written");
            let store = Store::open(config.database_url.as_deref().expect("a database")).await.expect("opened");
            let refused = Keys::load(config, &store, &*clock, &SystemEntropy).await.err().expect("another key");
            assert!(refused.to_string().contains("does not open"), "{refused}");
            store.close().await;
            fs::write(&path, &last).expect("written");
        })
        .await;
}

/// What the old keys hold that were kept.
fn kept(directory: &std::path::Path) -> Vec<String> {
    let entries = fs::read_dir(directory).expect("a directory").map(|entry| entry.expect("an entry"));
    let dated = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("kek.2"));
    dated.map(|entry| fs::read_to_string(entry.path()).expect("a key")).collect()
}

async fn keys_are_not_rotated_beside_a_running_manager(engine: Engine) {
    let inside = Inside::start(engine).await;
    let config = &inside.manager.config;
    let before = manager_keys(&inside).await;
    let refused = rotate::manager_key(config, &*inside.clock, &SystemEntropy).await.expect_err("a Manager runs");
    assert!(refused.to_string().contains("stop it first"), "{refused}");
    let refused = rotate::kek(config, &*inside.clock, &SystemEntropy).await.expect_err("a Manager runs");
    assert!(refused.to_string().contains("stop it first"), "{refused}");
    assert_eq!(manager_keys(&inside).await, before);
    assert!(!inside.directory().join("config/kek.new").exists());
    let alive = job(|conn| Box::pin(keys::all(conn)));
    assert!(inside.manager.store.read(alive).await.is_ok());
}
