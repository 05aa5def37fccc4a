//! Whatever happens to a token at the same time, in whatever order: the invariants hold after each step.
//!
//! A step picks one of several tokens and a few things that happen to it at once: it is revoked, drained, deleted, changed,
//! its time comes, delegates connect, come back, are started again, beat. Which ones follows from a seed; how they meet is
//! up to the scheduler. Then everything is looked at that must be true, whatever the order was.

use std::{collections::BTreeSet, sync::Arc};

use legation_api::{
    Code,
    client::{Client, ClientError},
    receipts::Receipt,
    revoke::{RevokeMode, RevokeToken},
    token_update::UpdateToken,
    tokens::Token,
};
use legation_manager::config::Timing;
use legation_model::{
    Clock as _, Millis,
    ids::{BootId, TokenId},
    token::TokenStatus,
};
use legation_testkit::{Engine, Inside, Puppet, inside::Attempted, seed, world::Issued};
use legation_wire::Action;
use rand::{RngExt as _, SeedableRng as _, seq::IndexedRandom as _};
use rand_chacha::ChaCha8Rng;
use tokio::sync::Mutex;

/// Half of ten thousand, twice, because there are two processors.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_thousand_steps_keep_every_promise() {
    run(Engine::Sqlite, 5_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_thousand_other_steps_keep_every_promise() {
    run(Engine::Sqlite, 5_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_steps_keep_them_on_postgres_too() {
    run(Engine::Postgres, 1_000).await;
}

/// Tokens that are alive at the same time.
const TOKENS: usize = 5;
/// Delegates of each.
const DELEGATES: usize = 3;
/// Things that happen in one step.
const TOGETHER: usize = 3;
/// Turns of the scheduler that one of them may wait before it begins.
const HEAD_START: usize = 24;
/// How soon the time of a token comes that is to come soon.
const SOON: Millis = 4;

/// What can happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Deed {
    Revoke,
    Drain,
    DrainForMoment,
    Delete,
    Fewer,
    OnlyOthers,
    Anybody,
    TimeComes,
    Connect(usize),
    Reboot(usize),
    Beat(usize),
}

/// What came of it.
#[derive(Debug)]
enum Outcome {
    Receipt(Result<Receipt, Code>),
    Changed(Deed, Result<(), Code>),
    Deleted(Result<(), Code>),
    Connected { boot: BootId, attempted: Attempted },
    Beaten(bool),
}

/// A token, and what has been promised of it so far.
struct Case {
    issued: Issued,
    puppets: Vec<Arc<Mutex<Puppet>>>,
    status: TokenStatus,
    receipt: Option<Receipt>,
    /// Starts of delegates that may have been let in while the token was active.
    known: BTreeSet<BootId>,
    most: Option<u32>,
    closed_to_all: bool,
}

async fn run(engine: Engine, steps: usize) {
    let seed = seed::seed();
    let mut chance = ChaCha8Rng::seed_from_u64(seed);
    let inside = Arc::new(Inside::start(engine).await);
    let timing = inside.manager.config.timing;
    let apart = inside.token("apart").await;
    let mut bystander = inside.puppet("bystander", &apart);
    bystander.join().await;
    let mut made = 0;
    let mut cases = Vec::new();
    for step in 0..steps {
        while cases.len() < TOKENS {
            cases.push(Case::new(&inside, made).await);
            made += 1;
        }
        let at = chance.random_range(0..cases.len());
        let deeds = pick(&mut chance);
        let told = format!("step {step} of seed {seed}: {deeds:?}");
        let outcomes = cases[at].step(&inside, &deeds, &mut chance, timing).await;
        cases[at].check(&inside, outcomes, &told).await;
        if cases[at].status == TokenStatus::Deleted {
            cases.swap_remove(at);
        }
        if step % 100 == 0 {
            assert!(bystander.beat(timing).await, "{told}: another token's delegate was touched");
        }
    }
    super::audit::assert_chained(&super::audit::records(&inside).await);
}

/// Things that can happen at the same time: each delegate does one of them at most.
fn pick(chance: &mut ChaCha8Rng) -> Vec<Deed> {
    use Deed::*;
    let mut deeds: Vec<Deed> = Vec::new();
    while deeds.len() < TOGETHER {
        let delegate = chance.random_range(0..DELEGATES);
        let all = [
            Connect(delegate),
            Connect(delegate),
            Reboot(delegate),
            Beat(delegate),
            Beat(delegate),
            Revoke,
            Drain,
            DrainForMoment,
            Delete,
            Fewer,
            OnlyOthers,
            Anybody,
            TimeComes,
        ];
        let deed = *all.choose(chance).expect("there are some");
        if deeds.iter().all(|other| delegate_of(*other).is_none() || delegate_of(*other) != delegate_of(deed)) {
            deeds.push(deed);
        }
    }
    deeds
}

const fn delegate_of(deed: Deed) -> Option<usize> {
    match deed {
        Deed::Connect(delegate) | Deed::Reboot(delegate) | Deed::Beat(delegate) => Some(delegate),
        _ => None,
    }
}

impl Case {
    async fn new(inside: &Inside, number: usize) -> Self {
        let issued = inside.token(&format!("t{number}")).await;
        let puppet = |which| Arc::new(Mutex::new(inside.puppet(&format!("d{which}"), &issued)));
        let puppets = (0..DELEGATES).map(puppet).collect();
        let (status, known) = (TokenStatus::Active, BTreeSet::new());
        Self { puppets, issued, status, receipt: None, known, most: None, closed_to_all: false }
    }

    /// Does all of it at once.
    async fn step(
        &self,
        inside: &Arc<Inside>,
        deeds: &[Deed],
        chance: &mut ChaCha8Rng,
        timing: Timing,
    ) -> Vec<Outcome> {
        let under_way: Vec<_> = deeds
            .iter()
            .map(|deed| {
                let (deed, id, wait) = (*deed, self.issued.id, chance.random_range(0..HEAD_START));
                let (client, now) = (inside.client.clone(), inside.clock.wall());
                let puppet = delegate_of(deed).map(|which| Arc::clone(&self.puppets[which]));
                tokio::spawn(async move {
                    for _ in 0..wait {
                        tokio::task::yield_now().await;
                    }
                    match puppet {
                        Some(puppet) => drive(deed, &mut *puppet.lock().await, timing).await,
                        None => ask(deed, &client, id, now).await,
                    }
                })
            })
            .collect();
        let mut outcomes = Vec::new();
        for one in under_way {
            outcomes.push(one.await.expect("no panic"));
        }
        outcomes
    }

    async fn check(&mut self, inside: &Inside, outcomes: Vec<Outcome>, told: &str) {
        let (before, most) = (self.status, self.most);
        let now = inside.client.token(self.issued.id).await.expect("a token, also a deleted one");
        assert!(now.status >= before, "{told}: life went back from {before} to {}", now.status);
        let ended = |status| matches!(status, TokenStatus::Revoked | TokenStatus::Deleted);
        let (mut tightened, mut loosened) = (false, false);
        for outcome in outcomes {
            let said = format!("{told}: {outcome:?} of a token that was {before} and is {now:?}");
            match outcome {
                Outcome::Receipt(Ok(receipt)) => {
                    assert!(ended(now.status) && receipt.completed_at.is_some(), "{said}");
                    self.same_receipt(&receipt, &said);
                }
                Outcome::Receipt(Err(code)) => {
                    assert_eq!((code, before), (Code::NotFound, TokenStatus::Deleted), "{said}")
                }
                Outcome::Deleted(Ok(())) => assert_eq!(now.status, TokenStatus::Deleted, "{said}"),
                Outcome::Deleted(Err(code)) => {
                    assert!(code == Code::TokenNotRevoked && !ended(before) || code == Code::NotFound, "{said}");
                }
                Outcome::Changed(deed, Ok(())) => {
                    assert!(!ended(before), "{said}");
                    tightened |= matches!(deed, Deed::Fewer | Deed::OnlyOthers);
                    loosened |= deed == Deed::Anybody;
                }
                Outcome::Changed(_, Err(code)) => assert!(
                    matches!(
                        code,
                        Code::Stale | Code::TokenEnded | Code::TokenDraining | Code::NotFound | Code::InvalidRequest
                    ),
                    "{said}"
                ),
                Outcome::Connected { boot, attempted: Attempted::Welcome(_) } => {
                    assert!(!ended(before), "{said}");
                    assert!(before != TokenStatus::Draining || self.known.contains(&boot), "{said}");
                    assert!(!self.closed_to_all || now.allowed_names.is_empty(), "{said}");
                    self.known.insert(boot);
                }
                Outcome::Connected { boot, attempted } => {
                    if let Attempted::Goodbye(goodbye) = attempted {
                        assert!(ended(now.status) || goodbye.reason.action() == Action::Retry, "{said}");
                    }
                    // It may have been let in and turned away in the same breath.
                    if before == TokenStatus::Active {
                        self.known.insert(boot);
                    }
                }
                Outcome::Beaten(answered) => assert!(!(answered && ended(before)), "{said}"),
            }
        }
        self.quiet(inside, &now, told).await;
        if !loosened && !tightened {
            let live = inside.manager.sessions.of_token(now.id).len();
            assert!(most.is_none_or(|most| live <= most as usize), "{told}: {live} delegates of {most:?}");
        }
        (self.status, self.most, self.closed_to_all) = (now.status, now.max_delegates, !now.allowed_names.is_empty());
    }

    /// A token that has ended has no session and nothing under way, and its receipt is what it was.
    async fn quiet(&mut self, inside: &Inside, now: &Token, told: &str) {
        let Some(id) = now.receipt else { return };
        let live = inside.manager.tokens.get(now.id).expect("known");
        // The end that comes by time has no call that waits for it.
        legation_testkit::eventually("the end is complete", async || {
            let receipt = inside.client.receipt(id).await.expect("a receipt");
            receipt.completed_at.map(|_| ())
        })
        .await;
        let receipt = inside.client.receipt(id).await.expect("a receipt");
        self.same_receipt(&receipt, told);
        assert!(inside.manager.sessions.of_token(now.id).is_empty(), "{told}: a session is left");
        assert!(!live.gate.is_open(), "{told}: the gate is open");
        tokio::time::timeout(std::time::Duration::from_secs(10), live.gate.emptied()).await.expect("the gate is empty");
    }

    /// There is one receipt, and it never changes but for what delegates add.
    fn same_receipt(&mut self, receipt: &Receipt, told: &str) {
        let first = self.receipt.get_or_insert_with(|| receipt.clone());
        assert_eq!(
            (first.id, first.revoked_at, first.cause),
            (receipt.id, receipt.revoked_at, receipt.cause),
            "{told}"
        );
        assert_eq!(first.lines, receipt.lines, "{told}");
        assert_eq!(first.statements, receipt.statements, "{told}");
    }
}

/// What a delegate does.
async fn drive(deed: Deed, puppet: &mut Puppet, timing: Timing) -> Outcome {
    if let Deed::Beat(_) = deed {
        return Outcome::Beaten(puppet.is_connected() && puppet.beat(timing).await);
    }
    if let Deed::Reboot(_) = deed {
        puppet.reboot();
    }
    let attempted = puppet.connect().await;
    if !matches!(attempted, Attempted::Welcome(_)) {
        puppet.cut();
    }
    Outcome::Connected { boot: puppet.hello.boot, attempted }
}

/// What a person does.
async fn ask(deed: Deed, client: &Client, id: TokenId, now: Millis) -> Outcome {
    let schedule = |mode, drain_ms| RevokeToken { mode, drain_ms, ..RevokeToken::default() };
    let patch = match deed {
        Deed::Revoke => return Outcome::Receipt(client.revoke_token(id, &RevokeToken::default()).await.map_err(code)),
        Deed::Delete => return Outcome::Deleted(client.delete_token(id).await.map(drop).map_err(code)),
        Deed::Drain | Deed::DrainForMoment => {
            let long = if deed == Deed::Drain { 60 * 60 * 1000 } else { SOON };
            let asked = schedule(RevokeMode::Drain, Some(long));
            return Outcome::Changed(deed, client.schedule_revoke(id, &asked).await.map(drop).map_err(code));
        }
        Deed::Fewer => r#"{"max_delegates":1}"#.to_owned(),
        Deed::OnlyOthers => r#"{"allowed_names":["nobody"]}"#.to_owned(),
        Deed::TimeComes => format!(r#"{{"expires_at":{}}}"#, now + SOON),
        _ => r#"{"max_delegates":null,"allowed_names":null}"#.to_owned(),
    };
    let update: UpdateToken = serde_json::from_str(&patch).expect("a patch");
    let changed = match client.token(id).await {
        Ok(token) => client.update_token(id, token.version, &update).await,
        Err(error) => Err(error),
    };
    Outcome::Changed(deed, changed.map(drop).map_err(code))
}

fn code(error: ClientError) -> Code {
    match error {
        ClientError::Problem(problem) => problem.code,
        other => panic!("no refusal but {other:?}"),
    }
}
