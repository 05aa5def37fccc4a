//! The tools that break and watch the network do what they say.

use std::time::Duration;

use legation_testkit::{
    eventually,
    proxy::{Proxy, Weather},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};

/// Time in which stalled bytes would arrive if the stall did not hold.
const MOMENT: Duration = Duration::from_millis(200);

async fn pair() -> (Proxy, TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let proxy = Proxy::start(listener.local_addr().expect("an address"), 7).await.expect("a proxy");
    let near = TcpStream::connect(proxy.address()).await.expect("a connection");
    let (far, _) = listener.accept().await.expect("the proxy connects on");
    (proxy, near, far)
}

async fn read(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = vec![0; 64];
    let length = stream.read(&mut bytes).await.unwrap_or(0);
    bytes.truncate(length);
    bytes
}

#[tokio::test]
async fn what_passes_is_recorded_in_both_directions() {
    let (proxy, mut near, mut far) = pair().await;
    near.write_all(b"ping").await.expect("open");
    assert_eq!(read(&mut far).await, b"ping");
    far.write_all(b"pong").await.expect("open");
    assert_eq!(read(&mut near).await, b"pong");
    let record = proxy.record();
    assert_eq!((record.up.as_slice(), record.down.as_slice()), (&b"ping"[..], &b"pong"[..]));
}

#[tokio::test]
async fn stalled_weather_holds_bytes_back_and_loses_none() {
    let (mut proxy, mut near, mut far) = pair().await;
    proxy.set(Weather::Stalled);
    near.write_all(b"late").await.expect("open");
    assert!(timeout(MOMENT, read(&mut far)).await.is_err(), "nothing passes");
    proxy.set(Weather::Slow(Duration::from_millis(5)));
    assert_eq!(read(&mut far).await, b"late");
}

#[tokio::test]
async fn a_cut_is_seen_at_both_ends() {
    let (proxy, mut near, mut far) = pair().await;
    eventually("the connection passes through", async || (proxy.open() == 1).then_some(())).await;
    proxy.cut();
    assert_eq!(read(&mut near).await, b"");
    assert_eq!(read(&mut far).await, b"");
}

#[tokio::test]
async fn an_orphan_never_hears_of_the_cut() {
    let (proxy, mut near, mut far) = pair().await;
    eventually("the connection passes through", async || (proxy.open() == 1).then_some(())).await;
    proxy.orphan();
    assert_eq!(read(&mut near).await, b"");
    assert!(timeout(MOMENT, read(&mut far)).await.is_err(), "the far end still waits");
}
