//! `legation task run`.

mod request;
mod waiting;
pub mod watch;

use std::path::PathBuf;

use clap::Args;
use legation_model::{Millis, delegate::Selector};

use self::watch::Watch;
use crate::{
    Context, Failure,
    args::InScope,
    exit_codes,
    values::{length, size},
};

/// What to run, where, and how long.
#[derive(Debug, Args)]
pub struct Run {
    /// Command and its arguments; a single word is a script: -- 'cd /tmp && ls'
    #[arg(last = true, value_name = "COMMAND", required_unless_present_any = ["script", "http"], conflicts_with_all = ["script", "http"])]
    command: Vec<String>,
    /// Run this script; - reads it from standard input
    #[arg(long, value_name = "FILE", conflicts_with = "http")]
    script: Option<PathBuf>,
    /// Send an HTTP request instead
    #[arg(long, num_args = 2, value_names = ["METHOD", "URL"])]
    http: Vec<String>,
    /// Header field of the HTTP request; may be repeated
    #[arg(long = "header", value_name = "NAME:VALUE", requires = "http")]
    headers: Vec<String>,
    /// Body of the HTTP request, or standard input of the script; - reads it from standard input
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// Only on a delegate with this tag, name or host (pinned:TAG for tags fixed by its token); may be repeated
    #[arg(long = "on", value_name = "SELECTOR")]
    selectors: Vec<Selector>,
    /// Where it belongs.
    #[command(flatten)]
    scope: InScope,
    /// How long it may run [default: 10m]
    #[arg(long, value_parser = length, value_name = "TIME")]
    timeout: Option<Millis>,
    /// How long it may wait for a delegate [default: 10m]
    #[arg(long, value_parser = length, value_name = "TIME")]
    queue_timeout: Option<Millis>,
    /// How much output to keep, such as 64KiB, 10MiB or a number of bytes [default: 1MiB]
    #[arg(long, value_parser = size, value_name = "SIZE")]
    output_limit: Option<u64>,
    /// Secret in the task's environment: NAME=@FILE, or NAME from this environment; may be repeated
    #[arg(long = "secret", value_name = "NAME[=@FILE]")]
    secrets: Vec<String>,
    /// Variable in the task's environment, not secret; may be repeated
    #[arg(long = "env", value_name = "NAME=VALUE", conflicts_with = "http")]
    env: Vec<String>,
    /// Working directory on the delegate
    #[arg(long, value_name = "DIR", conflicts_with = "http")]
    cwd: Option<String>,
    /// Program that runs the script, and its arguments one by one [default: /bin/sh]
    #[arg(long = "interpreter", value_name = "WORD", conflicts_with = "http", allow_hyphen_values = true)]
    interpreter: Vec<String>,
    /// Try again this often when the delegate is lost; only for work that does no harm when it runs twice
    #[arg(long, value_name = "N", default_value_t = 0)]
    retries: u32,
    /// Print the task's id and leave
    #[arg(long, short)]
    detach: bool,
    /// Makes a repetition of this command harmless: the same key submits once
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
}

impl Run {
    /// Does it.
    ///
    /// # Errors
    /// A file or secret is missing, or as the Manager refuses.
    pub async fn run(self, context: &Context) -> Result<u8, Failure> {
        let request = self.request()?;
        let task = context.idempotent(self.idempotency_key.as_deref()).submit_task(&request).await?;
        if self.detach {
            context.ui.show(&task)?;
            context.ui.next(&[format!("legation task logs --follow {}", task.id)]);
            return Ok(exit_codes::OK);
        }
        Watch::new(context, task.id).with_result().run().await
    }
}
