//! What a frame costs: a message encoded and sealed on one side, opened and decoded on the other.

use std::{collections::VecDeque, hint::black_box};

use legation_model::ids::{AttemptId, TaskId};
use legation_wire::{
    DelegateEnd, End, ManagerEnd,
    message::{Assignment, ToDelegate, Work},
};

use super::{
    Measured,
    handshake::{Parties, START, hand_over},
};

/// Bytes of the script that makes a frame large: with what stands around it, two sealed messages.
const LARGE: usize = 64 << 10;

/// The Manager answers a heartbeat.
pub(super) fn seal_heartbeat_answer() -> Box<dyn Measured> {
    sealing(ToDelegate::HeartbeatAck { sent: 1, expires_in: None })
}

/// The Manager assigns a task with a large script.
pub(super) fn seal_large() -> Box<dyn Measured> {
    sealing(assignment())
}

fn sealing(message: ToDelegate) -> Box<dyn Measured> {
    let (_, mut manager) = Parties::new().session();
    Box::new(move || {
        manager.send(black_box(&message)).expect("room");
        while black_box(manager.poll_transmit()).is_some() {}
    })
}

/// The Manager hears a heartbeat.
pub(super) fn open_heartbeat() -> Box<dyn Measured> {
    let (delegate, manager) = Parties::new().session();
    Box::new(Opening { from: delegate, to: manager, seal: heartbeat, number: 0, sealed: VecDeque::new() })
}

/// The delegate takes a task with a large script.
pub(super) fn open_large() -> Box<dyn Measured> {
    let (delegate, manager) = Parties::new().session();
    let seal = |manager: &mut ManagerEnd, _: &mut DelegateEnd, _| {
        manager.send(&assignment()).expect("room");
        messages(manager)
    };
    Box::new(Opening { from: manager, to: delegate, seal, number: 0, sealed: VecDeque::new() })
}

/// Opens frames that were sealed just for that: a message can be opened only once, and in its order.
struct Opening<From, To> {
    from: From,
    to: To,
    seal: fn(&mut From, &mut To, u64) -> Vec<Vec<u8>>,
    /// How many frames were sealed.
    number: u64,
    sealed: VecDeque<Vec<Vec<u8>>>,
}

impl<From, To: End> Measured for Opening<From, To> {
    fn prepare(&mut self) {
        self.number += 1;
        self.sealed.push_back((self.seal)(&mut self.from, &mut self.to, self.number));
    }

    fn run(&mut self) {
        for message in self.sealed.pop_front().expect("prepared") {
            self.to.receive(black_box(&message), START).expect("the next message");
        }
        assert!(black_box(self.to.poll_event()).is_some(), "a whole frame");
    }
}

/// A heartbeat; it is answered at once, because a delegate gives up after a few that are not.
fn heartbeat(delegate: &mut DelegateEnd, manager: &mut ManagerEnd, number: u64) -> Vec<Vec<u8>> {
    let due = delegate.next_deadline().expect("an open session");
    delegate.on_deadline(due).expect("all before it were answered");
    let heartbeat = messages(delegate);
    manager.send(&ToDelegate::HeartbeatAck { sent: number, expires_in: None }).expect("room");
    hand_over(manager, delegate);
    while delegate.poll_event().is_some() {}
    heartbeat
}

fn messages(end: &mut impl End) -> Vec<Vec<u8>> {
    std::iter::from_fn(|| end.poll_transmit()).collect()
}

fn assignment() -> ToDelegate {
    let script = "#".repeat(LARGE);
    let work = Work::Shell { script, interpreter: Vec::new(), env: Vec::new(), cwd: None, stdin: Vec::new() };
    ToDelegate::Assign(Box::new(Assignment {
        attempt: AttemptId([1; 16]),
        task: TaskId([2; 16]),
        timeout: 600_000,
        output_limit: 1 << 20,
        work,
        secrets: Vec::new(),
    }))
}
