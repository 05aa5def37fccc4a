//! What delegates report of their attempts: starts, output, results, and what is lost without a report.

use std::sync::{Arc, atomic::Ordering};

use legation_model::{Millis, ids::AttemptId, task::Task};
use legation_store::{StoreError, Tx, attempts, job};
use legation_wire::message::{FromDelegate, ToDelegate};

use crate::{
    Manager,
    dispatch::REST,
    lock::lock,
    recording::{Recorded, Reported, record_all},
    session::Session,
};

/// Reports in one transaction, of as many delegates as that are: each may be a statement, and a revocation waits for
/// the transaction.
const REPORTS_TOGETHER_MAX: usize = 256;

impl Manager {
    /// Records what a delegate reported of its attempts, and returns the acknowledgements.
    ///
    /// Each report concerns only attempts of the reporting delegate: identity comes from the session.
    ///
    /// # Errors
    /// Those of the store; nothing is recorded then, and the same reports may be recorded again.
    pub(crate) async fn record_reports(
        &self,
        session: &Arc<Session>,
        reports: Arc<[FromDelegate]>,
    ) -> Result<Vec<ToDelegate>, StoreError> {
        if reports.is_empty() {
            return Ok(Vec::new());
        }
        if reports.iter().any(|report| matches!(report, FromDelegate::Refused { again: true, .. })) {
            // Before the tasks are back in the queue, so that none goes there again at once.
            session.resting_until.store(self.clock.boot() + REST, Ordering::Relaxed);
        }
        let reported = Reported { token: session.token.id, delegate: session.delegate, reports };
        let Recorded { tasks, answers, requeued } = self.reports.ask(reported).await?;
        for answer in &answers {
            if let ToDelegate::FinishedAck { attempt } = answer {
                lock(&session.attempts).remove(attempt);
                self.queue.nudge();
            }
        }
        if requeued {
            self.queue.reload();
        }
        tasks.into_iter().for_each(|task| self.announce(task));
        Ok(answers)
    }

    /// Writes reports until the Manager stops.
    pub(crate) async fn report_loop(self: Arc<Self>) {
        let write = |reported: Vec<Reported>| {
            let (store, now) = (self.store.clone(), self.clock.wall());
            let work = job(move |tx| Box::pin(async move { record_all(tx, &reported, now).await }));
            async move { store.write(work).await }
        };
        self.reports.serve(&self.stopping, REPORTS_TOGETHER_MAX, |one| one.reports.len(), write).await;
    }

    /// Ends attempts whose outcome nobody will know; retries those that may be.
    pub(crate) async fn lose_attempts(&self, attempts: Vec<AttemptId>, why: &'static str) {
        if attempts.is_empty() {
            return;
        }
        let now = self.clock.wall();
        let work = job(move |tx| {
            Box::pin(async move {
                let mut open = Vec::new();
                for attempt in attempts {
                    open.extend(attempts::by_attempt(tx, attempt).await?.filter(|task| !task.state.is_final()));
                }
                lose_or_requeue(tx, &open, why, now).await?;
                Ok(open)
            })
        });
        match self.store.write(work).await {
            Ok(open) => {
                for task in &open {
                    self.announce(task.id);
                }
                self.queue.reload();
            }
            Err(error) => tracing::warn!(%error, "lost attempts could not be recorded; the sweep will try again"),
        }
    }
}

/// Ends open tasks as lost, except those that declared themselves idempotent and have attempts left.
///
/// # Errors
/// Those of the store.
pub(crate) async fn lose_or_requeue(tx: &mut Tx, open: &[Task], why: &str, now: Millis) -> Result<(), StoreError> {
    let mut lost = Vec::new();
    for task in open {
        let Some(attempt) = &task.attempt else { continue };
        if task.retries_left > 0 && !task.cancel_requested {
            attempts::requeue(tx, attempt.id, true, now).await?;
        } else {
            lost.push(attempt.id);
        }
    }
    attempts::lose(tx, &lost, why, now).await.map(drop)
}
