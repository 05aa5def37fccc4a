//! The rules of the house that no compiler knows: floors, sizes, names.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package};
use legation_testkit::repo::{self, Floor};

/// Crates that must stay free, through everything they import, of what their row forbids.
const PURE: [&str; 2] = ["model", "wire"];
/// A file that needs a scroll bar to be understood should have been two.
const LINES_MAX: usize = 700;

/// Each of these has a file of its name wherever its concern is handled.
const NOUNS: [&str; 13] = [
    "scopes",
    "tokens",
    "delegates",
    "tasks",
    "receipts",
    "principals",
    "roles",
    "grants",
    "api_keys",
    "logins",
    "passwords",
    "wraps",
    "token_uses",
];

/// The workspace's graph as it is built on this machine: what only other systems need was never downloaded.
fn metadata() -> Metadata {
    MetadataCommand::new()
        .manifest_path(repo::top().join("Cargo.toml"))
        .other_options(["--locked", "--offline", "--filter-platform", "host-tuple"].map(str::to_owned))
        .exec()
        .expect("cargo describes the workspace")
}

fn short(package: &Package) -> String {
    package.name.trim_start_matches("legation-").to_owned()
}

/// What the crate links when it runs; what only its tests use is the tests' affair.
fn direct(package: &Package) -> BTreeSet<String> {
    let normal = package.dependencies.iter().filter(|dependency| dependency.kind == DependencyKind::Normal);
    normal.map(|dependency| dependency.name.clone()).collect()
}

/// Everything that the crate links when it runs, at any depth.
fn linked(metadata: &Metadata, package: &Package) -> BTreeSet<String> {
    let resolve = metadata.resolve.as_ref().expect("cargo resolved the workspace");
    let nodes: BTreeMap<_, _> = resolve.nodes.iter().map(|node| (&node.id, node)).collect();
    let mut seen = BTreeSet::new();
    let mut open = vec![&package.id];
    while let Some(id) = open.pop() {
        let normal =
            nodes[id].deps.iter().filter(|dep| dep.dep_kinds.iter().any(|kind| kind.kind == DependencyKind::Normal));
        open.extend(normal.map(|dep| &dep.pkg).filter(|id| seen.insert((*id).clone())));
    }
    seen.into_iter().map(|id| metadata[&id].name.to_string()).collect()
}

/// What is wrong with the imports of one crate, in sentences.
fn trespasses(
    name: &str,
    floors: &BTreeMap<String, Floor>,
    direct: &BTreeSet<String>,
    linked: &BTreeSet<String>,
) -> Vec<String> {
    let Some(floor) = floors.get(name) else { return vec![format!("{name} has no row in ARCHITECTURE.md")] };
    let mut found = Vec::new();
    for import in direct.iter().filter_map(|import| import.strip_prefix("legation-")) {
        if floor.may_import.as_ref().is_some_and(|may| !may.contains(import)) {
            found.push(format!("{name} imports {import}, which its row does not allow"));
        }
        if floors.get(import).is_none_or(|other| other.height >= floor.height) {
            found.push(format!("{name} imports {import}, which is not below it"));
        }
    }
    let seen = if PURE.contains(&name) { linked } else { direct };
    let forbidden = floor.must_never_see.iter();
    let forbidden = forbidden.filter(|word| seen.contains(*word) || seen.contains(&format!("legation-{word}")));
    found.extend(forbidden.map(|word| format!("{name} sees {word}, which its row forbids")));
    found
}

#[test]
fn imports_point_down_as_the_floor_table_says() {
    let floors = repo::floors();
    let metadata = metadata();
    let packages = metadata.workspace_packages();
    let trespasses: Vec<String> = packages
        .iter()
        .flat_map(|package| trespasses(&short(package), &floors, &direct(package), &linked(&metadata, package)))
        .collect();
    assert_eq!(trespasses, Vec::<String>::new());
    let crates: BTreeSet<String> = packages.iter().map(|package| short(package)).collect();
    let rows: BTreeSet<String> = floors.into_keys().collect();
    assert_eq!(rows, crates, "ARCHITECTURE.md has a row for each crate and for nothing else");
}

#[test]
fn the_floor_test_finds_every_kind_of_trespass() {
    let floors = repo::floors();
    let set = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<BTreeSet<_>>();
    let none = BTreeSet::new();
    let trespasses = |name, direct: &[&str], linked| trespasses(name, &floors, &set(direct), &set(linked));
    assert_eq!(trespasses("store", &["legation-model", "sqlx"], &["tokio"]), Vec::<String>::new());
    assert!(!trespasses("model", &["legation-wire"], &[]).is_empty(), "upward");
    assert!(!trespasses("link", &["legation-api"], &[]).is_empty(), "a neighbour it may not import");
    assert!(!trespasses("link", &["axum"], &[]).is_empty(), "a forbidden library");
    assert!(!trespasses("wire", &[], &["tokio"]).is_empty(), "a forbidden library behind another one");
    assert!(!trespasses("cellar", &[], &[]).is_empty(), "no row");
    assert!(
        floors.values().all(|floor| floor
            .may_import
            .as_ref()
            .unwrap_or(&none)
            .iter()
            .all(|name| floors.contains_key(name)))
    );
}

#[test]
fn no_file_needs_a_scroll_bar_to_be_understood() {
    let lines = |file: &Path| fs::read_to_string(repo::top().join(file)).expect("a text").lines().count();
    let long: Vec<_> = repo::files(".rs").into_iter().filter(|file| lines(file) > LINES_MAX).collect();
    assert_eq!(long, Vec::<std::path::PathBuf>::new());
}

#[test]
fn the_same_noun_has_the_same_file_name_on_every_floor() {
    let files = repo::files(".rs");
    let floors =
        ["crates/api/src", "crates/store/src", "crates/manager/src", "crates/manager/src/http", "crates/cli/src"];
    let mut missing = Vec::new();
    for floor in floors {
        for noun in NOUNS {
            let alone = Path::new(floor).join(format!("{noun}.rs"));
            let directory = Path::new(floor).join(noun).join("mod.rs");
            if !files.contains(&alone) && !files.contains(&directory) {
                missing.push(alone);
            }
        }
    }
    assert_eq!(missing, Vec::<std::path::PathBuf>::new());
}
