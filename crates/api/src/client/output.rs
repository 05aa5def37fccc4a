//! A task's output as a stream that survives cut connections.

use std::{collections::VecDeque, time::Duration};

use legation_model::ids::{AttemptId, TaskId};
use reqwest::{Method, Response, header::ACCEPT};

use super::{
    Client, ClientError, STREAM_SILENCE,
    sse::{Event, Parser},
};
use crate::{
    output::{EVENT_END, EVENT_OUTPUT, LAST_EVENT_ID, OutputEvent, OutputQuery, Position, Stream},
    routes,
    tasks::Task,
};

/// Tries in a row without a byte of progress before the stream gives up: about half a minute, so that a
/// Manager's restart goes unnoticed and a Manager that is gone does not.
const TRIES_MAX: u32 = 10;
/// The first pause before trying again; it doubles up to [`PAUSE_MAX`].
const PAUSE_FIRST: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);

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
    client: Client,
    task: TaskId,
    query: OutputQuery,
    position: Option<Position>,
    link: Option<(Response, Parser)>,
    ready: VecDeque<Event>,
    failures: u32,
    ended: bool,
}

impl OutputStream {
    pub(super) const fn new(client: Client, task: TaskId, query: OutputQuery) -> Self {
        let ready = VecDeque::new();
        Self { client, task, query, position: None, link: None, ready, failures: 0, ended: false }
    }

    /// The next item; `None` after the end. Safe to drop and call again.
    ///
    /// # Errors
    /// [`ClientError::Problem`] as the Manager says; anything else once trying again has not helped.
    pub async fn next(&mut self) -> Result<Option<OutputItem>, ClientError> {
        while !self.ended {
            while let Some(event) = self.ready.pop_front() {
                if let Some(item) = self.take(&event)? {
                    return Ok(Some(item));
                }
            }
            if let Err(error) = self.read_more().await {
                self.link = None;
                self.pause(error).await?;
            }
        }
        Ok(None)
    }

    async fn read_more(&mut self) -> Result<(), ClientError> {
        let place = self.client.url().to_owned();
        if self.link.is_none() {
            self.link = Some((self.connect().await?, Parser::default()));
        }
        let Some((response, parser)) = &mut self.link else { return Ok(()) };
        let cut_off = || ClientError::Unreachable {
            what: format!("the stream from {place} broke off"),
            fix: "check that the Manager runs and that no proxy in between holds back streams".to_owned(),
        };
        let read = tokio::time::timeout(STREAM_SILENCE, response.chunk()).await.map_err(|_| cut_off())?;
        let Some(bytes) = read.map_err(|error| ClientError::transport(&error, &place))? else { return Err(cut_off()) };
        let mut events = Vec::new();
        let pushed = parser.push(&bytes, &mut events);
        self.ready.extend(events);
        pushed.map_err(|_| ClientError::unexpected(format!("{place} sent an event without end")))
    }

    async fn connect(&self) -> Result<Response, ClientError> {
        let path = routes::fill(routes::TASK_OUTPUT, &self.task);
        let mut request =
            self.client.request(Method::GET, &path).query(&self.query).header(ACCEPT, "text/event-stream");
        if let Some(position) = self.position {
            request = request.header(LAST_EVENT_ID, position.to_string());
        }
        self.client.send(request).await
    }

    /// Waits before another try, or gives up with the error.
    async fn pause(&mut self, error: ClientError) -> Result<(), ClientError> {
        self.failures += 1;
        let hopeless =
            matches!(error, ClientError::Problem(_) | ClientError::Tls { .. } | ClientError::Settings { .. });
        if (hopeless && !error.is_passing()) || self.failures >= TRIES_MAX {
            return Err(error);
        }
        tokio::time::sleep(PAUSE_FIRST.saturating_mul(1 << (self.failures - 1)).min(PAUSE_MAX)).await;
        Ok(())
    }

    fn take(&mut self, event: &Event) -> Result<Option<OutputItem>, ClientError> {
        let strange = |what: &str| ClientError::unexpected(format!("the output stream has {what}"));
        self.failures = 0;
        match event.name.as_str() {
            EVENT_OUTPUT => {
                let output: OutputEvent =
                    serde_json::from_str(&event.data).map_err(|_| strange("an event that is no output"))?;
                let end = output.end().ok_or_else(|| strange("a chunk without bytes"))?;
                let chunk = self.fresh(&output).map(OutputItem::Chunk);
                if chunk.is_some() {
                    self.position = Some(end);
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
