//! The papers stay true: what they link to and the files they name exist.

use std::fs;

use legation_testkit::repo;

#[test]
fn links_between_the_papers_lead_somewhere() {
    let mut broken = Vec::new();
    for paper in repo::files(".md") {
        let text = fs::read_to_string(repo::top().join(&paper)).expect("a text");
        let directory = paper.parent().expect("a file is in a directory");
        for link in links(&text) {
            let path = repo::top().join(directory).join(link.split('#').next().unwrap_or_default());
            if !path.exists() {
                broken.push(format!("{}: {link}", paper.display()));
            }
        }
    }
    assert_eq!(broken, Vec::<String>::new());
}

/// Targets of links that are neither elsewhere nor in the same document.
fn links(text: &str) -> impl Iterator<Item = &str> {
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    targets.filter(|target| !target.contains("://") && !target.starts_with('#') && !target.starts_with("mailto:"))
}

#[test]
fn files_that_the_papers_name_exist() {
    let mut missing = Vec::new();
    for paper in ["ARCHITECTURE.md", "CONTRIBUTING.md", "README.md"] {
        let text = fs::read_to_string(repo::top().join(paper)).expect("a text");
        let quoted = text.split('`').skip(1).step_by(2);
        let places = quoted.filter(|word| ["crates/", "docs/", "scripts/"].iter().any(|start| word.starts_with(start)));
        missing
            .extend(places.filter(|place| !repo::top().join(place).exists()).map(|place| format!("{paper}: {place}")));
    }
    assert_eq!(missing, Vec::<String>::new());
}
