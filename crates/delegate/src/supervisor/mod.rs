//! The supervisor of one attempt: this program again, started as `legation-delegate supervise`.
//!
//! It is the one place that a task cannot outlive. It is child subreaper, so that every process of the task
//! stays below it; when the attempt is over, the pipe to the delegate closes or the lease ends, it kills until
//! nothing is left below it. It has its own timer for the lease, so that a delegate that was stopped or killed
//! changes nothing about that. It has no runtime and one thread beside its own.

pub mod order;

mod pipes;
mod reaper;
mod task;

use std::{os::fd::AsFd, path::PathBuf};

use legation_model::{Clock, Millis, task::TaskState};
use legation_wire::message::{Finished, Stream};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::ioctl_fionbio,
    process::{DumpableBehavior, Signal, WaitStatus, getpid, set_child_subreaper, set_dumpable_behavior, setsid},
    stdio::{stdin, stdout},
    thread::set_no_new_privs,
};

use self::{
    order::{Begin, Order, Report},
    pipes::{Gone, Inbox, Outbox},
    reaper::{Reaped, Reaper},
    task::Task,
};
use crate::{
    confine,
    output::{Output, Piece},
    system::{BootTimer, SystemClock, limit_open_files},
    tree,
};

pub(crate) use task::clear_room;

/// The argument that makes this program a supervisor.
pub const ARGUMENT: &str = "supervise";
/// Bytes of output read at once.
const READ: usize = 32 << 10;
/// Bytes read from each stream after the task has ended: what two pipes can hold, and not more, in case
/// something outside the tree still writes.
const REST_MAX: usize = 2 << 20;
/// Milliseconds between two rounds of killing, for what dies slowly.
const KILL_PAUSE: Millis = 10;

/// Runs one attempt and returns when nothing of it is left.
///
/// # Errors
/// When the machine refuses what every attempt needs, such as being child subreaper.
pub fn run() -> anyhow::Result<()> {
    prepare()?;
    let mut inbox = Inbox::default();
    let begin = match first_order(&mut inbox) {
        Ok(begin) => begin,
        Err(Gone) => return Ok(()),
    };
    ioctl_fionbio(stdin(), true)?;
    ioctl_fionbio(stdout(), true)?;
    let mut outbox = Outbox::default();
    match begin_task(&begin) {
        Ok((task, reaper)) => {
            outbox.push(&Report::Started);
            Supervisor::new(begin, inbox, outbox, task, reaper)?.run()
        }
        Err(reason) => {
            clear_room(&begin.room);
            let attempt = begin.assignment.attempt;
            let state = TaskState::Failed;
            let ended = Finished { attempt, state, exit_code: None, reason, output_bytes: 0, dropped_bytes: 0 };
            outbox.push(&Report::Ended(ended));
            hand_over(&mut outbox)
        }
    }
}

/// Everything that has to hold before the first process of the task exists.
fn prepare() -> rustix::io::Result<()> {
    set_child_subreaper(Some(getpid()))?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    // A process that gained another user's rights could not be killed by a delegate without them.
    set_no_new_privs(true)?;
    // No terminal: its signals are for the delegate. Fails only for a group leader, which has none to lose.
    let _ = setsid();
    Ok(())
}

fn first_order(inbox: &mut Inbox) -> Result<Begin, Gone> {
    loop {
        match inbox.receive()? {
            Some(Order::Begin(begin)) => return Ok(*begin),
            Some(_) => return Err(Gone),
            None => {}
        }
    }
}

fn begin_task(begin: &Begin) -> Result<(Task, Reaper), String> {
    confine_to_rest(&begin.protected)?;
    limit_open_files(begin.open_files).map_err(|error| format!("cannot limit the task's open files: {error}"))?;
    let task = Task::start(begin)?;
    let reaper = Reaper::start(task.pid).map_err(|error| {
        // What this misses falls to the delegate, which kills strays.
        let _ = tree::kill(|| tree::descendants(getpid().as_raw_pid()));
        format!("the delegate has no room for another thread: {error}")
    })?;
    Ok((task, reaper))
}

/// Keeps this process, hence all of the task, from what is protected.
fn confine_to_rest(protected: &[String]) -> Result<(), String> {
    let places: Vec<PathBuf> = protected.iter().map(PathBuf::from).collect();
    if places.is_empty() {
        return Ok(());
    }
    // Whoever chose this delegate for its isolation must not get less.
    confine::confine(&places).map_err(|error| format!("the task cannot be kept from the delegate's token: {error}"))
}

/// Why the attempt is over.
#[derive(Clone, Copy, Debug)]
enum Verdict {
    Exited(WaitStatus),
    TimedOut,
    Cancelled,
    LeaseEnded,
    Abandoned,
}

struct Supervisor {
    begin: Begin,
    inbox: Inbox,
    outbox: Outbox,
    task: Task,
    reaper: Reaper,
    timer: BootTimer,
    output: Output,
    lease_until: Millis,
    timeout_at: Millis,
    kill_at: Option<Millis>,
}

/// What is ready.
struct Ready {
    control: bool,
    unread: bool,
    ended: bool,
    outbox: bool,
    stdin: bool,
    outputs: [bool; 2],
}

impl Supervisor {
    fn new(begin: Begin, inbox: Inbox, outbox: Outbox, task: Task, reaper: Reaper) -> anyhow::Result<Self> {
        let timeout = Millis::try_from(begin.assignment.timeout).unwrap_or(Millis::MAX);
        Ok(Self {
            timer: BootTimer::new()?,
            output: Output::new(begin.assignment.output_limit, &begin.assignment.secrets),
            lease_until: begin.lease_until,
            timeout_at: SystemClock.boot().saturating_add(timeout),
            kill_at: None,
            begin,
            inbox,
            outbox,
            task,
            reaper,
        })
    }

    fn run(mut self) -> anyhow::Result<()> {
        let verdict = self.watch()?;
        self.kill()?;
        self.read_rest();
        clear_room(&self.begin.room);
        self.outbox.push(&Report::Ended(self.finished(verdict)));
        match verdict {
            // Nobody reads, or too late: what the pipe does not take now is lost with the attempt.
            Verdict::LeaseEnded | Verdict::Abandoned => {
                let _ = self.outbox.flush();
                Ok(())
            }
            _ => hand_over(&mut self.outbox),
        }
    }

    /// Moves bytes until the attempt is over for any reason.
    fn watch(&mut self) -> anyhow::Result<Verdict> {
        // Orders may have come in the same read as the first one; nothing would wake for them.
        if self.obey().is_err() {
            return Ok(Verdict::Abandoned);
        }
        loop {
            if let Some(verdict) = self.overdue() {
                return Ok(verdict);
            }
            let ready = self.wait()?;
            if ready.unread || (ready.control && self.obey().is_err()) {
                return Ok(Verdict::Abandoned);
            }
            self.read(ready.outputs);
            if ready.stdin {
                self.task.feed();
            }
            if ready.outbox && self.outbox.flush().is_err() {
                return Ok(Verdict::Abandoned);
            }
            if ready.ended
                && let Some(Reaped::Main(status)) = self.reaper.take()
            {
                return Ok(if self.kill_at.is_some() { Verdict::Cancelled } else { Verdict::Exited(status) });
            }
        }
    }

    fn overdue(&self) -> Option<Verdict> {
        let now = SystemClock.boot();
        match () {
            () if now >= self.lease_until => Some(Verdict::LeaseEnded),
            () if now >= self.timeout_at => Some(Verdict::TimedOut),
            () if self.kill_at.is_some_and(|at| now >= at) => Some(Verdict::Cancelled),
            () => None,
        }
    }

    fn wait(&self) -> anyhow::Result<Ready> {
        let next = self.lease_until.min(self.timeout_at).min(self.kill_at.unwrap_or(Millis::MAX));
        self.timer.set(Some(next))?;
        let want = |wanted: bool, flags| if wanted { flags } else { PollFlags::empty() };
        let (input, output) = (stdin(), stdout());
        let mut fds = vec![
            PollFd::new(&input, PollFlags::IN),
            PollFd::new(&self.timer, PollFlags::IN),
            PollFd::new(&self.reaper, PollFlags::IN),
            PollFd::new(&output, want(!self.outbox.is_empty(), PollFlags::OUT)),
        ];
        let fed = self.task.stdin().map(|stdin| fds.push(PollFd::new(stdin, PollFlags::OUT))).is_some();
        // A full outbox slows the task down instead of growing; dropped output needs no room in it.
        let reading = self.output.is_full() || !self.outbox.is_full();
        let streams: Vec<_> = self.task.outputs().filter(|_| reading).collect();
        let first = fds.len();
        fds.extend(streams.iter().map(|(_, fd)| PollFd::new(fd, PollFlags::IN)));
        match poll(&mut fds, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let happened = |at: usize| !fds[at].revents().is_empty();
        // Without a reader for its reports the delegate is as good as gone, whatever its other pipe says.
        let unread = fds[3].revents().contains(PollFlags::ERR);
        let mut outputs = [false; 2];
        for (at, (stream, _)) in streams.iter().enumerate() {
            outputs[*stream as usize] = happened(first + at);
        }
        Ok(Ready {
            control: happened(0),
            unread,
            ended: happened(2),
            outbox: happened(3),
            stdin: fed && happened(4),
            outputs,
        })
    }

    fn obey(&mut self) -> Result<(), Gone> {
        while let Some(order) = self.inbox.receive()? {
            match order {
                Order::Begin(_) => return Err(Gone),
                // A lease only ever grows; an older word that arrives late takes nothing back.
                Order::Lease { until } => self.lease_until = self.lease_until.max(until),
                Order::Cancel { grace } => self.cancel(grace),
            }
        }
        Ok(())
    }

    fn cancel(&mut self, grace: u64) {
        let at = SystemClock.boot().saturating_add(Millis::try_from(grace).unwrap_or(Millis::MAX));
        self.kill_at = Some(self.kill_at.map_or(at, |known| known.min(at)));
        // Whoever cannot be asked now is killed when the grace is over.
        for process in tree::descendants(getpid().as_raw_pid()).unwrap_or_default() {
            let _ = process.signal(Signal::TERM);
        }
    }

    fn read(&mut self, ready: [bool; 2]) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            if ready[stream as usize] {
                self.read_once(stream);
            }
        }
    }

    fn read_once(&mut self, stream: Stream) -> usize {
        let mut buffer = [0; READ];
        let Some(bytes) = self.task.read(stream, &mut buffer) else { return 0 };
        let pieces = self.output.push(stream, bytes);
        report(&mut self.outbox, pieces);
        bytes.len()
    }

    fn read_rest(&mut self) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            let mut total = 0;
            while total < REST_MAX {
                match self.read_once(stream) {
                    0 => break,
                    count => total += count,
                }
            }
        }
        let pieces = self.output.finish();
        report(&mut self.outbox, pieces);
    }

    /// Kills until the kernel says that there is no child left, hence no descendant.
    fn kill(&self) -> anyhow::Result<()> {
        let own = getpid().as_raw_pid();
        loop {
            // What it cannot see or reach is looked for again.
            let _ = tree::kill(|| tree::descendants(own));
            let pause = Timespec { tv_sec: 0, tv_nsec: KILL_PAUSE * 1_000_000 };
            let mut fds = [PollFd::new(&self.reaper, PollFlags::IN)];
            let _ = poll(&mut fds, Some(&pause));
            while let Some(reaped) = self.reaper.take() {
                if matches!(reaped, Reaped::All) {
                    return Ok(());
                }
            }
        }
    }

    fn finished(&self, verdict: Verdict) -> Finished {
        let (state, exit_code, reason) = match verdict {
            Verdict::Exited(status) => judge(status),
            Verdict::TimedOut => {
                (TaskState::TimedOut, None, format!("ran longer than {} ms", self.begin.assignment.timeout))
            }
            Verdict::Cancelled => (TaskState::Cancelled, None, String::new()),
            Verdict::LeaseEnded => (TaskState::Lost, None, "the delegate's lease ended".to_owned()),
            Verdict::Abandoned => (TaskState::Lost, None, "the delegate is gone".to_owned()),
        };
        Finished {
            attempt: self.begin.assignment.attempt,
            state,
            exit_code,
            reason,
            output_bytes: self.output.kept(),
            dropped_bytes: self.output.dropped(),
        }
    }
}

fn judge(status: WaitStatus) -> (TaskState, Option<i32>, String) {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(0), _) => (TaskState::Succeeded, Some(0), String::new()),
        (Some(code), _) => (TaskState::Failed, Some(code), format!("exit code {code}")),
        // 128 and the number, as every shell says it.
        (None, Some(signal)) => (TaskState::Failed, Some(128 + signal), format!("killed by signal {signal}")),
        (None, None) => (TaskState::Failed, None, "ended in an unknown way".to_owned()),
    }
}

fn report(outbox: &mut Outbox, pieces: Vec<Piece>) {
    for Piece { stream, bytes } in pieces {
        outbox.push(&Report::Output { stream, bytes });
    }
}

/// Gives the delegate all the time it wants to read the result: nothing of the task runs any more.
fn hand_over(outbox: &mut Outbox) -> anyhow::Result<()> {
    while !outbox.is_empty() && outbox.flush().is_ok() {
        let output = stdout();
        let mut fds = [PollFd::from_borrowed_fd(output.as_fd(), PollFlags::OUT)];
        if !outbox.is_empty() {
            poll(&mut fds, None)?;
        }
    }
    Ok(())
}
