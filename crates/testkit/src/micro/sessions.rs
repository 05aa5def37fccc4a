//! What coming and going costs the registry of sessions.

use legation_manager::sessions::Sessions;

use super::{Measured, fixture};

/// Sessions that are registered meanwhile.
const CONNECTED: usize = 10_000;

/// One session comes and another goes.
pub(super) fn churn() -> Box<dyn Measured> {
    let (registry, all) = (Sessions::default(), fixture::sessions(CONNECTED + 1));
    all[..CONNECTED].iter().for_each(|session| registry.register(session));
    let mut absent = CONNECTED;
    Box::new(move || {
        registry.register(&all[absent]);
        absent = if absent == CONNECTED { 0 } else { absent + 1 };
        registry.unregister(&all[absent]);
    })
}
