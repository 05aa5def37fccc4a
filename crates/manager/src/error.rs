//! What a caller is refused with.

use legation_api::{Code, Problem};
use legation_store::StoreError;

/// A refusal, already in the words of the API: a stable code, the reason, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {}", .0.code, .0.detail)]
pub struct Refusal(pub Box<Problem>);

impl Refusal {
    /// A refusal with this code and reason, and the code's own advice.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Problem::new(code, detail).into()
    }

    /// The one answer for what does not exist and for what the caller may not see.
    pub fn not_found(what: &str) -> Self {
        Problem::not_found(what).into()
    }
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Self(Box::new(problem))
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NotFound => Self::not_found("object"),
            StoreError::Taken => Self::new(Code::NameTaken, "the name is in use in this scope"),
            StoreError::Refused(why) => {
                Problem::invalid("request", &why, "change the request as the detail says").into()
            }
            // Everything else means that the store could not be asked: deny, and say so, never a verdict.
            other => {
                tracing::error!(error = %other, "the store cannot be asked");
                Self::new(Code::StoreUnavailable, "the Manager cannot reach its database now")
            }
        }
    }
}
