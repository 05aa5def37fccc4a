//! The audit chain as it is read in one piece: as an export that proves itself, and live.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use legation_api::{
    Problem,
    audit::AuditRecord,
    audit_export::{Behind, Checkpoint, ExportLine},
};
use legation_model::audit as model;
use legation_store::{
    StoreError,
    audit::{self, Place, RANGE_MAX},
    job,
};
use tokio::sync::watch;

use crate::{Manager, access::Caller, error::Refusal, lasting::Lasting};

/// How often a live reader looks whether its caller may still read: 5 s.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// An export under way.
pub struct Export {
    manager: Arc<Manager>,
    caller: Lasting,
    base: Option<model::Checkpoint>,
    after: u64,
    until: u64,
}

/// Why an export breaks off; whoever reads it continues it later.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// The store cannot be asked.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The caller may not read any more.
    #[error("the API key may not read the audit chain any more")]
    Access,
    /// The rule of retention was faster.
    #[error("records were deleted before they could be exported")]
    Deleted,
}

impl Manager {
    /// Begins an export of everything behind a number, up to a checkpoint that is signed now.
    ///
    /// # Errors
    /// `forbidden` unless the caller sees everything: a part of a chain proves nothing. `invalid_request` for a number
    /// that no record has yet, `store_unavailable`.
    pub async fn export_audit(&self, caller: Caller, after: u64) -> Result<Export, Refusal> {
        caller.require_everywhere().map_err(|refusal| {
            let fix = "a chain is exported whole or not at all: use `legation audit ls` for one scope";
            Refusal::from((*refusal.0).with_fix(fix))
        })?;
        let until = self.checkpoint().await?.number;
        if after > until {
            let rule = format!("the newest record has the number {until}");
            return Err(Problem::invalid("after", &rule, "use the number of the last record that you have").into());
        }
        let base = self.store.read(|conn| Box::pin(audit::last_place(conn, Place::Base))).await?;
        let base = base.filter(|base| base.number > after);
        let caller = Lasting::new(self.handle(), caller);
        Ok(Export { manager: self.handle(), caller, base, after, until })
    }

    /// Begins to read live: behind `after`, or only what is new. Unless it is to `follow`, it ends with what there is.
    ///
    /// # Errors
    /// `store_unavailable`.
    pub async fn tail_audit(&self, caller: Caller, after: Option<u64>, follow: bool) -> Result<Tail, Refusal> {
        let head = self.audit_head.subscribe();
        let last = self.look_at_audit().await?;
        let position = after.unwrap_or(last);
        let caller = Lasting::new(self.handle(), caller);
        Ok(Tail { manager: self.handle(), caller, head, position, follow, read: VecDeque::new(), told: false })
    }

    /// Tells live readers how long the chain is. Looking makes it true also of what other programs write.
    pub(crate) async fn look_at_audit(&self) -> Result<u64, StoreError> {
        let last = self.store.read(|conn| Box::pin(audit::last(conn))).await?.map_or(0, |(number, _)| number);
        self.audit_head.send_if_modified(|head| {
            let grown = last > *head;
            *head = last.max(*head);
            grown
        });
        Ok(last)
    }

    /// The same now and then, while anybody reads.
    pub(crate) async fn tell_audit_readers(&self) {
        if self.audit_head.receiver_count() > 0
            && let Err(error) = self.look_at_audit().await
        {
            tracing::debug!(%error, "live readers of the audit chain wait for the store");
        }
    }
}

impl Export {
    /// The next lines; `None` at the end.
    ///
    /// # Errors
    /// Why it breaks off.
    pub async fn next(&mut self) -> Result<Option<Vec<ExportLine>>, Broken> {
        if let Some(base) = self.base.take() {
            self.after = base.number;
            return Ok(Some(vec![ExportLine::Base(Checkpoint::from(&base))]));
        }
        if self.after >= self.until {
            return Ok(None);
        }
        if !self.caller.stands().await {
            return Err(Broken::Access);
        }
        let (after, until) = (self.after, self.until);
        let read = job(move |conn| {
            Box::pin(async move {
                let records = audit::range(conn, after, until).await?;
                let last = records.last().map_or(after, |record| record.number);
                Ok((records, audit::checkpoints(conn, after, last).await?))
            })
        });
        let (records, checkpoints) = self.manager.store.read(read).await?;
        if records.first().map(|record| record.number) != Some(after + 1) {
            return Err(Broken::Deleted);
        }
        let mut checkpoints = checkpoints.iter().peekable();
        let mut lines = Vec::with_capacity(records.len() + 1);
        for record in &records {
            self.after = record.number;
            lines.push(ExportLine::Record(Box::new(AuditRecord::from(record))));
            if let Some(checkpoint) = checkpoints.next_if(|checkpoint| checkpoint.number == record.number) {
                lines.push(ExportLine::Checkpoint(checkpoint.into()));
            }
        }
        Ok(Some(lines))
    }
}

/// One event of the live tail.
pub enum Piece {
    /// A record.
    Record(Box<AuditRecord>),
    /// The reader is behind by more than is read at once.
    Behind(Behind),
}

/// Follows the chain. It reads the store by numbers, so that a slow reader misses nothing.
pub struct Tail {
    manager: Arc<Manager>,
    caller: Lasting,
    head: watch::Receiver<u64>,
    position: u64,
    follow: bool,
    read: VecDeque<model::AuditRecord>,
    told: bool,
}

impl Tail {
    /// The next event; `None` when the caller may not read any more, when the Manager stops, and when the store cannot
    /// be asked (the client resumes).
    pub async fn next(&mut self) -> Option<Piece> {
        loop {
            if !self.caller.stands().await {
                return None;
            }
            if let Some(record) = self.read.pop_front() {
                self.position = record.number;
                if self.caller.caller().sees_record(&record) {
                    return Some(Piece::Record(Box::new(AuditRecord::from(&record))));
                }
                continue;
            }
            let behind = self.head.borrow_and_update().saturating_sub(self.position);
            if behind == 0 {
                if !self.follow {
                    return None;
                }
                self.told = false;
                self.changed().await?;
            } else if behind > u64::from(RANGE_MAX) && !self.told && self.caller.caller().is_everywhere() {
                self.told = true;
                return Some(Piece::Behind(Behind { records: behind }));
            } else {
                let after = self.position;
                let until = after + behind;
                let read = job(move |conn| Box::pin(audit::range(conn, after, until)));
                self.read = self.manager.store.read(read).await.ok()?.into();
                if self.read.is_empty() {
                    // They were deleted meanwhile.
                    self.position = until;
                }
            }
        }
    }

    async fn changed(&mut self) -> Option<()> {
        tokio::select! {
            () = self.manager.stopping.cancelled() => None,
            () = self.caller.changed() => Some(()),
            () = tokio::time::sleep(LOOK_EVERY) => Some(()),
            changed = self.head.changed() => changed.ok(),
        }
    }
}
