//! All clients of one user.

use std::{
    convert::Infallible,
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use hdrhistogram::Histogram;
use tokio::{
    sync::{Semaphore, watch},
    task::JoinHandle,
    time::{Interval, MissedTickBehavior, interval_at},
};

use super::{
    client::{ANSWERS, Client, Target},
    peer::{Event, User},
};
use crate::load::{dial::DIALS, fleet::lock, meter::histogram};

/// What a delegate answers, about as long as what ours says.
const RESULT: &[u8] = &[b'.'; 48];
/// How often each says that it is there, as delegates do by default.
const PACE: Duration = Duration::from_secs(10);

/// Connections that beat, and answer each message.
pub(super) struct Crowd {
    shared: Arc<Shared>,
    clients: Vec<JoinHandle<()>>,
}

/// What they share.
struct Shared {
    target: Target,
    user: User,
    count: usize,
    dials: Semaphore,
    pace: watch::Sender<Duration>,
    tally: watch::Sender<Tally>,
    beats: AtomicU64,
    connects: Mutex<Histogram<u64>>,
}

#[derive(Clone, Default)]
struct Tally {
    connected: usize,
    last_closed: Option<Instant>,
    /// Why the first connection that did not come about did not.
    failed: Option<String>,
}

impl Crowd {
    /// That many clients, which begin to connect.
    pub(super) fn gather(target: Target, user: User, count: usize) -> Self {
        let shared = Arc::new(Shared {
            target,
            user,
            count,
            dials: Semaphore::new(DIALS),
            pace: watch::Sender::new(PACE),
            tally: watch::Sender::default(),
            beats: AtomicU64::new(0),
            connects: Mutex::new(histogram()),
        });
        let clients = (0..count).map(|number| tokio::spawn(live(Arc::clone(&shared), number))).collect();
        Self { shared, clients }
    }

    /// Waits until exactly that many are connected.
    pub(super) async fn connected(&self, count: usize, patience: Duration) -> anyhow::Result<()> {
        let mut tally = self.shared.tally.subscribe();
        let reached = tally.wait_for(|tally| tally.connected == count || tally.failed.is_some());
        let reached = tokio::time::timeout(patience, reached).await;
        let reached = reached.with_context(|| format!("{} connections after {patience:?}", self.count()))??;
        match &reached.failed {
            Some(why) => bail!("{} of {count} connected, then: {why}", reached.connected),
            None => Ok(()),
        }
    }

    /// How many are connected.
    pub(super) fn count(&self) -> usize {
        self.shared.tally.borrow().connected
    }

    /// When the last of them was seen to end.
    pub(super) fn last_closed(&self) -> Option<Instant> {
        self.shared.tally.borrow().last_closed
    }

    /// Whether the server refuses another connection of this user.
    pub(super) async fn is_shut_out(&self) -> bool {
        let Shared { target, user, count, .. } = &*self.shared;
        Client::connect(target, *count, user, &subject(*count)).await.is_err()
    }

    /// Heartbeats that were answered.
    pub(super) fn beats(&self) -> u64 {
        self.shared.beats.load(Ordering::Relaxed)
    }

    /// How long each took to connect.
    pub(super) fn connects(&self) -> Histogram<u64> {
        lock(&self.shared.connects).clone()
    }

    /// Sets how often each beats.
    pub(super) fn set_pace(&self, pace: Duration) {
        self.shared.pace.send_replace(pace);
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.clients.iter().for_each(JoinHandle::abort);
    }
}

/// The subject of one of them.
pub(super) fn subject(number: usize) -> String {
    format!("load-{number}")
}

/// Connects and stays until the server ends it.
async fn live(shared: Arc<Shared>, number: usize) {
    match connect(&shared, number).await {
        Ok(client) => {
            let _counted = Counted::new(&shared);
            // Who is missing when nobody should be is seen in the count.
            let Err(_closed) = stay(&shared, number, client).await;
        }
        Err(error) => shared.tally.send_modify(|tally| tally.failed = Some(error.to_string())),
    }
}

async fn connect(shared: &Shared, number: usize) -> io::Result<Client> {
    let _permit = shared.dials.acquire().await.map_err(io::Error::other)?;
    let begun = Instant::now();
    let client = Client::connect(&shared.target, number, &shared.user, &subject(number)).await?;
    lock(&shared.connects).saturating_record(begun.elapsed().as_micros() as u64);
    Ok(client)
}

async fn stay(shared: &Shared, number: usize, mut client: Client) -> io::Result<Infallible> {
    let mut pace = shared.pace.subscribe();
    let mut ticks = shared.ticks(number);
    loop {
        tokio::select! {
            event = client.next() => match event? {
                Event::Answer => shared.beaten(),
                Event::Message => client.publish(ANSWERS, RESULT).await?,
                Event::Question(answer) => client.send(answer).await?,
                Event::Other => {}
            },
            _ = ticks.tick() => client.beat().await?,
            Ok(()) = pace.changed() => ticks = shared.ticks(number),
        }
    }
}

impl Shared {
    fn beaten(&self) {
        self.beats.fetch_add(1, Ordering::Relaxed);
    }

    /// The heartbeats of one, spread so that those of all come evenly.
    fn ticks(&self, number: usize) -> Interval {
        let pace = *self.pace.borrow();
        let first = pace.mul_f64((number + 1) as f64 / self.count as f64);
        let mut ticks = interval_at(tokio::time::Instant::now() + first, pace);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks
    }
}

/// Counts one as connected while it lives.
struct Counted<'a>(&'a Shared);

impl<'a> Counted<'a> {
    fn new(shared: &'a Shared) -> Self {
        shared.tally.send_modify(|tally| tally.connected += 1);
        Self(shared)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.tally.send_modify(|tally| {
            tally.connected -= 1;
            tally.last_closed = Some(Instant::now());
        });
    }
}
