//! The delegate's end of one connection.

use legation_model::{Entropy, Millis, token::Token};

use crate::{
    KeyPair,
    close::Close,
    end::{End, Events, HANDSHAKE_TIMEOUT},
    frame::{SendError, Session},
    handshake::Initiator,
    message::{Frame, FromDelegate, Goodbye, Hello, Stopped, ToDelegate, Welcome},
    preamble::Role,
    pulse::{Jitter, Pulse, millis},
};

/// The first frame of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opening {
    /// To work.
    Hello(Box<Hello>),
    /// To report that it has stopped; the Manager answers with a Goodbye.
    Stopped(Stopped),
}

/// What a delegate learns from its connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DelegateEvent {
    /// The session is open.
    Welcome(Welcome),
    /// The lease runs until this time, on the clock of `now`.
    LeaseRenewed {
        /// Counted from the sending of what the Manager answered.
        until: Millis,
    },
    /// The token expires soon: something to tell a person, nothing to act on.
    TokenExpires {
        /// Milliseconds until then, by the Manager's clock.
        left: Millis,
    },
    /// Anything else that the Manager says.
    Message(ToDelegate),
    /// The Manager's last word.
    Goodbye(Goodbye),
}

/// The delegate's end: proves itself, opens the session, keeps it alive.
pub struct DelegateEnd {
    phase: Phase,
    /// A handshake message.
    clear: Option<Vec<u8>>,
    events: Events<DelegateEvent>,
    deadline: Millis,
    /// How many attempts run, for heartbeats.
    running: u32,
}

enum Phase {
    Second(Box<(Initiator, Opening, Jitter)>),
    /// Since when, whether a Welcome is a possible answer, and the seed of the rhythm to come.
    Opening {
        session: Session,
        sent: Millis,
        works: bool,
        jitter: Jitter,
    },
    Open(Session, Pulse),
    /// After Goodbye, or after an error: nothing is heard and nothing said.
    Over,
}

impl DelegateEnd {
    /// Starts a connection; its first message can be sent at once.
    pub fn new(token: &Token, identity: &KeyPair, opening: Opening, now: Millis, entropy: &dyn Entropy) -> Self {
        let (initiator, first) = Initiator::start(token, identity, Role::Delegate, entropy);
        let mut seed = [0; 8];
        entropy.fill(&mut seed);
        let jitter = Jitter::new(u64::from_le_bytes(seed));
        Self {
            phase: Phase::Second(Box::new((initiator, opening, jitter))),
            clear: Some(first),
            events: Events::new(),
            deadline: now + HANDSHAKE_TIMEOUT,
            running: 0,
        }
    }

    /// Puts a message behind those that wait to be sent. Hello, Stopped and heartbeats are the end's own.
    ///
    /// # Errors
    /// [`SendError::NotOpen`] before Welcome, after Goodbye or for one of the end's own messages, else what
    /// does not fit.
    pub fn send(&mut self, message: &FromDelegate) -> Result<(), SendError> {
        use FromDelegate as M;
        match (&mut self.phase, message) {
            (Phase::Open(..), M::Hello(_) | M::Stopped(_) | M::Heartbeat { .. }) => Err(SendError::NotOpen),
            (Phase::Open(session, _), _) => session.send(message.encode()),
            _ => Err(SendError::NotOpen),
        }
    }

    /// Sets how many attempts run, as the next heartbeats will say.
    pub const fn set_running(&mut self, running: u32) {
        self.running = running;
    }

    fn step(&mut self, phase: Phase, message: &[u8], now: Millis) -> Result<Phase, Close> {
        match phase {
            Phase::Second(state) => self.second(*state, message, now),
            Phase::Opening { session, sent, works, jitter } => {
                self.opening(session, (sent, works, jitter), message, now)
            }
            Phase::Open(session, pulse) => self.open(session, pulse, message),
            Phase::Over => Ok(Phase::Over),
        }
    }

    fn second(
        &mut self,
        (initiator, opening, jitter): (Initiator, Opening, Jitter),
        message: &[u8],
        now: Millis,
    ) -> Result<Phase, Close> {
        let (third, transport) = initiator.finish(message)?;
        self.clear = Some(third);
        let works = matches!(opening, Opening::Hello(_));
        let frame = match opening {
            Opening::Hello(hello) => FromDelegate::Hello(hello),
            Opening::Stopped(stopped) => FromDelegate::Stopped(stopped),
        };
        let mut session = Session::new(transport);
        session.send(frame.encode()).map_err(|_| Close::TooLarge)?;
        Ok(Phase::Opening { session, sent: now, works, jitter })
    }

    fn opening(
        &mut self,
        mut session: Session,
        (sent, works, jitter): (Millis, bool, Jitter),
        message: &[u8],
        now: Millis,
    ) -> Result<Phase, Close> {
        let Some(frame) = session.receive(message)? else { return Err(Close::TooLarge) };
        match ToDelegate::decode(&frame)? {
            ToDelegate::Goodbye(goodbye) => self.leave(goodbye),
            ToDelegate::Welcome(welcome) if works => {
                let pulse = Pulse::new(&welcome, now, jitter);
                self.deadline = pulse.due();
                self.events.push(DelegateEvent::Welcome(welcome))?;
                self.events.push(DelegateEvent::LeaseRenewed { until: pulse.lease_from(sent) })?;
                Ok(Phase::Open(session, pulse))
            }
            _ => Err(Close::OutOfPlace),
        }
    }

    fn open(&mut self, mut session: Session, mut pulse: Pulse, message: &[u8]) -> Result<Phase, Close> {
        let Some(frame) = session.receive(message)? else { return Ok(Phase::Open(session, pulse)) };
        match ToDelegate::decode(&frame)? {
            ToDelegate::Welcome(_) => return Err(Close::OutOfPlace),
            ToDelegate::Goodbye(goodbye) => return self.leave(goodbye),
            ToDelegate::HeartbeatAck { sent, expires_in } => {
                if let Some(until) = pulse.answered(sent)? {
                    self.events.push(DelegateEvent::LeaseRenewed { until })?;
                }
                if let Some(left) = expires_in {
                    self.events.push(DelegateEvent::TokenExpires { left: millis(left) })?;
                }
            }
            message => self.events.push(DelegateEvent::Message(message))?,
        }
        Ok(Phase::Open(session, pulse))
    }

    fn leave(&mut self, goodbye: Goodbye) -> Result<Phase, Close> {
        self.events.push(DelegateEvent::Goodbye(goodbye))?;
        Ok(Phase::Over)
    }

    /// Sends a heartbeat before everything else that waits. One that finds no room counts as unanswered.
    fn beat(&mut self, now: Millis) -> Result<(), Close> {
        if let Phase::Open(session, pulse) = &mut self.phase {
            let heartbeat = FromDelegate::Heartbeat { sent: pulse.beat(now)?, running: self.running };
            self.deadline = pulse.due();
            let _full = session.send_first(heartbeat.encode());
        }
        Ok(())
    }
}

impl End for DelegateEnd {
    type Event = DelegateEvent;

    fn receive(&mut self, message: &[u8], now: Millis) -> Result<(), Close> {
        let phase = std::mem::replace(&mut self.phase, Phase::Over);
        self.phase = self.step(phase, message, now)?;
        Ok(())
    }

    fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        self.clear.take().or_else(|| match &mut self.phase {
            Phase::Opening { session, .. } | Phase::Open(session, _) => session.transmit(),
            _ => None,
        })
    }

    fn poll_event(&mut self) -> Option<DelegateEvent> {
        self.events.pop()
    }

    fn next_deadline(&self) -> Option<Millis> {
        (!matches!(self.phase, Phase::Over)).then_some(self.deadline)
    }

    fn on_deadline(&mut self, now: Millis) -> Result<(), Close> {
        if self.next_deadline().is_none_or(|deadline| now < deadline) {
            return Ok(());
        }
        let done = match self.phase {
            Phase::Open(..) => self.beat(now),
            _ => Err(Close::HandshakeTimeout),
        };
        done.inspect_err(|_| self.phase = Phase::Over)
    }
}
