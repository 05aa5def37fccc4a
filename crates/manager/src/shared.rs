//! Requests that share transactions: those that come while one is being written wait for the next.

use std::sync::Mutex;

use legation_store::StoreError;
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;

use crate::lock::lock;

/// Requests of one kind, and where each hears its answer.
pub(crate) struct Shared<Q, A> {
    waiting: Mutex<Waiting<Q, A>>,
    nudged: Notify,
}

struct Waiting<Q, A> {
    requests: Vec<(Q, oneshot::Sender<Result<A, StoreError>>)>,
    over: bool,
}

impl<Q, A> Default for Shared<Q, A> {
    fn default() -> Self {
        Self { waiting: Mutex::new(Waiting { requests: Vec::new(), over: false }), nudged: Notify::new() }
    }
}

impl<Q: Clone, A> Shared<Q, A> {
    /// Has a request answered, in a transaction with others. What bounds how many wait is whatever bounds its callers:
    /// each waits for its answer.
    pub(crate) async fn ask(&self, request: Q) -> Result<A, StoreError> {
        let (sender, answer) = oneshot::channel();
        {
            let mut waiting = lock(&self.waiting);
            if waiting.over {
                return Err(stopped());
            }
            waiting.requests.push((request, sender));
        }
        self.nudged.notify_one();
        answer.await.unwrap_or_else(|_| Err(stopped()))
    }

    /// Answers requests until told to stop; those that wait by then are answered. A transaction holds as many as weigh
    /// `most` together, so that it stays short, and always one.
    pub(crate) async fn serve<F>(
        &self,
        stopping: &CancellationToken,
        most: usize,
        weigh: fn(&Q) -> usize,
        write: impl Fn(Vec<Q>) -> F,
    ) where
        F: Future<Output = Result<Vec<A>, StoreError>>,
    {
        while !stopping.is_cancelled() {
            tokio::select! {
                () = stopping.cancelled() => {}
                () = self.nudged.notified() => {}
            }
            while self.serve_some(most, weigh, &write).await {}
        }
        lock(&self.waiting).over = true;
        while self.serve_some(most, weigh, &write).await {}
    }

    /// Whether there were any.
    async fn serve_some<F>(&self, most: usize, weigh: fn(&Q) -> usize, write: &impl Fn(Vec<Q>) -> F) -> bool
    where
        F: Future<Output = Result<Vec<A>, StoreError>>,
    {
        let (requests, answers): (Vec<Q>, Vec<_>) = {
            let mut waiting = lock(&self.waiting);
            let mut weight = 0;
            let fits = waiting.requests.iter().take_while(|(request, _)| {
                let first = weight == 0;
                weight += weigh(request).max(1);
                first || weight <= most
            });
            let count = fits.count();
            waiting.requests.drain(..count).unzip()
        };
        if requests.is_empty() {
            return false;
        }
        let outcomes = together(requests, write).await;
        // Whoever hung up meanwhile does not need it.
        answers.into_iter().zip(outcomes).for_each(|(answer, outcome)| drop(answer.send(outcome)));
        true
    }
}

/// All in one transaction; when that fails for a reason that one of them may have, each in its own.
async fn together<Q: Clone, A, F>(requests: Vec<Q>, write: &impl Fn(Vec<Q>) -> F) -> Vec<Result<A, StoreError>>
where
    F: Future<Output = Result<Vec<A>, StoreError>>,
{
    let count = requests.len();
    match write(requests.clone()).await {
        Ok(answers) => answers.into_iter().map(Ok).collect(),
        Err(error) if count == 1 || matches!(error, StoreError::Unavailable(_) | StoreError::Fenced) => {
            (0..count).map(|_| Err(error.clone())).collect()
        }
        Err(_) => {
            let mut outcomes = Vec::with_capacity(count);
            for request in requests {
                let alone = write(vec![request]).await;
                outcomes.push(alone.and_then(|answers| answers.into_iter().next().ok_or(StoreError::NotFound)));
            }
            outcomes
        }
    }
}

fn stopped() -> StoreError {
    StoreError::Unavailable("the Manager is stopping".to_owned())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    /// Refuses everything that holds a 13, and counts the calls.
    async fn write(calls: &Mutex<Vec<usize>>, numbers: Vec<u32>) -> Result<Vec<u32>, StoreError> {
        lock(calls).push(numbers.len());
        tokio::task::yield_now().await;
        if numbers.contains(&13) { Err(StoreError::Taken) } else { Ok(numbers.iter().map(|n| n * 2).collect()) }
    }

    #[tokio::test]
    async fn one_that_fails_does_not_take_the_others_along() {
        let (shared, calls, stop) = (Shared::default(), Mutex::default(), CancellationToken::new());
        let serving = shared.serve(&stop, 100, |_| 1, |numbers| write(&calls, numbers));
        let asking = async {
            let (one, bad, two) = tokio::join!(shared.ask(1), shared.ask(13), shared.ask(2));
            assert_eq!((one, bad, two), (Ok(2), Err(StoreError::Taken), Ok(4)));
            stop.cancel();
        };
        tokio::join!(serving, asking);
        assert_eq!(*lock(&calls), [3, 1, 1, 1], "together first, then each alone");
    }

    #[tokio::test]
    async fn a_transaction_holds_what_weighs_enough_and_always_one() {
        let (shared, calls, stop) = (Shared::default(), Mutex::default(), CancellationToken::new());
        let serving = shared.serve(&stop, 10, |number| *number as usize, |numbers| write(&calls, numbers));
        let asking = async {
            let (one, two, large, last) = tokio::join!(shared.ask(4), shared.ask(6), shared.ask(50), shared.ask(1));
            assert_eq!((one, two, large, last), (Ok(8), Ok(12), Ok(100), Ok(2)));
            stop.cancel();
        };
        tokio::join!(serving, asking);
        assert_eq!(*lock(&calls), [2, 1, 1]);
    }

    #[tokio::test]
    async fn what_waits_at_the_end_is_answered_and_nothing_after_it() {
        let (shared, calls, stop) = (Arc::new(Shared::default()), Mutex::default(), CancellationToken::new());
        let waiting = tokio::spawn({
            let shared = Arc::clone(&shared);
            async move { shared.ask(4).await }
        });
        tokio::task::yield_now().await;
        stop.cancel();
        shared.serve(&stop, 100, |_| 1, |numbers| write(&calls, numbers)).await;
        assert_eq!(waiting.await.expect("no panic"), Ok(8));
        assert!(matches!(shared.ask(5).await, Err(StoreError::Unavailable(_))));
    }
}
