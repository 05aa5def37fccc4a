//! The real clock and the real entropy; tests bring their own.

use legation_model::{Clock, Entropy, Millis};
use rustix::time::{ClockId, clock_gettime};

/// The machine's clocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn wall(&self) -> Millis {
        millis(ClockId::Realtime)
    }

    fn boot(&self) -> Millis {
        millis(ClockId::Boottime)
    }
}

fn millis(clock: ClockId) -> Millis {
    let now = clock_gettime(clock);
    now.tv_sec * 1000 + now.tv_nsec / 1_000_000
}

/// The operating system's entropy.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemEntropy;

impl Entropy for SystemEntropy {
    #[expect(clippy::disallowed_methods, reason = "this is the program's one source of entropy")]
    fn fill(&self, bytes: &mut [u8]) {
        getrandom::fill(bytes).expect("the operating system gives entropy, or nothing here is safe");
    }
}

/// Keeps this process's memory out of core dumps and other users' debuggers, and raises its descriptor limit to
/// what it is allowed: a connection is a descriptor.
///
/// # Errors
/// When the kernel refuses.
pub fn harden() -> std::io::Result<()> {
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)?;
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let raised = rustix::process::Rlimit { current: limit.maximum, maximum: limit.maximum };
    Ok(rustix::process::setrlimit(rustix::process::Resource::Nofile, raised)?)
}

/// Ends this process when its parent ends, if `LEGATION_EXIT_WITH_PARENT=1` asks for it, as `legation up` does.
///
/// # Errors
/// When the kernel refuses.
pub fn follow_parent() -> std::io::Result<()> {
    if std::env::var_os("LEGATION_EXIT_WITH_PARENT").is_some_and(|value| value == "1") {
        rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM))?;
    }
    Ok(())
}
