//! The audit chain as it is read in one piece: the bytes of an export, and the records as they are written.

use reqwest::Response;

use super::{Client, ClientError, STREAM_SILENCE, events::Events};
use crate::{
    audit::AuditRecord,
    audit_export::{Behind, EVENT_BEHIND, EVENT_RECORD},
    routes,
};

/// What the live tail gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TailItem {
    /// A record.
    Record(Box<AuditRecord>),
    /// This reader is far behind; what it missed follows.
    Behind(Behind),
}

/// Records as they are written, in order, without gaps or repetitions, across reconnects. It has no end.
#[derive(Debug)]
pub struct AuditTail {
    events: Events,
    last: u64,
}

impl AuditTail {
    pub(super) fn new(client: Client, after: Option<u64>) -> Self {
        let query = after.map(|after| ("after", after.to_string())).into_iter().collect();
        Self { events: Events::new(client, routes::AUDIT_TAIL.to_owned(), query), last: after.unwrap_or_default() }
    }

    /// The next item. Safe to drop and call again.
    ///
    /// # Errors
    /// [`ClientError::Problem`] as the Manager says, such as that this key may not read any more; anything else once
    /// trying again has not helped.
    pub async fn next(&mut self) -> Result<TailItem, ClientError> {
        let strange = || ClientError::unexpected("the audit tail has an event that is none of its own".to_owned());
        loop {
            let event = self.events.next().await?;
            match event.name.as_str() {
                EVENT_RECORD => {
                    let record: AuditRecord = serde_json::from_str(&event.data).map_err(|_| strange())?;
                    self.events.resume_behind(record.number.to_string());
                    if record.number > self.last {
                        self.last = record.number;
                        return Ok(TailItem::Record(Box::new(record)));
                    }
                }
                EVENT_BEHIND => {
                    return serde_json::from_str(&event.data).map(TailItem::Behind).map_err(|_| strange());
                }
                _ => {}
            }
        }
    }
}

/// The bytes of an export, as they come.
#[derive(Debug)]
pub struct AuditExport {
    client: Client,
    response: Response,
}

impl AuditExport {
    pub(super) const fn new(client: Client, response: Response) -> Self {
        Self { client, response }
    }

    /// The next bytes; `None` at the end of a whole export.
    ///
    /// # Errors
    /// [`ClientError::Unreachable`] when it broke off: it can be continued behind what came.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>, ClientError> {
        let place = self.client.url().to_owned();
        let cut_off = || ClientError::Unreachable {
            what: format!("the export from {place} broke off"),
            fix: "continue it with --resume; if it breaks off again, read the Manager's log".to_owned(),
        };
        let read = tokio::time::timeout(STREAM_SILENCE, self.response.chunk()).await.map_err(|_| cut_off())?;
        Ok(read.map_err(|_| cut_off())?.map(|bytes| bytes.to_vec()))
    }
}
