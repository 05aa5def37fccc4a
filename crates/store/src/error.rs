//! What can go wrong between a caller and the rows, named by what the caller should do.

/// Why the store did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The database cannot be used now: locked, gone or full. Nothing is known to have changed; repeat later.
    #[error("the database is unavailable: {0}")]
    Unavailable(String),
    /// Something unique, such as a name within a scope, is in use.
    #[error("taken: another one with this name or id exists")]
    Taken,
    /// There is no such row.
    #[error("not found")]
    NotFound,
    /// Another Manager has taken this database over; this one must end.
    #[error("another Manager has taken over this database: end this one")]
    Fenced,
    /// A rule forbids it.
    #[error("{0}")]
    Refused(String),
    /// A row or an answer that this version cannot have written.
    #[error("the database holds something unexpected: {0}")]
    Corrupt(String),
}

impl StoreError {
    /// A refusal in words.
    pub fn refused(why: impl Into<String>) -> Self {
        Self::Refused(why.into())
    }
}
