//! What a session costs, printed and bounded: ten thousand of them lie in one Manager.

use std::mem::size_of;

use legation_wire::{DelegateEnd, DelegateEvent, ManagerEnd, ManagerEvent};

#[test]
fn an_idle_session_stays_small() {
    println!("ManagerEnd {} B, DelegateEnd {} B", size_of::<ManagerEnd>(), size_of::<DelegateEnd>());
    println!("ManagerEvent {} B, DelegateEvent {} B", size_of::<ManagerEvent>(), size_of::<DelegateEvent>());
    assert!(size_of::<ManagerEnd>() <= 400);
    assert!(size_of::<DelegateEnd>() <= 500);
}
