//! The repository as a subject of tests: its files and the table of its floors.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use crate::canary;

/// Directories of build products and of version control.
const NOT_OURS: [&str; 3] = ["target", ".git", ".legation"];

/// The repository's top directory.
pub fn top() -> PathBuf {
    let testkit = Path::new(env!("CARGO_MANIFEST_DIR"));
    testkit.ancestors().nth(2).expect("testkit lies two levels below the top").to_owned()
}

/// The repository's files with that ending, relative to its top.
pub fn files(ending: &str) -> Vec<PathBuf> {
    let top = top();
    let entries = fs::read_dir(&top).expect("the repository can be read").map(|entry| entry.expect("an entry").path());
    let ours = entries.filter(|path| !NOT_OURS.iter().any(|name| path.ends_with(name)));
    let all = ours.flat_map(|path| if path.is_dir() { canary::files(&path) } else { vec![path] });
    let mut found: Vec<PathBuf> = all
        .filter(|path| {
            path.to_string_lossy().ends_with(ending) && !path.components().any(|part| part.as_os_str() == "target")
        })
        .map(|path| path.strip_prefix(&top).expect("below the top").to_owned())
        .collect();
    found.sort();
    found
}

/// One row of the table in ARCHITECTURE.md.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Floor {
    /// Its height; imports point down.
    pub height: u32,
    /// Crates of the house it may import; `None` for all.
    pub may_import: Option<BTreeSet<String>>,
    /// What it must never depend on, crates of the house and others alike.
    pub must_never_see: BTreeSet<String>,
}

/// Reads the floor table: crate name (without `legation-`) to its row.
///
/// # Panics
/// When the document has no such table, or a row is not of its form.
pub fn floors() -> BTreeMap<String, Floor> {
    let text = fs::read_to_string(top().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md");
    let rows = text.lines().skip_while(|line| !line.starts_with("| floor | crate |")).skip(2);
    let floors: BTreeMap<_, _> = rows.take_while(|line| line.starts_with('|')).map(floor).collect();
    assert!(!floors.is_empty(), "ARCHITECTURE.md has no table that starts with `| floor | crate |`");
    floors
}

fn floor(row: &str) -> (String, Floor) {
    let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
    let [height, name, _, may_import, must_never_see] = cells[..] else { panic!("not five cells: {row}") };
    let floor = Floor {
        height: height.parse().expect("a floor is a number"),
        may_import: (may_import != "all").then(|| words(may_import)),
        must_never_see: words(must_never_see),
    };
    (name.trim_matches('`').to_owned(), floor)
}

/// The words in back quotes of a cell.
fn words(cell: &str) -> BTreeSet<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}
