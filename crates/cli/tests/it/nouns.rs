//! One of each noun, always the same.

use legation_api::{
    List,
    delegates::Delegate,
    output::{OutputEvent, Stream},
    receipts::{Receipt, ReceiptLine},
    revoke::{Covering, LostCapacity, RevokePreview, RevokePreviewLine},
    tasks::{Attempt, Task},
    tokens::{IssuedToken, Token},
};
use legation_model::{
    delegate::{DelegateStatus, Isolation},
    ids::{AttemptId, BootId, DelegateId, ReceiptId, TaskId, TokenId},
    receipt::Cause,
    secret::SecretText,
    task::{TaskKind, TaskState},
    token::{Enrolment, TokenStatus},
};

pub(crate) const TOKEN: TokenId = TokenId([1; 16]);
pub(crate) const TASK: TaskId = TaskId([2; 16]);
pub(crate) const RECEIPT: ReceiptId = ReceiptId([3; 16]);
pub(crate) const AT: i64 = 1_800_000_000_000;

pub(crate) fn list<T>(items: Vec<T>) -> List<T> {
    List { items, next: None }
}

pub(crate) fn token() -> Token {
    Token {
        id: TOKEN,
        scope: "default".parse().expect("a scope"),
        name: "build".parse().expect("a name"),
        description: "the build farm".parse().expect("a text"),
        status: TokenStatus::Active,
        generation: 1,
        expires_at: Some(AT + 86_400_000),
        max_delegates: Some(5),
        allowed_cidrs: vec!["10.0.0.0/8".parse().expect("a network")],
        allowed_names: vec!["build-*".parse().expect("a pattern")],
        pinned_tags: vec!["eu".parse().expect("a tag")],
        enrolment: Enrolment::Open,
        ephemeral: false,
        canary: false,
        version: 3,
        revoke_at: None,
        scheduled_by: None,
        scheduled_reason: None,
        created_at: AT,
        created_by: "up".to_owned(),
        issued_at: Some(AT),
        revoked_at: None,
        revoked_reason: None,
        receipt: None,
        last_used_at: None,
        uses: 3,
        wrap: None,
    }
}

pub(crate) fn issued(value: Option<&str>) -> IssuedToken {
    IssuedToken {
        token: token(),
        value: value.map(|value| SecretText::new(value.to_owned())),
        code: None,
        wrapped: None,
    }
}

pub(crate) fn delegate() -> Delegate {
    Delegate {
        id: DelegateId([4; 16]),
        scope: "default".parse().expect("a scope"),
        token: TOKEN,
        name: "build-7".parse().expect("a name"),
        host: "host7".parse().expect("a host"),
        tags: vec!["gpu".parse().expect("a tag")],
        description: "".parse().expect("a text"),
        version: "0.1.0".to_owned(),
        isolation: Isolation::User,
        capacity: 4,
        status: DelegateStatus::Allowed,
        status_reason: None,
        status_by: None,
        status_at: None,
        clone: None,
        connected: true,
        tasks_running: 1,
        boot: BootId([5; 16]),
        address: "10.0.0.7:50000".to_owned(),
        first_seen_at: AT,
        last_seen_at: AT,
    }
}

pub(crate) fn task(state: TaskState) -> Task {
    Task {
        id: TASK,
        scope: "default".parse().expect("a scope"),
        kind: TaskKind::Shell,
        selectors: vec!["pinned:eu".parse().expect("a selector")],
        state,
        reason: String::new(),
        exit_code: None,
        timeout_ms: 600_000,
        queue_deadline_at: AT,
        output_limit: 1 << 20,
        retries_left: 0,
        cancel_requested: false,
        created_by: "up".to_owned(),
        created_at: AT,
        started_at: Some(AT + 10),
        finished_at: Some(AT + 65_010),
        attempt: Some(Attempt { id: AttemptId([6; 16]), delegate: delegate().id, boot: delegate().boot, token: TOKEN }),
    }
}

pub(crate) fn preview() -> RevokePreview {
    let delegate = delegate();
    let line = RevokePreviewLine {
        delegate: delegate.id,
        name: delegate.name,
        host: delegate.host,
        connected: true,
        tasks_running: 1,
        tasks: vec![TASK],
    };
    let lost = LostCapacity { scope: token().scope, selectors: vec!["gpu".to_owned()], tasks: 2 };
    let other = Covering { name: line.name.clone(), token: TokenId([9; 16]), delegates: 3 };
    RevokePreview {
        token: token(),
        delegates: vec![line],
        attempts_lost: 1,
        queued_without_capacity: 2,
        conditions_without_capacity: vec![lost],
        covered_by: vec![other],
    }
}

pub(crate) fn receipt(stopped: bool) -> Receipt {
    let line = ReceiptLine {
        delegate: delegate().id,
        boot: delegate().boot,
        name: "build-7".to_owned(),
        connected: true,
        cut_at: Some(AT + 20),
        stopped_reported_at: stopped.then_some(AT + 1000),
        tasks_killed: stopped.then_some(1),
        lease_ends_by: AT + 300_000,
    };
    Receipt {
        id: RECEIPT,
        token: TOKEN,
        scope: "default".parse().expect("a scope"),
        cause: Cause::Kill,
        reason: "leaked".to_owned(),
        actor: "up".to_owned(),
        revoked_at: AT,
        completed_at: Some(AT + 30),
        attempts_lost: 1,
        lines: vec![line],
        statements: Vec::new(),
    }
}

pub(crate) fn output(offset: u64, stream: Stream, text: &str) -> String {
    let event = OutputEvent::new(AttemptId([6; 16]), offset, stream, text.into());
    let id = event.end().expect("an end");
    format!("event: output\nid: {id}\ndata: {}\n\n", serde_json::to_string(&event).expect("JSON"))
}

pub(crate) fn end(task: &Task) -> String {
    format!("event: end\ndata: {}\n\n", serde_json::to_string(task).expect("JSON"))
}
