//! Which Manager, with which key: flags, then the environment, then `cli.toml`.

use std::{
    env,
    path::{Path, PathBuf},
};

use legation_api::client::Client;
use legation_model::secret::SecretText;
use serde::{Deserialize, Serialize};

use crate::{Failure, args::Global, private_file};

/// Where a Manager started by `up` listens.
pub const LISTEN_DEFAULT: &str = "127.0.0.1:7430";
/// The settings file within the configuration directory.
pub const FILE: &str = "cli.toml";

/// The settings file.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CliToml {
    /// The Manager's address.
    pub url: Option<String>,
    /// The API key for that Manager.
    pub api_key: Option<String>,
    /// A CA certificate to trust for it.
    pub ca_file: Option<PathBuf>,
}

impl std::fmt::Debug for CliToml {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CliToml").field("url", &self.url).field("ca_file", &self.ca_file).finish_non_exhaustive()
    }
}

impl CliToml {
    /// Reads the file; an empty one if there is none.
    ///
    /// # Errors
    /// Others can read it, or it is not TOML of this shape.
    pub fn read(path: &Path) -> Result<Option<Self>, Failure> {
        let Some(text) = private_file::read(path)? else { return Ok(None) };
        toml::from_str(&text).map(Some).map_err(|error| {
            // The whole error would repeat the line, and with it perhaps the key.
            let what = format!("{} is not a settings file: {}", path.display(), error.message());
            Failure::settings(what, "it takes url, api_key and ca_file, each as name = \"value\"")
        })
    }

    /// Writes the file, for its owner only.
    ///
    /// # Errors
    /// The directory is not writable.
    pub fn write(&self, path: &Path) -> Result<(), Failure> {
        let text = toml::to_string(self)
            .map_err(|error| Failure::settings(format!("the settings cannot be written: {error}"), ""))?;
        private_file::write(path, &text)
    }
}

/// What a client needs.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The Manager's address.
    pub url: String,
    /// The API key, if there is one.
    pub key: Option<SecretText>,
    /// A CA certificate to trust instead of the system's.
    pub ca_file: Option<PathBuf>,
}

impl Settings {
    /// Collects the settings.
    ///
    /// # Errors
    /// A file is missing, unreadable, open to others or malformed.
    pub fn load(global: &Global) -> Result<Self, Failure> {
        let file = CliToml::read(&config_dir()?.join(FILE))?.unwrap_or_default();
        let key = match &global.api_key_file {
            Some(path) => Some(read_key(path)?),
            None => env::var("LEGATION_API_KEY").ok().filter(|key| !key.is_empty()).map(SecretText::new),
        };
        Ok(Self::combine(global, key, file))
    }

    /// The file's key goes only to the file's Manager: naming another address must not hand it over.
    fn combine(global: &Global, key: Option<SecretText>, file: CliToml) -> Self {
        let own = global.url.as_ref().is_none_or(|url| Some(url) == file.url.as_ref());
        let key = key.or_else(|| file.api_key.filter(|_| own).map(SecretText::new));
        let url = global.url.clone().or(file.url).unwrap_or_else(|| format!("http://{LISTEN_DEFAULT}"));
        Self { url, key, ca_file: global.ca_file.clone().or(file.ca_file) }
    }

    /// The client for these settings.
    ///
    /// # Errors
    /// The address, key or CA file cannot be right.
    pub fn client(&self) -> Result<Client, Failure> {
        Ok(Client::new(&self.url, self.key.as_ref(), self.ca_file.as_deref())?)
    }
}

fn read_key(path: &Path) -> Result<SecretText, Failure> {
    let text = private_file::read(path)?.ok_or_else(|| {
        Failure::settings(format!("there is no API key file {}", path.display()), "check --api-key-file")
    })?;
    Ok(SecretText::new(text.trim().to_owned()))
}

/// The configuration directory, whether or not it exists.
///
/// # Errors
/// Neither `LEGATION_CONFIG_DIR`, `XDG_CONFIG_HOME` nor `HOME` is set.
pub fn config_dir() -> Result<PathBuf, Failure> {
    directory("LEGATION_CONFIG_DIR", "XDG_CONFIG_HOME", ".config")
}

/// The data directory, whether or not it exists.
///
/// # Errors
/// Neither `LEGATION_DATA_DIR`, `XDG_DATA_HOME` nor `HOME` is set.
pub fn data_dir() -> Result<PathBuf, Failure> {
    directory("LEGATION_DATA_DIR", "XDG_DATA_HOME", ".local/share")
}

fn directory(own: &str, xdg: &str, under_home: &str) -> Result<PathBuf, Failure> {
    let set = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    // The XDG specification has relative ones ignored, and the Manager does.
    let base = set(xdg).filter(|base| base.is_absolute());
    set(own)
        .or_else(|| base.map(|base| base.join("legation")))
        .or_else(|| set("HOME").map(|home| home.join(under_home).join("legation")))
        .ok_or_else(|| Failure::settings("there is no home directory to look in", format!("set {own}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn combined(url: Option<&str>, key: Option<&str>) -> Settings {
        let global = Global { url: url.map(str::to_owned), ..Global::default() };
        let file = CliToml { url: Some("http://a".to_owned()), api_key: Some("lak_file".to_owned()), ca_file: None };
        Settings::combine(&global, key.map(|key| SecretText::new(key.to_owned())), file)
    }

    #[test]
    fn the_key_of_the_file_never_goes_to_another_address() {
        let key = |settings: &Settings| settings.key.as_ref().map(|key| key.expose().to_owned());
        assert_eq!(key(&combined(None, None)).as_deref(), Some("lak_file"));
        assert_eq!(key(&combined(Some("http://a"), None)).as_deref(), Some("lak_file"));
        assert_eq!(key(&combined(Some("http://evil"), None)), None);
        assert_eq!(key(&combined(Some("http://b"), Some("lak_own"))).as_deref(), Some("lak_own"));
    }

    #[test]
    fn a_broken_file_is_told_without_its_key() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join(FILE);
        private_file::write(&path, "api_key = \"lak_secret\nurl = 1").expect("written");
        let failure = CliToml::read(&path).expect_err("a refusal");
        assert!(!format!("{failure:?}").contains("lak_secret"));
        let file = CliToml { api_key: Some("lak_secret".to_owned()), ..CliToml::default() };
        assert!(!format!("{file:?}").contains("lak_secret"));
    }
}
