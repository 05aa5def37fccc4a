//! Revocation: the promise, piece by piece.

use std::{pin::pin, sync::Arc};

use futures_util::FutureExt as _;
use legation_api::{Code, client::ClientError, receipts::Receipt, revoke::RevokeToken};
use legation_model::{Clock as _, ids::TaskId, receipt::Cause, task::TaskState, token::TokenStatus};
use legation_testkit::{Engine, Inside, eventually, inside::Attempted, world::Issued};
use legation_wire::{
    DelegateEvent, GoodbyeReason,
    message::{Finished, FromDelegate, Stopped, Stream, ToDelegate},
};
use sqlx::Executor as _;

super::on_both!(
    a_caller_that_hangs_up_does_not_stop_a_revoke_half_way,
    every_session_is_told_and_closed_and_others_are_untouched,
    an_effect_inside_the_gate_is_waited_for,
    a_report_that_waits_for_the_store_does_not_happen_afterwards,
    connects_that_race_a_revoke_never_survive_it,
    a_report_is_checked_against_the_store_itself,
    a_stalled_peer_holds_up_nobody,
    a_store_that_hangs_does_not_hold_up_the_cut,
    a_watcher_hears_the_end,
    attempts_left_under_an_old_token_are_stopped,
    a_restart_right_afterwards_remembers,
    a_stop_report_appends_to_its_own_line_only,
    a_stop_report_waits_for_the_line_that_it_is_added_to,
    a_receipt_that_could_not_be_written_is_written_later,
    a_receipt_that_a_crash_left_open_is_completed,
    a_receipt_that_is_tried_again_signs_what_its_lines_say,
    whom_a_revoke_cut_in_vain_is_named_by_the_next_one,
    revoking_again_answers_with_the_same_receipt,
    expiry_takes_the_same_path,
    a_jumped_clock_is_doubt_and_not_a_verdict,
    the_sweep_believes_the_store,
    the_sweep_leaves_the_last_word_to_a_call_that_is_at_it,
    what_the_store_cannot_say_is_no_verdict,
);

async fn revoke(inside: &Inside, token: &Issued) -> Receipt {
    inside.client.revoke_token(token.id, &RevokeToken::default()).await.expect("revoked")
}

async fn every_session_is_told_and_closed_and_others_are_untouched(engine: Engine) {
    let inside = Inside::start(engine).await;
    let (token, other) = (inside.token("a").await, inside.token("b").await);
    let mut hit = Vec::new();
    for name in ["a1", "a2", "a3"] {
        hit.push(super::working(&inside, name, &token).await);
    }
    let mut spared = inside.puppet("b1", &other);
    spared.join().await;

    let receipt = revoke(&inside, &token).await;
    assert!(inside.manager.sessions.of_token(token.id).is_empty(), "the call returns when the last session is closed");
    assert_eq!(receipt.lines.iter().filter(|line| line.cut_at.is_some()).count(), 3);
    assert_eq!(receipt.attempts_lost, 3);
    assert!(receipt.completed_at.is_some());
    for (puppet, _, task) in &mut hit {
        let goodbye = puppet.goodbye().await;
        assert_eq!((goodbye.reason, goodbye.receipt), (GoodbyeReason::TokenRevoked, Some(receipt.id)));
        let task = inside.client.task(*task).await.expect("a task");
        assert_eq!((task.state, task.reason.as_str()), (TaskState::Lost, "token_revoked"));
    }
    let task = super::submit(&inside, "b1").await;
    let ToDelegate::Assign(assignment) = spared.message().await else { panic!("no assignment") };
    assert_eq!(assignment.task, task);
    assert!(matches!(inside.puppet("a4", &token).connect().await,
        Attempted::Goodbye(goodbye) if goodbye.reason == GoodbyeReason::TokenRevoked));
}

async fn an_effect_inside_the_gate_is_waited_for(engine: Engine) {
    let inside = Inside::start(engine).await;
    let token = inside.token("a").await;
    let live = inside.manager.tokens.get(token.id).expect("live");
    let effect = live.enter(&inside.manager.clock).expect("an effect between its check and its act");
    let request = RevokeToken::default();
    let mut call = pin!(inside.client.revoke_token(token.id, &request));
    eventually("the revocation is durable", async || {
        let durable = inside.client.token(token.id).await.expect("a token").status == TokenStatus::Revoked;
        assert!(call.as_mut().now_or_never().is_none(), "the call waits for the effect");
        (durable && !live.gate.is_open()).then_some(())
    })
    .await;
    // Far more goes through the same Manager and its one writer than the rest of the call would need.
    for number in 0..5 {
        inside.token(&format!("other{number}")).await;
        assert!(call.as_mut().now_or_never().is_none(), "the call waits for the effect");
    }
    drop(effect);
    call.await.expect("revoked");
}

async fn a_report_that_waits_for_the_store_does_not_happen_afterwards(engine: Engine) {
    let inside = Inside::start(engine).await;
    let token = inside.token("a").await;
    let (mut puppet, attempt, task) = super::working(&inside, "a1", &token).await;
    eventually("the start is recorded", async || {
        (inside.client.task(task).await.expect("a task").state == TaskState::Running).then_some(())
    })
    .await;
    // The sweep's own note of the session would be inside the gate as well.
    let noted = format!("SELECT id FROM tokens WHERE id = '{}' AND last_used_at IS NOT NULL", token.id);
    eventually("the sweep has noted the session", async || {
        let noted = sqlx::AssertSqlSafe(noted.clone());
        super::beside(&inside).await.fetch_optional(noted).await.expect("a row").map(drop)
    })
    .await;
    // The writer is held twice, so that the report waits inside the gate, between its check and its act, before
    // and after the revocation's own transaction.
    let (first, running) = super::hold_writer(&inside);
    running.await.expect("the writer is held");
    let (second, _) = super::hold_writer(&inside);
    let bytes = b"too late".to_vec();
    puppet.say(FromDelegate::Output { attempt, offset: 0, stream: Stream::Stdout, bytes }).await.expect("said");
    puppet.say(FromDelegate::Finished(finished(attempt))).await.expect("said");
    let live = inside.manager.tokens.get(token.id).expect("live");
    let client = inside.client.clone();
    let id = token.id;
    let call = tokio::spawn(async move { client.revoke_token(id, &RevokeToken::default()).await });
    eventually("the revocation waits for its turn", async || live.ending.try_lock().is_err().then_some(())).await;
    eventually("the report waits inside the gate", async || (!live.gate.is_idle()).then_some(())).await;
    first.send(()).expect("the writer waits");
    eventually("the gate is closed", async || (!live.gate.is_open()).then_some(())).await;
    eventually("the session is cut", async || inside.manager.sessions.of_token(id).is_empty().then_some(())).await;
    assert!(!live.gate.is_idle() && !call.is_finished(), "the report is still under way, and the call waits for it");
    second.send(()).expect("the writer waits");
    let receipt = call.await.expect("no panic").expect("revoked");
    assert!(receipt.lines.iter().all(|line| line.cut_at.is_some()));
    let task = inside.client.task(task).await.expect("a task");
    assert!(matches!(task.state, TaskState::Lost | TaskState::Succeeded), "{:?}", task.state);
    let after = snapshot(&inside, task.id).await;
    let _ = puppet.say(FromDelegate::Finished(finished(attempt))).await;
    inside.puppet("a1", &token).connect().await;
    assert_eq!(snapshot(&inside, task.id).await, after, "nothing of the token changes after the return");
}

async fn a_store_that_hangs_does_not_hold_up_the_cut(engine: Engine) {
    let inside = Inside::start(engine).await;
    let token = inside.token("a").await;
    let mut puppet = inside.puppet("a1", &token);
    puppet.join().await;
    let (release, running) = super::hold_writer(&inside);
    running.await.expect("the writer is held");
    let (client, id) = (inside.client.clone(), token.id);
    let call = tokio::spawn(async move { client.revoke_token(id, &RevokeToken::default()).await });
    eventually("the session is cut", async || inside.manager.sessions.of_token(id).is_empty().then_some(())).await;
    assert!(!call.is_finished(), "nothing is durable, so nothing is answered");
    assert!(
        matches!(inside.puppet("a1", &token).connect().await,
        Attempted::Goodbye(goodbye) if goodbye.reason == GoodbyeReason::ManagerDraining),
        "doubt is no verdict"
    );

    release.send(()).expect("the writer waits");
    let receipt = call.await.expect("no panic").expect("revoked");
    let [line] = receipt.lines.as_slice() else { panic!("one delegate: {receipt:?}") };
    assert!(line.connected && line.cut_at.is_some(), "it was connected when the revoke began: {line:?}");
    assert!(matches!(inside.puppet("a1", &token).connect().await,
        Attempted::Goodbye(goodbye) if goodbye.reason == GoodbyeReason::TokenRevoked));
}

fn finished(attempt: legation_model::ids::AttemptId) -> Finished {
    let state = TaskState::Succeeded;
    Finished { attempt, state, exit_code: Some(0), reason: String::new(), output_bytes: 8, dropped_bytes: 0 }
}

/// Everything durable of a task and its delegates.
async fn snapshot(inside: &Inside, task: TaskId) -> String {
    let output = inside
        .manager
        .store
        .read(legation_store::job(move |conn| {
            Box::pin(async move {
                let output = legation_store::output::read(conn, task, 0, 1 << 20).await?;
                Ok(format!("{output:?}"))
            })
        }))
        .await
        .expect("read");
    let task = inside.client.task(task).await.expect("a task");
    let delegates = inside.client.delegates(&Default::default()).await.expect("delegates");
    format!("{task:?} {output} {delegates:?}")
}

async fn connects_that_race_a_revoke_never_survive_it(engine: Engine) {
    let inside = Arc::new(Inside::start(engine).await);
    for round in 0..20 {
        let token = inside.token(&format!("race{round}")).await;
        let mut dials = Vec::new();
        for number in 0..4 {
            let mut puppet = inside.puppet(&format!("r{number}"), &token);
            dials.push(tokio::spawn(async move {
                let attempted = puppet.connect().await;
                (puppet, attempted)
            }));
        }
        if round % 2 == 1 {
            eventually("one is in", async || (!inside.manager.sessions.of_token(token.id).is_empty()).then_some(()))
                .await;
        }
        revoke(&inside, &token).await;
        assert!(inside.manager.sessions.of_token(token.id).is_empty());
        for dial in dials {
            let (mut puppet, attempted) = dial.await.expect("no panic");
            match attempted {
                Attempted::Welcome(_) => assert_eq!(puppet.goodbye().await.reason, GoodbyeReason::TokenRevoked),
                Attempted::Goodbye(goodbye) => assert_eq!(goodbye.reason, GoodbyeReason::TokenRevoked),
                Attempted::Ended(ended) => panic!("not told: {ended:?}"),
            }
        }
        assert!(inside.manager.sessions.of_token(token.id).is_empty(), "none came in after the return");
    }
}

async fn a_report_is_checked_against_the_store_itself(engine: Engine) {
    let inside = Inside::start(engine).await;
    let token = inside.token("a").await;
    let (mut puppet, attempt, task) = super::working(&inside, "a1", &token).await;
    eventually("the start is recorded", async || {
        (inside.client.task(task).await.expect("a task").state == TaskState::Running).then_some(())
    })
    .await;
    revoke_in_store_alone(&inside, &token).await;
    let bytes = b"too late".to_vec();
    puppet.say(FromDelegate::Output { attempt, offset: 0, stream: Stream::Stdout, bytes }).await.expect("said");
    assert_eq!(puppet.goodbye().await.reason, GoodbyeReason::TokenRevoked);
    let end = legation_store::job(move |conn| Box::pin(legation_store::output::end(conn, attempt)));
    assert_eq!(inside.manager.store.read(end).await.expect("read"), 0);
}

async fn a_stalled_peer_holds_up_nobody(engine: Engine) {
    let inside = Inside::start(engine).await;
    let token = inside.token("a").await;
    let mut stalled = inside.puppet("stalled", &token);
    stalled.join().await;
    let session = inside.manager.sessions.of_token(token.id).remove(0);
    // More than both socket buffers hold, to a peer that reads nothing: the session's task is stuck in a write.
    let work = legation_wire::message::Work::Shell {
        script: "#".repeat(200_000),
        interpreter: Vec::new(),
        env: Vec::new(),
        cwd: None,
        stdin: Vec::new(),
    };
    for number in 0..100_u8 {
        session.send(ToDelegate::Assign(Box::new(legation_wire::message::Assignment {
            attempt: legation_model::ids::AttemptId([number; 16]),
            task: legation_model::ids::TaskId([number; 16]),
            timeout: 1,
            output_limit: 1,
            work: work.clone(),
            secrets: Vec::new(),
        })));
    }
    eventually("the session is stuck", async || (!live_gate_is_idle(&inside, &token)).then_some(())).await;
    let mut healthy = inside.puppet("healthy", &token);
    healthy.join().await;
    let bound = std::time::Duration::from_secs(8);
    tokio::time::timeout(bound, revoke(&inside, &token)).await.expect("a stalled peer does not hold up the revoke");
    assert_eq!(healthy.goodbye().await.reason, GoodbyeReason::TokenRevoked);
}

/// Whether no effect of the token is inside its gate.
fn live_gate_is_idle(inside: &Inside, token: &Issued) -> bool {
    inside.manager.tokens.get(token.id).is_some_and(|live| live.gate.is_idle())
}

async fn a_restart_right_afterwards_remembers(engine: Engine) {
    let mut inside = Inside::start(engine).await;
    let token = inside.token("a").await;
    let mut puppet = inside.puppet("a1", &token);
    puppet.join().await;
    let receipt = revoke(&inside, &token).await;
    inside.restart().await;
    puppet.redirect(&inside.url);
    let Attempted::Goodbye(goodbye) = puppet.connect().await else { panic!("no Goodbye") };
    assert_eq!((goodbye.reason, goodbye.receipt), (GoodbyeReason::TokenRevoked, Some(receipt.id)));
    assert_eq!(inside.client.receipt(receipt.id).await.expect("kept"), receipt);
}

async fn a_stop_report_appends_to_its_own_line_only(engine: Engine) {
    let inside = Inside::start(engine).await;
    let token = inside.token("a").await;
    let (mut one, mut two) = (inside.puppet("one", &token), inside.puppet("two", &token));
    let (first, second) = (one.join().await.delegate, two.join().await.delegate);
    let mut stranger = inside.puppet("stranger", &token);
    let receipt = revoke(&inside, &token).await.id;

    let wrong = Stopped { receipt: legation_model::ids::ReceiptId([1; 16]), tasks_killed: 9 };
    assert!(matches!(two.report_stop(wrong).await, Attempted::Goodbye(_)));
    assert!(matches!(stranger.report_stop(Stopped { receipt, tasks_killed: 9 }).await, Attempted::Goodbye(_)));
    let answer = one.report_stop(Stopped { receipt, tasks_killed: 2 }).await;
    assert!(matches!(answer, Attempted::Goodbye(goodbye) if goodbye.reason == GoodbyeReason::TokenRevoked));
    assert!(matches!(one.report_stop(Stopped { receipt, tasks_killed: 7 }).await, Attempted::Goodbye(_)));

    let receipt = inside.client.receipt(receipt).await.expect("a receipt");
    let line = |id| receipt.lines.iter().find(|line| line.delegate == id).expect("a line");
    assert_eq!((line(first).tasks_killed, line(second).tasks_killed), (Some(2), None));
    assert!(line(second).stopped_reported_at.is_none());
    assert_eq!(receipt.lines.len(), 2);
    assert_eq!(receipt.statements.len(), 3, "revoked, cut, stopped");
}

async fn a_stop_report_waits_for_the_line_that_it_is_added_to(engine: Engine) {
    let inside = Inside::start(engine).await;
    let token = inside.token("a").await;
    let mut puppet = inside.puppet("a1", &token);
    puppet.join().await;
    let live = inside.manager.tokens.get(token.id).expect("live");
    let effect = live.enter(&inside.manager.clock).expect("an effect inside the gate");
    let (client, id) = (inside.client.clone(), token.id);
    let call = tokio::spawn(async move { client.revoke_token(id, &RevokeToken::default()).await });
    let receipt = puppet.goodbye().await.receipt.expect("a receipt");
    // The session is cut, and the receipt not written: the call still waits for the effect.
    let report = tokio::spawn(async move { puppet.report_stop(Stopped { receipt, tasks_killed: 3 }).await });
    for number in 0..10 {
        inside.token(&format!("other{number}")).await;
        assert!(!report.is_finished(), "answered before there is a line");
    }
    assert!(inside.client.receipt(receipt).await.expect("its head").lines.is_empty());
    drop(effect);
    let answer = report.await.expect("no panic");
    assert!(matches!(answer, Attempted::Goodbye(goodbye) if goodbye.receipt == Some(receipt)));
    call.await.expect("no panic").expect("revoked");
    let receipt = inside.client.receipt(receipt).await.expect("a receipt");
    assert_eq!(receipt.lines[0].tasks_killed, Some(3));
}

async fn a_receipt_that_could_not_be_written_is_written_later(engine: Engine) {
    let inside = Inside::start(engine).await;
    let token = inside.token("a").await;
    let mut puppet = inside.puppet("a1", &token);
    puppet.join().await;
    super::behind(&inside, "ALTER TABLE receipt_lines RENAME TO elsewhere").await;
    let receipt = revoke(&inside, &token).await;
    assert_eq!(
        (receipt.completed_at, puppet.goodbye().await.receipt),
        (None, Some(receipt.id)),
        "revoked all the same"
    );
    super::behind(&inside, "ALTER TABLE elsewhere RENAME TO receipt_lines").await;
    let receipt = completed(&inside, receipt.id).await;
    assert!(receipt.lines[0].connected && receipt.lines[0].cut_at.is_some(), "whom the call has cut is not forgotten");
}

async fn a_receipt_that_a_crash_left_open_is_completed(engine: Engine) {
    let mut inside = Inside::start(engine).await;
    let token = inside.token("a").await;
    inside.puppet("a1", &token).join().await;
    let receipt = revoke(&inside, &token).await.id;
    for undo in
        ["DELETE FROM receipt_statements", "DELETE FROM receipt_lines", "UPDATE receipts SET completed_at = NULL"]
    {
        super::behind(&inside, undo).await;
    }
    inside.restart().await;
    let receipt = completed(&inside, receipt).await;
    assert_eq!((receipt.lines.len(), receipt.statements.len()), (1, 2), "its delegate may hold a lease");
    assert!(!receipt.lines[0].connected, "nobody knows any more");
}

async fn a_receipt_that_is_tried_again_signs_what_its_lines_say(engine: Engine) {
    let inside = Inside::start(engine).await;
    let token = inside.token("a").await;
    let delegate = inside.puppet("a1", &token).join().await.delegate;
    let receipt = revoke(&inside, &token).await.id;
    // As if the lines had been written and the call had ended there; by now nobody else knows of the delegate.
    for undo in ["DELETE FROM receipt_statements", "UPDATE receipts SET completed_at = NULL", "DELETE FROM delegates"] {
        super::behind(&inside, undo).await;
    }
    let receipt = completed(&inside, receipt).await;
    assert_eq!(receipt.lines.len(), 1, "a line stays");
    assert!(receipt.statements[0].body.contains(&delegate.to_string()), "{}", receipt.statements[0].body);
}

async fn whom_a_revoke_cut_in_vain_is_named_by_the_next_one(engine: Engine) {
    let inside = Inside::start(engine).await;
    let token = inside.token("a").await;
    let mut puppet = inside.puppet("a1", &token);
    puppet.join().await;
    super::behind(&inside, "ALTER TABLE receipts RENAME TO elsewhere").await;
    let failed = inside.client.revoke_token(token.id, &RevokeToken::default()).await;
    assert!(matches!(failed, Err(ClientError::Problem(problem)) if problem.code == Code::RevokedNotDurable));
    assert!(inside.manager.sessions.of_token(token.id).is_empty(), "cut all the same");
    super::behind(&inside, "ALTER TABLE elsewhere RENAME TO receipts").await;
    let receipt = revoke(&inside, &token).await;
    assert!(receipt.lines[0].connected && receipt.lines[0].cut_at.is_some());
}

async fn completed(inside: &Inside, id: legation_model::ids::ReceiptId) -> Receipt {
    eventually("the sweep completes the receipt", async || {
        let receipt = inside.client.receipt(id).await.expect("a receipt");
        receipt.completed_at.is_some().then_some(receipt)
    })
    .await
}

async fn revoking_again_answers_with_the_same_receipt(engine: Engine) {
    let inside = Inside::start(engine).await;
    let token = inside.token("a").await;
    let refused = inside.client.delete_token(token.id).await;
    assert!(matches!(refused, Err(ClientError::Problem(problem)) if problem.code == Code::TokenNotRevoked));
    let first = revoke(&inside, &token).await;
    assert_eq!(revoke(&inside, &token).await, first);
    inside.client.delete_token(token.id).await.expect("deleted");
    assert!(matches!(inside.puppet("late", &token).connect().await,
        Attempted::Goodbye(goodbye) if goodbye.reason == GoodbyeReason::TokenDeleted));
    inside.token("a").await;
}

async fn expiry_takes_the_same_path(engine: Engine) {
    let inside = Inside::start(engine).await;
    let expires_at = inside.clock.wall() + 60 * 60 * 1000;
    let token = inside.token_with("a", |token| token.expires_at = Some(expires_at)).await;
    let mut puppet = inside.puppet("a1", &token);
    puppet.join().await;
    inside.clock.advance(60 * 60 * 1000);
    let refused = inside.puppet("late", &token).connect().await;
    assert!(!matches!(refused, Attempted::Welcome(_)), "from its millisecond on nobody comes in");
    let goodbye = loop {
        match puppet.next().await {
            Ok(DelegateEvent::Goodbye(goodbye)) => break Some(goodbye),
            Ok(_) => {}
            // The virtual hour also made the session look silent; then the next connect tells the reason.
            Err(_) => break None,
        }
    };
    let goodbye = match goodbye {
        Some(goodbye) => goodbye,
        None => {
            eventually("the expiry is told", async || match puppet.connect().await {
                Attempted::Goodbye(goodbye) if goodbye.reason == GoodbyeReason::TokenExpired => Some(goodbye),
                Attempted::Welcome(_) => panic!("an expired token came in"),
                _ => None,
            })
            .await
        }
    };
    assert_eq!(goodbye.reason, GoodbyeReason::TokenExpired);
    let token = inside.client.token(token.id).await.expect("a token");
    assert_eq!(token.status, TokenStatus::Revoked);
    let receipt = inside.client.receipt(token.receipt.expect("a receipt")).await.expect("a receipt");
    assert_eq!(receipt.cause, legation_model::receipt::Cause::Expired);
}

async fn a_jumped_clock_is_doubt_and_not_a_verdict(engine: Engine) {
    let inside = Inside::start(engine).await;
    let expires_at = inside.clock.wall() + 60 * 60 * 1000;
    let (limited, free) =
        (inside.token_with("a", |token| token.expires_at = Some(expires_at)).await, inside.token("b").await);
    let waiting = super::submit(&inside, "nowhere").await;
    inside.clock.jump(2 * 60 * 60 * 1000);
    let Attempted::Goodbye(goodbye) = inside.puppet("a1", &limited).connect().await else { panic!("no Goodbye") };
    assert_eq!(goodbye.reason.action(), legation_wire::Action::Retry);
    let mut other = inside.puppet("b1", &free);
    other.join().await;
    eventually("the sweep has passed", async || {
        let used = inside.client.token(free.id).await.expect("a token").last_used_at;
        used.is_some_and(|used| used > expires_at).then_some(())
    })
    .await;
    let task = inside.client.task(waiting).await.expect("a task");
    assert_eq!(task.state, TaskState::Queued, "its time in the queue was not over, only the clock moved");
    assert_eq!(inside.client.token(limited.id).await.expect("a token").status, TokenStatus::Active, "not latched");
    inside.clock.jump(-4 * 60 * 60 * 1000);
    let Attempted::Goodbye(goodbye) = inside.puppet("a1", &limited).connect().await else { panic!("no Goodbye") };
    assert_eq!(goodbye.reason.action(), legation_wire::Action::Retry, "a clock that went back is doubt as well");
    inside.clock.jump(2 * 60 * 60 * 1000);
    inside.puppet("a2", &limited).join().await;
    assert_eq!(inside.client.token(limited.id).await.expect("a token").status, TokenStatus::Active);
}

async fn the_sweep_believes_the_store(engine: Engine) {
    let inside = Inside::start(engine).await;
    let token = inside.token("a").await;
    let mut puppet = inside.puppet("a1", &token);
    puppet.join().await;
    revoke_in_store_alone(&inside, &token).await;
    assert_eq!(puppet.goodbye().await.reason, GoodbyeReason::TokenRevoked);
    inside.sessions(&token, 0).await;
}

/// Its word would lack the receipt, and a delegate that hears it reports to nobody.
async fn the_sweep_leaves_the_last_word_to_a_call_that_is_at_it(engine: Engine) {
    let inside = Inside::start(engine).await;
    let (token, other) = (inside.token("a").await, inside.token("b").await);
    let mut puppet = inside.puppet("a1", &token);
    puppet.join().await;
    let live = inside.manager.tokens.get(token.id).expect("known");
    let ending = live.ending.lock().await;
    revoke_in_store_alone(&inside, &token).await;
    revoke_in_store_alone(&inside, &other).await;
    let swept = inside.manager.tokens.get(other.id).expect("known");
    eventually("the sweep has passed", async || swept.is_ended().then_some(())).await;
    assert!(!live.is_ended(), "a call is about to say it");
    drop(ending);
    eventually("the next one says it", async || live.is_ended().then_some(())).await;
}

/// A row that no life of a token leads to says nothing about the token, so its delegates are not told to stop.
async fn what_the_store_cannot_say_is_no_verdict(engine: Engine) {
    let inside = Inside::start(engine).await;
    let token = inside.token("a").await;
    let mut puppet = inside.puppet("a1", &token);
    puppet.join().await;
    super::behind(&inside, "UPDATE tokens SET status = 'unissued'").await;
    let goodbye = puppet.goodbye().await;
    assert_eq!(goodbye.reason.action(), legation_wire::Action::Retry, "{goodbye:?}");
    inside.sessions(&token, 0).await;
}

async fn a_caller_that_hangs_up_does_not_stop_a_revoke_half_way(engine: Engine) {
    let inside = Inside::start(engine).await;
    let token = inside.token("a").await;
    let mut puppet = inside.puppet("a1", &token);
    puppet.join().await;
    let live = inside.manager.tokens.get(token.id).expect("live");
    let effect = live.enter(&inside.manager.clock).expect("an effect that keeps the call waiting");
    let (client, id) = (inside.client.clone(), token.id);
    let call = tokio::spawn(async move { client.revoke_token(id, &RevokeToken::default()).await });
    eventually("the revocation waits for the effect", async || (!live.gate.is_open()).then_some(())).await;
    call.abort();
    assert!(call.await.is_err_and(|error| error.is_cancelled()), "the caller hung up");
    drop(effect);
    let token = inside.client.token(token.id).await.expect("a token");
    let receipt = eventually("the receipt is completed", async || {
        let receipt = inside.client.receipt(token.receipt.expect("a receipt")).await.expect("a receipt");
        receipt.completed_at.map(|_| receipt)
    })
    .await;
    assert!(receipt.statements[1].body.contains("every session was seen closed"), "by the call, not by the sweep");
}

/// Changes the row behind the Manager's back, as if a notification had been lost.
async fn revoke_in_store_alone(inside: &Inside, token: &Issued) {
    let (id, now) = (token.id, inside.clock.wall());
    inside
        .manager
        .store
        .write(legation_store::job(move |tx| {
            Box::pin(async move {
                let receipt = legation_model::ids::ReceiptId([7; 16]);
                legation_store::tokens::revoke(tx, id, Cause::Kill, now, "", receipt).await
            })
        }))
        .await
        .expect("revoked in the store alone");
}

async fn a_watcher_hears_the_end(engine: Engine) {
    let inside = Inside::start(engine).await;
    let token = inside.token("a").await;
    let (_puppet, _, task) = super::working(&inside, "a1", &token).await;
    let mut stream = inside.client.output(task, Default::default());
    let watch = tokio::spawn(async move {
        loop {
            match stream.next().await.expect("a stream") {
                Some(legation_api::client::OutputItem::End(task)) => return task.state,
                Some(_) => {}
                None => panic!("the stream ends with the task"),
            }
        }
    });
    revoke(&inside, &token).await;
    let bound = std::time::Duration::from_secs(4);
    let state = tokio::time::timeout(bound, watch).await.expect("told, before it looks by itself").expect("no panic");
    assert_eq!(state, TaskState::Lost);
}

async fn attempts_left_under_an_old_token_are_stopped(engine: Engine) {
    let inside = Inside::start(engine).await;
    let (old, new) = (inside.token("old").await, inside.token("new").await);
    let (mut puppet, attempt, task) = super::working(&inside, "a1", &old).await;
    eventually("the start is recorded", async || {
        (inside.client.task(task).await.expect("a task").state == TaskState::Running).then_some(())
    })
    .await;
    puppet.switch(&new);
    let held = legation_wire::message::HeldAttempt { attempt, phase: legation_wire::message::Phase::Running };
    assert!(matches!(puppet.connect_holding(vec![held]).await, Attempted::Welcome(_)));
    revoke(&inside, &old).await;
    assert_eq!(puppet.message().await, ToDelegate::Cancel { attempt, grace: 0 });
}
