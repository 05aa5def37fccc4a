//! Planted faults (`make plants`): that each still fits the sources and names a test that is there. Planting them takes a
//! build each, which is why it is not done here.

use std::{fs, process::Command};

use legation_testkit::repo;

#[test]
fn every_planted_fault_fits_and_names_a_test_that_is_there() {
    let root = repo::top();
    let plants = fs::read_dir(root.join("crates/testkit/plants")).expect("a directory");
    let mut seen = 0;
    for plant in plants {
        let path = plant.expect("an entry").path();
        let text = fs::read_to_string(&path).expect("a patch");
        let test = text.lines().find_map(|line| line.strip_prefix("Caught by: ")).expect("the test that catches it");
        let (place, name) = test.rsplit_once("::").expect("a module and a test");
        let module = place.trim_end_matches("::sqlite").trim_end_matches("::postgres").replace("::", "/");
        let source = root.join(format!("crates/testkit/tests/it/{module}.rs"));
        let source = fs::read_to_string(&source).unwrap_or_else(|error| panic!("{}: {error}", source.display()));
        assert!(source.contains(&format!("async fn {name}(")), "{} names {test}, which is not there", path.display());
        let fits = Command::new("git").arg("apply").arg("--check").arg(&path).current_dir(&root).output();
        let fits = fits.expect("git runs");
        assert!(fits.status.success(), "{}: {}", path.display(), String::from_utf8_lossy(&fits.stderr));
        seen += 1;
    }
    assert!(seen >= 5, "{seen} planted faults");
}
