//! The machine's own clocks, entropy and timer: the only place of this program that asks for them.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use legation_model::{Clock, Entropy, Millis};
use rustix::{
    process::{Resource, Rlimit, getrlimit, setrlimit},
    time::{
        ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, clock_gettime, timerfd_create,
        timerfd_settime,
    },
};

/// The clocks of the operating system.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn wall(&self) -> Millis {
        millis(clock_gettime(ClockId::Realtime))
    }

    fn boot(&self) -> Millis {
        millis(clock_gettime(ClockId::Boottime))
    }
}

fn millis(time: Timespec) -> Millis {
    time.tv_sec * 1000 + time.tv_nsec / 1_000_000
}

/// Random bytes of the operating system.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemEntropy;

impl Entropy for SystemEntropy {
    #[expect(clippy::disallowed_methods, reason = "this is the program's one source of entropy")]
    fn fill(&self, bytes: &mut [u8]) {
        getrandom::fill(bytes).expect("the operating system gives entropy; without it nothing here is safe");
    }
}

/// Asks for SIGTERM when the parent of this process ends, if `LEGATION_EXIT_WITH_PARENT=1` says so, as
/// `legation up` does: tasks then have the usual time to end.
///
/// # Errors
/// When the kernel refuses.
pub fn follow_parent() -> std::io::Result<()> {
    if std::env::var_os("LEGATION_EXIT_WITH_PARENT").is_some_and(|value| value == "1") {
        rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM))?;
    }
    Ok(())
}

/// Raises the limit of open files to what this process is allowed, as the Manager does: each attempt has several, and
/// without one left it cannot even see what it has to kill. Answers the limit before, `None` for no limit.
///
/// # Errors
/// When the kernel refuses.
pub fn raise_open_files() -> rustix::io::Result<Option<u64>> {
    let limit = getrlimit(Resource::Nofile);
    limit_open_files(limit.maximum)?;
    Ok(limit.current)
}

/// Sets the limit of open files of this process and of those that it starts, up to what it is allowed.
///
/// # Errors
/// When the kernel refuses.
pub fn limit_open_files(current: Option<u64>) -> rustix::io::Result<()> {
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current, maximum })
}

/// A timer on `CLOCK_BOOTTIME`, so that a machine that was suspended past a deadline acts on waking and
/// does not count the sleep as time left.
#[derive(Debug)]
pub struct BootTimer {
    fd: OwnedFd,
}

impl BootTimer {
    /// A timer that is not set.
    pub fn new() -> rustix::io::Result<Self> {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        Ok(Self { fd: timerfd_create(TimerfdClockId::Boottime, flags)? })
    }

    /// Makes the descriptor readable at this moment of the boot clock, or never. A moment in the past is now.
    pub fn set(&self, at: Option<Millis>) -> rustix::io::Result<()> {
        let at = at.map_or(0, |at| at.max(1));
        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        let value = Timespec { tv_sec: at / 1000, tv_nsec: (at % 1000) * 1_000_000 };
        let spec = Itimerspec { it_interval: zero, it_value: value };
        timerfd_settime(&self.fd, TimerfdTimerFlags::ABSTIME, &spec).map(drop)
    }
}

impl AsFd for BootTimer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl std::os::fd::AsRawFd for BootTimer {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.fd.as_raw_fd()
    }
}
