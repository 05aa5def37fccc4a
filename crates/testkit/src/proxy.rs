//! A network that can be listened to and broken: a TCP proxy between delegates and their Manager.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::watch,
    task::JoinHandle,
    time::sleep,
};

/// Bytes moved at once; small, so that a delay or a cut falls between the parts of one message.
const CHUNK: usize = 1024;

/// How the network behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weather {
    /// Everything passes.
    Clear,
    /// Connections stay, nothing passes: what is sent fills the buffers of the kernel.
    Stalled,
    /// Each part waits for a random time up to this.
    Slow(Duration),
}

/// What happens once to all connections of the moment.
#[derive(Clone, Copy, Debug)]
enum Stroke {
    /// Both ends are closed.
    Cut,
    /// The delegate's end is closed; the Manager's end stays and never hears of it.
    Orphan,
}

/// All bytes of one direction or the other, in the order in which they passed.
#[derive(Clone, Debug, Default)]
pub struct Record {
    /// From delegates to the Manager.
    pub up: Vec<u8>,
    /// From the Manager to delegates.
    pub down: Vec<u8>,
}

/// A proxy on a port of its own; it ends when dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
    storm: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    target: SocketAddr,
    seed: u64,
    weather: watch::Sender<Weather>,
    stroke: watch::Sender<Option<Stroke>>,
    record: Mutex<Record>,
    open: AtomicUsize,
    accepted: AtomicUsize,
}

impl Proxy {
    /// Starts a proxy in front of `target`. The seed decides delays and storms.
    ///
    /// # Errors
    /// When no port can be had.
    pub async fn start(target: SocketAddr, seed: u64) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            target,
            seed,
            weather: watch::Sender::new(Weather::Clear),
            stroke: watch::Sender::new(None),
            record: Mutex::default(),
            open: AtomicUsize::new(0),
            accepted: AtomicUsize::new(0),
        });
        let accepting = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Ok(Self { address, shared, accepting, storm: None })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes the weather for connections of now and later, and ends a storm.
    pub fn set(&mut self, weather: Weather) {
        if let Some(storm) = self.storm.take() {
            storm.abort();
        }
        self.shared.weather.send_replace(weather);
    }

    /// Closes both ends of all connections.
    pub fn cut(&self) {
        self.shared.stroke.send_replace(Some(Stroke::Cut));
    }

    /// Closes the delegates' ends and leaves the Manager's ends open for ever.
    pub fn orphan(&self) {
        self.shared.stroke.send_replace(Some(Stroke::Orphan));
    }

    /// Lets weather and cuts follow each other at random, by the seed, until [`Proxy::set`].
    pub fn storm(&mut self) {
        self.set(Weather::Clear);
        self.storm = Some(tokio::spawn(storm(Arc::clone(&self.shared))));
    }

    /// All that has passed so far.
    pub fn record(&self) -> Record {
        self.shared.record.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many connections pass through it now.
    pub fn open(&self) -> usize {
        self.shared.open.load(Ordering::SeqCst)
    }

    /// How many connections it has ever taken.
    pub fn accepted(&self) -> usize {
        self.shared.accepted.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.set(Weather::Clear);
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        let number = shared.accepted.fetch_add(1, Ordering::SeqCst) as u64;
        connections.spawn(carry(client, Arc::clone(&shared), number));
        while connections.try_join_next().is_some() {}
    }
}

async fn storm(shared: Arc<Shared>) {
    let mut chance = ChaCha8Rng::seed_from_u64(shared.seed);
    loop {
        sleep(Duration::from_millis(chance.random_range(20..300))).await;
        match chance.random_range(0..6) {
            0 => drop(shared.stroke.send_replace(Some(Stroke::Cut))),
            1 => drop(shared.stroke.send_replace(Some(Stroke::Orphan))),
            2 => drop(shared.weather.send_replace(Weather::Stalled)),
            3 => drop(shared.weather.send_replace(Weather::Slow(Duration::from_millis(30)))),
            _ => drop(shared.weather.send_replace(Weather::Clear)),
        }
    }
}

/// One connection, until both directions have ended or a stroke hits it.
async fn carry(mut client: TcpStream, shared: Arc<Shared>, number: u64) {
    let mut strokes = shared.stroke.subscribe();
    let Ok(mut server) = TcpStream::connect(shared.target).await else { return };
    shared.open.fetch_add(1, Ordering::SeqCst);
    let struck = {
        let (client_in, client_out) = client.split();
        let (server_in, server_out) = server.split();
        let up = pump(client_in, server_out, &shared, number * 2, |record| &mut record.up);
        let down = pump(server_in, client_out, &shared, number * 2 + 1, |record| &mut record.down);
        tokio::select! {
            _ = async { tokio::join!(up, down) } => None,
            _ = strokes.changed() => *strokes.borrow(),
        }
    };
    drop(client);
    shared.open.fetch_sub(1, Ordering::SeqCst);
    if matches!(struck, Some(Stroke::Orphan)) {
        std::future::pending::<()>().await;
    }
}

async fn pump(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    shared: &Shared,
    seed: u64,
    side: fn(&mut Record) -> &mut Vec<u8>,
) -> io::Result<()> {
    let mut chance = ChaCha8Rng::seed_from_u64(shared.seed ^ seed);
    let mut weather = shared.weather.subscribe();
    let mut chunk = [0; CHUNK];
    loop {
        calm(&mut weather).await;
        let length = from.read(&mut chunk).await?;
        if length == 0 {
            return to.shutdown().await;
        }
        // Stalled weather that came up during the read holds back what was read.
        if let Weather::Slow(most) = calm(&mut weather).await {
            sleep(most.mul_f64(chance.random())).await;
        }
        let bytes = &chunk[..length];
        side(&mut shared.record.lock().unwrap_or_else(PoisonError::into_inner)).extend_from_slice(bytes);
        to.write_all(bytes).await?;
    }
}

/// Waits out stalled weather and says what came after it.
async fn calm(weather: &mut watch::Receiver<Weather>) -> Weather {
    let calm = weather.wait_for(|now| *now != Weather::Stalled).await;
    calm.map_or(Weather::Clear, |now| *now)
}
