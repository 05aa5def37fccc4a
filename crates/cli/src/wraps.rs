//! `legation token unwrap`: the value behind a one-time code, for whoever has no API key.

use std::{
    io::{self, IsTerminal as _, Read as _},
    path::{Path, PathBuf},
};

use clap::Args;
use legation_api::wraps::{OpenWrap, Unwrapped, WrapCode};
use legation_model::{secret::SecretText, token::DEFAULT_TOKEN, wrap::WrapCode as Code};

use crate::{
    Context, Failure, exit_codes,
    handover::{self, Place},
    private_file,
    shell_words::quoted,
    ui::{self, Format},
    values::show_time,
};

/// Far more than a code with some white space around it, in bytes.
const CODE_MAX: u64 = 4 << 10;

/// How to open a code.
#[derive(Debug, Args)]
pub struct Unwrap {
    /// File with the code, readable only by its owner [default: standard input, or a question on a terminal]
    #[arg(long, value_name = "FILE")]
    code_file: Option<PathBuf>,
    /// Also say, on standard error, what to paste where the delegate is to run
    #[arg(long, value_enum, value_name = "PLACE")]
    commands: Option<Place>,
}

impl Unwrap {
    /// Opens it. The value goes to standard output alone.
    ///
    /// # Errors
    /// There is no code to read, or as the Manager refuses.
    pub async fn run(self, context: &Context) -> Result<u8, Failure> {
        let (client, ui) = (&context.client, &context.ui);
        let code = read(self.code_file.as_deref())?;
        let opened = client.unwrap(&OpenWrap { code }).await?;
        match ui.format {
            Format::Json | Format::Yaml => ui::print(&ui::data(ui.format, &opened)?)?,
            Format::Table | Format::Name => ui::print(&ui::clean(opened.value.expose()))?,
        }
        ui.note(&format!(
            "token {} ({}) in {}: this is its value; the code does not open again",
            opened.name, opened.token, opened.scope
        ));
        if let Some(place) = self.commands {
            ui.note_lines(&handover::commands(place, client.url(), delegate_name(&opened)));
        }
        ui.next(&handover::start(client.url()));
        Ok(exit_codes::OK)
    }
}

/// What a delegate with this token may be called: like the token, unless that has the name that all have.
fn delegate_name(opened: &Unwrapped) -> &str {
    if opened.name.as_str() == DEFAULT_TOKEN { "delegate" } else { opened.name.as_str() }
}

/// The code, checked before anything is sent. It is no argument, since every user of the machine sees those.
fn read(file: Option<&Path>) -> Result<SecretText, Failure> {
    let fix = "copy the whole code again; it starts with ldw_";
    let text = match file {
        Some(path) => private_file::read(path)?
            .ok_or_else(|| Failure::settings(format!("there is no file {}", path.display()), "check --code-file"))?,
        None if io::stdin().is_terminal() => rpassword::prompt_password("One-time code (it is not shown): ")?,
        None => from_input()?,
    };
    let code: Code =
        text.parse().map_err(|error: legation_model::wrap::WrapCodeError| Failure::usage(error.to_string(), fix))?;
    Ok(code.reveal())
}

fn from_input() -> Result<String, Failure> {
    let mut text = String::new();
    let read = io::stdin().take(CODE_MAX).read_to_string(&mut text);
    read.map_err(|error| Failure::usage(format!("the code cannot be read: {error}"), "give it on standard input"))?;
    Ok(text)
}

/// What the maker of a code hands over with it.
pub(crate) fn to_open(url: &str, code: &WrapCode) -> String {
    format!(
        "it opens once, until {}: hand it over, and where the delegate is to run paste\n  (umask 077; legation token unwrap --url {} > {})",
        show_time(code.expires_at),
        quoted(url),
        handover::FILE
    )
}
