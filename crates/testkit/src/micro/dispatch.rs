//! What a pass of the dispatcher costs with many delegates and a long queue.

use std::hint::black_box;

use legation_manager::{
    queue::{BATCH_MAX, Match, QUEUED_MAX, Queue, VAIN_MAX},
    sessions::Sessions,
};
use legation_model::{
    Millis,
    delegate::Selector,
    ids::TaskId,
    task::{Task, TaskKind, TaskState},
};

use super::{
    Measured,
    fixture::{self, SCOPE, Seeded, zone},
};

/// Delegates that are connected meanwhile.
const CONNECTED: usize = 10_000;

/// Every task finds a delegate; every other one only in one zone. A pass ends with a full batch.
pub(super) fn matching() -> Box<dyn Measured> {
    pass(BATCH_MAX, |number| if number % 2 == 0 { Vec::new() } else { vec![zone(number)] })
}

/// No task finds a delegate, and no two ask for the same: the longest pass that there can be.
pub(super) fn in_vain() -> Box<dyn Measured> {
    pass(0, |number| vec![format!("nowhere={}", number % (2 * VAIN_MAX))])
}

/// A pass after which all room is given back. `expect` is how many tasks it assigns.
fn pass(expect: usize, selectors: fn(usize) -> Vec<String>) -> Box<dyn Measured> {
    let (queue, sessions) = (queue(selectors), Sessions::default());
    fixture::sessions(CONNECTED).iter().for_each(|session| sessions.register(session));
    let (clock, entropy) = (fixture::clock(), Seeded::default());
    Box::new(move || {
        let matches = black_box(queue.match_tasks(&sessions, &clock, &entropy));
        assert_eq!(matches.len(), expect, "a pass that does something else is not what is measured");
        matches.iter().for_each(Match::release);
    })
}

fn queue(selectors: fn(usize) -> Vec<String>) -> Queue {
    let (queue, entropy) = (Queue::default(), Seeded::default());
    for number in 0..QUEUED_MAX {
        let selectors = selectors(number).iter().map(|tag| tag.parse().expect("a selector")).collect();
        queue.add(task(TaskId::random(&entropy), selectors, number as Millis));
    }
    queue
}

fn task(id: TaskId, selectors: Vec<Selector>, created_at: Millis) -> Task {
    Task {
        id,
        scope: SCOPE.parse().expect("a scope"),
        kind: TaskKind::Shell,
        selectors,
        state: TaskState::Queued,
        reason: String::new(),
        exit_code: None,
        timeout: 600_000,
        queue_deadline: Millis::MAX,
        output_limit: 1 << 20,
        retries_left: 0,
        cancel_requested: false,
        created_by: "bench".to_owned(),
        created_at,
        started_at: None,
        finished_at: None,
        attempt: None,
    }
}
