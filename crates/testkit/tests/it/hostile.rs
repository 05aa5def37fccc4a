//! Tasks that print without end, fork, hide and do not want to die.

use std::time::Duration;

use legation_model::task::TaskState;
use legation_testkit::{Engine, World, eventually, within, world::STOPPED_WITHIN};

on_both!(
    endless_output_is_cut_visibly_and_harms_nobody,
    a_task_that_ignores_sigterm_is_cancelled_all_the_same,
    a_timeout_ends_everything_that_was_forked,
);

/// Grace of a cancel, and some time for a busy machine.
const CANCELLED_WITHIN: Duration = Duration::from_secs(25);

async fn endless_output_is_cut_visibly_and_harms_nobody(engine: Engine) {
    /// Output kept of a task that prints ten gigabytes.
    const LIMIT: u64 = 64 << 10;
    let mut world = World::start(engine).await;
    let token = world.token("noisy").await;
    let delegate = world.delegate("noisy", &token);
    world.connected(&delegate).await;
    let before = legation_testkit::procfs::memory(delegate.pid()).expect("it runs").resident;
    let script = "yes 0123456789 | head -c 10000000000; exit 7";
    let task = world
        .run_with("noisy", script, |task| {
            task.output_limit = Some(LIMIT);
            task.timeout_ms = Some(120_000);
        })
        .await;
    let ended = async || world.client.task(task.id).await.ok().filter(|task| task.state.is_final());
    let task = within(Duration::from_secs(120), "ten gigabytes are printed", ended).await;
    assert_eq!((task.state, task.exit_code), (TaskState::Failed, Some(7)), "{task:?}");
    let output = world.output(task.id).await;
    assert!(output.len() as u64 <= LIMIT + 1024, "{} bytes kept", output.len());
    assert!(output.starts_with(b"0123456789\n"));
    let after = legation_testkit::procfs::memory(delegate.pid()).expect("it runs").resident;
    assert!(after < before + 16 * 1024, "the delegate grew from {before} to {after} KiB");
    assert_eq!(world.manager().ended(), None);
}

async fn a_task_that_ignores_sigterm_is_cancelled_all_the_same(engine: Engine) {
    let world = World::start(engine).await;
    let token = world.token("stubborn").await;
    let delegate = world.delegate("stubborn", &token);
    world.connected(&delegate).await;
    let script = "trap '' TERM HUP INT; (setsid sh -c 'trap \"\" TERM; while :; do sleep 1; done' &) ; while :; do sleep 1; done";
    let task = world.run("stubborn", script).await;
    eventually("it has forked", async || (world.marked("stubborn").len() >= 3).then_some(())).await;
    world.client.cancel_task(task.id).await.expect("a running task can be cancelled");
    let cancelled = async || world.client.task(task.id).await.ok().filter(|task| task.state.is_final());
    let task = within(CANCELLED_WITHIN, "the task is cancelled", cancelled).await;
    assert_eq!(task.state, TaskState::Cancelled, "{task:?}");
    within(STOPPED_WITHIN, "no descendant is alive", async || world.marked("stubborn").is_empty().then_some(())).await;
}

async fn a_timeout_ends_everything_that_was_forked(engine: Engine) {
    let world = World::start(engine).await;
    let token = world.token("slow").await;
    let delegate = world.delegate("slow", &token);
    world.connected(&delegate).await;
    let script = "(setsid sleep 600 &); (sleep 600 &); echo started; sleep 600";
    let task = world.run_with("slow", script, |task| task.timeout_ms = Some(1500)).await;
    let task = world.finished(task.id).await;
    assert_eq!(task.state, TaskState::TimedOut, "{task:?}");
    within(STOPPED_WITHIN, "no descendant is alive", async || world.marked("slow").is_empty().then_some(())).await;
    assert_eq!(world.output(task.id).await, b"started\n");
}
