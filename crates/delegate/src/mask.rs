//! Hides a task's secrets in its output, also where a secret is cut by the border of two reads.
//!
//! Every secret is matched byte by byte with the algorithm of Knuth, Morris and Pratt, so that the work is
//! linear in the output whatever the secrets look like. Bytes that may be the beginning of a secret wait
//! until it is certain that they are not, or until the stream ends.

use zeroize::Zeroizing;

/// What stands in the output for a secret, or for several that touch.
pub const HIDDEN: &[u8] = b"***";

/// The filter of one stream.
#[derive(Debug, Default)]
pub struct Mask {
    patterns: Vec<Pattern>,
    /// Bytes not passed on yet, each with whether it belongs to a secret.
    waiting: std::collections::VecDeque<(u8, bool)>,
    /// Whether the last byte that left was part of a secret, so that a run is marked once.
    hiding: bool,
}

struct Pattern {
    secret: Zeroizing<Vec<u8>>,
    /// For each length matched, the longest shorter one that is still matched after a mismatch.
    fallback: Vec<usize>,
    matched: usize,
}

impl Mask {
    /// A filter for these secrets; empty ones are left out.
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a str>) -> Self {
        let patterns = secrets.into_iter().filter(|secret| !secret.is_empty()).map(Pattern::new).collect();
        Self { patterns, ..Self::default() }
    }

    /// Takes the next bytes of the stream and appends what is certain to `out`.
    pub fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        if self.patterns.is_empty() {
            return out.extend_from_slice(bytes);
        }
        for byte in bytes {
            self.step(*byte);
            let undecided = self.patterns.iter().map(|pattern| pattern.matched).max().unwrap_or(0);
            self.release(undecided, out);
        }
    }

    /// Appends what waited: the stream has ended, so nothing of it can become a secret any more.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        self.release(0, out);
    }

    fn step(&mut self, byte: u8) {
        self.waiting.push_back((byte, false));
        let mut hidden = 0;
        for pattern in &mut self.patterns {
            if pattern.completes_with(byte) {
                hidden = hidden.max(pattern.secret.len());
            }
        }
        for (_, secret) in self.waiting.iter_mut().rev().take(hidden) {
            *secret = true;
        }
    }

    fn release(&mut self, keep: usize, out: &mut Vec<u8>) {
        while self.waiting.len() > keep {
            let Some((byte, secret)) = self.waiting.pop_front() else { return };
            match (secret, self.hiding) {
                (true, false) => out.extend_from_slice(HIDDEN),
                (true, true) => {}
                (false, _) => out.push(byte),
            }
            self.hiding = secret;
        }
    }
}

impl Pattern {
    fn new(secret: &str) -> Self {
        let secret = Zeroizing::new(secret.as_bytes().to_vec());
        let mut fallback = vec![0; secret.len() + 1];
        let mut length = 0;
        for at in 1..secret.len() {
            while length > 0 && secret[at] != secret[length] {
                length = fallback[length];
            }
            length += usize::from(secret[at] == secret[length]);
            fallback[at + 1] = length;
        }
        Self { secret, fallback, matched: 0 }
    }

    /// Advances by one byte; true when the secret is complete. What is matched afterwards is never the whole
    /// secret, so a completed one does not wait for more.
    fn completes_with(&mut self, byte: u8) -> bool {
        while self.matched > 0 && self.secret[self.matched] != byte {
            self.matched = self.fallback[self.matched];
        }
        self.matched += usize::from(self.secret[self.matched] == byte);
        let complete = self.matched == self.secret.len();
        if complete {
            self.matched = self.fallback[self.matched];
        }
        complete
    }
}

impl std::fmt::Debug for Pattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pattern(…)")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn masked(secrets: &[&str], parts: &[&[u8]]) -> Vec<u8> {
        let mut mask = Mask::new(secrets.iter().copied());
        let mut out = Vec::new();
        for part in parts {
            mask.push(part, &mut out);
        }
        mask.finish(&mut out);
        out
    }

    /// The plain way, on the whole text at once: marks every occurrence, then writes each run once.
    fn reference(secrets: &[&str], text: &[u8]) -> Vec<u8> {
        let mut hidden = vec![false; text.len()];
        for secret in secrets.iter().filter(|secret| !secret.is_empty()) {
            for (at, window) in text.windows(secret.len()).enumerate() {
                if window == secret.as_bytes() {
                    hidden[at..at + secret.len()].fill(true);
                }
            }
        }
        let mut out = Vec::new();
        for (at, byte) in text.iter().enumerate() {
            match hidden[at] {
                false => out.push(*byte),
                true if at == 0 || !hidden[at - 1] => out.extend_from_slice(HIDDEN),
                true => {}
            }
        }
        out
    }

    #[test]
    fn a_secret_is_hidden_and_its_neighbours_are_not() {
        assert_eq!(masked(&["hunter2"], &[b"a hun", b"ter2 b"]), b"a *** b");
        assert_eq!(masked(&["hunter2"], &[b"hunter"]), b"hunter");
        assert_eq!(masked(&["aab"], &[b"a", b"a", b"a", b"b"]), b"a***");
        assert_eq!(masked(&["", "x"], &[b"yxy"]), b"y***y");
    }

    #[test]
    fn what_cannot_become_a_secret_does_not_wait() {
        let mut mask = Mask::new(["password"]);
        let mut out = Vec::new();
        mask.push(b"progress 10%\npass", &mut out);
        assert_eq!(out, b"progress 10%\n");
    }

    proptest! {
        #[test]
        fn wherever_the_stream_is_cut_the_output_is_that_of_the_whole(
            secrets in prop::collection::vec("[ab]{0,6}", 0..4),
            parts in prop::collection::vec("[abc]{0,9}", 0..12),
        ) {
            let secrets: Vec<&str> = secrets.iter().map(String::as_str).collect();
            let pieces: Vec<&[u8]> = parts.iter().map(String::as_bytes).collect();
            prop_assert_eq!(masked(&secrets, &pieces), reference(&secrets, parts.concat().as_bytes()));
        }
    }
}
