//! The supervisor's ends of the two pipes to its delegate, neither of which it ever blocks on.

use std::collections::VecDeque;

use rustix::{
    io::{Errno, read, write},
    stdio::{stdin, stdout},
};

use super::order::{BadFrame, Frames, Order, Report, frame};

/// Reports that may wait for a delegate that does not read, in bytes; a task that writes more then waits
/// itself. Larger than a pipe, so that a busy delegate does not slow a task down.
const OUTBOX_MAX: usize = 256 << 10;
/// Bytes read at once.
const READ: usize = 16 << 10;

/// The delegate is gone, or something else is at the other end; either way the attempt is abandoned.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gone;

impl From<BadFrame> for Gone {
    fn from(_: BadFrame) -> Self {
        Self
    }
}

/// Orders from standard input.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    frames: Frames,
}

impl Inbox {
    /// Reads once and returns the next whole order, if there is one.
    pub(super) fn receive(&mut self) -> Result<Option<Order>, Gone> {
        if let Some(order) = self.frames.take()? {
            return Ok(Some(order));
        }
        let mut buffer = [0; READ];
        match read(stdin(), &mut buffer) {
            Ok(0) => Err(Gone),
            Ok(count) => {
                self.frames.push(&buffer[..count]);
                Ok(self.frames.take()?)
            }
            Err(Errno::AGAIN | Errno::INTR) => Ok(None),
            Err(_) => Err(Gone),
        }
    }
}

/// Reports on their way to standard output.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    unsent: VecDeque<u8>,
}

impl Outbox {
    /// Queues a report.
    pub(super) fn push(&mut self, report: &Report) {
        self.unsent.extend(frame(report).iter());
    }

    /// Whether output has to wait.
    pub(super) fn is_full(&self) -> bool {
        self.unsent.len() >= OUTBOX_MAX
    }

    /// Whether everything was handed over.
    pub(super) fn is_empty(&self) -> bool {
        self.unsent.is_empty()
    }

    /// Hands over what the pipe takes.
    pub(super) fn flush(&mut self) -> Result<(), Gone> {
        while !self.unsent.is_empty() {
            match write(stdout(), self.unsent.as_slices().0) {
                Ok(count) => drop(self.unsent.drain(..count)),
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(_) => return Err(Gone),
            }
        }
        Ok(())
    }
}
