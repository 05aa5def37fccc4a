//! The processes below a process, and how to end them all.
//!
//! A process that has itself made child subreaper stays the ancestor of everything that it started: an
//! orphan, however often it forked and whatever session it opened, falls back to it. So the tree in `/proc`
//! is complete, and a signal that reaches the whole tree reaches all of a task.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use rustix::{
    event::{Timespec, poll},
    io::Errno,
    process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open, pidfd_send_signal},
};

/// How often a tree is listed again while it is being stopped: a tree that still grows then is killed as it is,
/// and the killing itself is repeated until nothing is left.
const FREEZE_ROUNDS: usize = 64;

/// Between two rounds of killing: what was killed needs a moment to be gone.
const KILL_PAUSE: Timespec = Timespec { tv_sec: 0, tv_nsec: 2_000_000 };

/// One process; the start time tells it from a later one with the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Process {
    /// Its number.
    pub pid: i32,
    /// When it started, in clock ticks since boot.
    pub started: u64,
}

/// What `/proc/<pid>/stat` says of a process.
#[derive(Clone, Copy, Debug)]
struct Stat {
    process: Process,
    parent: i32,
    ended: bool,
}

impl Process {
    /// Looks a process up; `None` when there is none with that number.
    pub fn find(pid: i32) -> Option<Self> {
        stat(pid).map(|stat| stat.process)
    }

    /// Whether it still runs; one that has ended and waits to be reaped does not.
    pub fn is_alive(self) -> bool {
        stat(self.pid).is_some_and(|stat| stat.process == self && !stat.ended)
    }

    /// Sends the signal to this process and to no other that took over its number.
    pub fn signal(self, signal: Signal) {
        let Some(pid) = Pid::from_raw(self.pid) else { return };
        match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(fd) if Self::find(self.pid) == Some(self) => drop(pidfd_send_signal(fd, signal)),
            // Kernels before 5.3 cannot do better than the number.
            Err(Errno::NOSYS) if Self::find(self.pid) == Some(self) => drop(kill_process(pid, signal)),
            _ => {}
        }
    }
}

/// Every living process below `root`, without `root` itself.
pub fn descendants(root: i32) -> BTreeSet<Process> {
    below(&[root], &BTreeSet::new())
}

/// Every living process below this one that is not, and is not below, one of the children to spare.
pub fn strays(root: i32, spared: &BTreeSet<i32>) -> BTreeSet<Process> {
    below(&[root], spared)
}

/// The children of a process that have ended and that nobody has waited for, without those to spare.
pub fn unreaped(parent: i32, spared: &BTreeSet<i32>) -> Vec<i32> {
    let ended = |stat: &Stat| stat.ended && stat.parent == parent && !spared.contains(&stat.process.pid);
    pids().filter_map(stat).filter(ended).map(|stat| stat.process.pid).collect()
}

/// Kills until nothing is listed any more, or for this many rounds with a pause between them. Answers whether
/// nothing is left.
pub fn kill_all(rounds: usize, list: impl Fn() -> BTreeSet<Process>) -> bool {
    (0..rounds).any(|round| {
        if round > 0 {
            let _ = poll(&mut [], Some(&KILL_PAUSE));
        }
        kill(&list).is_empty()
    })
}

/// Sends `SIGKILL` to a whole tree once, after stopping it so that it cannot fork away. Returns what it hit.
///
/// The caller repeats it until the tree is empty: a fork under way may finish between two listings.
pub fn kill(list: impl Fn() -> BTreeSet<Process>) -> BTreeSet<Process> {
    let mut found = BTreeSet::new();
    for _ in 0..FREEZE_ROUNDS {
        let new: Vec<Process> = list().difference(&found).copied().collect();
        if new.is_empty() {
            break;
        }
        for process in new {
            process.signal(Signal::STOP);
            found.insert(process);
        }
    }
    for process in &found {
        process.signal(Signal::KILL);
    }
    found
}

/// The living processes whose environment at their start held this entry (`NAME=value`).
pub fn marked(entry: &str) -> BTreeSet<Process> {
    let has = |pid: &i32| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|variable| variable == entry.as_bytes())
    };
    let own = rustix::process::getpid().as_raw_pid();
    let living = |pid: i32| stat(pid).filter(|stat| !stat.ended).map(|stat| stat.process);
    pids().filter(|pid| *pid != own).filter(has).filter_map(living).collect()
}

fn below(roots: &[i32], spared: &BTreeSet<i32>) -> BTreeSet<Process> {
    let mut children: BTreeMap<i32, Vec<Stat>> = BTreeMap::new();
    for stat in pids().filter_map(stat) {
        children.entry(stat.parent).or_default().push(stat);
    }
    let mut found = BTreeSet::new();
    let mut open = roots.to_vec();
    while let Some(parent) = open.pop() {
        for child in children.remove(&parent).unwrap_or_default() {
            if spared.contains(&child.process.pid) {
                continue;
            }
            // One that has ended is walked through, because its threads may live on, but never counted.
            open.push(child.process.pid);
            if !child.ended {
                found.insert(child.process);
            }
        }
    }
    found
}

fn pids() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn stat(pid: i32) -> Option<Stat> {
    // The command name is in parentheses and may itself hold some, and any other bytes: a task chooses it. Fields
    // are counted from the last one.
    let line = fs::read(format!("/proc/{pid}/stat")).ok()?;
    let line = String::from_utf8_lossy(&line);
    let mut fields = line.get(line.rfind(')')? + 1..)?.split_ascii_whitespace();
    let ended = matches!(fields.next()?, "Z" | "X");
    let parent = fields.next()?.parse().ok()?;
    // proc_pid_stat(5): state is field 3, the parent 4, the start time 22.
    let started = fields.nth(22 - 5)?.parse().ok()?;
    Some(Stat { process: Process { pid, started }, parent, ended })
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn a_process_does_not_hide_behind_a_name_that_is_no_text() {
        let own = rustix::process::getpid().as_raw_pid();
        let mut shell = std::process::Command::new("/bin/sh");
        shell.args(["-c", "printf '\\377) Z 1' > /proc/self/comm; echo named; read forever"]);
        shell.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
        let mut child = shell.spawn().expect("a shell starts");
        child.stdout.take().expect("piped").read_exact(&mut [0; 6]).expect("it is named");
        let hidden = descendants(own).iter().all(|process| process.pid != child.id() as i32);
        child.kill().expect("ours");
        child.wait().expect("it ended");
        assert!(!hidden, "what is not listed is not killed");
    }

    #[test]
    fn a_child_is_found_below_its_parent_until_it_has_ended() {
        let own = rustix::process::getpid().as_raw_pid();
        let mut child = std::process::Command::new("/bin/sleep").arg("600").spawn().expect("sleep starts");
        let process = Process::find(child.id() as i32).expect("it runs");
        assert!(descendants(own).contains(&process) && process.is_alive());
        assert!(!strays(own, &BTreeSet::from([process.pid])).contains(&process));
        Process { started: process.started + 1, ..process }.signal(Signal::KILL);
        assert!(process.is_alive(), "another start time is another process");
        process.signal(Signal::KILL);
        child.wait().expect("it ended");
        assert!(!process.is_alive());
    }
}
