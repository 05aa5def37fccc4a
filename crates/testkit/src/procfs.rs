//! What the kernel knows about processes.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    time::Duration,
};

/// Processes whose environment contains the mark.
///
/// A mark set on a task finds also what has left the family: a grandchild that was forked twice and has a
/// session of its own still has the environment it started with.
pub fn marked(mark: &str) -> BTreeSet<u32> {
    pids().into_iter().filter(|pid| contains(&read(*pid, "environ"), mark.as_bytes())).collect()
}

/// Living processes below `ancestor`, at any depth.
pub fn descendants(ancestor: u32) -> BTreeSet<u32> {
    let parents: BTreeMap<u32, u32> = pids().into_iter().filter_map(|pid| Some((pid, parent(pid)?))).collect();
    let below = |pid: &u32| {
        let mut at = *pid;
        // A family tree is never deeper than it has members; ids that are used again could close a circle.
        (0..parents.len()).any(|_| {
            at = parents.get(&at).copied().unwrap_or(0);
            at == ancestor
        })
    };
    parents.keys().copied().filter(below).collect()
}

/// Memory of one process, in KiB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Pages in memory (RSS), shared ones included.
    pub resident: u64,
    /// The same with each shared page divided among those who share it (PSS); unknown when the process hides
    /// itself from us.
    pub proportional: Option<u64>,
}

/// Memory of a living process.
pub fn memory(pid: u32) -> Option<Memory> {
    let field = |file: &str, name: &str| {
        let text = String::from_utf8(read(pid, file)).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse().ok()
    };
    Some(Memory { resident: field("status", "VmRSS:")?, proportional: field("smaps_rollup", "Pss:") })
}

/// Processor time of a process, of all its living threads, to the nanosecond.
pub fn cpu(pid: u32) -> Duration {
    let threads = fs::read_dir(Path::new("/proc").join(pid.to_string()).join("task"));
    let spent = threads.into_iter().flatten().filter_map(|thread| {
        let text = fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse().ok().map(Duration::from_nanos)
    });
    spent.sum()
}

/// What other users of the machine may see of a process: its arguments and its environment.
pub fn exposed(pid: u32) -> Vec<u8> {
    let mut bytes = read(pid, "cmdline");
    bytes.extend(read(pid, "environ"));
    bytes
}

fn pids() -> Vec<u32> {
    let entries = fs::read_dir("/proc").expect("the kernel lists its processes");
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
}

/// A process may end while we look, or hide itself: either is read as nothing.
fn read(pid: u32, file: &str) -> Vec<u8> {
    fs::read(Path::new("/proc").join(pid.to_string()).join(file)).unwrap_or_default()
}

fn contains(bytes: &[u8], needle: &[u8]) -> bool {
    memchr::memmem::find(bytes, needle).is_some()
}

/// The parent of a living process; a zombie no longer counts.
fn parent(pid: u32) -> Option<u32> {
    let stat = String::from_utf8_lossy(&read(pid, "stat")).into_owned();
    // The second field is the program's name in brackets and may itself contain brackets and spaces.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X") { None } else { fields.next()?.parse().ok() }
}
