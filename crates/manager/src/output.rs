//! Reading a task's output while it is being written.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use legation_api::output::{OutputEvent, Position, Stream};
use legation_model::{ids::TaskId, task::Task};
use legation_store::{StoreError, output, tasks};
use tokio::sync::broadcast::{self, error::RecvError};

use crate::{Manager, access::Caller, lasting::Lasting};

/// Bytes read from the store at once.
const READ_MAX: u64 = 256 << 10;

/// How often a stream looks at its task without being told: 5 s.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// One event of a stream.
pub enum Piece {
    /// A chunk.
    Output(OutputEvent),
    /// The task has ended and everything was sent.
    End(Box<Task>),
}

/// Follows one task's output.
///
/// Whatever reaches a client while the task is open is an effect of the task's token: it passes the token's gate,
/// so that a stream shows nothing more of a token after its revocation. Output of an ended task is history. Whoever may
/// not see the task any more gets nothing more at all.
pub struct OutputReader {
    manager: Arc<Manager>,
    task: TaskId,
    watcher: Lasting,
    position: Option<Position>,
    follow: bool,
    changes: broadcast::Receiver<TaskId>,
    read: VecDeque<OutputEvent>,
    ended: bool,
}

impl OutputReader {
    /// A reader behind this position; `follow` waits for what is still to come.
    pub fn new(manager: Arc<Manager>, caller: Caller, task: TaskId, position: Option<Position>, follow: bool) -> Self {
        let changes = manager.changes.subscribe();
        let watcher = Lasting::new(Arc::clone(&manager), caller);
        Self { manager, task, watcher, position, follow, changes, read: VecDeque::new(), ended: false }
    }

    /// The next event; `None` at the end, when the Manager stops, when the watcher may not see the task any more, and when
    /// the store cannot be asked (the client resumes).
    pub async fn next(&mut self) -> Option<Piece> {
        loop {
            if self.ended {
                return None;
            }
            let task = self.stored_task().await.ok()??;
            if self.read.is_empty() {
                self.read(&task).await.ok()?;
            }
            // After the reading, so that nothing lies between this and the handing over.
            if !self.watcher.sees(&task.scope).await {
                return None;
            }
            let open = !task.state.is_final();
            if let Some(event) = self.read.pop_front() {
                if open && !self.may_show(&task) {
                    self.read.clear();
                    if !self.follow {
                        return self.end(task);
                    }
                    self.changed().await?;
                    continue;
                }
                self.position = event.end();
                return Some(Piece::Output(event));
            }
            if !open || !self.follow {
                return self.end(task);
            }
            self.changed().await?;
        }
    }

    /// The last piece: the task as it stands, which without `follow` need not have ended.
    fn end(&mut self, task: Task) -> Option<Piece> {
        self.ended = true;
        Some(Piece::End(Box::new(task)))
    }

    async fn stored_task(&self) -> Result<Option<Task>, StoreError> {
        let id = self.task;
        self.manager.store.read(move |conn| Box::pin(tasks::get(conn, id))).await
    }

    /// Reads what lies behind the position; output of a new attempt comes from its beginning.
    async fn read(&mut self, task: &Task) -> Result<(), StoreError> {
        let Some(attempt) = task.attempt.as_ref().map(|attempt| attempt.id) else { return Ok(()) };
        let from = self.position.filter(|position| position.attempt == attempt).map_or(0, |position| position.offset);
        let id = self.task;
        let chunks = self.manager.store.read(move |conn| Box::pin(output::read(conn, id, from, READ_MAX))).await?;
        for chunk in chunks {
            let stream = if chunk.stream == "stderr" { Stream::Stderr } else { Stream::Stdout };
            self.read.push_back(OutputEvent::new(attempt, chunk.offset, stream, chunk.bytes));
        }
        Ok(())
    }

    /// Whether the token behind an open task still lets effects through.
    fn may_show(&self, task: &Task) -> bool {
        let token = task.attempt.as_ref().and_then(|attempt| self.manager.tokens.get(attempt.token));
        token.is_some_and(|token| token.enter(&self.manager.clock).is_ok())
    }

    /// Waits until something of this task may have changed.
    async fn changed(&mut self) -> Option<()> {
        loop {
            tokio::select! {
                () = self.manager.stopping.cancelled() => return None,
                // What is announced is a hint; looking now and then is what makes it true.
                () = tokio::time::sleep(LOOK_EVERY) => return Some(()),
                () = self.watcher.changed() => return Some(()),
                changed = self.changes.recv() => match changed {
                    Ok(task) if task != self.task => {}
                    Ok(_) | Err(RecvError::Lagged(_)) => return Some(()),
                    Err(RecvError::Closed) => return None,
                },
            }
        }
    }
}
