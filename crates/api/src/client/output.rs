//! A task's output as a stream that survives cut connections.

use legation_model::ids::{AttemptId, TaskId};

use super::{Client, ClientError, events::Events, sse::Event};
use crate::{
    output::{EVENT_END, EVENT_OUTPUT, OutputEvent, OutputQuery, Position, Stream},
    routes,
    tasks::Task,
};

/// What a stream of output gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OutputItem {
    /// Bytes that the task wrote.
    Chunk(Chunk),
    /// All that is known was sent; with `follow` the task has ended. Nothing comes after it.
    End(Box<Task>),
}

/// Bytes that a task wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Which attempt wrote them.
    pub attempt: AttemptId,
    /// Position of the first byte in the attempt's output.
    pub offset: u64,
    /// Where they were written.
    pub stream: Stream,
    /// The bytes themselves, not made safe for a terminal.
    pub bytes: Vec<u8>,
}

/// A task's output, in order, without gaps or repetitions, across reconnects.
#[derive(Debug)]
pub struct OutputStream {
    events: Events,
    position: Option<Position>,
    ended: bool,
}

impl OutputStream {
    pub(super) fn new(client: Client, task: TaskId, query: OutputQuery) -> Self {
        let path = routes::fill(routes::TASK_OUTPUT, &task);
        let events = Events::new(client, path, vec![("follow", query.follow.to_string())]);
        Self { events, position: None, ended: false }
    }

    /// The next item; `None` after the end. Safe to drop and call again.
    ///
    /// # Errors
    /// [`ClientError::Problem`] as the Manager says; anything else once trying again has not helped.
    pub async fn next(&mut self) -> Result<Option<OutputItem>, ClientError> {
        while !self.ended {
            let event = self.events.next().await?;
            if let Some(item) = self.take(&event)? {
                return Ok(Some(item));
            }
        }
        Ok(None)
    }

    fn take(&mut self, event: &Event) -> Result<Option<OutputItem>, ClientError> {
        let strange = |what: &str| ClientError::unexpected(format!("the output stream has {what}"));
        match event.name.as_str() {
            EVENT_OUTPUT => {
                let output: OutputEvent =
                    serde_json::from_str(&event.data).map_err(|_| strange("an event that is no output"))?;
                let end = output.end().ok_or_else(|| strange("a chunk without bytes"))?;
                let chunk = self.fresh(&output).map(OutputItem::Chunk);
                if chunk.is_some() {
                    self.position = Some(end);
                    self.events.resume_behind(end.to_string());
                }
                Ok(chunk)
            }
            EVENT_END => {
                self.ended = true;
                let task = serde_json::from_str(&event.data).map_err(|_| strange("an end without the task"))?;
                Ok(Some(OutputItem::End(task)))
            }
            _ => Ok(None),
        }
    }

    /// The part of a chunk that was not given out before.
    fn fresh(&self, output: &OutputEvent) -> Option<Chunk> {
        let mut bytes = output.bytes()?;
        let known = match self.position {
            Some(position) if position.attempt == output.attempt => position.offset.saturating_sub(output.offset),
            _ => 0,
        };
        let known = usize::try_from(known).unwrap_or(usize::MAX).min(bytes.len());
        bytes.drain(..known);
        let offset = output.offset + known as u64;
        (!bytes.is_empty()).then_some(Chunk { attempt: output.attempt, offset, stream: output.stream, bytes })
    }
}
