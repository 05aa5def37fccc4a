//! Logs: to standard error, as text for people or JSON for programs. A reader that goes away is no reason to end.

use anyhow::Context;
use tracing_subscriber::{EnvFilter, fmt, prelude::*};

use crate::config::Config;

/// Starts logging; called once, first thing in main.
///
/// # Errors
/// When the level is not one.
pub fn init(config: &Config) -> anyhow::Result<()> {
    let filter = EnvFilter::builder()
        .parse(&config.log)
        .with_context(|| format!("log: {:?} is not a level: use error, warn, info, debug or trace", config.log))?;
    let registry = tracing_subscriber::registry().with(filter);
    if config.log_json {
        registry.with(fmt::layer().json().log_internal_errors(false).with_writer(std::io::stderr)).init();
    } else {
        let colour = std::io::IsTerminal::is_terminal(&std::io::stderr());
        registry.with(fmt::layer().with_ansi(colour).log_internal_errors(false).with_writer(std::io::stderr)).init();
    }
    Ok(())
}
