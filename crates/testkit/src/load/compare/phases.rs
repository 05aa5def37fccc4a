//! The phases against a server of another make; what the lines share with ours has the same name.

use std::time::{Duration, Instant};

use anyhow::ensure;

use super::{
    Options,
    client::{ANSWERS, Client, Target},
    crowd::{Crowd, subject},
    peer::{Event, Peer, User},
    server::{Server, version},
};
use crate::load::{
    Figures,
    meter::{Meter, histogram},
    report::{Say, milliseconds, round},
};

/// How long all clients may take to connect, or to be cut.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long each may take to find a new rhythm.
const SETTLE: Duration = Duration::from_secs(2);
/// How often each beats when heartbeats are what is measured.
const PACE: Duration = Duration::from_secs(1);
/// What is sent to a delegate, about as long as what ours sends.
const REQUEST: &[u8] = &[b'!'; 64];

/// A server with its clients.
struct Site {
    server: Server,
    version: String,
    target: Target,
    crowd: Crowd,
    count: usize,
    /// A user who is not revoked.
    staying: User,
}

/// Starts the server and measures it.
pub(super) async fn measure(peer: &'static dyn Peer, options: &Options, say: Say<'_>) -> anyhow::Result<()> {
    let (measured, staying) = (User::new("measured"), User::new("staying"));
    let (version, count) = (version(peer).await?, options.delegates);
    let server = Server::start(peer, &[&measured, &staying]).await?;
    let (before, target) = (server.resident()?, Target::of(&server));
    let meter = Meter::start(server.pid()?);
    let crowd = Crowd::gather(target.clone(), measured, count);
    let site = Site { server, version, target, crowd, count, staying };
    let time = Duration::from_secs(options.seconds);

    say(site.storm(meter).await?);
    say(site.idle(before, time).await?);
    say(site.heartbeat(time).await?);
    let mut publisher = Client::connect(&site.target, count, &site.staying, ANSWERS).await?;
    say(site.dispatch(&mut publisher, time).await?);
    say(site.revoke(&mut publisher).await?);
    Ok(())
}

impl Site {
    async fn storm(&self, meter: Meter) -> anyhow::Result<Figures> {
        self.crowd.connected(self.count, PATIENCE).await?;
        let spent = meter.read();
        Ok(self.line("storm").spent(self.count as u64, spent).latencies("connect", &self.crowd.connects()))
    }

    async fn idle(&self, before: u64, time: Duration) -> anyhow::Result<Figures> {
        let meter = Meter::start(self.server.pid()?);
        tokio::time::sleep(time).await;
        let (spent, resident) = (meter.read(), self.server.resident()?);
        let each = resident.saturating_sub(before) as f64 / self.count as f64;
        let core = spent.server_cpu.as_secs_f64() / spent.wall.as_secs_f64();
        let line = self.line("idle").with("resident_kib", resident).with("kib_per_delegate", round(each));
        Ok(line.with("server_core", round(core)))
    }

    async fn heartbeat(&self, time: Duration) -> anyhow::Result<Figures> {
        self.crowd.set_pace(PACE);
        tokio::time::sleep(SETTLE).await;
        let (meter, before) = (Meter::start(self.server.pid()?), self.crowd.beats());
        tokio::time::sleep(time).await;
        let (spent, beats) = (meter.read(), self.crowd.beats() - before);
        Ok(self.line("heartbeat").spent(beats, spent))
    }

    /// One message after the other to one delegate after the other; how long until its answer is with the sender.
    async fn dispatch(&self, publisher: &mut Client, time: Duration) -> anyhow::Result<Figures> {
        let mut took = histogram();
        let meter = Meter::start(self.server.pid()?);
        let deadline = Instant::now() + time;
        for number in (0..self.count).cycle() {
            let begun = Instant::now();
            publisher.publish(&subject(number), REQUEST).await?;
            publisher.until(Event::Message).await?;
            took.saturating_record(begun.elapsed().as_micros() as u64);
            if Instant::now() > deadline {
                break;
            }
        }
        let line = self.line("dispatch").with("window", 1).spent(took.len(), meter.read());
        Ok(line.latencies("answer", &took))
    }

    async fn revoke(&self, staying: &mut Client) -> anyhow::Result<Figures> {
        let errors = self.errors();
        let meter = Meter::start(self.server.pid()?);
        let begun = self.server.allow_only(&[&self.staying])?;
        self.crowd.connected(0, PATIENCE).await?;
        let spent = meter.read();
        let last = self.crowd.last_closed().map_or(Duration::ZERO, |at| at.duration_since(begun));
        ensure!(self.crowd.is_shut_out().await, "the server let a revoked user in again");
        // Whoever was not revoked is still served.
        staying.beat().await?;
        staying.until(Event::Answer).await?;
        let line = self.line("revoke").spent(self.count as u64, spent);
        Ok(line.with("last_closed_seen_ms", milliseconds(last)).with("errors", errors))
    }

    /// Those that should be connected and are not.
    fn errors(&self) -> usize {
        self.count - self.crowd.count()
    }

    fn line(&self, phase: &str) -> Figures {
        let line = Figures::new(phase, self.count).with("server", self.server.peer.name());
        line.with("version", self.version.as_str()).with("errors", self.errors())
    }
}
