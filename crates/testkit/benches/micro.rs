//! Times of single operations, each on one core and without a socket.
//!
//! `make bench-micro`, or `cargo bench --bench micro -- FILTER`. How many instructions the same operations take is
//! counted by `instructions`.

use std::cell::RefCell;

use divan::Bencher;
use legation_store::Store;
use legation_testkit::micro::{ALL, Operation};

fn main() {
    divan::main();
}

/// Everything that needs neither a thread nor a disk.
#[divan::bench(args = ALL)]
fn operation(bencher: Bencher, operation: &Operation) {
    let measured = RefCell::new((operation.setup)());
    bencher.with_inputs(|| measured.borrow_mut().prepare()).bench_local_values(|()| measured.borrow_mut().run());
}

/// A transaction with nothing in it: the writer's turn, the fence of the Manager's epoch, begin and commit, on SQLite.
/// Without a change there is nothing to sync.
#[divan::bench(name = "store/fenced-transaction")]
fn transaction(bencher: Bencher) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let directory = tempfile::tempdir().expect("a temporary directory");
    let url = format!("sqlite://{}/db", directory.path().display());
    let store = runtime.block_on(Store::open(&url)).expect("an empty database");
    bencher.bench_local(|| runtime.block_on(store.write(|_| Box::pin(async { Ok(()) }))).expect("a commit"));
    runtime.block_on(store.close());
}
