//! Logging in at an identity provider that is another implementation than ours.

use std::process::Stdio;

use legation_api::{
    Code,
    client::Client,
    logins::LoggedIn,
    oidc::{LogInByCode, challenge},
    passwords::SetPassword,
    routes,
    whoami::Whoami,
};
use legation_manager::{config::Settings, logins::FRESH_FOR};
use legation_model::{Clock as _, Millis, ids::PrincipalId, login::LoginMethod, secret::SecretText};
use legation_testkit::{
    Engine, Inside, Process,
    binaries::Binaries,
    eventually,
    provider::{Browser, Got, Provider, parameter},
};
use serde_json::json;
use tokio::process::Command;

use super::{
    grants::{AT_ONCE, grant, read_up_to, say},
    passwords::user,
    raw::{Raw, answer},
    store::code,
};

super::on_both!(
    groups_give_what_the_mapping_says_and_no_more,
    what_a_login_takes_away_ends_at_once,
    somebody_from_the_provider_is_no_local_user,
    who_is_disabled_stays_out,
    a_round_ends_once_in_its_own_browser_and_in_time,
    a_code_of_another_round_is_worth_nothing,
    a_program_gets_the_login_that_it_began,
    the_command_line_logs_in_by_a_browser,
    a_session_is_shown_anew_at_the_provider,
    a_provider_that_is_away_lets_nobody_in,
);

/// Under which the Manager believes to be reached; the browser of these tests knows better.
const PUBLIC: &str = "http://legation.test";
const MINUTE: Millis = 60_000;

/// A Manager and its provider.
struct House {
    inside: Inside,
    provider: Provider,
    _directory: tempfile::TempDir,
}

impl House {
    async fn start(engine: Engine) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let provider = Provider::start(directory.path()).await;
        let secret = directory.path().join("secret");
        std::fs::write(&secret, "of-the-client\n").expect("a file");
        let settings = Settings { oidc_client_secret_file: Some(secret), ..settings(&provider.issuer) };
        let inside = Inside::with(engine, settings).await;
        Self { inside, provider, _directory: directory }
    }

    async fn person(&self, subject: &str, groups: &[&str]) {
        self.provider.person(subject, json!({"preferred_username": subject, "groups": groups})).await;
    }

    /// The address of the Manager's that is meant.
    fn here(&self, address: &str) -> String {
        address.replace(PUBLIC, &self.inside.url)
    }

    /// Begins a round; the page of the provider.
    async fn begin(&self, browser: &mut Browser, query: &str) -> String {
        let got = browser.open(&format!("{}{}{query}", self.inside.url, routes::LOGIN_OIDC)).await;
        assert_eq!(got.status, 303, "{got:?}");
        got.location
    }

    /// A whole round; what the browser gets at its end.
    async fn round(&self, browser: &mut Browser, subject: &str, query: &str) -> Got {
        let page = self.begin(browser, query).await;
        let back = self.provider.log_in(&page, subject).await;
        browser.open(&self.here(&back)).await
    }

    /// Logs somebody in; a client with the session.
    async fn log_in(&self, subject: &str) -> Client {
        let mut browser = Browser::default();
        let got = self.round(&mut browser, subject, "").await;
        assert_eq!(got.status, 200, "{got:?}");
        self.client(&browser)
    }

    fn client(&self, browser: &Browser) -> Client {
        let value = SecretText::new(browser.cookies["legation"].clone());
        Client::new(&self.inside.url, Some(&value), None).expect("a client")
    }
}

fn settings(issuer: &str) -> Settings {
    let grants = ["devs=operator@default", "lookers=viewer", "lost=nosuchrole", "cn=platform,dc=x=admin"];
    Settings {
        public_url: Some(PUBLIC.to_owned()),
        oidc_issuer: Some(issuer.to_owned()),
        oidc_client_id: Some("legation".to_owned()),
        oidc_grants: Some(grants.map(str::to_owned).to_vec()),
        ..Settings::default()
    }
}

/// Somebody's roles, each with its place.
fn roles(whoami: &Whoami) -> Vec<String> {
    let place = |scope: &Option<_>| scope.as_ref().map_or_else(String::new, |scope| format!("@{scope}"));
    let mut roles: Vec<_> =
        whoami.grants.iter().map(|grant| format!("{}{}", grant.role, place(&grant.scope))).collect();
    roles.sort();
    roles
}

async fn groups_give_what_the_mapping_says_and_no_more(engine: Engine) {
    let house = House::start(engine).await;
    let admin = &house.inside.client;
    house.person("alice", &["devs", "others", "lost"]).await;
    let session = house.log_in("alice").await;
    let whoami = session.whoami().await.expect("in");
    assert_eq!((whoami.name.as_str(), roles(&whoami)), ("alice", vec!["operator@default".to_owned()]));
    let listed = session.sessions(&Default::default()).await.expect("a list").items;
    assert_eq!((listed.len(), listed[0].method), (1, LoginMethod::Oidc));
    // What people give stays, also where the mapping gives the same.
    admin.create_grant(&grant(whoami.principal, "viewer", Some("default"))).await.expect("given");
    house.person("alice", &["devs", "lookers", "cn=platform,dc=x"]).await;
    let again = house.log_in("alice").await.whoami().await.expect("in");
    assert_eq!(again.principal, whoami.principal, "the same person");
    assert_eq!(roles(&again), ["admin", "operator@default", "viewer", "viewer@default"]);
    house.person("alice", &["lookers"]).await;
    let less = house.log_in("alice").await.whoami().await.expect("in");
    assert_eq!(roles(&less), ["viewer", "viewer@default"]);
    assert_eq!(roles(&session.whoami().await.expect("in")), roles(&less), "the session of before holds no more");
    let query = legation_api::audit::AuditQuery { object: Some(whoami.principal.to_string()), ..Default::default() };
    let made = admin.audit(&query).await.expect("records").items;
    assert!(made.iter().any(|record| record.actor.starts_with("identity provider http://")), "{made:?}");
}

async fn what_a_login_takes_away_ends_at_once(engine: Engine) {
    let house = House::start(engine).await;
    let inside = &house.inside;
    let token = inside.token("t").await;
    let (mut puppet, attempt, task) = super::working(inside, "one", &token).await;
    house.person("alice", &["devs"]).await;
    let session = house.log_in("alice").await;
    let mut written = 0;
    let mut stream = session.output(task, Default::default());
    say(&mut puppet, attempt, &mut written).await;
    read_up_to(&mut stream, written).await;
    house.person("alice", &["others"]).await;
    let mut browser = Browser::default();
    let got = house.round(&mut browser, "alice", "").await;
    assert_eq!(got.status, 401);
    assert!(got.text.contains("none of your groups") && !browser.cookies.contains_key("legation"), "{got:?}");
    say(&mut puppet, attempt, &mut written).await;
    let ended = tokio::time::timeout(AT_ONCE, stream.next()).await.expect("at once");
    assert_eq!(code(ended), Code::Forbidden);
    assert_eq!(code(session.task(task).await), Code::Forbidden);
    // Somebody new without a group does not become a user.
    house.person("bob", &[]).await;
    assert_eq!(house.round(&mut Browser::default(), "bob", "").await.status, 401);
    let bob = legation_api::principals::PrincipalsQuery { name: "bob".parse().ok(), ..Default::default() };
    assert!(inside.client.principals(&bob).await.expect("a list").items.is_empty());
}

async fn somebody_from_the_provider_is_no_local_user(engine: Engine) {
    let house = House::start(engine).await;
    let local = user(&house.inside, "alice", &[("admin", None)]).await;
    house.person("alice", &["devs"]).await;
    let whoami = house.log_in("alice").await.whoami().await.expect("in");
    assert_ne!(whoami.principal, local);
    assert!(whoami.name.as_str().starts_with("alice-"), "{}", whoami.name);
    assert_eq!(roles(&whoami), ["operator@default"]);
    let new = SetPassword { password: SecretText::new("a sentence about horses".to_owned()) };
    let set = house.inside.client.set_password(whoami.principal, &new).await;
    assert_eq!(code(set), Code::NoPassword, "the provider alone says who they are");
    // A name that is none, and no name at all.
    for (subject, claims) in
        [("1", json!({"preferred_username": "a\u{202e}b", "groups": "devs"})), ("2", json!({"groups": ["devs"]}))]
    {
        house.provider.person(subject, claims).await;
        let whoami = house.log_in(subject).await.whoami().await.expect("in");
        assert!(whoami.name.as_str().starts_with("person-"), "{}", whoami.name);
    }
}

async fn who_is_disabled_stays_out(engine: Engine) {
    let house = House::start(engine).await;
    house.person("alice", &["devs"]).await;
    let session = house.log_in("alice").await;
    let id: PrincipalId = session.whoami().await.expect("in").principal;
    house.inside.client.disable_principal(id).await.expect("disabled");
    assert_eq!(code(session.whoami().await), Code::Unauthenticated);
    let got = house.round(&mut Browser::default(), "alice", "").await;
    assert!(got.status == 401 && got.text.contains("disabled"), "{got:?}");
    house.inside.client.enable_principal(id).await.expect("enabled");
    house.log_in("alice").await.whoami().await.expect("in again");
    // Between the browser and the program that fetches the session.
    let word = "a word";
    let query = format!("?port=9&challenge={}", challenge(word));
    let back = house.round(&mut Browser::default(), "alice", &query).await.location;
    house.inside.client.disable_principal(id).await.expect("disabled");
    assert_eq!(code(fetch(&house, &back, word).await), Code::LoginRefused);
}

async fn a_round_ends_once_in_its_own_browser_and_in_time(engine: Engine) {
    let house = House::start(engine).await;
    house.person("alice", &["devs"]).await;
    let refused = |got: Got| assert!(got.status == 401 && got.text.contains("begin again"), "{got:?}");
    let begun = async |browser: &mut Browser| {
        let page = house.begin(browser, "").await;
        house.here(&house.provider.log_in(&page, "alice").await)
    };
    let mut own = Browser::default();
    let back = begun(&mut own).await;
    assert_eq!(own.open(&back).await.status, 200);
    refused(own.open(&back).await);
    // Somebody who sends their own round to another's browser does not log that in as themselves.
    let (mut evil, mut other) = (Browser::default(), Browser::default());
    let back = begun(&mut evil).await;
    refused(other.open(&back).await);
    assert!(!other.cookies.contains_key("legation"));
    refused(evil.open(&back).await);
    let mut late = Browser::default();
    let back = begun(&mut late).await;
    house.inside.clock.advance(10 * MINUTE);
    refused(late.open(&back).await);
    refused(late.open(&format!("{}{}?state=x&code=y", house.inside.url, routes::LOGIN_OIDC_CALLBACK)).await);
    refused(late.open(&format!("{}{}", house.inside.url, routes::LOGIN_OIDC_CALLBACK)).await);
    let mut unwilling = Browser::default();
    let page = house.begin(&mut unwilling, "").await;
    // This provider leaves out the state, which must be there.
    let state = parameter(&page, "state").expect("a state");
    let back = format!("{}&state={state}", house.provider.deny(&page).await);
    let got = unwilling.open(&house.here(&back)).await;
    assert!(got.status == 401 && got.text.contains("access_denied"), "{got:?}");
}

/// The code is bound to the round by the nonce in the ID token, whatever the provider makes of the rest.
async fn a_code_of_another_round_is_worth_nothing(engine: Engine) {
    let house = House::start(engine).await;
    house.person("alice", &["devs"]).await;
    house.person("mallory", &["cn=platform,dc=x"]).await;
    let (mut alice, mut mallory) = (Browser::default(), Browser::default());
    let page = house.begin(&mut mallory, "").await;
    let stolen = parameter(&house.provider.log_in(&page, "mallory").await, "code").expect("a code");
    let page = house.begin(&mut alice, "").await;
    let state = parameter(&page, "state").expect("a state");
    let back = format!("{}{}?state={state}&code={stolen}", house.inside.url, routes::LOGIN_OIDC_CALLBACK);
    let got = alice.open(&back).await;
    assert!(got.status == 503 && !alice.cookies.contains_key("legation"), "{got:?}");
    // What goes to the provider is as it should be.
    assert_eq!(parameter(&page, "code_challenge_method").as_deref(), Some("S256"));
    assert_eq!(parameter(&page, "response_type").as_deref(), Some("code"));
    assert_eq!(parameter(&page, "redirect_uri"), Some(format!("{PUBLIC}{}", routes::LOGIN_OIDC_CALLBACK)));
    assert_eq!(parameter(&page, "scope").as_deref(), Some("openid profile"));
    assert_eq!(parameter(&page, "max_age").as_deref(), Some("43200"));
}

/// Brings what came back to a program.
async fn fetch(house: &House, back: &str, word: &str) -> Result<LoggedIn, legation_api::client::ClientError> {
    let code = SecretText::new(parameter(back, "code").expect("a code"));
    let client = Client::new(&house.inside.url, None, None).expect("a client");
    client.log_in_by_code(&LogInByCode { code, word: SecretText::new(word.to_owned()) }).await
}

async fn a_program_gets_the_login_that_it_began(engine: Engine) {
    let house = House::start(engine).await;
    house.person("alice", &["devs"]).await;
    let query = format!("?port=4711&challenge={}", challenge("a word"));
    let round = async || {
        let mut browser = Browser::default();
        let got = house.round(&mut browser, "alice", &query).await;
        assert!(got.status == 303 && got.location.starts_with("http://127.0.0.1:4711/?code="), "{got:?}");
        assert!(!browser.cookies.contains_key("legation"), "the browser gets no session");
        got.location
    };
    let back = round().await;
    let began = fetch(&house, &back, "a word").await.expect("its own");
    let client = Client::new(&house.inside.url, began.value.as_ref(), None).expect("a client");
    assert_eq!(client.whoami().await.expect("in").name.as_str(), "alice");
    assert_eq!(code(fetch(&house, &back, "a word").await), Code::LoginRefused, "once");
    let back = round().await;
    assert_eq!(code(fetch(&house, &back, "another word").await), Code::LoginRefused);
    assert_eq!(code(fetch(&house, &back, "a word").await), Code::LoginRefused, "whoever guesses has one guess");
    let back = round().await;
    house.inside.clock.advance(MINUTE);
    assert_eq!(code(fetch(&house, &back, "a word").await), Code::LoginRefused, "too late");
    // Who is refused is told in the program too.
    house.person("alice", &[]).await;
    let got = house.round(&mut Browser::default(), "alice", &query).await;
    assert!(parameter(&got.location, "refused").is_some_and(|why| why.contains("none of your groups")), "{got:?}");
    let raw = Raw::of(&house.inside);
    for wrong in ["?port=1", "?challenge=x", "?port=1&challenge=short", "?port=70000", "?to=http://evil.example"] {
        let got = answer(raw.bare(reqwest::Method::GET, &format!("{}{wrong}", routes::LOGIN_OIDC))).await;
        assert_eq!(got.status, 400, "{wrong}");
    }
}

async fn the_command_line_logs_in_by_a_browser(engine: Engine) {
    let house = House::start(engine).await;
    house.person("alice", &["devs"]).await;
    let home = tempfile::tempdir().expect("a directory");
    let command = |arguments: &[&str]| {
        let mut command = Command::new(Binaries::built().cli);
        command.args(["--url", &house.inside.url]).args(arguments).env_clear();
        command.env("LEGATION_CONFIG_DIR", home.path().join("config")).stdin(Stdio::null());
        command
    };
    let log = home.path().join("log");
    let mut login = Process::spawn("legation", &mut command(&["login", "--oidc"]), &log).expect("it starts");
    let address = eventually("it says what to open", async || {
        let said = login.log();
        said.split_whitespace().find(|word| word.starts_with("http")).map(str::to_owned)
    })
    .await;
    let mut browser = Browser::default();
    let page = browser.open(&address).await.location;
    let back = browser.open(&house.here(&house.provider.log_in(&page, "alice").await)).await.location;
    // Neither something else that asks nor a code of somebody's invention is taken for the login.
    let port = back.split('/').nth(2).expect("an address").to_owned();
    assert_eq!(browser.open(&format!("http://{port}/favicon.ico")).await.status, 404);
    let got = browser.open(&back).await;
    assert!(got.status == 200 && got.text.contains("logged in"), "{got:?}");
    assert_eq!(login.exit(std::time::Duration::from_secs(30)).await.code(), Some(0), "{}", login.log());
    assert!(!login.log().contains("lcs_"), "{}", login.log());
    let shown = command(&["whoami", "-o", "json"]).output().await.expect("it runs");
    let whoami: Whoami = serde_json::from_slice(&shown.stdout).expect("JSON");
    assert_eq!((whoami.name.as_str(), whoami.key), ("alice", None));
}

async fn a_session_is_shown_anew_at_the_provider(engine: Engine) {
    let house = House::start(engine).await;
    let clock = &house.inside.clock;
    house.person("alice", &["cn=platform,dc=x"]).await;
    house.person("bob", &["cn=platform,dc=x"]).await;
    let mut browser = Browser::default();
    assert_eq!(house.round(&mut browser, "alice", "").await.status, 200);
    let client = house.client(&browser);
    // The provider says when it asked, and goes by the machine's clock: by ours that is long ago.
    clock.advance(FRESH_FOR + 1);
    let got = house.round(&mut browser, "alice", "?fresh=true").await;
    assert!(got.status == 401 && got.text.contains("has not asked you again"), "{got:?}");
    clock.jump(-FRESH_FOR - 1);
    super::behind(&house.inside, "UPDATE logins SET authenticated_at = 0").await;
    let other = super::raw::principal(&house.inside, &[]).await;
    let give = async || client.create_grant(&grant(other, "viewer", None)).await;
    assert_eq!(code(give().await), Code::Reauthenticate);
    let password = legation_api::logins::Reauthenticate { password: SecretText::new("x".to_owned()) };
    assert_eq!(code(client.reauthenticate(&password).await), Code::Reauthenticate, "there is no password");
    // The round of somebody else, whom the Manager knows too, does not make it fresh.
    house.log_in("bob").await.whoami().await.expect("in");
    let page = house.begin(&mut browser, "?fresh=true").await;
    assert_eq!(
        (parameter(&page, "prompt").as_deref(), parameter(&page, "max_age").as_deref()),
        (Some("login"), Some("0"))
    );
    let got = browser.open(&house.here(&house.provider.log_in(&page, "bob").await)).await;
    assert!(got.status == 401 && got.text.contains("somebody else"), "{got:?}");
    assert_eq!(code(give().await), Code::Reauthenticate);
    let session = browser.cookies["legation"].clone();
    let got = house.round(&mut browser, "alice", "?fresh=true").await;
    assert!(got.status == 200 && got.text.contains("That was you"), "{got:?}");
    assert_eq!(browser.cookies["legation"], session, "it is the session of before");
    give().await.expect("it is fresh");
    let whoami = client.whoami().await.expect("in");
    assert!(whoami.authenticated_at.is_some_and(|at| clock.wall() - at < MINUTE), "{whoami:?}");
}

async fn a_provider_that_is_away_lets_nobody_in(engine: Engine) {
    let nobody = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = nobody.local_addr().expect("an address");
    drop(nobody);
    let inside = Inside::with(engine, settings(&format!("http://{address}"))).await;
    let got = Browser::default().open(&format!("{}{}", inside.url, routes::LOGIN_OIDC)).await;
    assert!(got.status == 503 && got.text.contains("identity provider"), "{got:?}");
    assert!(!got.text.contains(&address.to_string()), "what it is set to is for the operator");
    user(&inside, "alice", &[]).await;
    super::passwords::log_in(&inside, "alice", super::passwords::PASSWORD).await.expect("passwords go on");
}
