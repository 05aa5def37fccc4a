//! Frames cut into sealed messages, and put together again, within bounds.

use std::collections::VecDeque;

use zeroize::Zeroizing;

use crate::{
    cipher::{MESSAGE_MAX, TAG_LEN, Transport},
    close::Close,
};

/// The most bytes of one frame. It holds the largest work with the largest secrets.
pub const FRAME_MAX: usize = 1 << 20;
/// The most bytes of a frame in one message: what a Noise message holds, less tag and flag.
pub const PART_MAX: usize = MESSAGE_MAX - TAG_LEN - 1;
/// Frames that may wait to be sent.
pub const SEND_FRAMES_MAX: usize = 1024;
/// Bytes of frames that may wait to be sent: one frame on its way and one behind it.
pub const SEND_BYTES_MAX: usize = 2 * FRAME_MAX;

/// The flag of a frame's last part.
const LAST: u8 = 0;
/// The flag of a part that another one follows.
const MORE: u8 = 1;

/// Why a message was not taken for sending.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// Too much is waiting already; try again when some has gone out, or close.
    #[error("too many messages wait to be sent: the peer does not read fast enough")]
    Full,
    /// Larger than a frame may be.
    #[error("the message is larger than a frame may be (1 MiB)")]
    TooLarge,
    /// Before the session is open, after its Goodbye, or a message that only the end itself sends.
    #[error("the session is not open for this message")]
    NotOpen,
}

/// An established session: sealed both ways, with what waits to go out and what has come in half.
pub(crate) struct Session {
    transport: Transport,
    waiting: VecDeque<Zeroizing<Vec<u8>>>,
    waiting_bytes: usize,
    /// How much of the first waiting frame has gone out.
    sent: usize,
    /// The parts so far of a frame that is coming in.
    partial: Zeroizing<Vec<u8>>,
}

impl Session {
    pub(crate) fn new(transport: Transport) -> Self {
        let (waiting, partial) = (VecDeque::new(), Zeroizing::new(Vec::new()));
        Self { transport, waiting, waiting_bytes: 0, sent: 0, partial }
    }

    /// Puts a frame behind those that wait.
    pub(crate) fn send(&mut self, frame: Zeroizing<Vec<u8>>) -> Result<(), SendError> {
        self.put(self.waiting.len(), frame)
    }

    /// Puts a frame before those that wait, behind one that is half sent.
    pub(crate) fn send_first(&mut self, frame: Zeroizing<Vec<u8>>) -> Result<(), SendError> {
        self.put(usize::from(self.sent > 0), frame)
    }

    /// Drops everything that waits and puts this frame in its place. Impossible while a frame is half sent.
    pub(crate) fn send_last(&mut self, frame: Zeroizing<Vec<u8>>) -> Result<(), SendError> {
        if self.sent > 0 {
            return Err(SendError::Full);
        }
        (self.waiting, self.waiting_bytes) = (VecDeque::new(), 0);
        self.send(frame)
    }

    fn put(&mut self, at: usize, frame: Zeroizing<Vec<u8>>) -> Result<(), SendError> {
        if frame.len() > FRAME_MAX {
            return Err(SendError::TooLarge);
        }
        if self.waiting.len() >= SEND_FRAMES_MAX || self.waiting_bytes + frame.len() > SEND_BYTES_MAX {
            return Err(SendError::Full);
        }
        self.waiting_bytes += frame.len();
        self.waiting.insert(at, frame);
        Ok(())
    }

    /// Seals the next part. Sealing happens only now, so that what waits can still be dropped: the counter
    /// of the other side allows no gap.
    pub(crate) fn transmit(&mut self) -> Option<Vec<u8>> {
        let frame = self.waiting.front()?;
        let rest = &frame[self.sent..];
        let (flag, length) = if rest.len() > PART_MAX { (MORE, PART_MAX) } else { (LAST, rest.len()) };
        let mut plain = Zeroizing::new(Vec::with_capacity(1 + length));
        plain.push(flag);
        plain.extend_from_slice(&rest[..length]);
        self.sent += length;
        if flag == LAST {
            self.drop_front();
        }
        Some(self.transport.seal(&plain))
    }

    fn drop_front(&mut self) {
        self.sent = 0;
        if let Some(frame) = self.waiting.pop_front() {
            self.waiting_bytes -= frame.len();
        }
        if self.waiting.is_empty() {
            self.waiting = VecDeque::new();
        }
    }

    /// Opens the next message; answers a frame when it was the last part of one.
    pub(crate) fn receive(&mut self, message: &[u8]) -> Result<Option<Zeroizing<Vec<u8>>>, Close> {
        let mut plain = self.transport.open(message)?;
        match plain.first() {
            Some(&LAST) if self.partial.is_empty() => {
                plain.remove(0);
                Ok(Some(plain))
            }
            Some(&LAST) => {
                self.append(&plain[1..])?;
                Ok(Some(std::mem::take(&mut self.partial)))
            }
            Some(&MORE) if plain.len() == 1 + PART_MAX => self.append(&plain[1..]).map(|()| None),
            _ => Err(Close::BadFrame),
        }
    }

    fn append(&mut self, part: &[u8]) -> Result<(), Close> {
        if self.partial.len() + part.len() > FRAME_MAX {
            return Err(Close::TooLarge);
        }
        self.partial.extend_from_slice(part);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use legation_model::Secret;
    use snow::Builder;

    use super::*;
    use crate::{KeyPair, cipher::Primitives, handshake::NOISE_NAME};

    /// Two sessions that understand each other.
    fn pair() -> (Session, Session) {
        let keys = [1, 2].map(|fill| KeyPair::from_private(Secret::new([fill; 32])));
        let builder = |own: usize| {
            let primitives = Primitives::new(&keys[own], Secret::new([9; 32]));
            let builder = Builder::with_resolver(NOISE_NAME.parse().expect("a name"), Box::new(primitives));
            builder.local_private_key(keys[own].private.expose()).and_then(|b| b.psk(3, &[7; 32])).expect("once")
        };
        let mut one = builder(0).remote_public_key(&keys[1].public).and_then(Builder::build_initiator).expect("keys");
        let mut two = builder(1).build_responder().expect("keys");
        let mut wire = [0; 128];
        for turn in 0..3 {
            let (from, to) = if turn == 1 { (&mut two, &mut one) } else { (&mut one, &mut two) };
            let length = from.write_message(&[], &mut wire).expect("our turn");
            to.read_message(&wire[..length], &mut []).expect("their turn");
        }
        let [one, two] = [one, two].map(|noise| Transport::new(noise.into_transport_mode().expect("done")));
        (Session::new(one), Session::new(two))
    }

    fn frame(length: usize) -> Zeroizing<Vec<u8>> {
        Zeroizing::new((0..length).map(|at| (at % 251) as u8).collect())
    }

    #[test]
    fn frames_of_any_legal_length_arrive_whole() {
        let (mut from, mut to) = pair();
        for length in [1, 2, PART_MAX - 1, PART_MAX, PART_MAX + 1, 2 * PART_MAX, 2 * PART_MAX + 1, FRAME_MAX] {
            from.send(frame(length)).expect("room");
            let mut messages = 0;
            let arrived = std::iter::from_fn(|| from.transmit()).find_map(|message| {
                messages += 1;
                assert!(message.len() <= MESSAGE_MAX);
                to.receive(&message).expect("in order")
            });
            assert!(arrived == Some(frame(length)), "{length}");
            assert_eq!(messages, length.div_ceil(PART_MAX));
        }
    }

    #[test]
    fn what_waits_is_bounded_in_count_and_bytes() {
        let (mut from, _) = pair();
        assert_eq!(from.send(frame(FRAME_MAX + 1)), Err(SendError::TooLarge));
        from.send(frame(FRAME_MAX)).expect("room");
        from.send(frame(FRAME_MAX)).expect("room");
        assert_eq!(from.send(frame(1)), Err(SendError::Full));
        while from.transmit().is_some() {}
        for _ in 0..SEND_FRAMES_MAX {
            from.send(frame(1)).expect("room again");
        }
        assert_eq!(from.send(frame(1)), Err(SendError::Full));
    }

    #[test]
    fn an_urgent_frame_never_lands_inside_another() {
        let (mut from, mut to) = pair();
        from.send(frame(PART_MAX + 5)).expect("room");
        to.receive(&from.transmit().expect("the first part")).expect("half");
        from.send(frame(9)).expect("room");
        from.send_first(frame(3)).expect("room");
        let lengths: Vec<usize> = std::iter::from_fn(|| from.transmit())
            .filter_map(|message| to.receive(&message).expect("in order"))
            .map(|frame| frame.len())
            .collect();
        assert_eq!(lengths, [PART_MAX + 5, 3, 9]);
    }

    #[test]
    fn a_last_frame_replaces_what_waits_but_not_half_a_frame() {
        let (mut from, mut to) = pair();
        from.send(frame(9)).expect("room");
        from.send_last(frame(3)).expect("nothing is half sent");
        assert_eq!(to.receive(&from.transmit().expect("a message")), Ok(Some(frame(3))));
        assert_eq!(from.transmit(), None);
        from.send(frame(PART_MAX + 5)).expect("room");
        from.transmit().expect("the first part");
        assert_eq!(from.send_last(frame(3)), Err(SendError::Full));
    }
}
