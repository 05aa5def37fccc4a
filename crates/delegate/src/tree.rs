//! The processes below a process, and how to end them all.
//!
//! A process that has itself made child subreaper stays the ancestor of everything that it started: an
//! orphan, however often it forked and whatever session it opened, falls back to it. So the tree in `/proc`
//! is complete, and a signal that reaches the whole tree reaches all of a task.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
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
    ///
    /// # Errors
    /// When `/proc` does not say.
    pub fn find(pid: i32) -> io::Result<Option<Self>> {
        Ok(stat(pid)?.map(|stat| stat.process))
    }

    /// Whether it still runs; one that has ended and waits to be reaped does not.
    ///
    /// # Errors
    /// When `/proc` does not say.
    pub fn is_alive(self) -> io::Result<bool> {
        Ok(stat(self.pid)?.is_some_and(|stat| stat.process == self && !stat.ended))
    }

    /// Sends the signal to this process and to no other that took over its number. One that is gone needs none.
    ///
    /// # Errors
    /// When it may still be there and was not reached.
    pub fn signal(self, signal: Signal) -> io::Result<()> {
        let Some(pid) = Pid::from_raw(self.pid) else { return Ok(()) };
        // Before it is looked up, so that the descriptor is of the process that was found or of none.
        let fd = pidfd_open(pid, PidfdFlags::empty());
        if Self::find(self.pid)? != Some(self) {
            return Ok(());
        }
        let sent = match fd {
            Ok(fd) => pidfd_send_signal(fd, signal),
            // Kernels before 5.3, and some sandboxes, cannot do better than the number.
            Err(Errno::NOSYS | Errno::PERM) => kill_process(pid, signal),
            Err(error) => Err(error),
        };
        match sent {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// Every living process below `root`, without `root` itself.
///
/// # Errors
/// When `/proc` does not say.
pub fn descendants(root: i32) -> io::Result<BTreeSet<Process>> {
    below(root, &BTreeSet::new())
}

/// Every living process below this one that is not, and is not below, one of the children to spare.
///
/// # Errors
/// When `/proc` does not say.
pub fn strays(root: i32, spared: &BTreeSet<i32>) -> io::Result<BTreeSet<Process>> {
    below(root, spared)
}

/// The children of a process that have ended and that nobody has waited for, without those to spare.
///
/// # Errors
/// When `/proc` does not say.
pub fn unreaped(parent: i32, spared: &BTreeSet<i32>) -> io::Result<Vec<i32>> {
    let ended = |stat: &Stat| stat.ended && stat.parent == parent && !spared.contains(&stat.process.pid);
    Ok(stats()?.into_iter().filter(ended).map(|stat| stat.process.pid).collect())
}

/// Kills until nothing is listed any more, or for this many rounds with a pause between them. Answers whether
/// nothing is left.
///
/// # Errors
/// When that could not be told to the last: something may be left, and may not have got the signal.
pub fn kill_all(rounds: usize, list: impl Fn() -> io::Result<BTreeSet<Process>>) -> io::Result<bool> {
    let mut emptied = Ok(false);
    for round in 0..rounds {
        if round > 0 {
            let _ = poll(&mut [], Some(&KILL_PAUSE));
        }
        let doubted = emptied.is_err();
        emptied = kill(&list).map(|hit| hit.is_empty());
        match &emptied {
            Ok(true) => break,
            Err(error) if !doubted => tracing::warn!(%error, "what is to be killed cannot be seen: looking again"),
            _ => {}
        }
    }
    emptied
}

/// Sends `SIGKILL` to a whole tree once, after stopping it so that it cannot fork away. Returns what it hit.
///
/// The caller repeats it until the tree is empty: a fork under way may finish between two listings.
///
/// # Errors
/// When not all of it could be seen or reached; what could be is killed all the same.
pub fn kill(list: impl Fn() -> io::Result<BTreeSet<Process>>) -> io::Result<BTreeSet<Process>> {
    let mut found = BTreeSet::new();
    let seen = freeze(list, &mut found);
    let reached = found.iter().map(|process| process.signal(Signal::KILL)).fold(Ok(()), Result::and);
    seen.and(reached).map(|()| found)
}

/// Stops what is listed until nothing new is.
fn freeze(list: impl Fn() -> io::Result<BTreeSet<Process>>, found: &mut BTreeSet<Process>) -> io::Result<()> {
    for _ in 0..FREEZE_ROUNDS {
        let new: Vec<Process> = list()?.difference(found).copied().collect();
        if new.is_empty() {
            break;
        }
        for process in new {
            // If it does not arrive, `SIGKILL` tells.
            let _ = process.signal(Signal::STOP);
            found.insert(process);
        }
    }
    Ok(())
}

/// The living processes whose environment at their start held this entry (`NAME=value`).
///
/// # Errors
/// When `/proc` does not say.
pub fn marked(entry: &str) -> io::Result<BTreeSet<Process>> {
    let has = |environment: Vec<u8>| environment.split(|byte| *byte == 0).any(|variable| variable == entry.as_bytes());
    let own = rustix::process::getpid().as_raw_pid();
    let mut found = BTreeSet::new();
    for pid in pids()? {
        if pid != own && read(pid, "environ")?.is_some_and(has) {
            found.extend(stat(pid)?.filter(|stat| !stat.ended).map(|stat| stat.process));
        }
    }
    Ok(found)
}

fn below(root: i32, spared: &BTreeSet<i32>) -> io::Result<BTreeSet<Process>> {
    let mut children: BTreeMap<i32, Vec<Stat>> = BTreeMap::new();
    for stat in stats()? {
        children.entry(stat.parent).or_default().push(stat);
    }
    let mut found = BTreeSet::new();
    let mut open = vec![root];
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
    Ok(found)
}

fn stats() -> io::Result<Vec<Stat>> {
    pids()?.into_iter().filter_map(|pid| stat(pid).transpose()).collect()
}

fn pids() -> io::Result<Vec<i32>> {
    let number = |entry: fs::DirEntry| entry.file_name().to_str().and_then(|name| name.parse().ok());
    fs::read_dir("/proc")?.filter_map(|entry| entry.map(number).transpose()).collect()
}

fn stat(pid: i32) -> io::Result<Option<Stat>> {
    let Some(line) = read(pid, "stat")? else { return Ok(None) };
    let stat = parse(pid, &String::from_utf8_lossy(&line));
    stat.map(Some).ok_or_else(|| io::Error::other(format!("/proc/{pid}/stat is not as proc_pid_stat(5) says")))
}

fn parse(pid: i32, line: &str) -> Option<Stat> {
    // The command name is in parentheses and may itself hold some, and any other bytes: a task chooses it. Fields
    // are counted from the last one.
    let mut fields = line.get(line.rfind(')')? + 1..)?.split_ascii_whitespace();
    let ended = matches!(fields.next()?, "Z" | "X");
    let parent = fields.next()?.parse().ok()?;
    // proc_pid_stat(5): state is field 3, the parent 4, the start time 22.
    let started = fields.nth(22 - 5)?.parse().ok()?;
    Some(Stat { process: Process { pid, started }, parent, ended })
}

/// A file of a process; `None` when the process has ended, or is another user's and hidden, hence no task's. Every
/// other failure, such as no descriptor left to read with, says nothing about the process.
fn read(pid: i32, name: &str) -> io::Result<Option<Vec<u8>>> {
    match fs::read(format!("/proc/{pid}/{name}")) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) => match Errno::from_io_error(&error) {
            Some(Errno::NOENT | Errno::SRCH | Errno::ACCESS | Errno::PERM) => Ok(None),
            _ => Err(error),
        },
    }
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
        let hidden = descendants(own).expect("/proc").iter().all(|process| process.pid != child.id() as i32);
        child.kill().expect("ours");
        child.wait().expect("it ended");
        assert!(!hidden, "what is not listed is not killed");
    }

    #[test]
    fn a_child_is_found_below_its_parent_until_it_has_ended() {
        let own = rustix::process::getpid().as_raw_pid();
        let mut child = std::process::Command::new("/bin/sleep").arg("600").spawn().expect("sleep starts");
        let process = Process::find(child.id() as i32).expect("/proc").expect("it runs");
        let alive = || process.is_alive().expect("/proc");
        assert!(descendants(own).expect("/proc").contains(&process) && alive());
        assert!(!strays(own, &BTreeSet::from([process.pid])).expect("/proc").contains(&process));
        Process { started: process.started + 1, ..process }.signal(Signal::KILL).expect("nobody to reach");
        assert!(alive(), "another start time is another process");
        process.signal(Signal::KILL).expect("ours");
        child.wait().expect("it ended");
        assert!(!alive());
    }

    #[test]
    fn what_cannot_be_listed_is_not_gone() {
        let doubt = || Err(Errno::MFILE.into());
        let error = kill_all(2, doubt).expect_err("nobody knows");
        assert_eq!(Errno::from_io_error(&error), Some(Errno::MFILE));
        let asked = std::cell::Cell::new(0);
        let again = || if asked.replace(asked.get() + 1) == 0 { doubt() } else { Ok(BTreeSet::new()) };
        assert!(kill_all(2, again).is_ok_and(|emptied| emptied), "it looks again");
    }

    #[test]
    fn what_was_seen_before_the_listing_failed_is_killed() {
        let mut child = std::process::Command::new("/bin/sleep").arg("600").spawn().expect("sleep starts");
        let process = Process::find(child.id() as i32).expect("/proc").expect("it runs");
        let asked = std::cell::Cell::new(0);
        let once = || match asked.replace(asked.get() + 1) {
            0 => Ok(BTreeSet::from([process])),
            _ => Err(Errno::MFILE.into()),
        };
        assert!(kill(once).is_err());
        child.wait().expect("it was killed and not only stopped");
    }
}
