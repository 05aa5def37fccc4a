//! Where a connection comes from: behind proxies, and from where nothing good comes.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use legation_api::tokens::CreateToken;
use legation_manager::config::Settings;
use legation_model::ids::{DelegateId, TokenId};
use legation_testkit::{Engine, Inside, Puppet, eventually, inside::Attempted, world::Issued};
use legation_wire::{DelegateEvent, GoodbyeReason, message::Goodbye};
use reqwest::Method;
use sqlx::{Executor as _, Row as _};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional},
    net::{TcpListener, TcpStream},
    sync::oneshot,
};

use super::raw::{Raw, answer};

super::on_both!(
    a_trusted_proxy_says_who_connects,
    a_proxy_that_is_not_listed_is_named_where_the_address_matters,
    a_storm_of_wrong_tokens_does_not_keep_good_delegates_out,
);

/// Forgers at once; each tries again as soon as it is refused.
const FORGERS: usize = 8;
/// Handshakes that are ended at their beginning before the storm counts as one.
const SLOWED: u64 = 200;

/// A proxy that adds a header to each request's head and passes everything on.
async fn proxy(inside: &Inside, header: &str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let (to, header) = (inside.link_url().trim_start_matches("http://").to_owned(), header.to_owned());
    tokio::spawn(async move {
        while let Ok((mut from, _)) = listener.accept().await {
            let (to, header) = (to.clone(), header.clone());
            tokio::spawn(async move {
                let mut line = Vec::new();
                while !line.ends_with(b"\r\n") {
                    line.push(from.read_u8().await.expect("a request line"));
                }
                let mut to = TcpStream::connect(to).await.expect("the Manager");
                line.extend_from_slice(format!("{header}\r\n").as_bytes());
                to.write_all(&line).await.expect("passed on");
                // How it ends is the business of those it connects.
                let _ = copy_bidirectional(&mut from, &mut to).await;
            });
        }
    });
    url
}

pub(super) async fn through(inside: &Inside, token: &Issued, header: &str) -> Puppet {
    let mut puppet = inside.puppet("one", token);
    puppet.redirect(&proxy(inside, header).await);
    puppet
}

fn goodbye(attempted: Attempted) -> Goodbye {
    match attempted {
        Attempted::Goodbye(goodbye) => goodbye,
        other => panic!("not refused: {other:?}"),
    }
}

fn only(range: &'static str) -> impl FnOnce(&mut CreateToken) {
    move |token| token.allowed_cidrs = vec![range.parse().expect("a range")]
}

async fn a_trusted_proxy_says_who_connects(engine: Engine) {
    let trusted = Some(vec!["127.0.0.1".to_owned(), "198.51.100.0/24".to_owned()]);
    let inside = Inside::with(engine, Settings { trusted_proxies: trusted, ..Settings::default() }).await;
    let token = inside.token_with("a", only("203.0.113.0/24")).await;
    let mut named = through(&inside, &token, "X-Forwarded-For: 192.0.2.1, 203.0.113.7, 198.51.100.9").await;
    let id = named.join().await.delegate;
    assert_eq!(inside.client.delegate(id).await.expect("a delegate").address, "203.0.113.7");
    for header in ["X-Forwarded-For: 203.0.113.7, 192.0.2.1", "X-Forwarded-For: nobody", "X-Else: 203.0.113.7"] {
        let told = goodbye(through(&inside, &token, header).await.connect().await);
        assert_eq!(told.reason, GoodbyeReason::AddressRefused, "{header}");
        assert!(!told.text.contains("trusted_proxies"), "it is trusted: {}", told.text);
    }
    // The audit record says the same of the API's callers.
    let raw = Raw::of(&inside);
    let request =
        raw.with(inside.key.expose(), Method::POST, "/api/v1/tokens").header("x-forwarded-for", "203.0.113.9");
    let request = request.header("content-type", "application/json").body(r#"{"scope":"default","name":"b"}"#);
    assert_eq!(answer(request).await.status, 201);
    let last = "SELECT address FROM audit WHERE action = 'token.create' ORDER BY number DESC LIMIT 1";
    let row = super::beside(&inside).await.fetch_one(last).await.expect("a record");
    assert_eq!(row.get::<String, _>(0), "203.0.113.9");
}

async fn a_proxy_that_is_not_listed_is_named_where_the_address_matters(engine: Engine) {
    let inside = Inside::start(engine).await;
    // The proxy's own address would be allowed, and nobody knows who is behind it.
    let limited = inside.token_with("limited", only("127.0.0.0/8")).await;
    for header in ["X-Forwarded-For: 127.0.0.1", "Forwarded: for=127.0.0.1", "X-Real-IP: 127.0.0.1"] {
        let told = goodbye(through(&inside, &limited, header).await.connect().await);
        assert_eq!(told.reason, GoodbyeReason::AddressRefused);
        assert!(told.text.contains("LEGATION_TRUSTED_PROXIES") && told.text.contains("127.0.0.1"), "{}", told.text);
    }
    through(&inside, &limited, "X-Else: 1").await.join().await;
    let free = inside.token("free").await;
    let id = through(&inside, &free, "X-Forwarded-For: 203.0.113.7").await.join().await.delegate;
    assert_eq!(inside.client.delegate(id).await.expect("a delegate").address, "127.0.0.1", "the header says nothing");
}

/// A delegate that is in and sends heartbeats until told to stop: which, and how many were answered.
async fn beating(inside: &Inside, token: &Issued) -> (DelegateId, Arc<AtomicU64>, oneshot::Sender<()>) {
    let mut puppet = inside.puppet("old", token);
    let id = puppet.join().await.delegate;
    let (renewed, (over, mut stop)) = (Arc::new(AtomicU64::new(0)), oneshot::channel());
    let counted = Arc::clone(&renewed);
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = &mut stop => return,
                event = puppet.next() => match event {
                    Ok(DelegateEvent::LeaseRenewed { .. }) => counted.fetch_add(1, Ordering::Relaxed),
                    other => panic!("it should be left alone: {other:?}"),
                },
            };
        }
    });
    (id, renewed, over)
}

/// Tries wrong secrets and unknown ids until told to stop.
fn forge(
    inside: &Inside,
    token: &Issued,
    stop: &Arc<AtomicBool>,
    tries: &Arc<AtomicU64>,
) -> tokio::task::JoinHandle<()> {
    let mut forger = inside.puppet("forger", token);
    let (stop, tries) = (Arc::clone(stop), Arc::clone(tries));
    tokio::spawn(async move {
        while !stop.load(Ordering::Relaxed) {
            match tries.fetch_add(1, Ordering::Relaxed) % 2 {
                0 => forger.forge_secret(),
                _ => forger.forge_id(),
            }
            assert!(matches!(forger.connect().await, Attempted::Ended(_)), "a forger was told something");
        }
    })
}

/// The storm comes from the very address that the good ones have. They may be ended at their beginning too, and come again.
async fn a_storm_of_wrong_tokens_does_not_keep_good_delegates_out(engine: Engine) {
    let heartbeat = Some("500ms".to_owned());
    let inside = Inside::with(engine, Settings { heartbeat, ..Settings::default() }).await;
    let token = inside.token("a").await;
    let (id, renewed, over) = beating(&inside, &token).await;
    let (stop, tries) = (Arc::new(AtomicBool::new(false)), Arc::default());
    let storm: Vec<_> = (0..FORGERS).map(|_| forge(&inside, &token, &stop, &tries)).collect();
    let metrics = &inside.manager.metrics;
    eventually("the storm is slowed", async || (metrics.slowed.get() >= SLOWED).then_some(())).await;
    let before = metrics.slowed.get();

    // Who is in stays in and is answered.
    let session = inside.manager.sessions.newest(id).expect("a session");
    let answered = renewed.load(Ordering::Relaxed);
    eventually("heartbeats are answered", async || (renewed.load(Ordering::Relaxed) >= answered + 3).then_some(()))
        .await;
    assert!(session.stopped().is_none());
    // Who comes anew is let in, and who comes again.
    for number in 0..5 {
        let mut new = inside.puppet(&format!("new{number}"), &token);
        comes_in(&mut new).await;
        new.cut();
        comes_in(&mut new).await;
    }
    assert!(metrics.slowed.get() > before, "the storm went on meanwhile");
    let failed = metrics.unproven.get();
    stop.store(true, Ordering::Relaxed);
    for forger in storm {
        forger.await.expect("no forger got anywhere");
    }
    let tries: u64 = tries.load(Ordering::Relaxed);
    assert!(failed < tries, "{failed} of {tries} came to a calculation");

    eventually("it is recorded", async || {
        let records = "SELECT COUNT(*) FROM audit WHERE action = 'link.prove' AND outcome = 'refused'";
        let row = super::beside(&inside).await.fetch_one(records).await.expect("a row");
        (row.get::<i64, _>(0) == 1).then_some(())
    })
    .await;
    over.send(()).expect("it beats to the end");
    // When it is over it is forgiven.
    inside.clock.advance(10 * 60 * 1000);
    let (slowed, failed) = (metrics.slowed.get(), metrics.unproven.get());
    let mut mistaken = inside.puppet("mistaken", &Issued { id: TokenId([9; 16]), value: token.value });
    mistaken.forge_secret();
    assert!(matches!(mistaken.connect().await, Attempted::Ended(_)));
    assert_eq!((metrics.slowed.get(), metrics.unproven.get()), (slowed, failed + 1));
}

async fn comes_in(puppet: &mut Puppet) {
    eventually("a good delegate comes in", async || match puppet.connect().await {
        Attempted::Welcome(_) => Some(()),
        Attempted::Ended(_) => None,
        Attempted::Goodbye(goodbye) => panic!("refused: {goodbye:?}"),
    })
    .await;
}
