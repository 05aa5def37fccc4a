//! The gate of one token: every effect passes it, and a revocation closes it and waits until it is empty.
//!
//! An effect enters before it checks anything and leaves when it is done, that is, when its transaction has
//! committed and its bytes are with the socket. Because closing and counting share one atomic word, an effect
//! either entered before the gate closed, and is then waited for, or finds it closed.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::sync::Notify;

const CLOSED: usize = 1 << (usize::BITS - 1);

/// The gate itself; open when made, and never opened again once closed.
#[derive(Debug, Default)]
pub struct Gate {
    /// The top bit says closed, the rest counts effects inside.
    state: AtomicUsize,
    /// Told when the gate is closed and when the last one leaves a closed gate.
    changed: Notify,
}

/// The right to have one effect; leaving is dropping it.
#[derive(Debug)]
pub struct Entered(Arc<Gate>);

impl Gate {
    /// Enters, unless the gate is closed.
    pub fn enter(self: &Arc<Self>) -> Option<Entered> {
        let count_in = |state: usize| (state & CLOSED == 0).then_some(state + 1);
        self.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, count_in).ok()?;
        Some(Entered(Arc::clone(self)))
    }

    /// Lets nobody in from now on.
    pub fn close(&self) {
        self.state.fetch_or(CLOSED, Ordering::AcqRel);
        self.changed.notify_waiters();
    }

    /// Whether effects may still enter.
    pub fn is_open(&self) -> bool {
        self.state.load(Ordering::Acquire) & CLOSED == 0
    }

    /// Whether nobody is inside right now.
    pub fn is_idle(&self) -> bool {
        self.state.load(Ordering::Acquire) & !CLOSED == 0
    }

    /// Waits until the gate is closed.
    pub async fn closed(&self) {
        loop {
            let notified = self.changed.notified();
            if !self.is_open() {
                return;
            }
            notified.await;
        }
    }

    /// Waits until the gate is closed and nobody is inside.
    pub async fn emptied(&self) {
        loop {
            let notified = self.changed.notified();
            if self.state.load(Ordering::Acquire) == CLOSED {
                return;
            }
            notified.await;
        }
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        if self.0.state.fetch_sub(1, Ordering::AcqRel) == CLOSED + 1 {
            self.0.changed.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn closing_waits_for_the_effect_that_is_inside() {
        let gate = Arc::new(Gate::default());
        let inside = gate.enter().expect("open");
        gate.close();
        assert!(gate.enter().is_none(), "nobody enters a closed gate");
        assert!(gate.emptied().now_or_never().is_none(), "an effect is still inside");
        drop(inside);
        gate.emptied().await;
    }

    #[tokio::test]
    async fn an_open_gate_never_counts_as_emptied() {
        let gate = Arc::new(Gate::default());
        drop(gate.enter());
        assert!(gate.emptied().now_or_never().is_none());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn nothing_happens_after_the_wait_whatever_the_interleaving() {
        for _ in 0..200 {
            let gate = Arc::new(Gate::default());
            let effects = Arc::new(AtomicUsize::new(0));
            let mut tasks = Vec::new();
            for _ in 0..4 {
                let (gate, effects) = (Arc::clone(&gate), Arc::clone(&effects));
                tasks.push(tokio::spawn(async move {
                    while let Some(_inside) = gate.enter() {
                        tokio::task::yield_now().await;
                        effects.fetch_add(1, Ordering::SeqCst);
                    }
                }));
            }
            tokio::task::yield_now().await;
            gate.close();
            gate.emptied().await;
            let seen = effects.load(Ordering::SeqCst);
            for task in tasks {
                task.await.expect("no panic");
            }
            assert_eq!(effects.load(Ordering::SeqCst), seen);
        }
    }
}
