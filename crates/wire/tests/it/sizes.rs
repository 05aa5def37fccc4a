//! What a session costs, printed and bounded: ten thousand of them lie in one Manager.

use std::mem::size_of;

use legation_wire::{DelegateEnd, DelegateEvent, ManagerEnd, ManagerEvent};

use crate::support::World;

/// Enough sessions that pages and the allocator's own books do not show.
const SESSIONS: usize = 2_000;

/// Resident memory of this process in bytes.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux tells");
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).expect("a number of pages") * 4_096
}

#[test]
fn an_idle_session_stays_small() {
    println!("ManagerEnd {} B, DelegateEnd {} B", size_of::<ManagerEnd>(), size_of::<DelegateEnd>());
    println!("ManagerEvent {} B, DelegateEvent {} B", size_of::<ManagerEvent>(), size_of::<DelegateEvent>());
    let world = World::new(41);
    let open = || world.session(0).1;
    let mut sessions: Vec<ManagerEnd> = (0..10).map(|_| open()).collect();
    sessions.reserve_exact(SESSIONS);
    let before = resident();
    sessions.extend((0..SESSIONS).map(|_| open()));
    let each = (resident() - before) / SESSIONS;
    println!("resident for each idle session of the Manager: {each} B with all that it owns");
    assert!(each <= 768, "{each} B");
}
