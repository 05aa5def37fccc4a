//! Tasks: from the queue to exactly one end.

use std::time::Duration;

use legation_api::{
    Code,
    client::{Client, ClientError},
    tasks::{Shell, SubmitTask, Work},
};
use legation_manager::queue::QUEUED_MAX;
use legation_model::{
    delegate::Selector,
    ids::{AttemptId, TaskId},
    task::TaskState,
};
use legation_testkit::{Engine, Inside, eventually};
use legation_wire::message::{Finished, FromDelegate, Stream, ToDelegate};
use sqlx::{Executor as _, Row as _};

super::on_both!(
    a_result_is_acknowledged_once_it_is_durable,
    a_late_result_changes_nothing,
    a_late_result_of_a_task_that_went_on_is_recorded,
    what_has_started_is_not_put_back_by_a_refusal,
    a_queue_that_is_full_takes_nothing_more,
    many_kinds_that_nobody_takes_hold_up_no_other,
    another_delegates_attempt_cannot_be_touched,
    capacity_and_selectors_decide,
    a_task_that_nobody_takes_is_rejected_with_the_reason,
    cancelling_waits_for_the_delegate_or_ends_at_once,
    an_idempotent_task_is_tried_again,
    a_repeated_submission_is_the_same_task,
    waiting_and_running_tasks_survive_a_restart,
    a_policy_refusal_is_a_rejection,
    a_task_that_a_delegate_could_not_start_waits_and_spends_no_retry,
    a_task_that_was_cancelled_meanwhile_does_not_wait_again,
    a_cancel_right_after_the_submission_is_not_lost,
    a_delegate_that_reports_what_cannot_be_is_cut_off,
    output_so_far_can_be_read_without_waiting,
);

fn shell(on: &str, script: &str) -> SubmitTask {
    let work = Work::Shell(Shell { script: script.to_owned(), ..Shell::default() });
    let mut task = SubmitTask::new("default".parse().expect("a scope"), work);
    task.selectors = vec![on.parse::<Selector>().expect("a selector")];
    task
}

fn finished(attempt: AttemptId, state: TaskState) -> FromDelegate {
    let finished =
        Finished { attempt, state, exit_code: Some(0), reason: String::new(), output_bytes: 0, dropped_bytes: 0 };
    FromDelegate::Finished(finished)
}

async fn state(inside: &Inside, task: TaskId, wanted: TaskState) -> legation_api::tasks::Task {
    eventually(&format!("the task is {wanted}"), async || {
        let task = inside.client.task(task).await.expect("a task");
        (task.state == wanted).then_some(task)
    })
    .await
}

async fn a_result_is_acknowledged_once_it_is_durable(engine: Engine) {
    let inside = Inside::start(engine).await;
    let token = inside.token("a").await;
    let (mut puppet, attempt, task) = super::working(&inside, "one", &token).await;
    let bytes = b"hello\n".to_vec();
    let output = FromDelegate::Output { attempt, offset: 0, stream: Stream::Stdout, bytes };
    puppet.say(output.clone()).await.expect("said");
    puppet.say(output).await.expect("said again, as after a reconnect");
    puppet.say(finished(attempt, TaskState::Succeeded)).await.expect("said");
    let mut acknowledged = Vec::new();
    while !acknowledged.contains(&ToDelegate::FinishedAck { attempt }) {
        acknowledged.push(puppet.message().await);
        if acknowledged.last() == Some(&ToDelegate::FinishedAck { attempt }) {
            assert_eq!(inside.client.task(task).await.expect("a task").state, TaskState::Succeeded);
        }
    }
    assert!(acknowledged.contains(&ToDelegate::OutputAck { attempt, offset: 6 }));
    let mut stream = inside.client.output(task, Default::default());
    let mut text = Vec::new();
    while let Some(legation_api::client::OutputItem::Chunk(event)) = stream.next().await.expect("a stream") {
        text.extend(event.bytes);
    }
    assert_eq!(text, b"hello\n", "once, although it was sent twice");
}

async fn a_late_result_changes_nothing(engine: Engine) {
    let inside = Inside::start(engine).await;
    let token = inside.token("a").await;
    let (mut puppet, attempt, task) = super::working(&inside, "one", &token).await;
    let mut twin = puppet.twin();
    puppet.reboot();
    puppet.join().await;
    state(&inside, task, TaskState::Lost).await;
    twin.cut();
    puppet.say(finished(attempt, TaskState::Succeeded)).await.expect("said");
    assert_eq!(puppet.message().await, ToDelegate::FinishedAck { attempt }, "or it would be repeated for ever");
    assert_eq!(inside.client.task(task).await.expect("a task").state, TaskState::Lost);
}

async fn a_late_result_of_a_task_that_went_on_is_recorded(engine: Engine) {
    let inside = Inside::start(engine).await;
    let token = inside.token("a").await;
    let mut puppet = inside.puppet("one", &token);
    puppet.join().await;
    let mut request = shell("one", "true");
    (request.idempotent, request.retries) = (true, 1);
    let task = inside.client.submit_task(&request).await.expect("submitted").id;
    let ToDelegate::Assign(first) = puppet.message().await else { panic!("no assignment") };
    puppet.say(finished(first.attempt, TaskState::Failed)).await.expect("said");
    let again = loop {
        match puppet.message().await {
            ToDelegate::Assign(again) => break again,
            other => assert_eq!(other, ToDelegate::FinishedAck { attempt: first.attempt }),
        }
    };
    puppet.say(finished(first.attempt, TaskState::Succeeded)).await.expect("said");
    assert_eq!(puppet.message().await, ToDelegate::FinishedAck { attempt: first.attempt });
    let late = "SELECT COUNT(*) FROM late_results WHERE state = 'succeeded'";
    let late: i64 = super::beside(&inside).await.fetch_one(late).await.expect("a count").get(0);
    assert_eq!(late, 1);
    assert_eq!(inside.client.task(task).await.expect("a task").state, TaskState::Assigned, "it changed nothing");
    puppet.say(finished(again.attempt, TaskState::Succeeded)).await.expect("said");
    state(&inside, task, TaskState::Succeeded).await;
}

/// A start and a refusal that are recorded together: what the first has changed counts for the second.
async fn what_has_started_is_not_put_back_by_a_refusal(engine: Engine) {
    let settings = legation_manager::config::Settings { heartbeat: Some("200ms".to_owned()), ..Default::default() };
    let inside = Inside::with(engine, settings).await;
    let token = inside.token("a").await;
    let mut puppet = inside.puppet("one", &token);
    puppet.join().await;
    let task = inside.client.submit_task(&shell("one", "true")).await.expect("submitted").id;
    let ToDelegate::Assign(assignment) = puppet.message().await else { panic!("no assignment") };
    let attempt = assignment.attempt;
    let (release, held) = super::hold_writer(&inside);
    held.await.expect("the writer is held");
    // This one is on its way to the writer alone; what follows waits behind it, together.
    let bytes = b".".to_vec();
    puppet.say(FromDelegate::Output { attempt, offset: 0, stream: Stream::Stdout, bytes }).await.expect("said");
    puppet.say(FromDelegate::Started { attempt }).await.expect("said");
    puppet.say(FromDelegate::Refused { attempt, reason: String::new(), again: true }).await.expect("said");
    // A heartbeat's answer comes behind all that was said before it.
    let renewed = puppet.next().await;
    assert!(matches!(renewed, Ok(legation_wire::DelegateEvent::LeaseRenewed { .. })), "{renewed:?}");
    release.send(()).expect("the writer waits");
    while puppet.message().await != (ToDelegate::FinishedAck { attempt }) {}
    assert_eq!(inside.client.task(task).await.expect("a task").state, TaskState::Running, "it is not run again");
}

async fn many_kinds_that_nobody_takes_hold_up_no_other(engine: Engine) {
    let inside = Inside::start(engine).await;
    let token = inside.token("a").await;
    let mut puppet = inside.puppet("somewhere", &token);
    puppet.join().await;
    for number in 0..300 {
        inside.client.submit_task(&shell(&format!("nowhere{number}"), "true")).await.expect("submitted");
    }
    let task = inside.client.submit_task(&shell("somewhere", "true")).await.expect("submitted").id;
    let ToDelegate::Assign(assignment) = puppet.message().await else { panic!("no assignment") };
    assert_eq!(assignment.task, task);
}

async fn a_queue_that_is_full_takes_nothing_more(engine: Engine) {
    let inside = Inside::start(engine).await;
    let waiting = inside.client.submit_task(&shell("nowhere", "true")).await.expect("submitted").id;
    let find = legation_store::job(move |conn| Box::pin(legation_store::tasks::get(conn, waiting)));
    let waiting = inside.manager.store.read(find).await.expect("read").expect("a task");
    for number in 1..QUEUED_MAX as u128 {
        let id = TaskId(number.to_be_bytes());
        inside.manager.queue.add(legation_model::task::Task { id, ..waiting.clone() });
    }
    let refused = inside.client.submit_task(&shell("nowhere", "true")).await;
    assert!(matches!(refused, Err(ClientError::Problem(problem)) if problem.code == Code::Overloaded));
    let token = inside.token("a").await;
    let mut puppet = inside.puppet("somewhere", &token);
    puppet.join().await;
    inside.manager.queue.remove(&waiting);
    let task = inside.client.submit_task(&shell("somewhere", "true")).await.expect("there is room again").id;
    let ToDelegate::Assign(assignment) = puppet.message().await else { panic!("no assignment") };
    assert_eq!(assignment.task, task, "it is not kept waiting by those that nobody takes");
}

async fn another_delegates_attempt_cannot_be_touched(engine: Engine) {
    let inside = Inside::start(engine).await;
    let token = inside.token("a").await;
    let (_owner, attempt, task) = super::working(&inside, "one", &token).await;
    let mut other = inside.puppet("two", &token);
    other.join().await;
    let bytes = b"forged".to_vec();
    other.say(FromDelegate::Output { attempt, offset: 0, stream: Stream::Stdout, bytes }).await.expect("said");
    other.say(finished(attempt, TaskState::Failed)).await.expect("said");
    while other.message().await != (ToDelegate::FinishedAck { attempt }) {}
    let task = inside.client.task(task).await.expect("a task");
    assert!(!task.state.is_final(), "{:?}", task.state);
    let read = legation_store::job(move |conn| Box::pin(legation_store::output::end(conn, attempt)));
    assert_eq!(inside.manager.store.read(read).await.expect("read"), 0);
}

async fn capacity_and_selectors_decide(engine: Engine) {
    let inside = Inside::start(engine).await;
    let pinned = inside.token_with("pinned", |token| token.pinned_tags = vec!["gpu".parse().expect("a tag")]).await;
    let plain = inside.token("plain").await;
    let mut liar = inside.puppet("liar", &plain);
    liar.hello.tags = vec!["gpu".parse().expect("a tag")];
    liar.join().await;
    let mut trusted = inside.puppet("trusted", &pinned);
    trusted.hello.capacity = 1;
    trusted.join().await;

    let first = inside.client.submit_task(&shell("pinned:gpu", "1")).await.expect("submitted").id;
    let second = inside.client.submit_task(&shell("pinned:gpu", "2")).await.expect("submitted").id;
    let ToDelegate::Assign(one) = trusted.message().await else { panic!("no assignment") };
    let waiting = inside.client.task(if one.task == first { second } else { first }).await.expect("a task");
    assert_eq!(waiting.state, TaskState::Queued, "a claimed tag is no pinned one, and the room is taken");
    assert!(waiting.reason.contains("no room") && waiting.reason.contains("pinned:gpu"), "{}", waiting.reason);
    trusted.say(finished(one.attempt, TaskState::Succeeded)).await.expect("said");
    assert_eq!(trusted.message().await, ToDelegate::FinishedAck { attempt: one.attempt });
    let ToDelegate::Assign(two) = trusted.message().await else { panic!("no assignment") };
    assert_eq!(two.task, waiting.id);
}

async fn a_task_that_nobody_takes_is_rejected_with_the_reason(engine: Engine) {
    let inside = Inside::start(engine).await;
    let token = inside.token("a").await;
    inside.puppet("one", &token).join().await;
    let mut other = inside.puppet("two", &token);
    other.join().await;
    let mut request = shell("nowhere", "true");
    request.queue_timeout_ms = Some(60_000);
    let task = inside.client.submit_task(&request).await.expect("submitted").id;
    inside.clock.advance(10_000);
    assert_eq!(inside.client.task(task).await.expect("a task").state, TaskState::Queued);
    inside.clock.advance(50_000);
    let task = state(&inside, task, TaskState::Rejected).await;
    assert!(task.reason.contains("no delegate"), "{}", task.reason);
    assert!(task.finished_at.is_some());
}

async fn cancelling_waits_for_the_delegate_or_ends_at_once(engine: Engine) {
    let inside = Inside::start(engine).await;
    let token = inside.token("a").await;
    let waiting = inside.client.submit_task(&shell("nowhere", "true")).await.expect("submitted").id;
    assert_eq!(inside.client.cancel_task(waiting).await.expect("cancelled").task.state, TaskState::Cancelled);
    let again = inside.client.cancel_task(waiting).await;
    assert!(matches!(again, Err(ClientError::Problem(problem)) if problem.code == Code::TaskEnded));

    let (mut puppet, attempt, task) = super::working(&inside, "one", &token).await;
    puppet.cut();
    inside.client.cancel_task(task).await.expect("asked");
    assert!(!inside.client.task(task).await.expect("a task").state.is_final(), "its delegate is away");
    let held = legation_wire::message::HeldAttempt { attempt, phase: legation_wire::message::Phase::Running };
    puppet.connect_holding(vec![held]).await;
    assert!(matches!(puppet.message().await, ToDelegate::Cancel { attempt: told, .. } if told == attempt));
    puppet.say(finished(attempt, TaskState::Cancelled)).await.expect("said");
    state(&inside, task, TaskState::Cancelled).await;
}

async fn an_idempotent_task_is_tried_again(engine: Engine) {
    let inside = Inside::start(engine).await;
    let token = inside.token("a").await;
    let mut puppet = inside.puppet("one", &token);
    puppet.join().await;
    let mut request = shell("one", "true");
    (request.idempotent, request.retries) = (true, 1);
    let task = inside.client.submit_task(&request).await.expect("submitted").id;
    let ToDelegate::Assign(first) = puppet.message().await else { panic!("no assignment") };
    puppet.say(finished(first.attempt, TaskState::Failed)).await.expect("said");
    // The dispatcher says an assignment itself, and may be sooner than the session with its acknowledgement.
    let mut told = [puppet.message().await, puppet.message().await];
    told.sort_by_key(|message| matches!(message, ToDelegate::Assign(_)));
    let [acknowledged, ToDelegate::Assign(second)] = told else { panic!("no second attempt: {told:?}") };
    assert_eq!(acknowledged, ToDelegate::FinishedAck { attempt: first.attempt });
    assert_eq!(second.task, task);
    assert_ne!(second.attempt, first.attempt);
    puppet.say(finished(second.attempt, TaskState::Failed)).await.expect("said");
    state(&inside, task, TaskState::Failed).await;
}

async fn a_repeated_submission_is_the_same_task(engine: Engine) {
    let inside = Inside::start(engine).await;
    let client: Client = inside.client.idempotent("once-1");
    let first = client.submit_task(&shell("x", "1")).await.expect("submitted").id;
    assert_eq!(client.submit_task(&shell("x", "1")).await.expect("the same").id, first);
    let other = client.submit_task(&shell("x", "2")).await;
    assert!(matches!(other, Err(ClientError::Problem(problem)) if problem.code == Code::IdempotencyMismatch));
    assert_eq!(inside.client.tasks(&Default::default()).await.expect("tasks").items.len(), 1);
}

async fn waiting_and_running_tasks_survive_a_restart(engine: Engine) {
    let mut inside = Inside::start(engine).await;
    let token = inside.token("a").await;
    let (mut puppet, attempt, running) = super::working(&inside, "one", &token).await;
    let waiting = inside.client.submit_task(&shell("later", "true")).await.expect("submitted").id;
    inside.restart().await;
    puppet.redirect(&inside.url);
    let held = legation_wire::message::HeldAttempt { attempt, phase: legation_wire::message::Phase::Finished };
    puppet.connect_holding(vec![held]).await;
    puppet.say(finished(attempt, TaskState::Succeeded)).await.expect("said");
    state(&inside, running, TaskState::Succeeded).await;
    let mut late = inside.puppet("later", &token);
    late.join().await;
    let ToDelegate::Assign(assignment) = late.message().await else { panic!("no assignment") };
    assert_eq!(assignment.task, waiting);
}

async fn a_policy_refusal_is_a_rejection(engine: Engine) {
    let inside = Inside::start(engine).await;
    let token = inside.token("a").await;
    let mut puppet = inside.puppet("one", &token);
    puppet.join().await;
    let task = inside.client.submit_task(&shell("one", "true")).await.expect("submitted").id;
    let ToDelegate::Assign(assignment) = puppet.message().await else { panic!("no assignment") };
    let reason = "the policy refuses\u{1b}[2J shell".to_owned();
    puppet.say(FromDelegate::Refused { attempt: assignment.attempt, reason, again: false }).await.expect("said");
    let task = state(&inside, task, TaskState::Rejected).await;
    assert_eq!(task.reason, "the policy refuses\u{fffd}[2J shell", "without control characters");
}

async fn a_cancel_right_after_the_submission_is_not_lost(engine: Engine) {
    let inside = Inside::start(engine).await;
    let token = inside.token("a").await;
    let mut puppet = inside.puppet("one", &token);
    puppet.hello.capacity = 40;
    puppet.join().await;
    for _ in 0..20 {
        let task = inside.client.submit_task(&shell("one", "true")).await.expect("submitted").id;
        let cancelled = inside.client.cancel_task(task).await.expect("asked").task;
        if cancelled.state == TaskState::Cancelled {
            continue;
        }
        let mut attempt = None;
        loop {
            match puppet.message().await {
                ToDelegate::Assign(assignment) => attempt = Some(assignment.attempt),
                // One that comes before its assignment finds nothing to end; one must come after it.
                ToDelegate::Cancel { attempt: told, .. } if Some(told) == attempt => break,
                _ => {}
            }
        }
    }
}

async fn a_delegate_that_reports_what_cannot_be_is_cut_off(engine: Engine) {
    let inside = Inside::start(engine).await;
    let token = inside.token("a").await;
    let (mut puppet, attempt, task) = super::working(&inside, "one", &token).await;
    let bytes = b"a gap".to_vec();
    puppet.say(FromDelegate::Output { attempt, offset: 1000, stream: Stream::Stdout, bytes }).await.expect("said");
    inside.sessions(&token, 0).await;
    assert!(!inside.client.task(task).await.expect("a task").state.is_final());
}

async fn a_task_that_a_delegate_could_not_start_waits_and_spends_no_retry(engine: Engine) {
    let inside = Inside::start(engine).await;
    let token = inside.token("a").await;
    let mut puppet = inside.puppet("one", &token);
    puppet.join().await;
    let mut request = shell("one", "true");
    (request.idempotent, request.retries) = (true, 1);
    let id = inside.client.submit_task(&request).await.expect("submitted").id;
    let mut attempts = Vec::new();
    for _ in 0..3 {
        let ToDelegate::Assign(assignment) = puppet.message().await else { panic!("no assignment") };
        let attempt = assignment.attempt;
        assert!(!attempts.contains(&attempt), "each attempt is another one");
        attempts.push(attempt);
        let reason = "the delegate already runs 4 tasks".to_owned();
        puppet.say(FromDelegate::Refused { attempt, reason, again: true }).await.expect("said");
        assert!(matches!(puppet.message().await, ToDelegate::FinishedAck { attempt: acked } if acked == attempt));
        // The dispatcher looks every half second, and would have assigned it again.
        let early = tokio::time::timeout(Duration::from_millis(1_200), puppet.message()).await;
        assert!(early.is_err(), "the delegate must have a rest: {early:?}");
        assert_eq!(inside.client.task(id).await.expect("a task").state, TaskState::Queued);
        inside.clock.advance(5_000);
    }
    let ToDelegate::Assign(assignment) = puppet.message().await else { panic!("no assignment") };
    puppet.say(FromDelegate::Started { attempt: assignment.attempt }).await.expect("said");
    puppet.say(finished(assignment.attempt, TaskState::Failed)).await.expect("said");
    // The one retry that was asked for is still there.
    let again = async {
        loop {
            if let ToDelegate::Assign(assignment) = puppet.message().await {
                return assignment;
            }
        }
    };
    assert_eq!(again.await.task, id);
}

async fn a_task_that_was_cancelled_meanwhile_does_not_wait_again(engine: Engine) {
    let inside = Inside::start(engine).await;
    let token = inside.token("a").await;
    let mut puppet = inside.puppet("one", &token);
    puppet.join().await;
    let id = inside.client.submit_task(&shell("one", "true")).await.expect("submitted").id;
    let ToDelegate::Assign(assignment) = puppet.message().await else { panic!("no assignment") };
    inside.client.cancel_task(id).await.expect("cancelled");
    let refused = FromDelegate::Refused { attempt: assignment.attempt, reason: "busy".to_owned(), again: true };
    puppet.say(refused).await.expect("said");
    state(&inside, id, TaskState::Cancelled).await;
}

async fn output_so_far_can_be_read_without_waiting(engine: Engine) {
    let inside = Inside::start(engine).await;
    let token = inside.token("a").await;
    let (mut puppet, attempt, task) = super::working(&inside, "one", &token).await;
    let bytes = b"so far".to_vec();
    puppet.say(FromDelegate::Output { attempt, offset: 0, stream: Stream::Stdout, bytes }).await.expect("said");
    assert_eq!(puppet.message().await, ToDelegate::OutputAck { attempt, offset: 6 });
    let mut stream = inside.client.output(task, legation_api::output::OutputQuery { follow: false });
    let Some(legation_api::client::OutputItem::Chunk(chunk)) = stream.next().await.expect("a stream") else {
        panic!("no output")
    };
    assert_eq!(chunk.bytes, b"so far");
    let Some(legation_api::client::OutputItem::End(task)) = stream.next().await.expect("an end") else {
        panic!("no end")
    };
    assert!(!task.state.is_final(), "it ends although the task has not");
}
