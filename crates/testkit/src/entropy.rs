//! Entropy on which a test can have somebody wait: a place between two steps of the Manager that nothing else separates.

use std::sync::{Mutex, PoisonError, mpsc};

use legation_manager::system::SystemEntropy;
use legation_model::Entropy;
use tokio::sync::oneshot;

/// The operating system's entropy, with a pause where a test wants one.
#[derive(Default)]
pub struct TestEntropy(Mutex<Option<Armed>>);

struct Armed {
    bytes: usize,
    arrived: oneshot::Sender<()>,
    go: mpsc::Receiver<()>,
}

/// A pause that is to come, or is under way; it ends when this is dropped.
pub struct Pause {
    arrived: oneshot::Receiver<()>,
    _go: mpsc::Sender<()>,
}

impl TestEntropy {
    /// Makes the next who draws this many bytes wait.
    pub fn pause(&self, bytes: usize) -> Pause {
        let ((arrived, arriving), (go, going)) = (oneshot::channel(), mpsc::channel());
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Armed { bytes, arrived, go: going });
        Pause { arrived: arriving, _go: go }
    }
}

impl Pause {
    /// Returns when somebody waits.
    ///
    /// # Panics
    /// When there was another pause before.
    pub async fn begun(&mut self) {
        (&mut self.arrived).await.expect("the pause is still to come");
    }
}

impl Entropy for TestEntropy {
    fn fill(&self, bytes: &mut [u8]) {
        SystemEntropy.fill(bytes);
        let mut armed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let armed = armed.take_if(|armed| armed.bytes == bytes.len());
        if let Some(Armed { arrived, go, .. }) = armed {
            // Whoever armed it may have given up.
            let _ = arrived.send(());
            // Ends with an error when the pause is dropped; the runtime's other work goes on meanwhile.
            let _ = tokio::task::block_in_place(|| go.recv());
        }
    }
}
