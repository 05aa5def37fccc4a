//! `docs/cli.md`, generated from the command line itself.

use clap::{Command, CommandFactory as _};

use crate::args::Cli;

/// The whole reference as Markdown.
pub fn reference() -> String {
    let mut text = "# legation: command line reference\n\n\
                    Generated from the program; `UPDATE=1 cargo test -p legation-cli` writes it again.\n"
        .to_owned();
    let mut root = Cli::command().term_width(WIDTH);
    root.build();
    section(&root, "", &mut text);
    text
}

/// Columns of the help texts, so that they read the same whatever terminal the generator has.
const WIDTH: usize = 100;

fn section(command: &Command, above: &str, text: &mut String) {
    let path = format!("{above} {}", command.get_name()).trim().to_owned();
    let help = command.clone().render_long_help().to_string();
    let help: Vec<&str> = help.lines().map(str::trim_end).collect();
    text.push_str(&format!("\n## {path}\n\n```text\n{}\n```\n", help.join("\n").trim()));
    for inner in command.get_subcommands().filter(|inner| inner.get_name() != "help") {
        section(inner, &path, text);
    }
}
