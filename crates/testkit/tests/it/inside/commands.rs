//! What to paste, in the API's answers: with the address that the Manager was told, and never with a value or a code.

use legation_api::{
    client::Client,
    handover::{Commands, Place, UNKNOWN_URL},
    routes,
    tokens::{CreateToken, IssueToken},
    wraps::OpenWrap,
};
use legation_manager::config::Settings;
use legation_testkit::{Engine, Inside};

use super::raw::{Raw, answer};

super::on_both!(commands_have_the_address_that_was_set_and_no_secret, an_address_that_was_not_set_is_not_guessed);

fn request(name: &str, wrap: Option<i64>) -> CreateToken {
    let request = CreateToken::new("default".parse().expect("a scope"), name.parse().expect("a name"));
    CreateToken { wrap_ttl_ms: wrap, ..request }
}

fn texts(commands: &Commands) -> Vec<&str> {
    Place::ALL.map(|place| commands.of(place)).to_vec()
}

async fn commands_have_the_address_that_was_set_and_no_secret(engine: Engine) {
    let (public_url, link) = (Some("https://api.example".to_owned()), Some("https://link.example:7430".to_owned()));
    let settings = Settings { public_url, public_link_url: link, ..Settings::default() };
    let inside = Inside::with(engine, settings).await;
    let made = inside.client.create_token(&request("made", None)).await.expect("created");
    let (value, commands) = (made.value.expect("a value"), made.commands.expect("commands"));
    assert_eq!((commands.manager.as_str(), &commands.note), ("https://link.example:7430", &None));
    for text in texts(&commands) {
        assert!(text.contains("https://link.example:7430") && text.contains("made"), "{text}");
        assert!(!text.contains(value.expose()) && !text.contains("unwrap"), "{text}");
    }

    let wrapped = inside.client.create_token(&request("wrapped", Some(60_000))).await.expect("created");
    let (code, commands) = (wrapped.wrapped.expect("a code").code, wrapped.commands.expect("commands"));
    for text in texts(&commands) {
        assert!(text.starts_with("(umask 077; legation token unwrap --url https://api.example > delegate.token)"));
        assert!(!text.contains(code.expose()), "{text}");
    }
    let nobody = Client::new(&inside.url, None, None).expect("a client");
    let opened = nobody.unwrap(&OpenWrap { code }).await.expect("opened");
    assert!(opened.commands.expect("commands").env.contains("https://link.example:7430"));

    let unissued = CreateToken { issue: false, ..request("late", None) };
    let late = inside.client.create_token(&unissued).await.expect("created");
    assert_eq!(late.commands, None, "there is nothing to paste them for");
    let issued = inside.client.issue_token(late.token.id, &IssueToken::default()).await.expect("issued");
    assert!(issued.commands.is_some());
}

async fn an_address_that_was_not_set_is_not_guessed(engine: Engine) {
    let inside = Inside::start(engine).await;
    let raw = Raw::of(&inside);
    let body = serde_json::to_string(&request("made", None)).expect("JSON");
    let told = answer(
        raw.posting(routes::TOKENS, body).header("host", "evil.example").header("x-forwarded-host", "evil.example"),
    );
    let told = told.await;
    assert_eq!(told.status, 201, "{}", told.text());
    let commands: Commands = serde_json::from_value(told.json()["commands"].clone()).expect("commands");
    assert!(commands.note.as_ref().is_some_and(|note| note.contains("public-url")), "{commands:?}");
    for text in texts(&commands) {
        assert!(text.contains(UNKNOWN_URL) && !text.contains("evil"), "{text}");
    }
}
