//! Admission: who comes in, which start of a delegate counts, and how long each may hold a lease.

use std::{sync::Arc, time::Duration};

use legation_model::{
    Millis,
    ids::{AttemptId, DelegateId, SessionId, TokenId},
    task::Task,
    token::TokenLimits,
};
use legation_store::{job, tasks};
use legation_wire::{
    Proof,
    close::GoodbyeReason,
    message::{FromDelegate, Goodbye, HeldAttempt, Hello, Phase, ToDelegate, Welcome},
};

use crate::{
    Manager,
    gate::Entered,
    joins::{Join, Joined},
    limits,
    live::{LiveToken, retry},
    session::{NewSession, Session},
    sessions::Registered,
    source::Source,
};

/// How long a refusal waits for the call that ended the token: that is between its transaction and its cut.
const END_WAIT: Duration = Duration::from_secs(1);

/// An admitted session. The gate is held until the Welcome is with the socket.
pub struct Admission {
    /// The session, on the books.
    pub registered: Registered,
    /// What the delegate is told.
    pub welcome: Welcome,
    /// Admission is an effect.
    pub entered: Entered,
}

impl Manager {
    /// Admits a delegate that proved a token, or says why not.
    ///
    /// # Errors
    /// The Goodbye to send. Doubt of any kind is a reason to retry, never a verdict.
    pub async fn admit(&self, proof: &Proof, hello: Hello, source: Source) -> Result<Admission, Goodbye> {
        let live = self.tokens.get(proof.hint.token).ok_or_else(|| retry("the token is not known yet"))?;
        let entered = live.enter(&self.clock)?;
        let address = source.address;
        let rules = live.rules();
        account_is(&live, &hello)?;
        behind_known_proxies(&rules.limits, &source)?;
        limits::allow(&rules.limits, &hello.name, Some(address))?;
        let join = Join {
            live: Arc::clone(&live),
            rules: Arc::clone(&rules),
            public_key: proof.identity,
            hello: hello.clone(),
            address,
        };
        let joined = self.joins.ask(join).await.map_err(|error| {
            tracing::warn!(token = %live.id, %error, "a delegate cannot be admitted while the store cannot be asked");
            retry("the Manager cannot reach its database")
        })?;
        let (id, open, admission) = match joined {
            Joined::In { id, open, admission, requeued } => {
                if requeued {
                    self.queue.reload();
                }
                (id, open, admission)
            }
            Joined::Ended => {
                // The call that ended it is about to say how.
                drop(entered);
                let told = tokio::time::timeout(END_WAIT, live.gate.closed()).await;
                return Err(if told.is_ok() { live.refusal() } else { retry("the token is no longer active") });
            }
            Joined::Out(goodbye) => return Err(goodbye),
            Joined::Cloned(delegate, goodbye, mark) => {
                self.metrics.clones.inc();
                self.bar(delegate, mark, used_twice());
                return Err(goodbye);
            }
        };
        let welcome = self.welcome(&live, id, proof.hint.generation);
        let held = hello.attempts.clone();
        let session = Session::new(NewSession {
            id: welcome.session,
            token: Arc::clone(&live),
            delegate: id,
            hello,
            address,
            admission,
            now: self.clock.boot(),
        });
        // From here on a revocation waits for this session, whatever happens in between.
        let registered = Registered::new(self.handle(), session);
        let session = &registered.session;
        if let Some(goodbye) = self.barred.of(id, admission) {
            session.stop_with(Some(goodbye));
        }
        // Whoever changes the token's rules looks at the sessions that are registered by then; this one may not have been.
        if !Arc::ptr_eq(&rules, &live.rules()) {
            return Err(retry("the token's limits have just been changed"));
        }
        // What was decided between the transaction and this line went to the session before.
        let open = if open.is_empty() { open } else { self.still_open(session, open).await };
        if self.stopping.is_cancelled() {
            session.stop(Some(retry("the Manager is stopping")));
        }
        self.settle_attempts(session, &held, open).await;
        self.note_use(session, 1);
        Ok(Admission { registered, welcome, entered })
    }

    pub(crate) fn welcome(&self, live: &LiveToken, delegate: DelegateId, generation: u32) -> Welcome {
        let timing = live.timing.granted();
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

    /// Until when, on the boot clock, a delegate may still act whose lease counts as this long. One that this process never
    /// answered counts as the longest that an earlier one may have granted.
    pub(crate) fn lease_ends(&self, delegate: DelegateId, lease: Millis) -> Millis {
        let answered = self.sessions.last_answered(delegate);
        answered.map_or(self.former_leases_end, |answered| answered + lease)
    }

    /// How long after its last answer a delegate of this token may still act.
    pub(crate) fn lease_counted(&self, token: TokenId) -> Millis {
        self.tokens.get(token).map_or(self.config.timing.lease_counted(), |live| live.timing.lease_counted())
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
        if let Err(error) = self.record_reports(session, started.into()).await {
            tracing::debug!(%error, "a start is not recorded; the result will tell");
        }
    }
}

fn used_twice() -> Goodbye {
    Goodbye::new(GoodbyeReason::DelegateStopped, "this delegate's key is used by two processes")
}

/// Where a token says from where its delegates may come, an address must be known.
fn behind_known_proxies(limits: &TokenLimits, source: &Source) -> Result<(), Goodbye> {
    if limits.allowed_cidrs.is_empty() || !source.unlisted_proxy {
        return Ok(());
    }
    let text = format!(
        "the connection comes through a proxy at {} that the Manager does not trust, so the address behind it is not \
         known, and the token allows some only: add the proxy to trusted_proxies (LEGATION_TRUSTED_PROXIES) of the Manager",
        source.peer.ip().to_canonical()
    );
    Err(Goodbye::new(GoodbyeReason::AddressRefused, text))
}

/// A delegate that names its account is not to work for another one by a mistaken token.
fn account_is(live: &LiveToken, hello: &Hello) -> Result<(), Goodbye> {
    match hello.account.as_deref() {
        Some(account) if account != live.scope.account() => {
            Err(Goodbye::new(GoodbyeReason::AccountMismatch, "ACCOUNT_ID is not the account of this token"))
        }
        _ => Ok(()),
    }
}
