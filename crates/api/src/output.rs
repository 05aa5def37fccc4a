//! A task's output as server-sent events.
//!
//! `GET …/output` answers `text/event-stream`. Each chunk is an event `output` whose data is an [`OutputEvent`]
//! and whose id is the [`Position`] behind it; when the task has ended and everything was sent, an event `end`
//! follows whose data is the task, and the stream closes. A client that was cut off sends the last id it saw
//! as `Last-Event-ID` and misses and repeats nothing. If a new attempt has begun meanwhile, its output comes
//! from the beginning. Comments (`:`) keep idle connections open.

use std::{fmt, str::FromStr, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use legation_model::ids::AttemptId;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use utoipa::{IntoParams, ToSchema};

/// The name of an event that carries a chunk.
pub const EVENT_OUTPUT: &str = "output";
/// The name of the last event, which carries the task.
pub const EVENT_END: &str = "end";
/// The request header that resumes a stream.
pub const LAST_EVENT_ID: &str = "last-event-id";

/// How often the Manager sends a comment on an idle stream, so that proxies and clients see that it lives.
pub const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// One chunk of output: exactly one of `text` and `base64` is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OutputEvent {
    /// Which attempt wrote it.
    #[schema(value_type = String)]
    pub attempt: AttemptId,
    /// Position of its first byte in the attempt's output, both streams counted together.
    pub offset: u64,
    /// Where it was written.
    pub stream: Stream,
    /// The bytes, if they are UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// The bytes in base64, if they are not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base64: Option<String>,
}

impl OutputEvent {
    /// The chunk that begins at `offset`.
    pub fn new(attempt: AttemptId, offset: u64, stream: Stream, bytes: Vec<u8>) -> Self {
        let (text, base64) = match String::from_utf8(bytes) {
            Ok(text) => (Some(text), None),
            Err(error) => (None, Some(STANDARD.encode(error.as_bytes()))),
        };
        Self { attempt, offset, stream, text, base64 }
    }

    /// The bytes as the task wrote them; `None` if the chunk is malformed.
    pub fn bytes(&self) -> Option<Vec<u8>> {
        match (&self.text, &self.base64) {
            (Some(text), None) => Some(text.clone().into_bytes()),
            (None, Some(base64)) => STANDARD.decode(base64).ok(),
            _ => None,
        }
    }

    /// Where the output goes on behind this chunk: the event's id. `None` if the chunk is malformed.
    pub fn end(&self) -> Option<Position> {
        let offset = self.offset.checked_add(self.bytes()?.len() as u64)?;
        Some(Position { attempt: self.attempt, offset })
    }
}

/// Which of a process's two output streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Stream {
    /// Standard output; also an HTTP response's body.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A place in a task's output, spelled `<attempt>:<offset>`: the id of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Whose output.
    pub attempt: AttemptId,
    /// How many bytes of it are known.
    pub offset: u64,
}

/// A `Last-Event-ID` that this API never gave out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a position: expected the id of an event, <attempt>:<offset>")]
pub struct PositionError;

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.attempt, self.offset)
    }
}

impl FromStr for Position {
    type Err = PositionError;

    fn from_str(text: &str) -> Result<Self, PositionError> {
        let (attempt, offset) = text.split_once(':').ok_or(PositionError)?;
        let attempt = attempt.parse().map_err(|_| PositionError)?;
        Ok(Self { attempt, offset: offset.parse().map_err(|_| PositionError)? })
    }
}

impl Serialize for Position {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Position {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// How to read output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct OutputQuery {
    /// Whether to stay until the task ends; `false` sends what there is, then `end`.
    #[serde(default = "follow")]
    #[param(default = true)]
    pub follow: bool,
}

const fn follow() -> bool {
    true
}

impl Default for OutputQuery {
    fn default() -> Self {
        Self { follow: true }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_bytes_come_back_with_their_position(bytes: Vec<u8>, offset in 0_u64..1 << 40) {
            let event = OutputEvent::new(AttemptId([3; 16]), offset, Stream::Stderr, bytes.clone());
            let text = serde_json::to_string(&event).expect("JSON");
            let back: OutputEvent = serde_json::from_str(&text).expect("an event");
            prop_assert_eq!(back.bytes(), Some(bytes.clone()));
            let end = back.end().expect("an end");
            prop_assert_eq!(end.offset, offset + bytes.len() as u64);
            prop_assert_eq!(end.to_string().parse(), Ok(end));
        }
    }

    #[test]
    fn strange_positions_are_refused() {
        for text in ["", "5", "att_x:5", ":", "att_0000000000000000000000:-1"] {
            assert_eq!(text.parse::<Position>(), Err(PositionError), "{text}");
        }
    }
}
