//! Any message within its bounds comes back as it was, and any bytes at all are either a message or refused.

use legation_model::{
    Name, Text,
    delegate::Isolation,
    ids::{AttemptId, BootId, DelegateId, ReceiptId, SessionId, TaskId},
    secret::SecretText,
    task::{KEY_MAX, TaskState, VALUE_MAX},
};
use legation_wire::{
    GoodbyeReason,
    message::{
        Assignment, Finished, Frame, FromDelegate, Goodbye, HeldAttempt, Hello, Phase, SecretVar, Stopped, Stream,
        ToDelegate, Welcome, Work,
    },
};
use proptest::{collection::vec, option, prelude::*, sample::select};

fn name() -> impl Strategy<Value = Name> {
    "[A-Za-z0-9][A-Za-z0-9._:=@-]{0,127}".prop_map(|text| text.parse().expect("a name"))
}

fn text() -> impl Strategy<Value = Text> {
    "[a-zäß東 .,!]{0,300}".prop_map(|text| text.parse().expect("a text"))
}

fn reason() -> impl Strategy<Value = String> {
    text().prop_map(|text| text.as_str().to_owned())
}

fn id<T: From<[u8; 16]> + std::fmt::Debug>() -> impl Strategy<Value = T> {
    any::<[u8; 16]>().prop_map(T::from)
}

fn bytes(max: usize) -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..max)
}

fn pairs() -> impl Strategy<Value = Vec<(String, String)>> {
    vec((".{0,20}", ".{0,100}"), 0..5)
}

fn held() -> impl Strategy<Value = HeldAttempt> {
    let phase = select(vec![Phase::Accepted, Phase::Running, Phase::Finished]);
    (id::<AttemptId>(), phase).prop_map(|(attempt, phase)| HeldAttempt { attempt, phase })
}

fn hello() -> impl Strategy<Value = Hello> {
    let who = (option::of(id::<DelegateId>()), option::of("[a-z0-9_-]{0,64}"), id::<BootId>(), any::<u64>());
    let what = (name(), name(), vec(name(), 0..64), text(), "[!-~]{1,64}", vec("[a-z]{1,10}", 0..16));
    let holds = (any::<u32>(), select(Isolation::ALL.to_vec()), vec(held(), 0..50));
    (who, what, holds).prop_map(|(who, what, holds)| {
        let (delegate, account, boot, counter) = who;
        let (name, host, tags, description, version, capabilities) = what;
        let (capacity, isolation, attempts) = holds;
        Hello {
            delegate,
            account,
            boot,
            counter,
            name,
            host,
            tags,
            description,
            version,
            capabilities,
            capacity,
            isolation,
            attempts,
        }
    })
}

fn finished() -> impl Strategy<Value = Finished> {
    use TaskState::{Cancelled, Failed, Lost, Succeeded, TimedOut};
    let state = select(vec![Succeeded, Failed, TimedOut, Cancelled, Lost]);
    (id::<AttemptId>(), state, option::of(any::<i32>()), reason(), any::<u64>(), any::<u64>()).prop_map(
        |(attempt, state, exit_code, reason, output_bytes, dropped_bytes)| Finished {
            attempt,
            state,
            exit_code,
            reason,
            output_bytes,
            dropped_bytes,
        },
    )
}

fn from_delegate() -> impl Strategy<Value = FromDelegate> {
    let stream = select(vec![Stream::Stdout, Stream::Stderr]);
    prop_oneof![
        hello().prop_map(|hello| FromDelegate::Hello(Box::new(hello))),
        any::<(u64, u32)>().prop_map(|(sent, running)| FromDelegate::Heartbeat { sent, running }),
        id::<AttemptId>().prop_map(|attempt| FromDelegate::Started { attempt }),
        (id::<AttemptId>(), any::<u64>(), stream, bytes(4_000))
            .prop_map(|(attempt, offset, stream, bytes)| { FromDelegate::Output { attempt, offset, stream, bytes } }),
        finished().prop_map(FromDelegate::Finished),
        (id::<AttemptId>(), reason(), any::<bool>()).prop_map(|(attempt, reason, again)| FromDelegate::Refused {
            attempt,
            reason,
            again
        }),
        Just(FromDelegate::Draining),
        (id::<ReceiptId>(), any::<u32>())
            .prop_map(|(receipt, tasks_killed)| FromDelegate::Stopped(Stopped { receipt, tasks_killed })),
    ]
}

fn work() -> impl Strategy<Value = Work> {
    let shell = (".{0,200}", vec(".{0,50}", 0..4), pairs(), option::of(".{0,50}"), bytes(500));
    let http = (".{0,10}", ".{0,200}", pairs(), bytes(500));
    prop_oneof![
        shell.prop_map(|(script, interpreter, env, cwd, stdin)| Work::Shell { script, interpreter, env, cwd, stdin }),
        http.prop_map(|(method, url, headers, body)| Work::Http { method, url, headers, body }),
    ]
}

fn assignment() -> impl Strategy<Value = Assignment> {
    let secret = (".{0,20}", ".{0,100}").prop_map(|(name, value)| SecretVar { name, value: SecretText::new(value) });
    let ids = (id::<AttemptId>(), id::<TaskId>());
    (ids, any::<u64>(), any::<u64>(), work(), vec(secret, 0..4)).prop_map(
        |((attempt, task), timeout, output_limit, work, secrets)| Assignment {
            attempt,
            task,
            timeout,
            output_limit,
            work,
            secrets,
        },
    )
}

fn welcome() -> impl Strategy<Value = Welcome> {
    let who = ("[a-z0-9]{1,64}", "[a-z0-9]{1,64}(/[a-z0-9]{1,64}){0,2}", id::<DelegateId>(), any::<u32>());
    let times = (1_u64..1_000_000, 1_u64..100_000_000, 0_u64..1_000_000, any::<i64>());
    (who, id::<SessionId>(), times).prop_map(|((account, scope, delegate, generation), session, times)| {
        let (heartbeat, lease, first_retry, server_time) = times;
        let scope = scope.parse().expect("a scope");
        Welcome { account, scope, delegate, generation, session, heartbeat, lease, first_retry, server_time }
    })
}

fn to_delegate() -> impl Strategy<Value = ToDelegate> {
    let goodbye =
        (select(GoodbyeReason::ALL.to_vec()), option::of(id::<ReceiptId>()), option::of(any::<u64>()), reason());
    prop_oneof![
        welcome().prop_map(ToDelegate::Welcome),
        goodbye.prop_map(|(reason, receipt, retry_after, text)| {
            ToDelegate::Goodbye(Goodbye { reason, receipt, retry_after, text })
        }),
        (any::<u64>(), option::of(any::<u64>()))
            .prop_map(|(sent, expires_in)| ToDelegate::HeartbeatAck { sent, expires_in }),
        assignment().prop_map(|assignment| ToDelegate::Assign(Box::new(assignment))),
        (id::<AttemptId>(), any::<u64>()).prop_map(|(attempt, grace)| ToDelegate::Cancel { attempt, grace }),
        (id::<AttemptId>(), any::<u64>()).prop_map(|(attempt, offset)| ToDelegate::OutputAck { attempt, offset }),
        id::<AttemptId>().prop_map(|attempt| ToDelegate::FinishedAck { attempt }),
    ]
}

/// A frame with one byte altered, cut short or made longer.
fn spoilt(frame: &[u8], at: usize, with: u8, how: u8) -> Vec<u8> {
    let mut frame = frame.to_vec();
    let at = at % frame.len();
    match how % 3 {
        0 => frame[at] = with,
        1 => frame.truncate(at),
        _ => frame.insert(at, with),
    }
    frame
}

proptest! {
    #[test]
    fn what_a_delegate_says_comes_back(message in from_delegate()) {
        prop_assert_eq!(FromDelegate::decode(&message.encode()), Ok(message));
    }

    #[test]
    fn what_the_manager_says_comes_back(message in to_delegate()) {
        prop_assert_eq!(ToDelegate::decode(&message.encode()), Ok(message));
    }

    #[test]
    fn work_comes_back_from_the_store(work in work()) {
        let bytes = work.encode().expect("within bounds");
        prop_assert_eq!(Work::decode(&bytes), Ok(work));
    }

    #[test]
    fn a_spoilt_frame_is_a_message_or_refused(message in from_delegate(), at: usize, with: u8, how: u8) {
        if let Ok(read) = FromDelegate::decode(&spoilt(&message.encode(), at, with, how)) {
            prop_assert_eq!(FromDelegate::decode(&read.encode()), Ok(read));
        }
    }

    #[test]
    fn any_bytes_are_a_message_or_refused(bytes in bytes(500)) {
        let _ = FromDelegate::decode(&bytes);
        let _ = ToDelegate::decode(&bytes);
        let _ = Work::decode(&bytes);
    }

    #[test]
    fn a_reason_is_cut_and_cleared_but_never_refused(reason in any::<String>(), times in 1_usize..200) {
        let reason = reason.repeat(times);
        let refused = FromDelegate::Refused { attempt: AttemptId([1; 16]), reason, again: false };
        let Ok(FromDelegate::Refused { reason, .. }) = FromDelegate::decode(&refused.encode()) else {
            return Err(TestCaseError::fail("refused"));
        };
        prop_assert!(reason.parse::<Text>().is_ok());
    }
}

/// Each bound, one above it.
#[test]
fn one_above_each_bound_is_refused() {
    let shell = |env: Vec<(String, String)>, interpreter: Vec<String>| Work::Shell {
        script: String::new(),
        interpreter,
        env,
        cwd: None,
        stdin: Vec::new(),
    };
    let of = |length: usize| "x".repeat(length);
    assert!(shell(vec![(of(KEY_MAX), of(VALUE_MAX))], vec![of(VALUE_MAX)]).encode().is_ok());
    assert!(shell(vec![(of(KEY_MAX + 1), of(1))], Vec::new()).encode().is_err());
    assert!(shell(vec![(of(1), of(VALUE_MAX + 1))], Vec::new()).encode().is_err());
    assert!(shell(vec![(of(1), of(1)); 257], Vec::new()).encode().is_err());
    assert!(shell(Vec::new(), vec![of(1); 17]).encode().is_err());

    let mut hello = crate::support::hello();
    let refused = |hello: &Hello| FromDelegate::decode(&FromDelegate::Hello(Box::new(hello.clone())).encode()).is_err();
    assert!(!refused(&hello));
    hello.tags = vec!["t".parse().expect("a name"); 65];
    assert!(refused(&hello));
    hello.tags.clear();
    hello.attempts = vec![HeldAttempt { attempt: AttemptId([1; 16]), phase: Phase::Running }; 1_025];
    assert!(refused(&hello));
    hello.attempts.clear();
    for version in ["", "with space", "bidi\u{202e}", &of(65)] {
        hello.version = version.to_owned();
        assert!(refused(&hello), "{version:?}");
    }
    let output = |length: usize| FromDelegate::Output {
        attempt: AttemptId([1; 16]),
        offset: 0,
        stream: Stream::Stdout,
        bytes: vec![0; length],
    };
    assert!(FromDelegate::decode(&output(32 << 10).encode()).is_ok());
    assert!(FromDelegate::decode(&output((32 << 10) + 1).encode()).is_err());
    let welcome = |heartbeat, lease| ToDelegate::Welcome(Welcome { heartbeat, lease, ..crate::support::welcome() });
    assert!(ToDelegate::decode(&welcome(0, 1).encode()).is_err());
    assert!(ToDelegate::decode(&welcome(1, 0).encode()).is_err());
    assert!(ToDelegate::decode(&welcome(1, u64::MAX).encode()).is_err());
}

#[test]
fn the_largest_hello_fits_one_message_and_the_largest_work_a_frame() {
    let longest = |length: usize| "n".repeat(length).parse::<Name>().expect("a name");
    let hello = Hello {
        name: longest(128),
        host: longest(128),
        tags: vec![longest(128); 64],
        description: "東".repeat(1_024).parse().expect("a text"),
        capabilities: vec!["c".repeat(64); 16],
        version: "v".repeat(64),
        attempts: vec![HeldAttempt { attempt: AttemptId([1; 16]), phase: Phase::Running }; 1_024],
        ..crate::support::hello()
    };
    let frame = FromDelegate::Hello(Box::new(hello)).encode();
    assert!(FromDelegate::decode(&frame).is_ok());
    assert!(frame.len() <= legation_wire::frame::PART_MAX, "{}", frame.len());

    let work = Work::Http {
        method: String::new(),
        url: String::new(),
        headers: vec![("k".repeat(256), "v".repeat(900)); 100],
        body: vec![0; 256 << 10],
    };
    assert!(work.encode().is_ok());
    let secret = SecretVar { name: "s".repeat(256), value: SecretText::new("x".repeat(16 << 10)) };
    let (attempt, task) = (AttemptId([1; 16]), TaskId([1; 16]));
    let assignment = Assignment { attempt, task, timeout: 1, output_limit: 1, work, secrets: vec![secret; 32] };
    let frame = ToDelegate::Assign(Box::new(assignment)).encode();
    assert!(ToDelegate::decode(&frame).is_ok());
    assert!(frame.len() <= legation_wire::FRAME_MAX, "{}", frame.len());
}
