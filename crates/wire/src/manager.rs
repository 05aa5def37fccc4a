//! The Manager's end of one connection.

use std::sync::Arc;

use legation_model::{Entropy, Millis, Secret};

use crate::{
    KeyPair,
    close::Close,
    end::{End, Events, HANDSHAKE_TIMEOUT},
    frame::{SendError, Session},
    handshake::{Proof, Responder, TokenKeys, draw},
    message::{Frame, FromDelegate, Goodbye, Hello, Stopped, ToDelegate},
};

/// What the Manager learns from a connection, in this order: `Proven`, then `Hello` or `Stopped`, then any
/// number of `Message`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ManagerEvent {
    /// The peer holds a token's secret and a static key.
    Proven(Proof),
    /// It wants to work.
    Hello(Box<Hello>),
    /// It reports that it has stopped; nothing else will come.
    Stopped(Stopped),
    /// Anything after Hello, never another Hello or Stopped.
    Message(FromDelegate),
}

/// The Manager's end: proves the peer, then moves messages. It never answers a heartbeat by itself, because
/// renewing a lease is a decision about the token.
pub struct ManagerEnd {
    phase: Phase,
    /// A message that is not sealed by a session: the second of the handshake, or a refusal.
    clear: Option<Vec<u8>>,
    events: Events<ManagerEvent>,
    deadline: Option<Millis>,
}

enum Phase {
    First(Box<Waiting>),
    Third(Box<(Responder, Arc<dyn TokenKeys>)>),
    Opening(Session),
    Open(Session),
    /// After Stopped or Goodbye: a Goodbye may still have to go out, and nothing is heard any more.
    Leaving(Session),
    Over,
}

struct Waiting {
    keys: Arc<[KeyPair]>,
    lookup: Arc<dyn TokenKeys>,
    ephemeral: Secret<32>,
    decoy: Secret<32>,
}

impl ManagerEnd {
    /// Waits for a delegate's first message. `keys` are the Manager's own, `lookup` finds tokens' keys.
    pub fn new(keys: Arc<[KeyPair]>, lookup: Arc<dyn TokenKeys>, now: Millis, entropy: &dyn Entropy) -> Self {
        let waiting = Waiting { keys, lookup, ephemeral: draw(entropy), decoy: draw(entropy) };
        Self {
            phase: Phase::First(Box::new(waiting)),
            clear: None,
            events: Events::new(),
            deadline: Some(now + HANDSHAKE_TIMEOUT),
        }
    }

    /// Puts a message behind those that wait to be sent. A Goodbye belongs into [`ManagerEnd::goodbye`].
    ///
    /// # Errors
    /// [`SendError::NotOpen`] before the first frame and after Goodbye, else what does not fit.
    pub fn send(&mut self, message: &ToDelegate) -> Result<(), SendError> {
        match &mut self.phase {
            Phase::Open(session) if !matches!(message, ToDelegate::Goodbye(_)) => session.send(message.encode()),
            _ => Err(SendError::NotOpen),
        }
    }

    /// Says goodbye instead of everything that still waits to be sent, and hears nothing any more.
    ///
    /// # Errors
    /// [`SendError::NotOpen`] before the peer is proven, or [`SendError::Full`] while a frame is half sent:
    /// then nothing more goes out, the link can only be cut, and the delegate learns the reason at its next
    /// connection.
    pub fn goodbye(&mut self, goodbye: Goodbye) -> Result<(), SendError> {
        self.deadline = None;
        match std::mem::replace(&mut self.phase, Phase::Over) {
            Phase::Opening(mut session) | Phase::Open(mut session) | Phase::Leaving(mut session) => {
                session.send_last(ToDelegate::Goodbye(goodbye).encode())?;
                self.phase = Phase::Leaving(session);
                Ok(())
            }
            _ => Err(SendError::NotOpen),
        }
    }

    fn step(&mut self, phase: Phase, message: &[u8]) -> Result<Phase, Close> {
        match phase {
            Phase::First(waiting) => self.first(*waiting, message),
            Phase::Third(responder) => self.third(*responder, message),
            Phase::Opening(session) => self.opening(session, message),
            Phase::Open(session) => self.open(session, message),
            Phase::Leaving(session) => Ok(Phase::Leaving(session)),
            Phase::Over => Err(Close::OutOfPlace),
        }
    }

    fn first(&mut self, waiting: Waiting, message: &[u8]) -> Result<Phase, Close> {
        let Waiting { keys, lookup, ephemeral, decoy } = waiting;
        let answer = Responder::answer(&keys, message, ephemeral, decoy)?;
        self.clear = Some(answer.second);
        answer.next.map(|responder| Phase::Third(Box::new((responder, lookup))))
    }

    fn third(&mut self, (responder, lookup): (Responder, Arc<dyn TokenKeys>), message: &[u8]) -> Result<Phase, Close> {
        let (proof, transport) = responder.prove(message, &*lookup)?;
        self.events.push(ManagerEvent::Proven(proof))?;
        Ok(Phase::Opening(Session::new(transport)))
    }

    /// The first frame decides what kind of session it is. It must fit one message: until it is read,
    /// nothing may be kept for the peer.
    fn opening(&mut self, mut session: Session, message: &[u8]) -> Result<Phase, Close> {
        let Some(frame) = session.receive(message)? else { return Err(Close::TooLarge) };
        let event = match FromDelegate::decode(&frame)? {
            FromDelegate::Hello(hello) => ManagerEvent::Hello(hello),
            FromDelegate::Stopped(stopped) => ManagerEvent::Stopped(stopped),
            _ => return Err(Close::OutOfPlace),
        };
        self.deadline = None;
        let works = matches!(event, ManagerEvent::Hello(_));
        self.events.push(event)?;
        Ok(if works { Phase::Open(session) } else { Phase::Leaving(session) })
    }

    fn open(&mut self, mut session: Session, message: &[u8]) -> Result<Phase, Close> {
        if let Some(frame) = session.receive(message)? {
            match FromDelegate::decode(&frame)? {
                FromDelegate::Hello(_) | FromDelegate::Stopped(_) => return Err(Close::OutOfPlace),
                message => self.events.push(ManagerEvent::Message(message))?,
            }
        }
        Ok(Phase::Open(session))
    }
}

impl End for ManagerEnd {
    type Event = ManagerEvent;

    fn receive(&mut self, message: &[u8], _: Millis) -> Result<(), Close> {
        let phase = std::mem::replace(&mut self.phase, Phase::Over);
        self.phase = self.step(phase, message).inspect_err(|_| self.deadline = None)?;
        Ok(())
    }

    fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        self.clear.take().or_else(|| match &mut self.phase {
            Phase::Opening(session) | Phase::Open(session) | Phase::Leaving(session) => session.transmit(),
            _ => None,
        })
    }

    fn poll_event(&mut self) -> Option<ManagerEvent> {
        self.events.pop()
    }

    fn next_deadline(&self) -> Option<Millis> {
        self.deadline
    }

    fn on_deadline(&mut self, now: Millis) -> Result<(), Close> {
        if self.deadline.is_none_or(|deadline| now < deadline) {
            return Ok(());
        }
        (self.phase, self.deadline) = (Phase::Over, None);
        Err(Close::HandshakeTimeout)
    }
}
