//! Assignments: taken, refused, cancelled, fenced, finished.

use std::{
    collections::{BTreeSet, VecDeque},
    io,
    path::Path,
    sync::atomic::Ordering::Relaxed,
};

use legation_model::{
    Clock, Millis,
    delegate::Isolation,
    ids::{AttemptId, TaskId},
    task::{TaskKind, TaskState},
};
use legation_wire::message::{Assignment, FromDelegate, Work};
use rustix::process::{Pid, WaitOptions, getpid, waitpid};

use super::{Agent, FORMER_MAX, KILL_ROUNDS, REFUSALS_MAX, UNSEEN};
use crate::{
    config::Config,
    confine, request,
    runner::{self, MARKER, Told, Wanted, ended},
    supervisor::order::{Begin, Report},
    system::SystemClock,
    tree,
};

/// Where programs are looked up; the delegate's own path may be a private one.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

impl Agent {
    pub(super) fn assign(&mut self, assignment: Assignment) {
        let attempt = assignment.attempt;
        if self.spool.holds(attempt) || self.former.contains(&attempt) {
            // Already taken; what there is to say of it is said anyway.
            return;
        }
        if self.erased.contains(&attempt) {
            tracing::warn!(%attempt, "an attempt that was erased is not run again");
            let reason = "the delegate was stopped before it could report how this ended";
            self.reply(FromDelegate::Finished(ended(attempt, TaskState::Lost, reason)));
        } else if let Some(reason) = self.verdict(&assignment) {
            self.refuse(attempt, reason, false);
        } else if let Some(reason) = self.hindrance() {
            self.refuse(attempt, reason, true);
        } else {
            self.begin(assignment);
        }
    }

    pub(super) fn cancel(&mut self, attempt: AttemptId, grace: u64) {
        if let Some(running) = self.running.get(&attempt) {
            running.wanted.send_modify(|wanted| wanted.cancel = Some(grace));
        }
    }

    /// The Manager has the result.
    pub(super) fn forget(&mut self, attempt: AttemptId) {
        if self.spool.forget(attempt) {
            remember(&mut self.former, [attempt]);
        }
    }

    pub(super) fn attempt(&mut self, attempt: AttemptId, told: Told) {
        match told {
            Told::Report(Report::Started) => {}
            Told::Report(Report::Output { stream, bytes }) => self.spool.append(attempt, stream, &bytes),
            Told::Report(Report::Ended(finished)) => {
                tracing::info!(%attempt, state = %finished.state, "an attempt ended");
                self.spool.finish(finished);
            }
            Told::Gone => self.gone(attempt),
        }
    }

    /// The lease grew: attempts may go on.
    pub(super) fn renew(&mut self, until: Millis) {
        self.lease = self.lease.max(Some(until));
        self.watch_lease();
        for running in self.running.values() {
            running.wanted.send_modify(|wanted| wanted.lease_until = wanted.lease_until.max(until));
        }
    }

    /// Without a lease nothing runs. The supervisors have the same deadline; this does not rely on them.
    pub(super) fn fence(&mut self) {
        if self.lease.is_none_or(|until| SystemClock.boot() < until) {
            return self.watch_lease();
        }
        self.lease = None;
        self.watch_lease();
        if self.running.is_empty() {
            return;
        }
        tracing::warn!(tasks = self.running.len(), "the lease ended: every task is killed");
        self.status.fenced.fetch_add(1, Relaxed);
        self.kill_tasks("the delegate's lease ended");
    }

    /// Kills every process below this one. Its tasks are lost, for this reason. Answers how many they were, or
    /// nothing when it cannot be told whether they are dead.
    pub(super) fn kill_tasks(&mut self, reason: &str) -> Option<u32> {
        let killed = std::mem::take(&mut self.running);
        let dead = self.kill_tree();
        if let Err(error) = &dead {
            tracing::error!(%error, "it cannot be told whether the tasks are dead: {UNSEEN}");
        }
        for attempt in killed.keys() {
            self.spool.finish(ended(*attempt, TaskState::Lost, reason));
            // Otherwise the supervisor, which nobody gives orders any more, kills what is left and then is gone.
            if dead.is_ok() {
                self.spool.release(*attempt);
            }
        }
        self.count();
        dead.is_ok().then_some(killed.len() as u32)
    }

    fn kill_tree(&self) -> io::Result<()> {
        let own = getpid().as_raw_pid();
        if !tree::kill_all(KILL_ROUNDS, || tree::descendants(own))? {
            tracing::error!("a process of a task does not die");
        }
        self.reap()
    }

    /// What tells this delegate's processes from those of others.
    pub(super) fn marker(&self) -> String {
        self.identity.public.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn watch_lease(&self) {
        if let Err(error) = self.timer.get_ref().set(self.lease) {
            tracing::error!(%error, "the lease's timer cannot be set; the supervisors have their own");
        }
    }

    /// Why this delegate never runs such a task.
    fn verdict(&self, assignment: &Assignment) -> Option<String> {
        self.config.policy.check(&assignment.work).err().or_else(|| strange_variable(assignment))
    }

    /// Why no task can begin right now, whichever it is.
    fn hindrance(&self) -> Option<String> {
        match () {
            () if self.draining.is_some() => Some("the delegate is going down".to_owned()),
            () if self.lease.is_none() => Some("the delegate has no lease".to_owned()),
            () if self.running.len() >= self.config.capacity as usize => {
                Some(format!("the delegate already runs {} tasks", self.running.len()))
            }
            () if self.spool.is_full() => Some("too many results wait for their acknowledgement".to_owned()),
            () => None,
        }
    }

    /// Keeps nothing of the attempt: if the session ends before this is said, Hello does not name the attempt
    /// and the Manager assigns it again.
    fn refuse(&mut self, attempt: AttemptId, reason: String, again: bool) {
        tracing::warn!(%attempt, reason, again, "an attempt is refused");
        self.reply(FromDelegate::Refused { attempt, reason, again });
    }

    fn reply(&mut self, refusal: FromDelegate) {
        if self.refusals.len() < REFUSALS_MAX {
            self.refusals.push_back(refusal);
        }
    }

    fn begin(&mut self, assignment: Assignment) {
        let (attempt, task) = (assignment.attempt, assignment.task);
        let begun = match assignment.work.kind() {
            TaskKind::Shell => self.begin_script(assignment),
            TaskKind::Http => self.begin_request(assignment),
        };
        match begun {
            Ok(()) => {
                self.status.started.fetch_add(1, Relaxed);
                tracing::info!(%attempt, %task, "an attempt starts");
            }
            Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                let place = self.config.state_dir.display();
                self.refuse(
                    attempt,
                    format!("the disk of the delegate's state directory {place} is full: make room there"),
                    true,
                );
            }
            Err(error) => self.refuse(attempt, format!("the delegate cannot start a task: {error}"), true),
        }
        self.count();
    }

    fn begin_script(&mut self, assignment: Assignment) -> std::io::Result<()> {
        let attempt = assignment.attempt;
        let waiting = runner::prepare(&self.marker())?;
        // Durable before the supervisor may begin: after a crash it is known that this attempt ran.
        self.spool.start(attempt, Some(waiting.process))?;
        self.supervisors.insert(attempt, waiting.process);
        let begin = Begin {
            env: self.environment(assignment.task, attempt),
            assignment,
            lease_until: self.lease.unwrap_or(0),
            protected: self.protected(),
            user: self.config.task_user.as_ref().map(|user| user.ids),
            room: room(attempt),
            open_files: self.open_files,
        };
        self.running.insert(attempt, waiting.begin(begin, self.teller.clone()));
        Ok(())
    }

    fn begin_request(&mut self, assignment: Assignment) -> std::io::Result<()> {
        let attempt = assignment.attempt;
        self.spool.start(attempt, None)?;
        let wanted = Wanted { lease_until: self.lease.unwrap_or(0), cancel: None };
        let running = request::begin(assignment, self.config.policy.clone(), wanted, self.teller.clone());
        self.running.insert(attempt, running);
        Ok(())
    }

    /// All that a task has of its surroundings.
    fn environment(&self, task: TaskId, attempt: AttemptId) -> Vec<(String, String)> {
        let home = self.config.task_user.as_ref().map_or_else(own_home, |user| user.home.clone());
        let pairs = [
            ("PATH", PATH.to_owned()),
            ("HOME", home),
            ("LANG", "C.UTF-8".to_owned()),
            ("LEGATION_TASK", task.to_string()),
            ("LEGATION_ATTEMPT", attempt.to_string()),
            (MARKER, self.marker()),
        ];
        pairs.map(|(name, value)| (name.to_owned(), value)).into()
    }

    /// What the supervisor keeps its task from.
    fn protected(&self) -> Vec<String> {
        let confined = self.isolation == Isolation::Landlock;
        let places = if confined { self.config.protected() } else { Vec::new() };
        places.iter().map(|place| place.to_string_lossy().into_owned()).collect()
    }

    fn gone(&mut self, attempt: AttemptId) {
        self.supervisors.remove(&attempt);
        // Does nothing if its end was reported.
        self.spool.finish(ended(attempt, TaskState::Lost, "its supervisor ended without a word"));
        self.running.remove(&attempt);
        match self.reap() {
            Ok(()) => self.spool.release(attempt),
            Err(error) => {
                tracing::error!(%attempt, %error, "it cannot be told whether all of an attempt is dead: {UNSEEN}");
                self.look_again(attempt);
            }
        }
        self.count();
    }

    /// Comes back to an attempt after everything else that waits for the loop.
    fn look_again(&self, attempt: AttemptId) {
        let teller = self.teller.clone();
        tokio::spawn(async move { teller.send((attempt, Told::Gone)).await });
    }

    /// Ends and buries what fell to this process because its supervisor was killed.
    fn reap(&self) -> io::Result<()> {
        let own = getpid().as_raw_pid();
        let spared: BTreeSet<i32> = self.supervisors.values().map(|process| process.pid).collect();
        tree::kill_all(KILL_ROUNDS, || tree::strays(own, &spared))?;
        for pid in tree::unreaped(own, &spared)?.into_iter().filter_map(Pid::from_raw) {
            let _ = waitpid(Some(pid), WaitOptions::NOHANG);
        }
        Ok(())
    }
}

/// Adds to the attempts that do not run again, as many as are remembered.
pub(super) fn remember(known: &mut VecDeque<AttemptId>, attempts: impl IntoIterator<Item = AttemptId>) {
    known.extend(attempts);
    let old = known.len().saturating_sub(FORMER_MAX);
    known.drain(..old);
}

/// How well tasks are kept from the token on this machine.
pub(super) fn isolation(config: &Config) -> Isolation {
    if let Some(user) = &config.task_user {
        let other = user.ids.uid != rustix::process::getuid().as_raw();
        return if other { Isolation::User } else { Isolation::None };
    }
    match confine::check(&config.protected(), Path::new(&own_home()), &std::env::temp_dir()) {
        Ok(()) => Isolation::Landlock,
        Err(error) => {
            tracing::warn!(
                "tasks can read what this delegate can, its token included ({error}): set DELEGATE_TASK_USER"
            );
            Isolation::None
        }
    }
}

fn own_home() -> String {
    std::env::var("HOME").unwrap_or_else(|_| "/".to_owned())
}

/// The directory of an attempt.
pub(super) fn room(attempt: AttemptId) -> String {
    std::env::temp_dir().join(format!("legation-{attempt}")).to_string_lossy().into_owned()
}

/// A variable that no environment can hold.
fn strange_variable(assignment: &Assignment) -> Option<String> {
    let Work::Shell { env, .. } = &assignment.work else { return None };
    let secrets = assignment.secrets.iter().map(|secret| (secret.name.as_str(), secret.value.expose()));
    let mut all = env.iter().map(|(name, value)| (name.as_str(), value.as_str())).chain(secrets);
    let strange = |(name, value): &(&str, &str)| name.is_empty() || name.contains(['=', '\0']) || value.contains('\0');
    all.find(strange).map(|(name, _)| format!("{name:?} cannot be an environment variable, or its value cannot"))
}
