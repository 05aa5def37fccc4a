//! The reference is what the program says.

use std::{env, fs, path::Path};

#[test]
fn the_reference_is_fresh() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/cli.md");
    let fresh = legation_cli::docs::reference();
    if env::var_os("UPDATE").is_some() {
        fs::write(&path, &fresh).expect("a writable tree");
    }
    let kept = fs::read_to_string(&path).unwrap_or_default();
    assert!(kept == fresh, "docs/cli.md is stale: UPDATE=1 cargo test -p legation-cli, then commit it");
}
