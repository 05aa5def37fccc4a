//! The transaction of admissions, which they share: ten thousand delegates that return at once cost a statement for
//! hundreds, and not several for each.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
};

use legation_api::delegates::account_of;
use legation_model::{
    Millis, Scope,
    delegate::{CloneReport, CloneSide, Delegate, DelegateStatus, FORMER_BOOTS_MAX, Standing},
    ids::{BootId, DelegateId, TokenId},
    task::Task,
    token::TokenStatus,
};
use legation_store::{
    StoreError, Tx, clones,
    delegates::{self, Holder},
    job, tasks, tokens,
};
use legation_wire::{
    close::GoodbyeReason,
    message::{Goodbye, Hello},
};
use serde_json::json;

use crate::{
    Manager,
    audit::{self, Actor, Change},
    limits::full,
    live::{LiveToken, Rules, retry},
    lock::lock,
};

/// Admissions in one transaction. Those that wait hold places for handshakes, which bounds them.
const JOINS_MAX: usize = 256;
/// Late starts that are remembered; when there are more, all are forgotten, which only delays an alarm.
const LATE_BOOTS_MAX: usize = 4_096;
/// How much older than the truth a last-seen time in the store may be: it is written every few seconds.
const SEEN_SLACK: Millis = 60_000;

/// A delegate that proved a token and wants to work.
#[derive(Clone)]
pub(crate) struct Join {
    pub(crate) live: Arc<LiveToken>,
    /// The token's rules that its first frame was held against.
    pub(crate) rules: Arc<Rules>,
    pub(crate) public_key: [u8; 32],
    pub(crate) hello: Hello,
    pub(crate) address: IpAddr,
}

/// What the transaction found.
pub(crate) enum Joined {
    /// It is in, with what it may still have to do, and its place in the order of admissions.
    In {
        id: DelegateId,
        open: Vec<Task>,
        admission: u64,
        requeued: bool,
    },
    Out(Goodbye),
    /// The store says that the token has ended.
    Ended,
    /// Two processes use one key; sessions admitted before this place in the order of admissions are to end.
    Cloned(DelegateId, Goodbye, u64),
}

/// How a first frame relates to what is known of its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Arrival {
    /// A key never seen in this scope.
    Newcomer,
    /// The same process, a later connection.
    Reconnect,
    /// A new process; what the old one ran is lost.
    Restart,
    /// A connection older than one that was admitted.
    Stale,
    /// A process that had been superseded is back. Once that may be a connection that was late.
    Late,
    /// It is back again: two processes share one key.
    Clone,
}

/// A key within its scope.
pub(crate) type Key = (Scope, [u8; 32]);

/// What is read once for all, and what is written once for all.
#[derive(Default)]
pub(crate) struct Table {
    statuses: BTreeMap<TokenId, TokenStatus>,
    pub(crate) known: HashMap<Key, Delegate>,
    open: Vec<Task>,
    pub(crate) changed: BTreeSet<Key>,
    pub(crate) changes: Vec<(Actor, Change)>,
    /// Superseded starts that came back.
    late: Vec<BootId>,
}

impl Manager {
    /// Writes admissions until the Manager stops.
    pub(crate) async fn join_loop(self: Arc<Self>) {
        let write = |joins| {
            let this = Arc::clone(&self);
            async move { this.store_joins(joins).await }
        };
        self.joins.serve(&self.stopping, JOINS_MAX, |_| 1, write).await;
    }

    /// Because the writer runs one transaction at a time, two connections of one key are decided one after the other.
    async fn store_joins(&self, joins: Vec<Join>) -> Result<Vec<Joined>, StoreError> {
        let this = self.handle();
        let work = job(move |tx| {
            Box::pin(async move {
                let mut table = Table::read(tx, &joins).await?;
                let mut joined = Vec::with_capacity(joins.len());
                for join in joins {
                    joined.push(this.decide(tx, &mut table, join).await?);
                }
                table.write(tx, this.clock.wall()).await?;
                Ok((joined, table.late))
            })
        });
        let (joined, late) = self.store.write(work).await?;
        self.remember_late(late);
        Ok(joined)
    }

    async fn decide(&self, tx: &mut Tx, table: &mut Table, join: Join) -> Result<Joined, StoreError> {
        let draining = match table.statuses.get(&join.live.id) {
            Some(TokenStatus::Active) => false,
            Some(TokenStatus::Draining) => true,
            _ => return Ok(Joined::Ended),
        };
        let key = (join.live.scope.clone(), join.public_key);
        let known = table.known.get(&key).cloned();
        // One that was never let in is new, whichever of its starts is heard.
        let waits = known.as_ref().is_some_and(|known| known.status == DelegateStatus::Pending);
        let before = known.as_ref().filter(|_| !waits);
        let arrival = self.seen_before(table, arrival(before, &join.hello), join.hello.boot);
        if let Some(goodbye) = refusal(before, arrival) {
            return match known {
                Some(known) if arrival == Arrival::Clone && known.status == DelegateStatus::Allowed => {
                    table.quarantine(tx, key, &known, &join, self.clock.wall()).await?;
                    Ok(Joined::Cloned(known.id, goodbye, self.next_admission()))
                }
                _ => Ok(Joined::Out(goodbye)),
            };
        }
        if draining && arrival != Arrival::Reconnect {
            return Ok(Joined::Out(retry(
                "the token is draining: it takes neither new delegates nor new starts of known ones",
            )));
        }
        let now = self.clock.wall();
        if arrival == Arrival::Newcomer
            && let Some(goodbye) = self.enrol(tx, table, &join, &key, now).await?
        {
            return Ok(Joined::Out(goodbye));
        }
        if self.is_full(tx, table, &join, known.as_ref(), now).await? {
            return Ok(Joined::Out(full()));
        }
        let mut requeued = false;
        if let (Arrival::Restart, Some(known)) = (arrival, &known) {
            let left = table.open_of(known.id, |boot| boot == known.boot);
            requeued = !left.is_empty();
            crate::reports::lose_or_requeue(tx, &left, "its delegate was restarted", now).await?;
        }
        let delegate = self.delegate_of(&join, known, now);
        if waits {
            // Nobody is asked any more whether it may.
            let standing = Standing { reason: "enrolment is open".to_owned(), by: Actor::system().name, at: now };
            delegates::set_status(tx, delegate.id, DelegateStatus::Allowed, &standing).await?;
        }
        if arrival == Arrival::Newcomer {
            table.changes.push((Actor::system_for(join.address), change("delegate.join", &delegate)));
        }
        let (id, boot) = (delegate.id, delegate.boot);
        table.known.insert(key.clone(), delegate);
        table.changed.insert(key);
        let open = table.open_of(id, |of| of == boot);
        // Drawn here, so that the numbers have the order in which the store decided.
        Ok(Joined::In { id, open, admission: self.next_admission(), requeued })
    }

    /// The delegate as it is from now on.
    pub(crate) fn delegate_of(&self, join: &Join, known: Option<Delegate>, now: Millis) -> Delegate {
        let hello = &join.hello;
        let mut former_boots = known.as_ref().map(|known| known.former_boots.clone()).unwrap_or_default();
        if let Some(known) = known.as_ref().filter(|known| known.boot != hello.boot) {
            former_boots.push(known.boot);
            let surplus = former_boots.len().saturating_sub(FORMER_BOOTS_MAX);
            former_boots.drain(..surplus);
        }
        Delegate {
            id: known.as_ref().map_or_else(|| DelegateId::random(&*self.entropy), |known| known.id),
            scope: join.live.scope.clone(),
            public_key: join.public_key,
            token: join.live.id,
            name: hello.name.clone(),
            host: hello.host.clone(),
            tags: hello.tags.clone(),
            description: hello.description.clone(),
            version: hello.version.clone(),
            isolation: hello.isolation,
            capacity: hello.capacity,
            status: DelegateStatus::Allowed,
            standing: None,
            boot: hello.boot,
            counter: hello.counter,
            former_boots,
            first_seen: known.map_or(now, |known| known.first_seen),
            last_seen: now,
            address: join.address.to_string(),
        }
    }

    /// Whether the token already has as many delegates, connected or holding a lease, as it may.
    async fn is_full(
        &self,
        tx: &mut Tx,
        table: &mut Table,
        join: &Join,
        newcomer: Option<&Delegate>,
        now: Millis,
    ) -> Result<bool, StoreError> {
        let (live, Some(max)) = (&join.live, join.rules.limits.max_delegates) else { return Ok(false) };
        // Those that were let in before it in this transaction count as well.
        table.write(tx, now).await?;
        let others = delegates::holders(tx, live.id).await?;
        let (wall, boot) = (self.clock.wall(), self.clock.boot());
        let holds = |other: &Holder| {
            // Of a delegate that this process has not heard, the store knows when it was last seen, and of one that was
            // let in but is not registered yet, that it was just now.
            let (answered, seen) = (self.sessions.last_answered(other.id), wall - other.last_seen);
            let since = answered.map_or(seen - SEEN_SLACK, |answered| seen.min(boot - answered));
            let held = self.sessions.newest(other.id).is_some() || since < live.timing.lease_counted();
            held && Some(other.id) != newcomer.map(|known| known.id)
        };
        Ok(others.iter().filter(|other| holds(other)).count() >= max as usize)
    }

    /// Tells a connection that was late from a process that is still alive: only the latter comes twice.
    fn seen_before(&self, table: &mut Table, arrival: Arrival, boot: BootId) -> Arrival {
        if arrival != Arrival::Late {
            return arrival;
        }
        if table.late.contains(&boot) || lock(&self.late_boots).contains(&boot) {
            return Arrival::Clone;
        }
        table.late.push(boot);
        Arrival::Late
    }

    /// Only once the transaction is over: one that is tried again has not seen anybody before.
    fn remember_late(&self, boots: Vec<BootId>) {
        let mut late = lock(&self.late_boots);
        if late.len() + boots.len() > LATE_BOOTS_MAX {
            late.clear();
        }
        late.extend(boots);
    }
}

impl Table {
    async fn read(tx: &mut Tx, joins: &[Join]) -> Result<Self, StoreError> {
        let tokens: BTreeSet<TokenId> = joins.iter().map(|join| join.live.id).collect();
        let mut keys: BTreeMap<&Scope, Vec<[u8; 32]>> = BTreeMap::new();
        for join in joins {
            keys.entry(&join.live.scope).or_default().push(join.public_key);
        }
        let mut table = Self { statuses: tokens::lock_shared_all(tx, &tokens).await?, ..Self::default() };
        for (scope, keys) in keys {
            let found = delegates::by_keys(tx, scope, &keys).await?;
            table.known.extend(found.into_iter().map(|known| ((scope.clone(), known.public_key), known)));
        }
        let ids: Vec<DelegateId> = table.known.values().map(|known| known.id).collect();
        table.open = tasks::open_of_delegates(tx, &ids).await?;
        Ok(table)
    }

    /// The open tasks of a delegate, of those starts of it.
    fn open_of(&self, id: DelegateId, boot: impl Fn(BootId) -> bool) -> Vec<Task> {
        let of = |task: &&Task| task.attempt.as_ref().is_some_and(|held| held.delegate == id && boot(held.boot));
        self.open.iter().filter(of).cloned().collect()
    }

    async fn quarantine(
        &mut self,
        tx: &mut Tx,
        key: Key,
        known: &Delegate,
        join: &Join,
        now: Millis,
    ) -> Result<(), StoreError> {
        let clone = CloneReport { counted: known.into(), returned: returned(join, now) };
        clones::put(tx, known.id, &clone).await?;
        let told = account_of(known.id, known.token, &clone);
        let standing = Standing { reason: told.what.clone(), by: Actor::system().name, at: now };
        delegates::set_status(tx, known.id, DelegateStatus::Quarantined, &standing).await?;
        tracing::error!(delegate = %known.id, "{}; {}", told.what, told.advice);
        let change = Change::new("delegate.quarantine", known.id, known.scope.clone())
            .before(json!({"status": known.status.as_str()}))
            .after(json!({"status": "quarantined", "counted": told.counted, "returned": told.returned}))
            .detail(format!("{}; {}", told.what, told.advice));
        self.changes.push((Actor::system_for(join.address), change));
        if let Some(known) = self.known.get_mut(&key) {
            known.status = DelegateStatus::Quarantined;
        }
        Ok(())
    }

    pub(crate) async fn write(&mut self, tx: &mut Tx, now: Millis) -> Result<(), StoreError> {
        let changed = std::mem::take(&mut self.changed);
        let changed: Vec<Delegate> = changed.iter().filter_map(|key| self.known.get(key).cloned()).collect();
        delegates::upsert(tx, &changed).await?;
        audit::append_all(tx, now, std::mem::take(&mut self.changes)).await
    }
}

/// The process that came back, as it shows itself.
fn returned(join: &Join, now: Millis) -> CloneSide {
    let hello = &join.hello;
    CloneSide {
        boot: hello.boot,
        name: hello.name.clone(),
        host: hello.host.clone(),
        address: join.address.to_string(),
        version: hello.version.clone(),
        tags: hello.tags.clone(),
        description: hello.description.clone(),
        seen_at: now,
    }
}

fn arrival(known: Option<&Delegate>, hello: &Hello) -> Arrival {
    let Some(known) = known else { return Arrival::Newcomer };
    if known.boot == hello.boot {
        return if hello.counter > known.counter { Arrival::Reconnect } else { Arrival::Stale };
    }
    if known.former_boots.contains(&hello.boot) { Arrival::Late } else { Arrival::Restart }
}

/// The Goodbye for an arrival that cannot be admitted.
fn refusal(known: Option<&Delegate>, arrival: Arrival) -> Option<Goodbye> {
    let known = known?;
    let (reason, text) = match (known.status, arrival) {
        (DelegateStatus::Stopped, _) => return Some(stopped(known.standing.as_ref())),
        (DelegateStatus::Quarantined, _) => (
            GoodbyeReason::DelegateStopped,
            "this delegate's key was used by two processes; start with a new state directory",
        ),
        (DelegateStatus::Allowed, Arrival::Clone) => (
            GoodbyeReason::DelegateStopped,
            "another process uses this delegate's key; give each its own state directory",
        ),
        (DelegateStatus::Allowed, Arrival::Stale | Arrival::Late) => {
            (GoodbyeReason::Superseded, "a newer connection of this delegate took over")
        }
        (DelegateStatus::Allowed | DelegateStatus::Pending, _) => return None,
    };
    Some(Goodbye::new(reason, text))
}

/// What a delegate is told that a person stopped.
pub(crate) fn stopped(standing: Option<&Standing>) -> Goodbye {
    let reason = standing.map(|standing| standing.reason.as_str()).filter(|reason| !reason.is_empty());
    let why = reason.map(|reason| format!(": {reason}")).unwrap_or_default();
    Goodbye::new(GoodbyeReason::DelegateStopped, format!("a person stopped this delegate{why}"))
}

/// A change of a delegate, for the audit chain.
pub(crate) fn change(action: &'static str, delegate: &Delegate) -> Change {
    Change::new(action, delegate.id, delegate.scope.clone()).after(json!({
        "name": delegate.name,
        "host": delegate.host,
        "token": delegate.token,
        "status": delegate.status.as_str(),
        "boot": delegate.boot,
        "version": delegate.version,
    }))
}
