//! Many small tasks on one small delegate.

use std::time::Duration;

use legation_api::tasks::Task;
use legation_model::task::TaskState;
use legation_testkit::{Engine, World, eventually, within};

on_both!(small_tasks_beyond_any_capacity_all_succeed_and_leave_nothing);

/// Fifty times the delegate's capacity: each slot is emptied and filled again many times.
const TASKS: usize = 200;
/// Each starts two processes, beside the other tests, on as little as two cores.
const TASKS_WITHIN: Duration = Duration::from_secs(120);

async fn small_tasks_beyond_any_capacity_all_succeed_and_leave_nothing(engine: Engine) {
    let world = World::start(engine).await;
    let token = world.token("small").await;
    let delegate = world.delegate_with("small", &token.value, &[("DELEGATE_CAPACITY", "4")]);
    world.connected(&delegate).await;
    let mut waiting = Vec::new();
    for _ in 0..TASKS {
        waiting.push(world.run("small", "true").await.id);
    }
    let mut ended: Vec<Task> = Vec::new();
    within(TASKS_WITHIN, "every task has ended", async || {
        while let Some(id) = waiting.last() {
            let task = world.task(*id).await;
            if !task.state.is_final() {
                return None;
            }
            waiting.pop();
            ended.push(task);
        }
        Some(())
    })
    .await;
    let failed: Vec<_> = ended.iter().filter(|task| task.state != TaskState::Succeeded).collect();
    assert!(ended.len() == TASKS && failed.is_empty(), "{failed:?}");
    let attempts = delegate.directory().join("state/attempts");
    eventually("every result is acknowledged and forgotten", async || {
        std::fs::read_dir(&attempts).is_ok_and(|left| left.count() == 0).then_some(())
    })
    .await;
}
