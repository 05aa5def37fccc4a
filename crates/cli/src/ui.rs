//! The terminal: four forms of output, notes, suggestions, progress.

use std::{
    io::{self, IsTerminal as _, Write as _},
    time::Duration,
};

use clap::ValueEnum;
use comfy_table::{Cell, Table, presets};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use legation_api::List;
use legation_model::name::is_treacherous;
use serde::Serialize;

use crate::Failure;

/// The form of a command's result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Columns for people
    #[default]
    Table,
    /// The API's own JSON
    Json,
    /// The same as YAML
    Yaml,
    /// Only the id, one per line; for a new token its value
    Name,
}

/// A thing that can be shown.
pub trait Show: Serialize {
    /// What other commands take to name it.
    fn name(&self) -> String;
    /// Labels and values for `show`.
    fn fields(&self) -> Vec<(&'static str, String)>;
}

/// A thing that can stand in a list.
pub trait Row: Show {
    /// The heading of each column.
    const COLUMNS: &'static [&'static str];
    /// One value per column.
    fn row(&self) -> Vec<String>;
}

/// The terminal, or what stands in its place.
#[derive(Clone, Debug)]
pub struct Ui {
    /// The form of results.
    pub format: Format,
    terminal: bool,
}

impl Ui {
    /// The process's own standard streams.
    pub fn new(format: Format) -> Self {
        Self { format, terminal: io::stderr().is_terminal() }
    }

    /// Whether results are for people.
    pub fn for_people(&self) -> bool {
        self.format == Format::Table
    }

    /// Prints one thing.
    ///
    /// # Errors
    /// Standard output is gone.
    pub fn show(&self, item: &impl Show) -> Result<(), Failure> {
        print(&show(self.format, item)?)
    }

    /// Prints a list.
    ///
    /// # Errors
    /// Standard output is gone.
    pub fn list<T: Row>(&self, list: &List<T>) -> Result<(), Failure> {
        if list.items.is_empty() && self.for_people() {
            self.note("nothing to list");
            return Ok(());
        }
        print(&rows(self.format, list)?)?;
        if list.next.is_some() {
            self.note("there are more; use --limit to see them");
        }
        Ok(())
    }

    /// Says something beside the result, on standard error.
    pub fn note(&self, text: &str) {
        // A standard error that is gone must not fail what was done.
        let _ = writeln!(io::stderr(), "{}", clean(text));
    }

    /// Shows a table beside the result, on standard error.
    pub fn note_lines(&self, text: &str) {
        text.lines().for_each(|line| self.note(line));
    }

    /// Suggests the next useful commands; only to a person.
    pub fn next(&self, commands: &[String]) {
        if self.terminal && self.for_people() {
            for (at, command) in commands.iter().enumerate() {
                self.note(&format!("{} {command}", if at == 0 { "next:" } else { "     " }));
            }
        }
    }

    /// Something that turns while a person waits; silent elsewhere.
    pub fn spinner(&self, text: &str) -> ProgressBar {
        let target = if self.terminal { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(None, target).with_message(clean(text));
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(SPINNER_TICK);
        bar
    }
}

const SPINNER_TICK: Duration = Duration::from_millis(120);

/// Prints text and a line end on standard output.
///
/// # Errors
/// Standard output is gone.
pub fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(text.trim_end_matches('\n').as_bytes())?;
    out.write_all(b"\n")?;
    Ok(out.flush()?)
}

/// One thing in a format.
///
/// # Errors
/// It cannot be written in that format.
pub fn show(format: Format, item: &impl Show) -> Result<String, Failure> {
    match format {
        Format::Name => Ok(clean(&item.name())),
        Format::Table => Ok(pairs(&item.fields())),
        _ => data(format, item),
    }
}

/// A list in a format.
///
/// # Errors
/// It cannot be written in that format.
pub fn rows<T: Row>(format: Format, list: &List<T>) -> Result<String, Failure> {
    match format {
        Format::Name => Ok(list.items.iter().map(|item| clean(&item.name())).collect::<Vec<_>>().join("\n")),
        Format::Table => Ok(table(T::COLUMNS, list.items.iter().map(Row::row))),
        _ => data(format, list),
    }
}

/// Columns under headings.
pub fn table(columns: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = plain_table();
    table.set_header(columns.iter().map(|column| Cell::new(column.to_uppercase())));
    for row in rows {
        table.add_row(row.iter().map(|value| Cell::new(or_dash(&clean(value)))));
    }
    finish(table)
}

/// A list in one field.
pub fn joined<T: std::fmt::Display>(list: &[T]) -> String {
    list.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

/// Labels and values; empty values are left out.
fn pairs(fields: &[(&'static str, String)]) -> String {
    let mut table = plain_table();
    for (label, value) in fields.iter().filter(|(_, value)| !value.is_empty()) {
        table.add_row([Cell::new(format!("{label}:")), Cell::new(clean(value))]);
    }
    finish(table)
}

fn plain_table() -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table
}

fn finish(mut table: Table) -> String {
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.trim_fmt()
}

fn or_dash(text: &str) -> &str {
    if text.is_empty() { "-" } else { text }
}

/// A value as JSON or YAML, harmless to a terminal and read back unchanged by a program.
///
/// # Errors
/// It cannot be written in that format.
pub fn data(format: Format, value: &impl Serialize) -> Result<String, Failure> {
    let failed = |error: String| Failure::new(crate::exit_codes::UNEXPECTED, error, "");
    let json = || serde_json::to_string_pretty(value).map_err(|error| failed(error.to_string()));
    match format {
        Format::Yaml => serde_norway::to_string(value).map_err(|error| failed(error.to_string())),
        _ => Ok(json()?.chars().map(escaped).collect()),
    }
}

/// A value as JSON on one line, harmless to a terminal.
///
/// # Errors
/// It cannot be written as JSON.
pub fn json_line(value: &impl Serialize) -> Result<String, Failure> {
    let json = serde_json::to_string(value);
    let json = json.map_err(|error| Failure::new(crate::exit_codes::UNEXPECTED, error.to_string(), ""))?;
    Ok(json.chars().map(escaped).collect())
}

/// JSON writes the low control characters as escapes; the others that can deceive stand only inside strings,
/// where an escape means the same.
fn escaped(c: char) -> String {
    if c != '\n' && is_treacherous(c) { format!("\\u{:04x}", c as u32) } else { c.to_string() }
}

/// Text from elsewhere, made harmless: whatever moves the cursor, hides or reorders becomes a replacement mark.
pub fn clean(text: &str) -> String {
    text.chars().map(|c| if is_treacherous(c) { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Thing {
        text: String,
    }

    proptest! {
        #[test]
        fn what_is_printed_is_harmless_and_read_back_unchanged(text: String, evil in "[\u{1b}\u{9b}\u{7f}\u{202e}\u{7}\r\n\t:#'\"-]{0,4}") {
            let thing = Thing { text: format!("{text}{evil}") };
            let json = data(Format::Json, &thing).expect("JSON");
            prop_assert!(!json.chars().any(|c| c != '\n' && is_treacherous(c)));
            prop_assert_eq!(&serde_json::from_str::<Thing>(&json).expect("JSON"), &thing);
            let yaml = data(Format::Yaml, &thing).expect("YAML");
            prop_assert!(!yaml.chars().any(|c| c != '\n' && c.is_control()), "{:?}", yaml);
            prop_assert_eq!(&serde_norway::from_str::<Thing>(&yaml).expect("YAML"), &thing);
            prop_assert!(!clean(&thing.text).chars().any(is_treacherous));
        }
    }

    #[test]
    fn a_table_has_no_trailing_blanks_and_shows_absence() {
        let text = table(&["id", "name"], [vec!["1".to_owned(), String::new()], vec!["22".to_owned(), "x".to_owned()]]);
        assert_eq!(text, "ID  NAME\n1   -\n22  x");
    }
}
