//! A connection over a pipe of known size, on a clock that only the test moves.

use std::{sync::OnceLock, time::Duration};

use legation_link::{Connection, Ended, Socket, WRITE_TIMEOUT};
use legation_model::{Millis, ids::AttemptId};
use legation_wire::{
    Close, DelegateEnd, DelegateEvent, GoodbyeReason, ManagerEnd, ManagerEvent,
    message::{FromDelegate, Goodbye, Stream, ToDelegate},
};
use tokio::{
    io::{AsyncWriteExt, DuplexStream, duplex},
    time::Instant,
};
use tokio_tungstenite::tungstenite::{Message, protocol::Role};

use crate::support::{delegate, manager, welcome};

/// The paused clock of the runtime.
fn now() -> Millis {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_millis() as Millis
}

/// Two connections with an open session between them.
async fn session(pipe: usize) -> (Connection<DelegateEnd>, Connection<ManagerEnd>) {
    let (near, far) = duplex(pipe);
    let (mut delegate, mut manager) = (delegate(Socket::client(near), now), manager(Socket::server(far), now));
    let opened = async {
        assert!(matches!(manager.next().await, Ok(ManagerEvent::Proven(_))));
        assert!(matches!(manager.next().await, Ok(ManagerEvent::Hello(_))));
        manager.end_mut().send(&ToDelegate::Welcome(welcome())).expect("open");
        manager.flush().await.expect("a reader");
    };
    let welcomed = async {
        assert!(matches!(delegate.next().await, Ok(DelegateEvent::Welcome(_))));
        assert!(matches!(delegate.next().await, Ok(DelegateEvent::LeaseRenewed { .. })));
    };
    tokio::join!(opened, welcomed);
    (delegate, manager)
}

fn output(bytes: usize) -> FromDelegate {
    FromDelegate::Output { attempt: AttemptId([1; 16]), offset: 0, stream: Stream::Stdout, bytes: vec![0; bytes] }
}

#[tokio::test(start_paused = true)]
async fn heartbeats_flow_by_themselves_and_silence_ends_the_link() {
    let (mut delegate, mut manager) = session(4_096).await;
    let beats = async {
        for expected in 1..=5 {
            let Ok(ManagerEvent::Message(FromDelegate::Heartbeat { sent, .. })) = manager.next().await else {
                panic!("only heartbeats come")
            };
            assert_eq!(sent, expected);
            manager.end_mut().send(&ToDelegate::HeartbeatAck { sent, expires_in: None }).expect("open");
        }
        // From here on the Manager reads and never answers.
        while manager.next().await.is_ok() {}
    };
    let alive = async {
        let mut renewed = 0;
        let ended = loop {
            match delegate.next().await {
                Ok(DelegateEvent::LeaseRenewed { .. }) => renewed += 1,
                Ok(other) => panic!("{other:?}"),
                Err(ended) => break ended,
            }
        };
        drop(delegate);
        (renewed, ended)
    };
    let ((), (renewed, ended)) = tokio::join!(beats, alive);
    assert!(matches!(ended, Ended::Protocol(Close::Silent)), "{ended}");
    assert_eq!(renewed, 5);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_stops_reading_is_given_up_after_the_write_timeout() {
    let (mut delegate, manager) = session(4_096).await;
    delegate.end_mut().send(&output(30_000)).expect("room");
    let before = Instant::now();
    let flushed = tokio::time::timeout(2 * WRITE_TIMEOUT, delegate.flush()).await.expect("given up in time");
    let ended = flushed.expect_err("nobody reads");
    assert!(matches!(ended, Ended::Stalled), "{ended}");
    assert_eq!(before.elapsed(), WRITE_TIMEOUT);

    let before = Instant::now();
    delegate.close(4_009, "silent", Duration::from_secs(1)).await;
    assert!(before.elapsed() <= Duration::from_millis(1_001), "closing waits no longer than it was allowed to");
    drop(manager);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_reads_slowly_is_kept() {
    let (mut delegate, mut manager) = session(4_096).await;
    for _ in 0..20 {
        delegate.end_mut().send(&output(30_000)).expect("room");
    }
    let slow = async {
        for _ in 0..20 {
            tokio::time::advance(WRITE_TIMEOUT / 2).await;
            let event = manager.next().await.expect("still there");
            assert!(matches!(event, ManagerEvent::Message(_)));
        }
    };
    let flushed = async { delegate.flush().await.expect("each message is progress") };
    tokio::join!(flushed, slow);
}

#[tokio::test(start_paused = true)]
async fn both_sides_may_send_more_than_fits_between_them() {
    let (mut delegate, mut manager) = session(1_024).await;
    for _ in 0..10 {
        delegate.end_mut().send(&output(30_000)).expect("room");
        for _ in 0..50 {
            manager.end_mut().send(&ToDelegate::FinishedAck { attempt: AttemptId([1; 16]) }).expect("room");
        }
    }
    let up = async {
        for _ in 0..10 {
            manager.next().await.expect("output");
        }
        manager.flush().await.expect("a reader");
    };
    let down = async {
        for _ in 0..500 {
            delegate.next().await.expect("an acknowledgement");
        }
        delegate.flush().await.expect("a reader");
    };
    tokio::join!(up, down);
}

#[tokio::test(start_paused = true)]
async fn a_call_dropped_half_way_loses_nothing() {
    let (mut delegate, mut manager) = session(256).await;
    for _ in 0..20 {
        delegate.end_mut().send(&output(1_000)).expect("room");
    }
    let mut heard = 0;
    while heard < 20 {
        tokio::select! {
            biased;
            event = manager.next() => {
                assert!(matches!(event, Ok(ManagerEvent::Message(FromDelegate::Output { .. }))));
                heard += 1;
            }
            event = delegate.next() => panic!("nothing comes: {event:?}"),
            // Drops both calls wherever they are.
            () = tokio::task::yield_now() => {}
        }
    }
}

#[tokio::test(start_paused = true)]
async fn goodbye_arrives_before_the_close() {
    let (mut delegate, mut manager) = session(4_096).await;
    let reason = GoodbyeReason::TokenRevoked;
    let goodbye = Goodbye { reason, receipt: None, retry_after: None, text: String::new() };
    manager.end_mut().goodbye(goodbye.clone()).expect("open");
    let heard = async {
        assert_eq!(delegate.next().await.expect("a Goodbye"), DelegateEvent::Goodbye(goodbye));
        let ended = delegate.next().await.expect_err("then nothing");
        assert!(matches!(ended, Ended::Closed { code: 4_100, .. }), "{ended}");
        drop(delegate);
    };
    tokio::join!(manager.close(reason.code(), reason.as_str(), Duration::from_secs(5)), heard);
}

#[tokio::test(start_paused = true)]
async fn a_handshake_that_does_not_move_is_ended() {
    let (near, far) = duplex(4_096);
    let mut manager = manager(Socket::server(far), now);
    let ended = manager.next().await.expect_err("nobody speaks");
    assert!(matches!(ended, Ended::Protocol(Close::HandshakeTimeout)), "{ended}");
    drop(near);
}

/// A client that frames by the book and says what it likes.
async fn stranger(io: DuplexStream) -> tokio_tungstenite::WebSocketStream<DuplexStream> {
    tokio_tungstenite::WebSocketStream::from_raw_socket(io, Role::Client, None).await
}

#[tokio::test(start_paused = true)]
async fn messages_that_are_not_binary_or_too_large_end_the_link() {
    use futures_util::SinkExt;
    for (message, expected) in [
        (Message::text("hello"), Close::BadFrame),
        (Message::binary(vec![0; 65_536]), Close::TooLarge),
        (Message::binary(vec![0; 65_535]), Close::BadHandshake),
        (Message::binary(vec![]), Close::BadHandshake),
    ] {
        let (near, far) = duplex(1 << 20);
        stranger(near).await.send(message).await.expect("room");
        let ended = manager(Socket::server(far), now).next().await.expect_err("not a handshake");
        assert!(matches!(ended, Ended::Protocol(close) if close == expected), "{ended}, {expected}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_length_that_is_only_claimed_reserves_nothing() {
    for claim in [[0xff_u8; 8], [0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff], [0, 0, 0, 0, 0, 1, 0, 0]] {
        let (mut near, far) = duplex(4_096);
        near.write_all(&[&[0x82, 0xff][..], &claim, &[0; 4]].concat()).await.expect("room");
        let ended = manager(Socket::server(far), now).next().await.expect_err("too large");
        assert!(matches!(ended, Ended::Protocol(_)), "{ended}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_link_that_breaks_off_is_an_input_error() {
    let (near, far) = duplex(4_096);
    drop(near);
    let ended = manager(Socket::server(far), now).next().await.expect_err("gone");
    assert!(matches!(ended, Ended::Io(_)), "{ended}");
}
