//! Waits for every process below the supervisor, its own child and whatever orphan falls to it.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
};

use rustix::{
    event::{EventfdFlags, eventfd},
    io::{Errno, write},
    process::{WaitOptions, WaitStatus, wait},
};

/// Memory of the waiting thread, which calls one system call in a loop.
const STACK: usize = 64 << 10;
/// What ends: the main process and everything, each once.
const ENDS: usize = 2;

/// Something ended.
#[derive(Clone, Copy, Debug)]
pub(super) enum Reaped {
    /// The task's own process, with this status.
    Main(WaitStatus),
    /// Everything: no process is left below the supervisor, and none can appear.
    All,
}

/// A thread that waits. Without it zombies would pile up under a task that starts many daemons.
#[derive(Debug)]
pub(super) struct Reaper {
    ended: Receiver<Reaped>,
    signal: Arc<OwnedFd>,
}

impl Reaper {
    /// Starts to wait; the main process must exist already, because "no children" means the end.
    pub(super) fn start(main: i32) -> std::io::Result<Self> {
        let signal = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let (sender, ended) = sync_channel(ENDS);
        let bell = Arc::clone(&signal);
        thread::Builder::new().stack_size(STACK).spawn(move || reap(main, &sender, &bell))?;
        Ok(Self { ended, signal })
    }

    /// What ended since the last call, if anything.
    pub(super) fn take(&self) -> Option<Reaped> {
        let mut count = [0; 8];
        // Only clears the bell; what matters is in the channel.
        let _ = rustix::io::read(&*self.signal, &mut count);
        self.ended.try_recv().ok()
    }
}

impl AsFd for Reaper {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.signal.as_fd()
    }
}

fn reap(main: i32, ended: &SyncSender<Reaped>, bell: &OwnedFd) {
    loop {
        let reaped = match wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) if pid.as_raw_pid() == main => Reaped::Main(status),
            Ok(_) | Err(Errno::INTR) => continue,
            Err(_) => Reaped::All,
        };
        let last = matches!(reaped, Reaped::All);
        let heard = ended.send(reaped).is_ok() && write(bell, &1_u64.to_ne_bytes()).is_ok();
        if last || !heard {
            return;
        }
    }
}
