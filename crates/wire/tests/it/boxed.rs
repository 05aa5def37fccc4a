//! Both ends in a box: hours of virtual time over a wire that stalls, breaks and garbles, from a seed.
//!
//! What the two programs above the ends do is the least that uses every part of the protocol. Beside them
//! runs a reference: what was sent on each connection, in order, and what the lease can be at most.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use legation_model::{
    Millis,
    ids::{AttemptId, TaskId},
    task::TaskState,
};
use legation_wire::{
    Close, DelegateEnd, DelegateEvent, End, ManagerEnd, ManagerEvent, Opening,
    message::{Assignment, Finished, FromDelegate, HeldAttempt, Phase, Stream, ToDelegate, Work},
};
use rand_chacha::{
    ChaCha20Rng,
    rand_core::{Rng, SeedableRng},
};

use crate::support::{World, hello, welcome};

const HOUR: Millis = 3_600_000;
const LEASE: Millis = 300_000;

/// How a wire misbehaves: one message in so many is garbled, one step in so many cuts or stalls.
#[derive(Clone, Copy)]
struct Weather {
    garble: u64,
    cut: u64,
    stall: u64,
}

struct Dice(ChaCha20Rng);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0.next_u64() % bound
    }

    fn one_in(&mut self, bound: u64) -> bool {
        bound > 0 && self.below(bound) == 0
    }
}

/// One direction of a connection: messages with the time of their arrival, in order.
#[derive(Default)]
struct Pipe {
    messages: VecDeque<(Millis, Vec<u8>)>,
    last: Millis,
    garbled: bool,
}

impl Pipe {
    /// Puts a message on the way, perhaps dropped, repeated, flipped, cut short or before the one ahead.
    fn put(&mut self, message: Vec<u8>, now: Millis, weather: Weather, dice: &mut Dice) {
        let delay = if dice.one_in(weather.stall) { dice.below(20_000) } else { dice.below(200) };
        self.last = self.last.max(now + 1 + delay as Millis);
        if !dice.one_in(weather.garble) {
            self.messages.push_back((self.last, message));
            return;
        }
        self.garbled = true;
        let mut message = message;
        match dice.below(5) {
            0 => return,
            1 => self.messages.push_back((self.last, message.clone())),
            2 => message.truncate(dice.below(message.len() as u64) as usize),
            3 => {
                let at = dice.below(message.len() as u64) as usize;
                message[at] ^= 1 << dice.below(8);
            }
            _ => {
                let at = self.messages.len().saturating_sub(1);
                self.messages.insert(at, (self.last, message));
                self.messages.iter_mut().for_each(|(at, _)| *at = self.last);
                return;
            }
        }
        self.messages.push_back((self.last, message));
    }

    fn take(&mut self, now: Millis) -> Option<Vec<u8>> {
        self.messages.pop_front_if(|(at, _)| *at <= now).map(|(_, message)| message)
    }
}

/// One connection with the reference of what was said on it.
struct Link {
    delegate: DelegateEnd,
    manager: ManagerEnd,
    up: Pipe,
    down: Pipe,
    said_up: VecDeque<FromDelegate>,
    said_down: VecDeque<ToDelegate>,
    open: bool,
    last_beat: Millis,
}

/// What is counted, so that a run which tested nothing is noticed.
#[derive(Default, Debug)]
struct Tally {
    sessions: u64,
    garbled: u64,
    closed: u64,
    finished: u64,
    renewed: u64,
}

struct Sandbox {
    world: World,
    dice: Dice,
    weather: Weather,
    now: Millis,
    link: Option<Link>,
    redial: Millis,
    counter: u64,
    /// The delegate's program.
    held: BTreeMap<AttemptId, Phase>,
    lease_until: Millis,
    /// The Manager's program.
    tasks: u64,
    open_tasks: BTreeSet<AttemptId>,
    done: BTreeSet<AttemptId>,
    granted_until: Millis,
    tally: Tally,
}

impl Sandbox {
    fn new(seed: u64, weather: Weather) -> Self {
        Self {
            world: World::new(seed),
            dice: Dice(ChaCha20Rng::seed_from_u64(!seed)),
            weather,
            now: 0,
            link: None,
            redial: 0,
            counter: 0,
            held: BTreeMap::new(),
            lease_until: 0,
            tasks: 0,
            open_tasks: BTreeSet::new(),
            done: BTreeSet::new(),
            granted_until: 0,
            tally: Tally::default(),
        }
    }

    fn run(mut self, until: Millis) -> Tally {
        while self.now < until {
            self.step();
        }
        self.tally
    }

    fn step(&mut self) {
        self.now += 1 + self.dice.below(300) as Millis;
        let Some(mut link) = self.link.take().or_else(|| self.dial()) else { return };
        let moved = self.advance(&mut link);
        assert!(self.lease_until <= self.granted_until, "the delegate never believes in more than was granted");
        match moved {
            Ok(()) if !self.dice.one_in(self.weather.cut) => self.link = Some(link),
            ended => {
                self.tally.closed += u64::from(ended.is_err());
                self.tally.garbled += u64::from(link.up.garbled || link.down.garbled);
                self.redial = self.now + self.dice.below(5_000) as Millis;
            }
        }
    }

    fn dial(&mut self) -> Option<Link> {
        if self.now < self.redial {
            return None;
        }
        self.counter += 1;
        let mut hello = hello();
        hello.counter = self.counter;
        hello.attempts = self.held.iter().map(|(&attempt, &phase)| HeldAttempt { attempt, phase }).collect();
        let opening = Opening::Hello(Box::new(hello.clone()));
        let delegate = self.world.delegate_with(&self.world.token, opening, self.now);
        Some(Link {
            delegate,
            manager: self.world.manager_end(self.now),
            up: Pipe::default(),
            down: Pipe::default(),
            said_up: VecDeque::from([FromDelegate::Hello(Box::new(hello))]),
            said_down: VecDeque::new(),
            open: false,
            last_beat: self.now,
        })
    }

    fn advance(&mut self, link: &mut Link) -> Result<(), Close> {
        while let Some(message) = link.up.take(self.now) {
            link.manager.receive(&message, self.now)?;
            self.manager_program(link);
        }
        while let Some(message) = link.down.take(self.now) {
            link.delegate.receive(&message, self.now)?;
            self.delegate_program(link);
        }
        link.manager.on_deadline(self.now)?;
        let due = link.delegate.next_deadline().expect("no goodbye in this box");
        if link.open {
            assert!(due - link.last_beat <= LEASE / 3, "heartbeats are never further apart than a third of the lease");
        }
        if due <= self.now {
            link.delegate.on_deadline(self.now)?;
            link.last_beat = self.now;
        }
        if link.open && self.dice.one_in(10) {
            self.assign(link);
        }
        while let Some(message) = link.delegate.poll_transmit() {
            link.up.put(message, self.now, self.weather, &mut self.dice);
        }
        while let Some(message) = link.manager.poll_transmit() {
            link.down.put(message, self.now, self.weather, &mut self.dice);
        }
        Ok(())
    }

    /// Says something through an end and remembers it for comparison.
    fn up(link: &mut Link, message: FromDelegate) {
        if link.delegate.send(&message).is_ok() {
            link.said_up.push_back(message);
        }
    }

    fn down(link: &mut Link, message: ToDelegate) {
        if link.manager.send(&message).is_ok() {
            link.said_down.push_back(message);
        }
    }

    fn assign(&mut self, link: &mut Link) {
        self.tasks += 1;
        let mut id = [0; 16];
        id[..8].copy_from_slice(&self.tasks.to_be_bytes());
        let work = Work::Shell {
            script: "x".repeat(self.size(200_000)),
            interpreter: Vec::new(),
            env: Vec::new(),
            cwd: None,
            stdin: Vec::new(),
        };
        let assignment = Assignment {
            attempt: AttemptId(id),
            task: TaskId(id),
            timeout: 1_000,
            output_limit: 1 << 20,
            work,
            secrets: Vec::new(),
        };
        self.open_tasks.insert(AttemptId(id));
        Self::down(link, ToDelegate::Assign(Box::new(assignment)));
    }

    /// Mostly small; one in thirty fills several messages.
    fn size(&mut self, max: u64) -> usize {
        let max = if self.dice.one_in(30) { max } else { 500 };
        self.dice.below(max) as usize
    }

    fn manager_program(&mut self, link: &mut Link) {
        while let Some(event) = link.manager.poll_event() {
            match event {
                ManagerEvent::Proven(proof) => {
                    assert_eq!((proof.hint, proof.identity), (self.world.hint(), self.world.delegate.public));
                }
                ManagerEvent::Hello(hello) => {
                    assert_eq!(link.said_up.pop_front(), Some(FromDelegate::Hello(hello.clone())));
                    self.welcome(link, &hello.attempts);
                }
                ManagerEvent::Stopped(_) => panic!("nobody stopped"),
                ManagerEvent::Message(FromDelegate::Heartbeat { sent, .. }) => {
                    self.granted_until = self.granted_until.max(self.now + LEASE);
                    Self::down(link, ToDelegate::HeartbeatAck { sent, expires_in: None });
                }
                ManagerEvent::Message(message) => {
                    assert_eq!(link.said_up.pop_front().as_ref(), Some(&message), "in order, unaltered, no gap");
                    self.manager_hears(link, message);
                }
            }
        }
    }

    /// A welcomed delegate that does not know an attempt never got it; one that holds it keeps it.
    fn welcome(&mut self, link: &mut Link, held: &[HeldAttempt]) {
        self.tally.sessions += 1;
        self.granted_until = self.granted_until.max(self.now + LEASE);
        self.open_tasks.retain(|open| held.iter().any(|held| held.attempt == *open));
        Self::down(link, ToDelegate::Welcome(welcome()));
    }

    fn manager_hears(&mut self, link: &mut Link, message: FromDelegate) {
        if let FromDelegate::Finished(finished) = message {
            if self.done.insert(finished.attempt) {
                assert!(self.open_tasks.remove(&finished.attempt), "only what was assigned finishes");
                self.tally.finished += 1;
            }
            Self::down(link, ToDelegate::FinishedAck { attempt: finished.attempt });
        }
    }

    fn delegate_program(&mut self, link: &mut Link) {
        while let Some(event) = link.delegate.poll_event() {
            match event {
                DelegateEvent::Welcome(said) => {
                    assert_eq!(link.said_down.pop_front(), Some(ToDelegate::Welcome(said)));
                    (link.open, link.last_beat) = (true, self.now);
                    self.held.clone().into_keys().for_each(|attempt| self.work(link, attempt));
                }
                DelegateEvent::LeaseRenewed { until } => {
                    self.tally.renewed += 1;
                    self.lease_until = self.lease_until.max(until);
                }
                DelegateEvent::Message(message) => {
                    let said = std::iter::from_fn(|| link.said_down.pop_front())
                        .find(|said| !matches!(said, ToDelegate::HeartbeatAck { .. }));
                    assert_eq!(said.as_ref(), Some(&message), "in order, unaltered, no gap");
                    self.delegate_hears(link, message);
                }
                DelegateEvent::TokenExpires { .. } => panic!("nobody said so"),
                DelegateEvent::Goodbye(_) => panic!("nobody said goodbye"),
            }
        }
    }

    fn delegate_hears(&mut self, link: &mut Link, message: ToDelegate) {
        match message {
            ToDelegate::Assign(assignment) => self.work(link, assignment.attempt),
            ToDelegate::FinishedAck { attempt } => {
                self.held.remove(&attempt);
            }
            other => panic!("nobody said {other:?}"),
        }
    }

    /// Runs an attempt to its end, or reports again an end that was not acknowledged.
    fn work(&mut self, link: &mut Link, attempt: AttemptId) {
        if self.held.insert(attempt, Phase::Finished).is_none() {
            Self::up(link, FromDelegate::Started { attempt });
            let bytes = vec![b'.'; self.size(30_000)];
            Self::up(link, FromDelegate::Output { attempt, offset: 0, stream: Stream::Stdout, bytes });
        }
        link.delegate.set_running(self.held.len() as u32);
        let finished = Finished {
            attempt,
            state: TaskState::Succeeded,
            exit_code: Some(0),
            reason: String::new(),
            output_bytes: 0,
            dropped_bytes: 0,
        };
        Self::up(link, FromDelegate::Finished(finished));
    }
}

/// The seeds to run: one named by `LEGATION_SEED`, or some that never change and one that is new.
fn seeds() -> Vec<u64> {
    use std::hash::{BuildHasher, RandomState};
    match std::env::var("LEGATION_SEED").ok().and_then(|seed| seed.parse().ok()) {
        Some(seed) => vec![seed],
        None => vec![1, 2, 3, RandomState::new().hash_one("seed")],
    }
}

#[test]
fn a_calm_wire_keeps_one_session_and_its_lease() {
    for seed in seeds() {
        println!("LEGATION_SEED={seed}");
        let tally = Sandbox::new(seed, Weather { garble: 0, cut: 0, stall: 0 }).run(HOUR);
        assert_eq!((tally.sessions, tally.closed), (1, 0), "{tally:?}");
        assert!(tally.renewed > 300 && tally.finished > 1_000, "{tally:?}");
    }
}

#[test]
fn a_wire_that_stalls_and_breaks_loses_no_result() {
    for seed in seeds() {
        println!("LEGATION_SEED={seed}");
        let tally = Sandbox::new(seed, Weather { garble: 0, cut: 400, stall: 50 }).run(HOUR);
        assert!(tally.sessions > 20 && tally.finished > 500, "{tally:?}");
    }
}

#[test]
fn a_wire_that_garbles_closes_and_never_misleads() {
    for seed in seeds() {
        println!("LEGATION_SEED={seed}");
        let tally = Sandbox::new(seed, Weather { garble: 40, cut: 2_000, stall: 200 }).run(HOUR);
        assert!(tally.sessions > 20 && tally.closed > 40 && tally.finished > 100, "{tally:?}");
        assert!(tally.closed >= tally.garbled / 2, "{tally:?}");
    }
}
