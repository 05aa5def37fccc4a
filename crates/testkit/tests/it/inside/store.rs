//! The database is locked or gone while the Manager serves: what can be kept is kept, nothing is promised that
//! is not on disk, and it is over when it is over. And what may never be in a database at all.

use std::{fs, path::PathBuf, time::Duration};

use legation_api::{
    Code,
    client::ClientError,
    revoke::RevokeToken,
    routes,
    tasks::{Shell, SubmitTask, Work},
    tokens::CreateToken,
};
use legation_link::Ended;
use legation_manager::{backlog::REPORTS_MAX, config::Config, system::SystemEntropy};
use legation_model::{api_key::ApiKey, secret::SecretText, token::TokenStatus};
use legation_testkit::{Engine, Inside, Puppet, canary::Canary, eventually, inside::Attempted, world::Issued};
use legation_wire::{
    Action, DelegateEvent, GoodbyeReason,
    message::{FromDelegate, HeldAttempt, Phase, Stopped, Stream, ToDelegate},
};
use sqlx::{AnyConnection, AssertSqlSafe, Connection as _, Executor as _};
use tokio::{sync::watch, task::JoinHandle, time::timeout};

use super::{
    passwords::PASSWORD,
    raw::{Raw, answer},
};

super::on_both!(
    a_locked_database_stops_writes_and_nothing_else,
    a_database_that_is_gone_stops_writes_until_it_is_back,
    a_revoke_that_cannot_be_durable_cuts_all_the_same,
    a_revoke_while_the_database_is_gone_cuts_all_the_same,
    an_expiry_that_could_not_be_stored_is_tried_again,
    a_stop_report_that_is_not_stored_is_not_acknowledged,
    a_delegate_that_talks_on_while_nothing_can_be_stored_stays,
    a_manager_that_was_overtaken_ends,
    a_second_manager_is_refused_in_one_sentence,
    no_secret_is_stored_or_shown,
);

/// The store waits 5 s for a lock, a transaction before ours may have waited as long, and machines are busy.
const STORE_BOUND: Duration = Duration::from_secs(20);

fn url(inside: &Inside) -> String {
    inside.manager.config.database_url.clone().expect("a database of its own")
}

/// Somebody else holds the database: nothing can be written, and on PostgreSQL no token can be read either.
async fn lock(inside: &Inside) -> AnyConnection {
    let mut other = super::beside(inside).await;
    let lock = match inside.engine {
        Engine::Sqlite => "BEGIN IMMEDIATE",
        Engine::Postgres => "BEGIN; SELECT 1 FROM manager FOR UPDATE; LOCK TABLE tokens IN ACCESS EXCLUSIVE MODE",
    };
    other.execute(sqlx::raw_sql(lock)).await.expect("locked");
    other
}

async fn unlock(mut other: AnyConnection) {
    other.execute("ROLLBACK").await.expect("unlocked");
}

/// Takes the database away, and gives it back.
pub(super) async fn take_away(inside: &Inside, away: bool) {
    if inside.engine == Engine::Sqlite {
        let here = PathBuf::from(url(inside).trim_start_matches("sqlite://"));
        let there = here.with_extension("away");
        let (from, to) = if away { (here, there) } else { (there, here) };
        return fs::rename(from, to).expect("renamed");
    }
    let url = url(inside);
    let name = url.split('?').next().and_then(|url| url.rsplit('/').next()).expect("a database name");
    sqlx::any::install_default_drivers();
    let mut server = AnyConnection::connect(&legation_testkit::database::postgres()).await.expect("the cluster");
    let admit = format!("ALTER DATABASE {name} ALLOW_CONNECTIONS {}", !away);
    server.execute(AssertSqlSafe(admit)).await.expect("set");
    if away {
        let end = "SELECT COUNT(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = $1";
        sqlx::query(end).bind(name).execute(&mut server).await.expect("ended");
    }
}

/// A delegate that lives on its own, and what it has seen.
struct Alive {
    renewals: watch::Receiver<u32>,
    life: JoinHandle<Result<DelegateEvent, Ended>>,
}

/// Joins and then only listens; ends with the first thing that is no renewed lease.
async fn live(mut puppet: Puppet) -> Alive {
    puppet.join().await;
    let (counter, renewals) = watch::channel(0);
    let life = tokio::spawn(async move {
        loop {
            match puppet.next().await {
                Ok(DelegateEvent::LeaseRenewed { .. }) => counter.send_modify(|count| *count += 1),
                other => return other,
            }
        }
    });
    Alive { renewals, life }
}

impl Alive {
    /// Waits until the lease was renewed some times more.
    async fn renewed(&mut self) {
        let now = *self.renewals.borrow();
        self.renewals.wait_for(|count| *count >= now + 3).await.expect("the session is alive");
    }

    /// How it ended, which may not be a verdict.
    async fn cut(self) {
        match self.life.await.expect("no panic") {
            Err(_) => {}
            Ok(DelegateEvent::Goodbye(goodbye)) => assert_eq!(goodbye.reason.action(), Action::Retry, "{goodbye:?}"),
            Ok(other) => panic!("neither cut nor told to come back: {other:?}"),
        }
    }
}

/// Delegates that beat fast, so that a test sees several beats.
async fn start(engine: Engine) -> Inside {
    let settings = legation_manager::config::Settings { heartbeat: Some("200ms".to_owned()), ..Default::default() };
    Inside::with(engine, settings).await
}

pub(super) fn code<T: std::fmt::Debug>(outcome: Result<T, ClientError>) -> Code {
    match outcome {
        Err(ClientError::Problem(problem)) => problem.code,
        other => panic!("no problem but {other:?}"),
    }
}

/// Writes are refused within the bound and say so; health and heartbeats go on.
async fn holds_out(inside: &Inside, alive: &mut Alive) {
    let raw = Raw::of(inside);
    let name = "never".parse().expect("a name");
    let request = CreateToken::new("default".parse().expect("a scope"), name);
    let created = timeout(STORE_BOUND, inside.client.create_token(&request)).await.expect("answered in time");
    assert_eq!(code(created), Code::StoreUnavailable);
    alive.renewed().await;
    let ready = answer(raw.bare(reqwest::Method::GET, routes::READYZ)).await;
    assert_eq!(ready.status, 503, "{}", ready.text());
    assert_eq!(answer(raw.bare(reqwest::Method::GET, routes::HEALTHZ)).await.status, 200);
    alive.renewed().await;
}

/// Writes are taken again, and the session is the one from before.
async fn recovers(inside: &Inside, token: &Issued, mut alive: Alive, session: legation_model::ids::SessionId) {
    let raw = Raw::of(inside);
    eventually("the Manager is ready again", async || {
        (answer(raw.bare(reqwest::Method::GET, routes::READYZ)).await.status == 200).then_some(())
    })
    .await;
    inside.token("afterwards").await;
    alive.renewed().await;
    assert_eq!(inside.manager.sessions.of_token(token.id)[0].id, session, "it never had to reconnect");
}

async fn a_locked_database_stops_writes_and_nothing_else(engine: Engine) {
    let inside = start(engine).await;
    let token = inside.token("a").await;
    let mut alive = live(inside.puppet("one", &token)).await;
    let session = inside.manager.sessions.of_token(token.id)[0].id;
    let other = lock(&inside).await;
    holds_out(&inside, &mut alive).await;
    unlock(other).await;
    recovers(&inside, &token, alive, session).await;
}

async fn a_database_that_is_gone_stops_writes_until_it_is_back(engine: Engine) {
    let inside = start(engine).await;
    let token = inside.token("a").await;
    let mut alive = live(inside.puppet("one", &token)).await;
    let session = inside.manager.sessions.of_token(token.id)[0].id;
    take_away(&inside, true).await;
    holds_out(&inside, &mut alive).await;
    take_away(&inside, false).await;
    recovers(&inside, &token, alive, session).await;
}

/// More reports than may wait are let go, and the session lasts until the store takes what waits; then the delegate
/// is asked to come again and repeat the rest.
async fn a_delegate_that_talks_on_while_nothing_can_be_stored_stays(engine: Engine) {
    let inside = start(engine).await;
    let token = inside.token("a").await;
    let (mut puppet, attempt, _) = super::working(&inside, "one", &token).await;
    let other = lock(&inside).await;
    let lines = 4 * REPORTS_MAX as u64;
    for offset in 0..lines {
        let bytes = b".".to_vec();
        puppet.say(FromDelegate::Output { attempt, offset, stream: Stream::Stdout, bytes }).await.expect("said");
    }
    for _ in 0..5 {
        let renewed = puppet.next().await;
        assert!(matches!(renewed, Ok(DelegateEvent::LeaseRenewed { .. })), "{renewed:?}");
    }
    unlock(other).await;
    let mut stored = 0;
    let goodbye = loop {
        match puppet.next().await.expect("a last word") {
            DelegateEvent::Message(ToDelegate::OutputAck { offset, .. }) => stored = offset,
            DelegateEvent::Goodbye(goodbye) => break goodbye,
            _ => {}
        }
    };
    assert_eq!(goodbye.reason.action(), Action::Retry, "{goodbye:?}");
    assert!(stored > 0 && stored < lines, "what was stored is said, {stored} of {lines}");
    let held = HeldAttempt { attempt, phase: Phase::Running };
    assert!(matches!(puppet.connect_holding(vec![held]).await, Attempted::Welcome(_)));
    let bytes = b".".to_vec();
    puppet.say(FromDelegate::Output { attempt, offset: stored, stream: Stream::Stdout, bytes }).await.expect("said");
    assert_eq!(puppet.message().await, ToDelegate::OutputAck { attempt, offset: stored + 1 }, "nothing is missing");
}

/// Another Manager has raised the epoch: what it revokes would not be heard of here.
async fn a_manager_that_was_overtaken_ends(engine: Engine) {
    let inside = start(engine).await;
    let token = inside.token("a").await;
    let mut puppet = inside.puppet("one", &token);
    puppet.join().await;
    super::behind(&inside, "UPDATE manager SET epoch = epoch + 1").await;
    let goodbye = timeout(STORE_BOUND, puppet.goodbye()).await.expect("it finds out in time");
    assert_eq!(goodbye.reason.action(), Action::Retry, "{goodbye:?}");
    inside.manager.stopping.cancelled().await;
    let live = inside.manager.tokens.get(token.id).expect("live");
    assert!(!live.gate.is_open(), "nothing of the token happens here any more");
}

async fn a_revoke_that_cannot_be_durable_cuts_all_the_same(engine: Engine) {
    let inside = start(engine).await;
    let (token, other) = (inside.token("a").await, inside.token("b").await);
    let (hit, mut spared) = (live(inside.puppet("one", &token)).await, live(inside.puppet("two", &other)).await);
    let locked = lock(&inside).await;
    cut_in_memory(&inside, &token, hit).await;
    spared.renewed().await;
    unlock(locked).await;
    made_durable(&inside, &token).await;
    spared.renewed().await;
}

async fn a_revoke_while_the_database_is_gone_cuts_all_the_same(engine: Engine) {
    let inside = start(engine).await;
    let (token, other) = (inside.token("a").await, inside.token("b").await);
    let (hit, mut spared) = (live(inside.puppet("one", &token)).await, live(inside.puppet("two", &other)).await);
    take_away(&inside, true).await;
    cut_in_memory(&inside, &token, hit).await;
    spared.renewed().await;
    take_away(&inside, false).await;
    made_durable(&inside, &token).await;
    spared.renewed().await;
}

/// The revoke says that it is not durable; its sessions are gone and nobody was told to stop.
async fn cut_in_memory(inside: &Inside, token: &Issued, hit: Alive) {
    let request = RevokeToken::default();
    let revoke = inside.client.revoke_token(token.id, &request);
    let answer = timeout(STORE_BOUND, revoke).await.expect("answered in time");
    assert_eq!(code(answer), Code::RevokedNotDurable);
    assert!(inside.manager.sessions.of_token(token.id).is_empty(), "the call returns when the last session is closed");
    hit.cut().await;
    let Attempted::Goodbye(goodbye) = inside.puppet("late", token).connect().await else { panic!("no Goodbye") };
    assert_eq!((goodbye.reason.action(), goodbye.receipt), (Action::Retry, None), "{goodbye:?}");
}

/// Repeating the revoke succeeds, and from then on delegates are told the truth.
async fn made_durable(inside: &Inside, token: &Issued) {
    let receipt = eventually("the database is back", async || {
        inside.client.revoke_token(token.id, &RevokeToken::default()).await.ok()
    })
    .await;
    assert!(receipt.completed_at.is_some());
    assert_eq!(receipt.lines.len(), 1, "who may still hold a lease is on the receipt, cut or not");
    let Attempted::Goodbye(goodbye) = inside.puppet("later", token).connect().await else { panic!("no Goodbye") };
    assert_eq!((goodbye.reason, goodbye.receipt), (GoodbyeReason::TokenRevoked, Some(receipt.id)));
    assert_eq!(inside.client.token(token.id).await.expect("a token").status, TokenStatus::Revoked);
}

async fn an_expiry_that_could_not_be_stored_is_tried_again(engine: Engine) {
    let inside = Inside::start(engine).await;
    let expires_at = legation_model::Clock::wall(&*inside.clock) + 60_000;
    let token = inside.token_with("short", |token| token.expires_at = Some(expires_at)).await;
    let live = inside.manager.tokens.get(token.id).expect("live");
    let other = lock(&inside).await;
    inside.clock.advance(60_000);
    timeout(STORE_BOUND, live.gate.closed()).await.expect("refused in memory all the same");
    assert!(!live.is_ended(), "nothing is said that a restart would unsay");
    unlock(other).await;
    eventually("the expiry is stored", async || live.is_ended().then_some(())).await;
    assert_eq!(inside.client.token(token.id).await.expect("a token").status, TokenStatus::Revoked);
}

async fn a_stop_report_that_is_not_stored_is_not_acknowledged(engine: Engine) {
    let inside = Inside::start(engine).await;
    let token = inside.token("a").await;
    let mut puppet = inside.puppet("one", &token);
    puppet.join().await;
    let receipt = inside.client.revoke_token(token.id, &RevokeToken::default()).await.expect("revoked").id;
    let other = lock(&inside).await;
    let report = timeout(STORE_BOUND, puppet.report_stop(Stopped { receipt, tasks_killed: 1 })).await;
    assert!(matches!(report, Ok(Attempted::Ended(_))), "the delegate must report again: {report:?}");
    unlock(other).await;
    let again = puppet.report_stop(Stopped { receipt, tasks_killed: 1 }).await;
    assert!(matches!(again, Attempted::Goodbye(_)), "{again:?}");
    let line = inside.client.receipt(receipt).await.expect("a receipt").lines.remove(0);
    assert_eq!(line.tasks_killed, Some(1));
}

async fn a_second_manager_is_refused_in_one_sentence(engine: Engine) {
    let inside = start(engine).await;
    let config = Config { ready_file: None, ..inside.manager.config.clone() };
    let clock = std::sync::Arc::clone(&inside.clock) as std::sync::Arc<dyn legation_model::Clock>;
    let Err(refusal) = legation_manager::start(config, clock, std::sync::Arc::new(SystemEntropy)).await else {
        panic!("two Managers on one database");
    };
    let sentence = format!("{refusal:#}");
    assert!(sentence.contains("another Manager") && sentence.contains("stop it first"), "{sentence}");
    assert_eq!(sentence.lines().count(), 1, "{sentence}");
    inside.token("still-writes").await;
}

async fn no_secret_is_stored_or_shown(engine: Engine) {
    const TASK_SECRET: &str = "hunter2-of-the-task";
    let inside = start(engine).await;
    let raw = Raw::of(&inside);
    let token = inside.token("a").await;
    let mut puppet = inside.puppet("one", &token);
    puppet.join().await;
    let work = Work::Shell(Shell { script: "true # a script is no secret".to_owned(), ..Shell::default() });
    let mut request = SubmitTask::new("default".parse().expect("a scope"), work);
    request.secrets.insert("PASSWORD".to_owned(), SecretText::new(TASK_SECRET.to_owned()));
    let task = inside.client.submit_task(&request).await.expect("submitted").id;
    let replayed = raw.posting(routes::TOKENS, r#"{"scope":"default","name":"b"}"#).header("idempotency-key", "once");
    let second = answer(replayed).await.json()["value"].as_str().expect("a value").to_owned();
    super::passwords::user(&inside, "alice", &[]).await;
    let session = super::passwords::log_in(&inside, "alice", PASSWORD).await.expect("a session");
    let mut shown = format!("{:?}", session.sessions(&Default::default()).await) + &everything_shown(&raw).await;
    let receipt = inside.client.revoke_token(token.id, &RevokeToken::default()).await.expect("revoked").id;
    puppet.report_stop(Stopped { receipt, tasks_killed: 1 }).await;
    for path in [
        routes::fill(routes::TASK, &task),
        routes::fill(routes::TOKEN, &token.id),
        routes::fill(routes::RECEIPT, &receipt),
    ] {
        shown += &raw.get(&path).await.text();
    }
    shown += &everything_shown(&raw).await;
    inside.client.delete_token(token.id).await.expect("deleted");
    shown += &everything_shown(&raw).await;

    let key: ApiKey = inside.key.expose().parse().expect("a key");
    let canaries = [
        Canary::token(token.value.expose()),
        Canary::token(&second),
        Canary::text("the token's text", token.value.expose()),
        Canary::text("the API key", inside.key.expose()),
        Canary::bytes("the API key's secret", key.secret.expose()),
        Canary::text("the task's secret", TASK_SECRET),
        Canary::text("a password", PASSWORD),
        Canary::text("the hash of a password", "$argon2id$"),
    ];
    let stored = everything_stored(&inside).await;
    assert!(Canary::text("the script", "a script is no secret").in_bytes(&stored).is_some(), "this looks at the data");
    for canary in canaries {
        assert_eq!(canary.in_bytes(shown.as_bytes()), None, "shown");
        assert_eq!(canary.in_bytes(&stored), None, "stored");
        let own_key = inside.directory().join("key");
        assert_eq!(canary.in_tree(&inside.directory(), &[&own_key]), Vec::<String>::new());
    }
}

/// Whatever can be read without knowing an id.
async fn everything_shown(raw: &Raw) -> String {
    let mut all = String::new();
    for path in [
        routes::METRICS,
        routes::OPENAPI,
        routes::WHOAMI,
        routes::ACCOUNTS,
        routes::DELEGATES,
        routes::TASKS,
        routes::RECEIPTS,
    ] {
        all += &raw.get(path).await.text();
    }
    all + &raw.get("/api/v1/tokens?include_revoked=true").await.text()
}

/// The database's raw files, or every row as the server prints it.
async fn everything_stored(inside: &Inside) -> Vec<u8> {
    if inside.engine == Engine::Sqlite {
        let all = legation_testkit::canary::files(&inside.directory());
        let files = all.into_iter().filter(|file| file.to_string_lossy().contains("legation.db"));
        return files.flat_map(|file| fs::read(file).expect("readable")).collect();
    }
    let mut other = super::beside(inside).await;
    let tables = "SELECT table_name::text FROM information_schema.tables WHERE table_schema = 'public'";
    let tables: Vec<String> = sqlx::query_scalar(tables).fetch_all(&mut other).await.expect("tables");
    let mut all = Vec::new();
    for table in tables {
        let rows = format!("SELECT t::text FROM {table} t");
        let rows: Vec<String> = sqlx::query_scalar(AssertSqlSafe(rows)).fetch_all(&mut other).await.expect("rows");
        all.extend(rows.into_iter().flat_map(String::into_bytes));
    }
    all
}
