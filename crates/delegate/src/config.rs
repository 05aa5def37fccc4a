//! What the delegate was told: environment, flags, and the files that they name.

use std::{collections::BTreeMap, fs, net::SocketAddr, path::PathBuf};

use legation_model::{Millis, Name, Text, delegate::TAGS_MAX, secret::SecretText, token::TOKEN_PREFIX};
use tracing::Level;

pub(crate) use legation_wire::message::CAPACITY_MAX;

use crate::{
    policy::Policy,
    settings::{self, SETTINGS, Setting},
    supervisor::order::RunAs,
    token_source::TokenSource,
};

/// Tasks that run at once unless set.
const CAPACITY_DEFAULT: u32 = 4;

/// How long a session lasts before another one takes over: 24 h, so that no key is in use for longer and a
/// token that was replaced in its file is taken up within a day.
pub const SESSION_LIFE: Millis = 24 * 60 * 60 * 1000;

/// A setting that cannot be used, with what to do about it.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(pub(crate) String);

/// What to do when the Manager stops this delegate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnRevoked {
    /// End with [`crate::exit::REFUSED`].
    Exit,
    /// Stay, without tasks, and watch the token source.
    Park,
}

/// The user that tasks run as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskUser {
    /// Numbers.
    pub ids: RunAs,
    /// Home directory.
    pub home: String,
}

/// Everything that was set.
#[derive(Debug)]
pub struct Config {
    /// Where the token comes from.
    pub token: TokenSource,
    /// The Manager's address.
    pub manager: String,
    /// Its name.
    pub name: Name,
    /// The machine's name.
    pub host: Name,
    /// Its tags.
    pub tags: Vec<Name>,
    /// About it.
    pub description: Text,
    /// The account that the token must belong to.
    pub account: Option<String>,
    /// The certificates to trust.
    pub ca_file: Option<PathBuf>,
    /// Where it keeps its key and spool.
    pub state_dir: PathBuf,
    /// What to do when stopped.
    pub on_revoked: OnRevoked,
    /// Tasks at once.
    pub capacity: u32,
    /// Who tasks are.
    pub task_user: Option<TaskUser>,
    /// What tasks may do.
    pub policy: Policy,
    /// Where to answer health checks.
    pub health_addr: Option<SocketAddr>,
    /// How much to log.
    pub log: Level,
    /// How long a session lasts at most, in milliseconds: [`SESSION_LIFE`], which is not for people to set.
    pub session_life: Millis,
}

impl Config {
    /// What no task should read: the state directory, and the token's file if there is one.
    pub fn protected(&self) -> Vec<PathBuf> {
        let token = match &self.token {
            TokenSource::Value(_) => None,
            TokenSource::File(path) => Some(path),
        };
        // Only made absolute: where a link leads is looked up for each task.
        let absolute = |path: &PathBuf| std::path::absolute(path).unwrap_or_else(|_| path.clone());
        [Some(&self.state_dir), token].into_iter().flatten().map(absolute).collect()
    }

    /// Reads flags, and the environment for what they leave open.
    ///
    /// # Errors
    /// The first setting that cannot be used.
    pub fn read(
        arguments: impl IntoIterator<Item = String>,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigError> {
        let flags = read_flags(arguments)?;
        let get = |setting: Setting| {
            let value = flags.get(setting.env).cloned().or_else(|| environment(setting.env));
            value.map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
        };
        let host = Name::lossy(&rustix::system::uname().nodename().to_string_lossy());
        let user = get(settings::TASK_USER).map(|text| task_user(&text)).transpose()?;
        Ok(Self {
            token: token_source(get(settings::TOKEN), get(settings::TOKEN_FILE))?,
            manager: get(settings::MANAGER).ok_or_else(|| missing(settings::MANAGER))?,
            name: parsed(settings::NAME, get(settings::NAME))?.unwrap_or_else(|| host.clone()),
            host,
            tags: tags(get(settings::TAGS))?,
            description: parsed(settings::DESCRIPTION, get(settings::DESCRIPTION))?.unwrap_or_default(),
            account: get(settings::ACCOUNT),
            ca_file: get(settings::CA_FILE).map(PathBuf::from),
            state_dir: get(settings::STATE_DIR).map_or_else(|| default_state_dir(&environment), PathBuf::from),
            on_revoked: on_revoked(get(settings::ON_REVOKED))?,
            capacity: capacity(get(settings::CAPACITY))?,
            task_user: user,
            policy: policy(get(settings::POLICY_FILE))?,
            health_addr: parsed(settings::HEALTH_ADDR, get(settings::HEALTH_ADDR))?,
            log: parsed(settings::LOG, get(settings::LOG))?.unwrap_or(Level::INFO),
            session_life: SESSION_LIFE,
        })
    }
}

fn read_flags(arguments: impl IntoIterator<Item = String>) -> Result<BTreeMap<&'static str, String>, ConfigError> {
    let arguments: Vec<String> = arguments.into_iter().collect();
    let is_token = |text: &String| text.contains(TOKEN_PREFIX) || text == "--token" || text.starts_with("--token=");
    if arguments.iter().any(is_token) {
        return Err(ConfigError(format!(
            "a token must not be an argument, because every user of this machine can read it there: use {} or {}, and \
             have this token replaced if it was real",
            settings::TOKEN.env,
            settings::TOKEN_FILE.env
        )));
    }
    let mut flags = BTreeMap::new();
    let mut arguments = arguments.into_iter();
    while let Some(argument) = arguments.next() {
        let (flag, inline) = match argument.split_once('=') {
            Some((flag, value)) => (flag, Some(value.to_owned())),
            None => (argument.as_str(), None),
        };
        let setting = SETTINGS.iter().find(|setting| setting.flag == Some(flag));
        let setting = setting.ok_or_else(|| ConfigError(format!("unknown argument {flag:?}: see --help")))?;
        let value = inline.or_else(|| arguments.next());
        let value = value.ok_or_else(|| ConfigError(format!("{flag} needs a value: see --help")))?;
        flags.insert(setting.env, value);
    }
    Ok(flags)
}

fn missing(setting: Setting) -> ConfigError {
    ConfigError(format!("{} is not set: set it to {}", setting.env, setting.help))
}

fn wrong(setting: Setting, reason: impl std::fmt::Display) -> ConfigError {
    ConfigError(format!("{} {reason}: {}", setting.env, setting.help))
}

fn parsed<T>(setting: Setting, text: Option<String>) -> Result<Option<T>, ConfigError>
where
    T: std::str::FromStr,
    T::Err: std::fmt::Display,
{
    text.map(|text| text.parse().map_err(|error| wrong(setting, format!("cannot be used ({error})")))).transpose()
}

fn token_source(value: Option<String>, file: Option<String>) -> Result<TokenSource, ConfigError> {
    match (value, file) {
        (Some(_), Some(_)) => Err(ConfigError(format!(
            "both {} and {} are set: keep one of them",
            settings::TOKEN.env,
            settings::TOKEN_FILE.env
        ))),
        (Some(value), None) => Ok(TokenSource::Value(SecretText::new(value))),
        (None, Some(path)) => Ok(TokenSource::File(path.into())),
        (None, None) => Err(ConfigError(format!(
            "no token: set {} to the value shown when the token was issued, or {} to a file that holds it",
            settings::TOKEN.env,
            settings::TOKEN_FILE.env
        ))),
    }
}

fn tags(text: Option<String>) -> Result<Vec<Name>, ConfigError> {
    let text = text.unwrap_or_default();
    let words = text.split(',').map(str::trim).filter(|word| !word.is_empty());
    let tags: Result<Vec<Name>, _> = words.map(str::parse).collect();
    let tags = tags.map_err(|error| wrong(settings::TAGS, format!("cannot be used ({error})")))?;
    if tags.len() > TAGS_MAX {
        return Err(wrong(settings::TAGS, format!("has more than {TAGS_MAX} tags")));
    }
    Ok(tags)
}

fn on_revoked(text: Option<String>) -> Result<OnRevoked, ConfigError> {
    match text.as_deref() {
        None | Some("exit") => Ok(OnRevoked::Exit),
        Some("park") => Ok(OnRevoked::Park),
        Some(_) => Err(wrong(settings::ON_REVOKED, "is neither exit nor park")),
    }
}

fn capacity(text: Option<String>) -> Result<u32, ConfigError> {
    let capacity = parsed(settings::CAPACITY, text)?.unwrap_or(CAPACITY_DEFAULT);
    let legal = (1..=CAPACITY_MAX).contains(&capacity);
    if legal { Ok(capacity) } else { Err(wrong(settings::CAPACITY, "is out of range")) }
}

fn policy(path: Option<String>) -> Result<Policy, ConfigError> {
    let Some(path) = path else { return Ok(Policy::default()) };
    let failed = |reason: String| wrong(settings::POLICY_FILE, format!("{path} cannot be used ({reason})"));
    let text = fs::read_to_string(&path).map_err(|error| failed(error.to_string()))?;
    Policy::parse(&text).map_err(|error| failed(error.to_string()))
}

fn default_state_dir(environment: &impl Fn(&str) -> Option<String>) -> PathBuf {
    if rustix::process::getuid().is_root() {
        return "/var/lib/legation-delegate".into();
    }
    let base = environment("XDG_STATE_HOME").filter(|path| path.starts_with('/')).map(PathBuf::from);
    let home = || PathBuf::from(environment("HOME").unwrap_or_else(|| "/".to_owned())).join(".local/state");
    base.unwrap_or_else(home).join("legation-delegate")
}

/// A user by name, by number, or by both numbers. Only local users have names here.
fn task_user(text: &str) -> Result<TaskUser, ConfigError> {
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    // passwd(5): name, password, uid, gid, comment, home, shell.
    let rows = users.lines().map(|line| line.split(':').collect::<Vec<_>>()).filter(|row| row.len() >= 6);
    let (user, group) = text.split_once(':').map_or((text, None), |(user, group)| (user, Some(group)));
    let row = rows.into_iter().find(|row| row[0] == user || row[2] == user);
    let number = |text: &str| text.parse::<u32>().ok();
    let uid = row.as_ref().map_or_else(|| number(user), |row| number(row[2]));
    let gid = group.map_or_else(|| row.as_ref().and_then(|row| number(row[3])), number);
    let (Some(uid), Some(gid)) = (uid, gid) else {
        return Err(wrong(settings::TASK_USER, "names no user of this machine, or a uid without its gid"));
    };
    let own = rustix::process::getuid();
    if !own.is_root() && own.as_raw() != uid {
        return Err(wrong(settings::TASK_USER, "names another user, which needs the delegate to run as root"));
    }
    let home = row.map_or_else(|| "/".to_owned(), |row| row[5].to_owned());
    Ok(TaskUser { ids: RunAs { uid, gid }, home })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(arguments: &[&str], environment: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let lookup = |name: &str| {
            let found = environment.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        Config::read(arguments.iter().map(|text| (*text).to_owned()), lookup)
    }

    const ENOUGH: [(&str, &str); 2] = [("DELEGATE_TOKEN", "ldt_x"), ("MANAGER_HOST_AND_PORT", "https://m:1")];

    fn refusal(arguments: &[&str], more: &[(&str, &str)]) -> String {
        read(arguments, &[&ENOUGH, more].concat()).expect_err("refused").to_string()
    }

    #[test]
    fn the_least_is_a_token_and_an_address() {
        let config = read(&[], &ENOUGH).expect("enough");
        assert_eq!((config.capacity, config.on_revoked), (CAPACITY_DEFAULT, OnRevoked::Exit));
        assert!(read(&[], &ENOUGH[..1]).expect_err("no address").to_string().contains("MANAGER_HOST_AND_PORT"));
        assert!(read(&[], &ENOUGH[1..]).expect_err("no token").to_string().contains("DELEGATE_TOKEN_FILE"));
    }

    #[test]
    fn a_flag_wins_over_its_variable() {
        let config = read(&["--name=a", "--capacity", "7"], &ENOUGH).expect("legal");
        assert_eq!((config.name.as_str(), config.capacity), ("a", 7));
    }

    #[test]
    fn a_token_is_never_an_argument_and_never_repeated() {
        for arguments in [&["--token", "ldt_canary"][..], &["--token=x"], &["--name", "ldt_canary"], &["ldt_canary"]] {
            let text = refusal(arguments, &[]);
            assert!(text.contains("must not be an argument") && !text.contains("canary"), "{text}");
        }
        let config = read(&[], &ENOUGH).expect("a token is read later");
        assert!(!config.token.read().expect_err("too short").to_string().contains("ldt_x"));
        assert!(!format!("{config:?}").contains("ldt_x"));
    }

    #[test]
    fn every_wrong_setting_is_named() {
        assert!(refusal(&[], &[("DELEGATE_TOKEN_FILE", "/x")]).contains("both"));
        for (env, value) in [
            ("DELEGATE_NAME", "../x"),
            ("DELEGATE_TAGS", "a,b c"),
            ("DELEGATE_DESCRIPTION", "a\u{202e}"),
            ("DELEGATE_ON_REVOKED", "sleep"),
            ("DELEGATE_CAPACITY", "0"),
            ("DELEGATE_HEALTH_ADDR", "here"),
            ("DELEGATE_POLICY_FILE", "/no/such/file"),
            ("DELEGATE_TASK_USER", "no-such-user"),
            ("DELEGATE_LOG", "loud"),
        ] {
            assert!(refusal(&[], &[(env, value)]).contains(env), "{env}");
        }
        assert!(refusal(&["--what"], &[]).contains("--help"));
    }

    #[test]
    fn the_help_names_every_variable_and_exit_code() {
        let help = settings::help();
        for setting in SETTINGS {
            assert!(help.contains(setting.env));
        }
        for code in ["0 ", "1 ", "64", "69", "78"] {
            assert!(help.contains(&format!("\n  {code}")), "{code}");
        }
    }
}
