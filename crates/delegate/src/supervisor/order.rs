//! What a delegate and the supervisor of one attempt say to each other: length-prefixed CBOR over two pipes.

use legation_model::Millis;
use legation_wire::message::{Assignment, Finished, Stream};
use minicbor::{Decode, Encode};
use zeroize::Zeroizing;

/// The largest frame: an assignment has at most 1 MiB on the wire, and a little goes beside it.
pub const FRAME_MAX: usize = (1 << 20) + (64 << 10);
/// Bytes of the length in front of a frame.
const PREFIX: usize = 4;

/// What the delegate says. When it says nothing more, because it is gone, the attempt ends.
#[derive(Debug, Encode, Decode)]
#[cbor(flat)]
pub enum Order {
    /// Runs this attempt. Always and only the first order.
    #[n(0)]
    Begin(#[n(0)] Box<Begin>),
    /// Acts until this moment of the boot clock, in milliseconds.
    #[n(1)]
    Lease {
        /// The moment.
        #[n(0)]
        until: Millis,
    },
    /// Ends the attempt: SIGTERM now, SIGKILL after the grace.
    #[n(2)]
    Cancel {
        /// Milliseconds.
        #[n(0)]
        grace: u64,
    },
}

/// One attempt and the surroundings that the delegate's owner decides.
#[derive(Debug, Encode, Decode)]
pub struct Begin {
    /// What to run.
    #[n(0)]
    pub assignment: Assignment,
    /// The lease, on the boot clock.
    #[n(1)]
    pub lease_until: Millis,
    /// The user to run it as, if not the delegate's own.
    #[n(2)]
    pub user: Option<RunAs>,
    /// The environment that every task gets.
    #[n(3)]
    pub env: Vec<(String, String)>,
    /// A directory for this attempt alone; made and removed by the supervisor.
    #[n(4)]
    pub room: String,
    /// What it must not read although it runs as the delegate's own user. Absolute paths.
    #[n(5)]
    pub protected: Vec<String>,
    /// How many files the task may open until it asks for more; `None` for no limit. As the delegate was started,
    /// because some programs cannot do with more than 1024.
    #[n(6)]
    pub open_files: Option<u64>,
}

/// Another user for tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct RunAs {
    /// User number.
    #[n(0)]
    pub uid: u32,
    /// Group number; the only group that the task is in.
    #[n(1)]
    pub gid: u32,
}

/// What the supervisor says.
#[derive(Debug, Encode, Decode)]
#[cbor(flat)]
pub enum Report {
    /// The task's process runs.
    #[n(0)]
    Started,
    /// A piece of output, secrets hidden, in the order in which the delegate numbers it.
    #[n(1)]
    Output {
        /// Where the task wrote it.
        #[n(0)]
        stream: Stream,
        /// The piece.
        #[n(1)]
        #[cbor(with = "minicbor::bytes")]
        bytes: Vec<u8>,
    },
    /// The attempt ended and nothing of it runs any more. Always the last report.
    #[n(2)]
    Ended(#[n(0)] Finished),
}

/// One message ready for the pipe.
pub fn frame<T: Encode<()>>(message: &T) -> Zeroizing<Vec<u8>> {
    let mut bytes = Zeroizing::new(vec![0; PREFIX]);
    minicbor::encode(message, &mut *bytes).expect("writing to memory does not fail");
    let length = (bytes.len() - PREFIX) as u32;
    bytes[..PREFIX].copy_from_slice(&length.to_le_bytes());
    bytes
}

/// Bytes from the pipe on their way to becoming messages.
#[derive(Debug, Default)]
pub struct Frames {
    bytes: Zeroizing<Vec<u8>>,
}

/// A frame that the other side of the pipe cannot have written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the pipe between delegate and supervisor carries something else")]
pub struct BadFrame;

impl Frames {
    /// Takes what was read.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole message, if there is one.
    ///
    /// # Errors
    /// [`BadFrame`] for a length above [`FRAME_MAX`] or bytes that are no message.
    pub fn take<T: for<'b> Decode<'b, ()>>(&mut self) -> Result<Option<T>, BadFrame> {
        let Some(prefix) = self.bytes.first_chunk::<PREFIX>() else { return Ok(None) };
        let end = PREFIX + u32::from_le_bytes(*prefix) as usize;
        if end > FRAME_MAX {
            return Err(BadFrame);
        }
        let Some(body) = self.bytes.get(PREFIX..end) else { return Ok(None) };
        let message = minicbor::decode(body).map_err(|_| BadFrame)?;
        self.bytes.drain(..end);
        Ok(Some(message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_out_whole_however_the_pipe_cuts_them() {
        let mut bytes = frame(&Order::Lease { until: 7 }).to_vec();
        bytes.extend_from_slice(&frame(&Order::Cancel { grace: 5 }));
        let mut frames = Frames::default();
        let mut orders = Vec::new();
        for byte in bytes {
            frames.push(&[byte]);
            orders.extend(frames.take::<Order>().expect("good frames"));
        }
        assert!(matches!(orders[..], [Order::Lease { until: 7 }, Order::Cancel { grace: 5 }]));
    }

    #[test]
    fn a_length_beyond_the_bound_is_refused_before_it_is_awaited() {
        let mut frames = Frames::default();
        frames.push(&u32::MAX.to_le_bytes());
        assert_eq!(frames.take::<Order>().err(), Some(BadFrame));
    }
}
