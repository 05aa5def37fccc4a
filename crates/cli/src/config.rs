//! Which Manager, with which key or session: flags, then the environment, then `session.toml`, which `legation login`
//! writes, then `cli.toml`.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
};

use legation_api::client::Client;
use legation_model::{login::LoginMethod, secret::SecretText};
use serde::{Deserialize, Serialize};

use crate::{Failure, args::Global, private_file, prompt};

/// Where a Manager started by `up` listens.
pub const LISTEN_DEFAULT: &str = "127.0.0.1:7430";
/// The settings file within the configuration directory.
pub const FILE: &str = "cli.toml";
/// The file of the console session beside it.
const SESSION_FILE: &str = "session.toml";

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

/// The console session that is kept for the commands after a login.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Session {
    /// The Manager's address.
    url: String,
    /// A CA certificate to trust for it.
    ca_file: Option<PathBuf>,
    /// How its owner logged in.
    method: LoginMethod,
    /// The session's value.
    session: String,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("url", &self.url).field("method", &self.method).finish_non_exhaustive()
    }
}

impl Session {
    /// The session at a Manager.
    pub fn new(url: String, ca_file: Option<PathBuf>, value: &SecretText, method: LoginMethod) -> Self {
        Self { url, ca_file, method, session: value.expose().to_owned() }
    }

    /// Reads the file, if there is one.
    ///
    /// # Errors
    /// Others can read it, or it is not of this shape.
    pub fn read() -> Result<Option<Self>, Failure> {
        let path = config_dir()?.join(SESSION_FILE);
        let Some(text) = private_file::read(&path)? else { return Ok(None) };
        toml::from_str(&text).map(Some).map_err(|error| {
            // The whole error would repeat the line, and with it perhaps the session.
            let what = format!("{} holds no session: {}", path.display(), error.message());
            Failure::settings(what, "remove the file and log in again")
        })
    }

    /// Writes the file, for its owner only.
    ///
    /// # Errors
    /// The directory is not writable.
    pub fn write(&self) -> Result<(), Failure> {
        let text = toml::to_string(self)
            .map_err(|error| Failure::settings(format!("the session cannot be written: {error}"), ""))?;
        let directory = config_dir()?;
        private_file::make_dir(&directory)?;
        private_file::write(&directory.join(SESSION_FILE), &text)
    }

    /// Removes the file, if there is one.
    ///
    /// # Errors
    /// The directory is not writable.
    pub fn remove() -> Result<(), Failure> {
        let path = config_dir()?.join(SESSION_FILE);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Failure::settings(format!("{} cannot be removed: {error}", path.display()), "remove it by hand"))
            }
            _ => Ok(()),
        }
    }

    /// A client that presents it.
    ///
    /// # Errors
    /// Address, value or CA file cannot be right.
    pub fn client(&self) -> Result<Client, Failure> {
        let value = SecretText::new(self.session.clone());
        Ok(Client::new(&self.url, Some(&value), self.ca_file.as_deref())?)
    }
}

/// What a session that is presented goes before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behind {
    /// Nothing.
    Nothing,
    /// The API key of the settings file, which is in use again after `legation logout`.
    KeyOfFile,
}

/// What a client needs.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The Manager's address.
    pub url: String,
    /// The API key or console session, if there is one.
    pub key: Option<SecretText>,
    /// Whether the key came by flag or environment.
    pub key_is_given: bool,
    /// Whether it is a session whose owner can be asked for the password.
    asks: bool,
    /// What it goes before, if it is a session.
    pub session: Option<Behind>,
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
            Some(path) => Some(prompt::secret("API key", Some(path))?),
            None => env::var("LEGATION_API_KEY").ok().filter(|key| !key.is_empty()).map(SecretText::new),
        };
        Ok(Self::combine(global, key, Session::read()?, file))
    }

    /// A file's key or session goes only to that file's Manager: naming another address must not hand it over.
    fn combine(global: &Global, given: Option<SecretText>, session: Option<Session>, file: CliToml) -> Self {
        let there = |url: &String| global.url.as_ref().is_none_or(|named| named == url);
        let key_is_given = given.is_some();
        if let Some(Session { url, ca_file, method, session }) = session.filter(|session| there(&session.url)) {
            let asks = !key_is_given && method == LoginMethod::Password;
            let behind = if file.api_key.is_some() { Behind::KeyOfFile } else { Behind::Nothing };
            let presented = (!key_is_given).then_some(behind);
            let (key, ca_file) = (given.or(Some(SecretText::new(session))), global.ca_file.clone().or(ca_file));
            return Self { url, key, key_is_given, asks, session: presented, ca_file };
        }
        let own = global.url.as_ref().is_none_or(|url| Some(url) == file.url.as_ref());
        let key = given.or_else(|| file.api_key.filter(|_| own).map(SecretText::new));
        let url = global.url.clone().or(file.url).unwrap_or_else(|| format!("http://{LISTEN_DEFAULT}"));
        let ca_file = global.ca_file.clone().or(file.ca_file);
        Self { url, key, key_is_given, asks: false, session: None, ca_file }
    }

    /// The same for what needs no key, such as opening a one-time code.
    pub fn without_key(self) -> Self {
        Self { key: None, asks: false, session: None, ..self }
    }

    /// The client for these settings. Where the Manager wants to be shown once more who it is, it asks a person at a
    /// terminal for the password, and goes on.
    ///
    /// # Errors
    /// The address, key or CA file cannot be right.
    pub fn client(&self) -> Result<Client, Failure> {
        let client = Client::new(&self.url, self.key.as_ref(), self.ca_file.as_deref())?;
        if !(self.asks && prompt::is_asked()) {
            return Ok(client);
        }
        Ok(client.reauthenticating(|| prompt::secret("The Manager asks once more for your password", None).ok()))
    }
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
        Settings::combine(&global, key.map(|key| SecretText::new(key.to_owned())), None, file)
    }

    #[test]
    fn a_session_goes_before_the_key_of_the_file_and_never_to_another_address() {
        let file = || CliToml { url: Some("http://a".to_owned()), api_key: Some("lak_file".to_owned()), ca_file: None };
        let combined = |named: Option<&str>, given: Option<&str>| {
            let global = Global { url: named.map(str::to_owned), ..Global::default() };
            let value = SecretText::new("lcs_kept".to_owned());
            let session = Session::new("http://b".to_owned(), None, &value, LoginMethod::Password);
            let given = given.map(|key| SecretText::new(key.to_owned()));
            let settings = Settings::combine(&global, given, Some(session), file());
            let key = settings.key.map(|key| key.expose().to_owned()).unwrap_or_default();
            (settings.url, key, settings.asks)
        };
        let found = |url: &str, key: &str, asks| (url.to_owned(), key.to_owned(), asks);
        assert_eq!(combined(None, None), found("http://b", "lcs_kept", true));
        assert_eq!(combined(Some("http://b"), None), found("http://b", "lcs_kept", true));
        assert_eq!(combined(Some("http://a"), None), found("http://a", "lak_file", false));
        assert_eq!(combined(Some("http://evil"), None), found("http://evil", "", false));
        assert_eq!(combined(None, Some("lak_own")), found("http://b", "lak_own", false));
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
