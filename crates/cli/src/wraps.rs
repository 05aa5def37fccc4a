//! `legation token unwrap`: the value behind a one-time code, for whoever has no API key.

use std::path::{Path, PathBuf};

use clap::Args;
use legation_api::{
    handover::{Handover, unwrap},
    wraps::{OpenWrap, WrapCode},
};
use legation_model::{
    secret::SecretText,
    wrap::{WrapCode as Code, WrapCodeError},
};

use crate::{
    Context, Failure, exit_codes,
    handover::{self, Paste},
    prompt,
    ui::{self, Format},
    values::show_time,
};

/// How to open a code.
#[derive(Debug, Args)]
pub struct Unwrap {
    /// File with the code, readable only by its owner; - for standard input [default: asked for on a terminal, else
    /// standard input]
    #[arg(long, value_name = "FILE")]
    code_file: Option<PathBuf>,
    /// What to paste then.
    #[command(flatten)]
    paste: Paste,
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
        let own = Handover { link: client.url(), name: opened.name.as_str(), unwrap_at: None };
        self.paste.say(ui, opened.commands.as_ref(), &own);
        ui.next(&handover::start(client.url()));
        Ok(exit_codes::OK)
    }
}

/// The code, checked before anything is sent. It is no argument, since every user of the machine sees those.
fn read(file: Option<&Path>) -> Result<SecretText, Failure> {
    let wrong =
        |error: WrapCodeError| Failure::usage(error.to_string(), "copy the whole code again; it starts with ldw_");
    let code: Code = prompt::secret("One-time code (ldw_…)", file)?.expose().parse().map_err(wrong)?;
    Ok(code.reveal())
}

/// What the maker of a code hands over with it.
pub(crate) fn to_open(url: &str, code: &WrapCode) -> String {
    let until = show_time(code.expires_at);
    format!("it opens once, until {until}: hand it over, and where the delegate is to run paste\n  {}", unwrap(url))
}
