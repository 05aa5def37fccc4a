//! Where the Manager listens, how it starts, and how it goes.

use legation_api::{client::ClientError, routes};
use legation_manager::config::Settings;
use legation_testkit::{Engine, Inside, inside::Attempted};
use legation_wire::GoodbyeReason;

super::on_both!(
    a_link_listener_serves_the_link_alone,
    a_stopping_manager_says_so,
    a_second_manager_is_refused_in_one_sentence,
    an_account_sets_the_lease_of_its_delegates,
);

fn with_link() -> Settings {
    Settings { link_listen: "127.0.0.1:0".parse().ok(), ..Settings::default() }
}

async fn a_link_listener_serves_the_link_alone(engine: Engine) {
    let inside = Inside::with(engine, with_link()).await;
    let token = inside.token("a").await;
    let link = inside.link_url();
    let status = async |base: &str, path: &str| {
        reqwest::get(format!("{base}{path}")).await.expect("an answer").status().as_u16()
    };
    assert_eq!(status(&inside.url, routes::LINK).await, 404, "the API's address has no link");
    assert_eq!(status(&link, routes::TOKENS).await, 404, "the link's address has no API");
    assert_eq!(status(&link, routes::HEALTHZ).await, 200);
    let mut puppet = inside.puppet("one", &token);
    assert!(matches!(puppet.connect().await, Attempted::Ended(_)));
    puppet.redirect(&link);
    puppet.join().await;
}

async fn a_stopping_manager_says_so(engine: Engine) {
    let mut inside = Inside::start(engine).await;
    let token = inside.token("a").await;
    let mut puppet = inside.puppet("one", &token);
    puppet.join().await;
    let (goodbye, ()) = tokio::join!(puppet.goodbye(), inside.restart());
    assert_eq!(goodbye.reason, GoodbyeReason::ManagerDraining);
    puppet.redirect(&inside.url);
    puppet.join().await;
}

async fn a_second_manager_is_refused_in_one_sentence(engine: Engine) {
    let inside = Inside::start(engine).await;
    let refusal = inside.start_second().await.err().expect("a second Manager is refused");
    let text = format!("{refusal:#}");
    assert!(text.contains("another Manager has this database open") && text.lines().count() == 1, "{text}");
    assert!(inside.client.ready().await.is_ok(), "the first one is not disturbed");
}

async fn an_account_sets_the_lease_of_its_delegates(engine: Engine) {
    let inside = Inside::start(engine).await;
    let account = legation_api::accounts::CreateAccount {
        id: "short".parse().expect("a scope"),
        description: Default::default(),
        lease_ms: Some(15_000),
    };
    inside.client.create_account(&account).await.expect("an account");
    let token = inside.token_with("a", |token| token.scope = "short".parse().expect("a scope")).await;
    let welcome = inside.puppet("one", &token).join().await;
    assert_eq!((welcome.lease, welcome.heartbeat), (15_000, 5_000));
    assert_eq!(welcome.account, "short");
    let again = inside.client.create_account(&account).await;
    assert!(matches!(again, Err(ClientError::Problem(problem)) if problem.code == legation_api::Code::NameTaken));
}
