//! The first administrator: an API key that goes from the Manager's host command into `cli.toml`, unseen.

use std::fs;

use legation_api::{Code, client::Client};
use legation_model::secret::SecretText;

use super::{
    child::{command, in_places},
    places::Places,
};
use crate::{Failure, config::CliToml, exit_codes, private_file, ui::Ui};

/// The settings of an earlier run, or new ones with the key of a new administrator.
pub(super) async fn settings(places: &Places, ui: &Ui) -> Result<CliToml, Failure> {
    match CliToml::read(&places.settings())? {
        Some(settings) if is_ours(settings.url.as_deref()) => Ok(settings),
        Some(settings) => {
            let url = settings.url.unwrap_or_default();
            let what =
                format!("{} is for the Manager at {url}, which `up` must not replace", places.settings().display());
            Err(Failure::settings(
                what,
                "give `legation up` a --config-dir and --data-dir of its own (for make: \
                 LEGATION_CONFIG_DIR, LEGATION_DATA_DIR)",
            ))
        }
        None => {
            let settings = CliToml { api_key: Some(new_key(places).await?), ..CliToml::default() };
            settings.write(&places.settings())?;
            ui.note(&format!("Admin     made; the API key is in {}", places.settings().display()));
            Ok(settings)
        }
    }
}

/// `up` writes only loopback addresses; any other was written by a person.
fn is_ours(url: Option<&str>) -> bool {
    url.is_none_or(|url| {
        ["http://127.0.0.1:", "http://localhost:", "http://[::1]:"].iter().any(|own| url.starts_with(own))
    })
}

/// A client that the Manager accepts. A key that it does not know belongs to data that is gone; there is a new
/// one then.
pub(super) async fn client(places: &Places, settings: &mut CliToml, url: &str, ui: &Ui) -> Result<Client, Failure> {
    if settings.url.as_deref() != Some(url) {
        settings.url = Some(url.to_owned());
        settings.write(&places.settings())?;
    }
    let client = connect(settings, url)?;
    match client.whoami().await {
        Err(error) if error.code() == Some(Code::Unauthenticated) => {
            settings.api_key = Some(new_key(places).await?);
            settings.write(&places.settings())?;
            ui.note("Admin     made again: the Manager did not know the API key of the earlier run");
            let client = connect(settings, url)?;
            client.whoami().await?;
            Ok(client)
        }
        other => other.map(|_| client).map_err(Failure::from),
    }
}

fn connect(settings: &CliToml, url: &str) -> Result<Client, Failure> {
    let key = settings.api_key.clone().map(SecretText::new);
    Ok(Client::new(url, key.as_ref(), None)?)
}

/// Asks the Manager's host command for a key. It comes by a private file, never by a stream or an argument.
async fn new_key(places: &Places) -> Result<String, Failure> {
    let file = places.config.join("up-admin-key");
    let _ = fs::remove_file(&file);
    let mut command = command(&places.manager);
    command.args(["admin", "reset", "--name", "up", "--key-file"]).arg(&file).arg("--create");
    in_places(&mut command, places);
    let failed = |why: String| {
        let what = format!("the first administrator cannot be made: {why}");
        Failure::new(
            exit_codes::CHILD_DIED,
            what,
            "check that both directories are writable and belong to the same Manager",
        )
    };
    let output = command.output().await.map_err(|error| failed(error.to_string()))?;
    if !output.status.success() {
        return Err(failed(String::from_utf8_lossy(&output.stderr).trim().replace('\n', " | ")));
    }
    let key = private_file::read(&file)?.ok_or_else(|| failed("there is no key file".to_owned()))?;
    fs::remove_file(&file).map_err(|error| failed(error.to_string()))?;
    Ok(key.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_for_another_manager_are_never_taken_over() {
        assert!(is_ours(None) && is_ours(Some("http://127.0.0.1:7430")));
        for url in ["https://manager.example.com", "http://127.0.0.1.example.com:1", "http://10.0.0.1:7430"] {
            assert!(!is_ours(Some(url)), "{url}");
        }
    }
}
