//! Nouns for tests, legal and distinct by number.

use legation_model::{
    Millis, Name, Scope,
    delegate::{Delegate, DelegateStatus, Isolation},
    ids::{AttemptId, BootId, DelegateId, PrincipalId, ReceiptId, TaskId, TokenId},
    receipt::{Cause, Receipt, ReceiptLine, Statement},
    task::{Attempt, Task, TaskKind, TaskState},
    token::{DelegateToken, Enrolment, TokenLimits, TokenStatus},
};

use legation_store::{api_keys::ApiKey, tasks::New};

pub(crate) const NOW: Millis = 1_800_000_000_000;

pub(crate) fn id<T: From<[u8; 16]>>(number: u64) -> T {
    let mut bytes = [0; 16];
    bytes[8..].copy_from_slice(&number.to_be_bytes());
    T::from(bytes)
}

pub(crate) fn name(text: &str) -> Name {
    text.parse().unwrap()
}

pub(crate) fn scope(text: &str) -> Scope {
    text.parse().unwrap()
}

pub(crate) fn token(number: u64) -> DelegateToken {
    DelegateToken {
        id: id(number),
        scope: scope("acme/shop"),
        name: name(&format!("token{number}")),
        description: "for the shop".parse().unwrap(),
        status: TokenStatus::Unissued,
        generation: 0,
        limits: TokenLimits {
            expires_at: Some(NOW + 1000),
            max_delegates: Some(7),
            allowed_cidrs: vec!["10.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()],
            allowed_names: vec!["shop-*".parse().unwrap(), "*".parse().unwrap()],
            pinned_tags: vec![name("zone=a"), name("b")],
            enrolment: Enrolment::Approval,
            ephemeral: true,
            canary: true,
        },
        version: 1,
        schedule: None,
        created_at: NOW + number as Millis,
        created_by: "someone".to_owned(),
        issued_at: None,
        revoked_at: None,
        revoked_reason: None,
        revoked_cause: None,
        receipt: None,
        last_used_at: None,
        uses: 0,
    }
}

pub(crate) fn delegate(number: u64, token: TokenId) -> Delegate {
    let mut public_key = [0; 32];
    public_key[..8].copy_from_slice(&number.to_be_bytes());
    Delegate {
        id: id::<DelegateId>(number),
        scope: scope("acme/shop"),
        public_key,
        token,
        name: name("shop"),
        host: name("host.example"),
        tags: vec![name("linux"), name("zone=a")],
        description: "".parse().unwrap(),
        version: "0.1.0".to_owned(),
        isolation: Isolation::Landlock,
        capacity: 4,
        status: DelegateStatus::Allowed,
        standing: None,
        boot: id::<BootId>(number),
        counter: 1,
        former_boots: vec![id(900), id(901)],
        first_seen: NOW + number as Millis,
        last_seen: NOW,
        address: "[::1]:1".to_owned(),
    }
}

pub(crate) fn task(number: u64) -> Task {
    Task {
        id: id::<TaskId>(number),
        scope: scope("acme"),
        kind: TaskKind::Shell,
        selectors: vec!["linux".parse().unwrap(), "pinned:b".parse().unwrap()],
        state: TaskState::Queued,
        reason: String::new(),
        exit_code: None,
        timeout: 600_000,
        queue_deadline: NOW + 600_000,
        output_limit: 1 << 20,
        retries_left: 1,
        created_by: "someone".to_owned(),
        created_at: NOW + number as Millis,
        started_at: None,
        finished_at: None,
        cancel_requested: false,
        attempt: None,
    }
}

pub(crate) fn new(task: Task, work: &[u8], sealed_secrets: Option<&[u8]>) -> New {
    New { task, work: work.to_vec(), sealed_secrets: sealed_secrets.map(<[u8]>::to_vec) }
}

pub(crate) fn attempt(number: u64, token: TokenId) -> Attempt {
    Attempt { id: id::<AttemptId>(number), delegate: id(number), boot: id(number), token }
}

pub(crate) fn receipt(number: u64, token: TokenId, delegates: u64) -> Receipt {
    let line = |number: u64| ReceiptLine {
        delegate: id(number),
        boot: id(number),
        name: format!("shop{number:06}"),
        connected: true,
        cut_at: None,
        stopped_reported_at: None,
        tasks_killed: None,
        lease_ends_by: NOW + 300_000,
    };
    Receipt {
        id: id::<ReceiptId>(number),
        token,
        scope: scope("acme/shop"),
        cause: Cause::Kill,
        reason: "leaked".to_owned(),
        actor: "someone".to_owned(),
        revoked_at: NOW + number as Millis,
        completed_at: None,
        attempts_lost: 2,
        lines: (0..delegates).map(line).collect(),
        statements: vec![statement(0)],
    }
}

pub(crate) fn statement(number: u32) -> Statement {
    Statement { number, body: "{}".to_owned(), signature: vec![number as u8; 64], key: [2; 32] }
}

pub(crate) fn api_key(number: u64, owner: PrincipalId) -> ApiKey {
    ApiKey {
        id: id(number),
        owner,
        name: name("laptop"),
        hash: vec![number as u8; 32],
        scope: None,
        created_at: NOW + number as Millis,
        created_by: "someone".to_owned(),
        expires_at: None,
        last_used_at: None,
    }
}
