//! Admission: who comes in, which start of a delegate counts, and how long each may hold a lease.

use std::{net::IpAddr, sync::Arc, time::Duration};

use legation_model::{
    Millis, Scope,
    delegate::{Delegate, DelegateStatus, FORMER_BOOTS_MAX},
    ids::{AttemptId, BootId, DelegateId, SessionId},
    task::Task,
    token::TokenStatus,
};
use legation_store::{
    StoreError, Tx,
    delegates::{self},
    job, tasks, tokens,
};
use legation_wire::{
    Proof,
    close::GoodbyeReason,
    message::{FromDelegate, Goodbye, HeldAttempt, Hello, Phase, ToDelegate, Welcome},
};

use crate::{
    Manager,
    audit::{self, Actor, Change},
    config::Timing,
    gate::Entered,
    live::{LiveToken, lock, retry},
    sessions::{NewSession, Session},
};

/// Late starts that are remembered; when there are more, all are forgotten, which only delays an alarm.
const LATE_BOOTS_MAX: usize = 4_096;
/// How much older than the truth a last-seen time in the store may be: it is written every few seconds.
const SEEN_SLACK: Millis = 60_000;
/// How long a refusal waits for the call that ended the token: that is between its transaction and its cut.
const END_WAIT: Duration = Duration::from_secs(1);

/// An admitted session. The gate is held until the Welcome is with the socket.
pub struct Admission {
    /// The registered session.
    pub session: Arc<Session>,
    /// What the delegate is told.
    pub welcome: Welcome,
    /// Admission is an effect.
    pub entered: Entered,
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

/// What the admission's transaction found.
enum Joined {
    In { id: DelegateId, open: Vec<Task>, admission: u64 },
    Out(Goodbye),
    Cloned(DelegateId, Goodbye),
}

impl Manager {
    /// Admits a delegate that proved a token, or says why not.
    ///
    /// # Errors
    /// The Goodbye to send. Doubt of any kind is a reason to retry, never a verdict.
    pub async fn admit(&self, proof: &Proof, hello: Hello, address: IpAddr) -> Result<Admission, Goodbye> {
        let live = self.tokens.get(proof.hint.token).ok_or_else(|| retry("the token is not known yet"))?;
        let entered = live.enter(&self.clock)?;
        // An IPv4 peer of a socket for both families looks like an IPv6 one; rules are written for IPv4.
        let address = address.to_canonical();
        limits_allow(&live, &hello, address)?;
        let joined = self.join(&live, proof.identity, &hello, address).await.map_err(|error| {
            tracing::warn!(token = %live.id, %error, "a delegate cannot be admitted while the store cannot be asked");
            retry("the Manager cannot reach its database")
        })?;
        let (id, open, admission) = match joined {
            Joined::In { id, open, admission } => (id, open, admission),
            Joined::Out(goodbye) if goodbye.reason == GoodbyeReason::ManagerDraining => {
                // The store says that the token ended, so the call that ended it is about to say how.
                drop(entered);
                let told = tokio::time::timeout(END_WAIT, live.gate.closed()).await;
                return Err(if told.is_ok() { live.refusal() } else { goodbye });
            }
            Joined::Out(goodbye) => return Err(goodbye),
            Joined::Cloned(delegate, goodbye) => {
                self.quarantined(delegate);
                return Err(goodbye);
            }
        };
        let welcome = self.welcome(&live, id, proof.hint.generation);
        let held = hello.attempts.clone();
        let session = Arc::new(Session::new(NewSession {
            id: welcome.session,
            token: Arc::clone(&live),
            delegate: id,
            hello,
            address: address.to_string(),
            admission,
            now: self.clock.boot(),
        }));
        self.sessions.register(&session);
        // What was decided between the transaction and this line went to the session before.
        let open = if open.is_empty() { open } else { self.still_open(&session, open).await };
        if self.stopping.is_cancelled() {
            session.stop(Some(retry("the Manager is stopping")));
        }
        self.queue.reload();
        self.settle_attempts(&session, &held, open).await;
        Ok(Admission { session, welcome, entered })
    }

    fn welcome(&self, live: &LiveToken, delegate: DelegateId, generation: u32) -> Welcome {
        let timing = &live.timing;
        Welcome {
            account: live.scope.account().to_owned(),
            scope: live.scope.clone(),
            delegate,
            generation,
            session: SessionId::random(&*self.entropy),
            heartbeat: timing.heartbeat as u64,
            lease: timing.lease as u64,
            first_retry: timing.first_retry as u64,
            server_time: self.clock.wall(),
        }
    }

    /// The transaction of an admission. Because the writer runs one at a time, two connections of one key are
    /// decided one after the other.
    async fn join(
        &self,
        live: &Arc<LiveToken>,
        public_key: [u8; 32],
        hello: &Hello,
        address: IpAddr,
    ) -> Result<Joined, StoreError> {
        let (this, live, hello) = (self.handle(), Arc::clone(live), hello.clone());
        let work = job(move |tx| {
            Box::pin(async move {
                match tokens::lock_shared(tx, live.id).await? {
                    Some(TokenStatus::Active) => {}
                    _ => return Ok(Joined::Out(retry("the token is no longer active"))),
                }
                let known = delegates::by_key(tx, &live.scope, &public_key).await?;
                let arrival = this.seen_before(arrival(known.as_ref(), &hello), &hello);
                if let Some(goodbye) = refused(tx, known.as_ref(), arrival).await? {
                    if let (Arrival::Clone, Some(known)) = (arrival, &known) {
                        audit::append(tx, &Actor::system(), this.clock.wall(), change("delegate.quarantine", known))
                            .await?;
                        return Ok(Joined::Cloned(known.id, goodbye));
                    }
                    return Ok(Joined::Out(goodbye));
                }
                if this.is_full(tx, &live, known.as_ref()).await? {
                    return Ok(Joined::Out(Goodbye::new(
                        GoodbyeReason::MaxDelegates,
                        "the token has as many delegates as it may",
                    )));
                }
                let now = this.clock.wall();
                if let (Arrival::Restart, Some(known)) = (arrival, &known) {
                    this.lose_boot(tx, known.id, known.boot, now).await?;
                }
                let delegate = this.delegate_of(&live, known, public_key, &hello, address, now);
                delegates::upsert(tx, &delegate).await?;
                if arrival == Arrival::Newcomer {
                    audit::append(tx, &Actor::system(), now, change("delegate.join", &delegate)).await?;
                }
                let open = tasks::open_of_boot(tx, delegate.id, delegate.boot).await?;
                // Drawn here, so that the numbers have the order in which the store decided.
                let admission = this.next_admission();
                Ok(Joined::In { id: delegate.id, open, admission })
            })
        });
        self.store.write(work).await
    }

    /// The delegate as it is from now on.
    fn delegate_of(
        &self,
        live: &LiveToken,
        known: Option<Delegate>,
        public_key: [u8; 32],
        hello: &Hello,
        address: IpAddr,
        now: Millis,
    ) -> Delegate {
        let mut former_boots = known.as_ref().map(|known| known.former_boots.clone()).unwrap_or_default();
        if let Some(known) = known.as_ref().filter(|known| known.boot != hello.boot) {
            former_boots.push(known.boot);
            let surplus = former_boots.len().saturating_sub(FORMER_BOOTS_MAX);
            former_boots.drain(..surplus);
        }
        Delegate {
            id: known.as_ref().map_or_else(|| DelegateId::random(&*self.entropy), |known| known.id),
            scope: live.scope.clone(),
            public_key,
            token: live.id,
            name: hello.name.clone(),
            host: hello.host.clone(),
            tags: hello.tags.clone(),
            description: hello.description.clone(),
            version: hello.version.clone(),
            isolation: hello.isolation,
            capacity: hello.capacity,
            status: DelegateStatus::Allowed,
            boot: hello.boot,
            counter: hello.counter,
            former_boots,
            first_seen: known.map_or(now, |known| known.first_seen),
            last_seen: now,
            address: address.to_string(),
        }
    }

    /// Whether the token already has as many delegates, connected or holding a lease, as it may.
    async fn is_full(&self, tx: &mut Tx, live: &LiveToken, newcomer: Option<&Delegate>) -> Result<bool, StoreError> {
        let Some(max) = live.limits.max_delegates else { return Ok(false) };
        let others = delegates::of_token(tx, live.id).await?;
        let (wall, boot) = (self.clock.wall(), self.clock.boot());
        let holds = |other: &Delegate| {
            let answered = self.sessions.last_answered(other.id);
            // Of a delegate that this process has not heard, the store knows when it was last seen.
            let since = answered.map_or(wall - other.last_seen - SEEN_SLACK, |answered| boot - answered);
            let held = self.sessions.newest(other.id).is_some() || since < live.timing.lease_counted();
            held && Some(other.id) != newcomer.map(|known| known.id)
        };
        Ok(others.iter().filter(|other| holds(other)).count() >= max as usize)
    }

    /// Until when, on the boot clock, a delegate may still act. A lease that this process never answered counts as
    /// the longest that an earlier one may have granted.
    pub(crate) fn lease_ends(&self, delegate: DelegateId, timing: &Timing) -> Millis {
        let answered = self.sessions.last_answered(delegate);
        answered.map_or(self.former_leases_end, |answered| answered + timing.lease_counted())
    }

    /// Tells a connection that was late from a process that is still alive: only the latter comes twice.
    fn seen_before(&self, arrival: Arrival, hello: &Hello) -> Arrival {
        if arrival != Arrival::Late {
            return arrival;
        }
        let mut late = lock(&self.late_boots);
        if late.len() >= LATE_BOOTS_MAX {
            late.clear();
        }
        if late.insert(hello.boot) { Arrival::Late } else { Arrival::Clone }
    }

    /// Stops the session of a key that has just been quarantined.
    fn quarantined(&self, delegate: DelegateId) {
        self.metrics.clones.inc();
        tracing::error!(
            %delegate, "two processes use one delegate key; both are refused: give the copy a state directory of its own"
        );
        if let Some(session) = self.sessions.newest(delegate) {
            session.stop(Some(Goodbye::new(
                GoodbyeReason::DelegateStopped,
                "this delegate's key is used by two processes",
            )));
        }
    }

    /// The open attempts of a session as they are now; as they were when the store cannot be asked.
    async fn still_open(&self, session: &Session, open: Vec<Task>) -> Vec<Task> {
        let (delegate, boot) = (session.delegate, session.boot);
        let read = job(move |conn| Box::pin(async move { tasks::open_of_boot(conn, delegate, boot).await }));
        self.store.read(read).await.unwrap_or(open)
    }

    /// Compares what the delegate holds with what the store expects of it.
    async fn settle_attempts(&self, session: &Arc<Session>, held: &[HeldAttempt], open: Vec<Task>) {
        let (mut vanished, mut started) = (Vec::new(), Vec::new());
        let phase = |id: AttemptId| held.iter().find(|held| held.attempt == id).map(|held| held.phase);
        for task in &open {
            let Some(attempt) = &task.attempt else { continue };
            match phase(attempt.id) {
                Some(Phase::Accepted | Phase::Finished) => {}
                Some(Phase::Running) if task.started_at.is_none() => {
                    started.push(FromDelegate::Started { attempt: attempt.id })
                }
                Some(Phase::Running) => {}
                None if task.started_at.is_none() => self.send_assignment(session, task).await,
                None => vanished.push(attempt.id),
            }
            if task.cancel_requested {
                session.send(ToDelegate::Cancel { attempt: attempt.id, grace: crate::tasks::CANCEL_GRACE });
            }
        }
        let expected = |id: AttemptId| open.iter().any(|task| task.attempt.as_ref().is_some_and(|a| a.id == id));
        for stray in held.iter().filter(|held| held.phase != Phase::Finished && !expected(held.attempt)) {
            session.send(ToDelegate::Cancel { attempt: stray.attempt, grace: 0 });
        }
        self.lose_attempts(vanished, "the delegate no longer knows it").await;
        if let Err(error) = self.record_reports(session, &started).await {
            tracing::debug!(%error, "a start is not recorded; the result will tell");
        }
    }

    /// Ends what a superseded start of a delegate was running.
    async fn lose_boot(&self, tx: &mut Tx, delegate: DelegateId, boot: BootId, now: Millis) -> Result<(), StoreError> {
        let open = tasks::open_of_boot(tx, delegate, boot).await?;
        crate::reports::lose_or_requeue(tx, &open, "its delegate was restarted", now).await
    }
}

fn arrival(known: Option<&Delegate>, hello: &Hello) -> Arrival {
    let Some(known) = known else { return Arrival::Newcomer };
    if known.boot == hello.boot {
        return if hello.counter > known.counter { Arrival::Reconnect } else { Arrival::Stale };
    }
    if known.former_boots.contains(&hello.boot) { Arrival::Late } else { Arrival::Restart }
}

/// The Goodbye for an arrival that cannot be admitted; a clone quarantines its key.
async fn refused(tx: &mut Tx, known: Option<&Delegate>, arrival: Arrival) -> Result<Option<Goodbye>, StoreError> {
    let Some(known) = known else { return Ok(None) };
    Ok(match (known.status, arrival) {
        (DelegateStatus::Stopped, _) => {
            Some(Goodbye::new(GoodbyeReason::DelegateStopped, "a person stopped this delegate"))
        }
        (DelegateStatus::Quarantined, _) => {
            let text = "this delegate's key was used by two processes; start with a new state directory";
            Some(Goodbye::new(GoodbyeReason::DelegateStopped, text))
        }
        (DelegateStatus::Allowed, Arrival::Clone) => {
            delegates::set_status(tx, known.id, DelegateStatus::Quarantined).await?;
            let text = "another process uses this delegate's key; give each its own state directory";
            Some(Goodbye::new(GoodbyeReason::DelegateStopped, text))
        }
        (DelegateStatus::Allowed, Arrival::Stale | Arrival::Late) => {
            Some(Goodbye::new(GoodbyeReason::Superseded, "a newer connection of this delegate took over"))
        }
        (DelegateStatus::Allowed, _) => None,
    })
}

/// The token's own restrictions, apart from its number of delegates.
fn limits_allow(live: &LiveToken, hello: &Hello, address: IpAddr) -> Result<(), Goodbye> {
    let limits = &live.limits;
    let account = hello.account.as_deref();
    if account.is_some_and(|account| account != live.scope.account()) {
        return Err(Goodbye::new(GoodbyeReason::AccountMismatch, "ACCOUNT_ID is not the account of this token"));
    }
    if !limits.allowed_cidrs.is_empty() && !limits.allowed_cidrs.iter().any(|range| range.contains(&address)) {
        return Err(Goodbye::new(
            GoodbyeReason::AddressRefused,
            "the token does not allow connections from this address",
        ));
    }
    if !limits.allowed_names.is_empty() && !limits.allowed_names.iter().any(|pattern| pattern.matches(&hello.name)) {
        return Err(Goodbye::new(GoodbyeReason::NameRefused, "the token does not allow this DELEGATE_NAME"));
    }
    Ok(())
}

/// A change of a delegate, for the audit chain.
fn change(action: &'static str, delegate: &Delegate) -> Change {
    let detail = format!("name {} host {} token {}", delegate.name, delegate.host, delegate.token);
    Change { action, object: delegate.id.to_string(), scope: delegate.scope.clone(), detail }
}

/// Whether a delegate of this scope may run a task of that one.
pub(crate) fn serves(delegate: &Scope, task: &Scope) -> bool {
    delegate.contains(task)
}
