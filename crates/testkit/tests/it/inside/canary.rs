//! Canary tokens: whoever proves one is welcomed, written down, and gets nothing.

use legation_api::delegates::DelegatesQuery;
use legation_model::task::TaskState;
use legation_testkit::{Engine, Inside, Puppet, eventually, inside::Attempted};
use legation_wire::{DelegateEvent, GoodbyeReason};
use sqlx::{Executor as _, Row as _};

super::on_both!(whoever_proves_a_canary_is_welcomed_and_written_down_and_gets_nothing);

/// Lets it in as it seems, and waits until its connection breaks.
async fn bites(puppet: &mut Puppet) {
    let welcome = puppet.join().await;
    assert_eq!((welcome.account.as_str(), welcome.lease), ("default", 300_000), "like any other");
    loop {
        match puppet.next().await {
            Ok(DelegateEvent::Goodbye(goodbye)) => panic!("it was told something: {goodbye:?}"),
            Ok(DelegateEvent::Message(message)) => panic!("it was given something: {message:?}"),
            Ok(_) => {}
            Err(_) => return,
        }
    }
}

async fn records(inside: &Inside) -> Vec<(String, String)> {
    let all = "SELECT address, new_values FROM audit WHERE action = 'token.canary' ORDER BY number";
    let rows = super::beside(inside).await.fetch_all(all).await.expect("rows");
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

async fn whoever_proves_a_canary_is_welcomed_and_written_down_and_gets_nothing(engine: Engine) {
    let mut inside = Inside::start(engine).await;
    let bait = inside.token_with("bait", |token| token.canary = true).await;
    assert!(inside.client.token(bait.id).await.expect("a token").canary);
    let task = super::submit(&inside, "thief").await;
    let mut thief = inside.puppet("thief", &bait);
    thief.hello.host = "den".parse().expect("a host");
    bites(&mut thief).await;
    bites(&mut thief).await;
    let [(address, said)] = &records(&inside).await[..] else { panic!("one record of one key") };
    assert_eq!(address, "127.0.0.1");
    assert!(said.contains("thief") && said.contains("den") && said.contains(&thief.hello.boot.to_string()), "{said}");
    bites(&mut inside.puppet("other", &bait)).await;
    assert_eq!(records(&inside).await.len(), 2);
    assert!(inside.client.metrics().await.expect("metrics").contains("legation_canary_connections_total 3"));
    assert!(inside.client.token(bait.id).await.expect("a token").last_used_at.is_some());

    // It is no delegate and has nothing to do.
    assert_eq!(inside.client.delegates(&DelegatesQuery::default()).await.expect("delegates").items, []);
    assert!(inside.manager.sessions.all().is_empty());
    assert_eq!(inside.client.task(task).await.expect("a task").state, TaskState::Queued);

    inside.restart().await;
    thief.redirect(&inside.url);
    bites(&mut thief).await;
    inside.client.revoke_token(bait.id, &Default::default()).await.expect("revoked");
    let told = eventually("the end is told like that of any other", async || match thief.connect().await {
        Attempted::Goodbye(goodbye) => Some(goodbye.reason),
        _ => None,
    })
    .await;
    assert_eq!(told, GoodbyeReason::TokenRevoked);
}
