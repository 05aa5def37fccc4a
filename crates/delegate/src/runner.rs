//! Runs one attempt of a script, under a supervisor of its own.

use std::{os::unix::process::CommandExt, process::Stdio};

use legation_model::{Millis, ids::AttemptId, task::TaskState};
use legation_wire::message::Finished;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::{Child, ChildStdin, ChildStdout, Command},
    sync::{mpsc, watch},
};

use crate::{
    supervisor::{
        self, clear_room,
        order::{BadFrame, Begin, Frames, Order, Report, frame},
    },
    tree::Process,
};

/// Variables with this beginning belong to the delegate; a task cannot replace them.
pub const RESERVED: &str = "LEGATION_";
/// The variable by which a later start of the same delegate finds leftovers.
pub const MARKER: &str = "LEGATION_DELEGATE";
/// Bytes read from a supervisor at once.
const READ: usize = 32 << 10;

/// What the agent wants of a running attempt. Only the newest counts, so it needs no queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The lease, on the boot clock.
    pub lease_until: Millis,
    /// Ends the attempt, with this grace in milliseconds.
    pub cancel: Option<u64>,
}

/// What an attempt tells the agent.
#[derive(Debug)]
pub enum Told {
    /// As its supervisor says.
    Report(Report),
    /// Nothing of it runs any more, and nothing more will be said.
    Gone,
}

/// Where attempts tell the agent.
pub type Teller = mpsc::Sender<(AttemptId, Told)>;

/// A running attempt. Dropping it kills the attempt.
#[derive(Debug)]
pub struct Running {
    /// What the agent wants of it.
    pub wanted: watch::Sender<Wanted>,
}

/// A supervisor that waits for its first order. Dropped, it ends.
#[derive(Debug)]
pub struct Waiting {
    child: Child,
    orders: ChildStdin,
    reports: ChildStdout,
    /// Its process, for the start mark.
    pub process: Process,
}

/// Starts a supervisor; nothing of the task runs yet.
///
/// # Errors
/// What the system says.
pub fn prepare(marker: &str) -> std::io::Result<Waiting> {
    // The same program even if its file was replaced meanwhile.
    let mut command = std::process::Command::new("/proc/self/exe");
    command.arg0("legation-delegate").arg(supervisor::ARGUMENT).env_clear().env(MARKER, marker).current_dir("/");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = Command::from(command).spawn()?;
    let process = child.id().map(|pid| Process::find(pid as i32)).transpose()?.flatten();
    match (child.stdin.take(), child.stdout.take(), process) {
        (Some(orders), Some(reports), Some(process)) => Ok(Waiting { child, orders, reports, process }),
        _ => Err(std::io::Error::other("the supervisor ended at once")),
    }
}

impl Waiting {
    /// Lets the attempt begin.
    pub fn begin(self, begin: Begin, tell: Teller) -> Running {
        let wanted = Wanted { lease_until: begin.lease_until, cancel: None };
        let (sender, receiver) = watch::channel(wanted);
        tokio::spawn(self.attend(begin, receiver, tell));
        Running { wanted: sender }
    }

    async fn attend(self, begin: Begin, wanted: watch::Receiver<Wanted>, tell: Teller) {
        let Self { mut child, orders, reports, .. } = self;
        let (attempt, room) = (begin.assignment.attempt, begin.room.clone());
        converse(command(orders, begin, wanted), listen(reports, attempt, &tell)).await;
        let _ = child.wait().await;
        clear_room(&room);
        let _ = tell.send((attempt, Told::Gone)).await;
    }
}

/// Talks until there are no more reports: the supervisor has ended, or is not one. Both pipes are closed then.
async fn converse(orders: impl Future<Output = ()>, reports: impl Future<Output = Result<(), BadFrame>>) {
    tokio::pin!(reports);
    tokio::select! {
        () = orders => drop(reports.await),
        _ = &mut reports => {}
    }
}

/// Passes on what the agent wants, until it wants nothing more; then the pipe closes.
async fn command(mut orders: ChildStdin, begin: Begin, mut wanted: watch::Receiver<Wanted>) {
    let first = frame(&Order::Begin(Box::new(begin)));
    if orders.write_all(&first).await.is_err() {
        return;
    }
    drop(first);
    let mut cancelled = None;
    while wanted.changed().await.is_ok() {
        let now = *wanted.borrow_and_update();
        let mut bytes = frame(&Order::Lease { until: now.lease_until }).to_vec();
        if now.cancel != cancelled {
            cancelled = now.cancel;
            bytes.extend(cancelled.iter().flat_map(|grace| frame(&Order::Cancel { grace: *grace }).to_vec()));
        }
        if orders.write_all(&bytes).await.is_err() {
            return;
        }
    }
}

async fn listen(mut reports: ChildStdout, attempt: AttemptId, tell: &Teller) -> Result<(), BadFrame> {
    let mut frames = Frames::default();
    let mut buffer = vec![0; READ];
    loop {
        while let Some(report) = frames.take()? {
            if tell.send((attempt, Told::Report(report))).await.is_err() {
                return Ok(());
            }
        }
        match reports.read(&mut buffer).await {
            Ok(0) | Err(_) => return Ok(()),
            Ok(count) => frames.push(&buffer[..count]),
        }
    }
}

/// A result without an exit code.
pub fn ended(attempt: AttemptId, state: TaskState, reason: impl Into<String>) -> Finished {
    Finished { attempt, state, exit_code: None, reason: reason.into(), output_bytes: 0, dropped_bytes: 0 }
}
