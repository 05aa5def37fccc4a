//! What is kept of a task's output: both streams in one order, secrets hidden, up to a limit.

use legation_wire::message::{OUTPUT_CHUNK_MAX, SecretVar, Stream};

use crate::mask::Mask;

/// A piece of output that is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Where the task wrote it.
    pub stream: Stream,
    /// The piece, 1 to [`OUTPUT_CHUNK_MAX`] bytes.
    pub bytes: Vec<u8>,
}

/// Masks and limits the output of one attempt.
#[derive(Debug)]
pub struct Output {
    limit: u64,
    kept: u64,
    dropped: u64,
    marked: bool,
    masks: [Mask; 2],
}

impl Output {
    /// The output of an attempt, nothing of it seen.
    pub fn new(limit: u64, secrets: &[SecretVar]) -> Self {
        let mask = || Mask::new(secrets.iter().map(|secret| secret.value.expose()));
        Self { limit, kept: 0, dropped: 0, marked: false, masks: [mask(), mask()] }
    }

    /// Takes what the task wrote and returns what is kept of it, possibly nothing yet.
    pub fn push(&mut self, stream: Stream, bytes: &[u8]) -> Vec<Piece> {
        if self.marked {
            self.dropped += bytes.len() as u64;
            return Vec::new();
        }
        let mut certain = Vec::with_capacity(bytes.len());
        self.masks[stream as usize].push(bytes, &mut certain);
        self.keep(stream, certain)
    }

    /// Returns what was still held back: both streams have ended.
    pub fn finish(&mut self) -> Vec<Piece> {
        let mut pieces = Vec::new();
        for stream in [Stream::Stdout, Stream::Stderr] {
            let mut rest = Vec::new();
            self.masks[stream as usize].finish(&mut rest);
            pieces.extend(self.keep(stream, rest));
        }
        pieces
    }

    /// Keeps no more from here on, for a reason that a person reads in the output itself.
    pub fn cut(&mut self, stream: Stream, reason: &str) -> Vec<Piece> {
        self.marked = true;
        self.split(stream, format!("\n[legation: {reason}; what follows was dropped]\n").as_bytes())
    }

    /// Bytes that were kept, the visible mark included.
    pub const fn kept(&self) -> u64 {
        self.kept
    }

    /// Bytes above the limit.
    pub const fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Whether nothing more is kept.
    pub const fn is_full(&self) -> bool {
        self.marked
    }

    fn keep(&mut self, stream: Stream, bytes: Vec<u8>) -> Vec<Piece> {
        let room = if self.marked { 0 } else { self.limit.saturating_sub(self.kept) };
        let keeps = bytes.len().min(usize::try_from(room).unwrap_or(usize::MAX));
        let mut pieces = self.split(stream, &bytes[..keeps]);
        if keeps < bytes.len() {
            self.dropped += (bytes.len() - keeps) as u64;
            if !self.marked {
                pieces.extend(self.cut(stream, &format!("the output limit of {} bytes is reached", self.limit)));
            }
        }
        pieces
    }

    fn split(&mut self, stream: Stream, bytes: &[u8]) -> Vec<Piece> {
        self.kept += bytes.len() as u64;
        bytes.chunks(OUTPUT_CHUNK_MAX).map(|part| Piece { stream, bytes: part.to_vec() }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn below_the_limit_everything_is_kept_in_pieces_that_fit() {
        let mut output = Output::new(1 << 20, &[]);
        let mut pieces = output.push(Stream::Stdout, &[b'a'; 70_000]);
        pieces.extend(output.push(Stream::Stderr, b"err"));
        assert!(pieces.iter().all(|piece| (1..=OUTPUT_CHUNK_MAX).contains(&piece.bytes.len())));
        let sum: usize = pieces.iter().map(|piece| piece.bytes.len()).sum();
        assert_eq!((sum, output.kept(), output.dropped()), (70_003, 70_003, 0));
    }

    #[test]
    fn above_the_limit_there_is_one_mark_and_a_count() {
        let mut output = Output::new(4, &[]);
        let pieces = output.push(Stream::Stdout, b"abcdef");
        assert_eq!(pieces[0].bytes, b"abcd");
        assert!(String::from_utf8_lossy(&pieces[1].bytes).contains("limit of 4 bytes"));
        assert!(output.push(Stream::Stderr, b"gh").is_empty() && output.finish().is_empty());
        assert_eq!(output.dropped(), 4);
        assert_eq!(output.kept(), 4 + pieces[1].bytes.len() as u64);
    }
}
