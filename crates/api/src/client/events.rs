//! One stream of server-sent events that survives cut connections.

use std::{collections::VecDeque, time::Duration};

use reqwest::{Method, Response, header::ACCEPT};

use super::{
    Client, ClientError, STREAM_SILENCE,
    sse::{Event, Parser},
};
use crate::output::LAST_EVENT_ID;

/// Tries in a row without a byte of progress before the stream gives up: about half a minute, so that a
/// Manager's restart goes unnoticed and a Manager that is gone does not.
const TRIES_MAX: u32 = 10;
/// The first pause before trying again; it doubles up to [`PAUSE_MAX`].
const PAUSE_FIRST: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// Events of one path, across reconnects.
#[derive(Debug)]
pub(super) struct Events {
    client: Client,
    path: String,
    query: Vec<(&'static str, String)>,
    last: Option<String>,
    link: Option<(Response, Parser)>,
    ready: VecDeque<Event>,
    failures: u32,
}

impl Events {
    /// Nothing is sent before the first [`Events::next`].
    pub(super) const fn new(client: Client, path: String, query: Vec<(&'static str, String)>) -> Self {
        Self { client, path, query, last: None, link: None, ready: VecDeque::new(), failures: 0 }
    }

    /// Where a new connection goes on: the id of the last event that was used.
    pub(super) fn resume_behind(&mut self, id: String) {
        self.last = Some(id);
    }

    /// The next event. Safe to drop and call again.
    pub(super) async fn next(&mut self) -> Result<Event, ClientError> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                self.failures = 0;
                return Ok(event);
            }
            if let Err(error) = self.read_more().await {
                self.link = None;
                self.pause(error).await?;
            }
        }
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
        let request = self.client.request(Method::GET, &self.path).query(&self.query);
        let mut request = request.header(ACCEPT, "text/event-stream");
        if let Some(last) = &self.last {
            request = request.header(LAST_EVENT_ID, last);
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
}
