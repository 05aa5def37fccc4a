//! Configuration: flags, then environment, then one TOML file, then defaults.

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, bail};
use clap::{Args, CommandFactory, Parser, Subcommand};
use ipnet::IpNet;
use legation_api::accounts::{LEASE_MAX, LEASE_MIN};
use legation_model::Millis;
use serde::Deserialize;

use crate::{admin::Reset, backup::Backup, oidc::OidcSettings, restore::Restore};

/// Where the Manager listens when nobody says otherwise.
pub const LISTEN_DEFAULT: &str = "127.0.0.1:7430";
const LEASE_DEFAULT: Millis = 5 * 60 * 1000;
const HEARTBEAT_DEFAULT: Millis = 10_000;
const FIRST_RETRY_DEFAULT: Millis = 1_000;
const CONSOLE_LIFETIME_DEFAULT: Millis = 12 * 60 * 60 * 1000;
const CONSOLE_IDLE_DEFAULT: Millis = 30 * 60 * 1000;

/// The Manager of Legation: the control plane that delegates connect to.
#[derive(Debug, Parser)]
#[command(name = "legation-manager", version, after_help = EXIT_CODES)]
pub struct CommandLine {
    #[command(subcommand)]
    command: Option<Command>,
    /// Read settings from this TOML file; flags and environment win over it.
    #[arg(long, env = "LEGATION_CONFIG_FILE", value_name = "FILE", global = true)]
    config_file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) settings: Settings,
}

const EXIT_CODES: &str = "Exit codes: 0 stopped as told, 1 failed (the reason is the last line), 2 wrong usage.";

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the Manager (the default).
    Serve,
    /// The key that delegates know the Manager by: tokens that are issued from then on pin the new one.
    ManagerKey {
        /// Which of them.
        #[command(subcommand)]
        command: KeyCommand,
    },
    /// The key-encryption key, without which the database opens nothing.
    Kek {
        /// Which of them.
        #[command(subcommand)]
        command: KeyCommand,
    },
    /// Write everything in the database into one file, also while the Manager runs.
    Backup(Backup),
    /// Fill an empty database from a backup, while the Manager stands still. Killed half-way, run it again.
    Restore(Restore),
    /// Work on the host itself, for when nobody can log in any more.
    Admin {
        /// Which of them.
        #[command(subcommand)]
        command: AdminCommand,
    },
}

/// What to do with a key.
#[derive(Clone, Copy, Debug, Subcommand)]
pub enum KeyCommand {
    /// Make a new one and put it in the place of the present one, while the Manager stands still. Killed half-way, run it
    /// again.
    Rotate,
}

/// Break-glass commands.
#[derive(Debug, Subcommand)]
pub enum AdminCommand {
    /// Make a new API key with the role admin, even while the Manager runs.
    Reset(Reset),
}

/// Every setting, as flag, environment variable and TOML key (dashes become underscores).
#[derive(Args, Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Directory of the embedded database [default: $XDG_DATA_HOME/legation or ~/.local/share/legation].
    #[arg(long, env = "LEGATION_DATA_DIR", value_name = "DIR", global = true)]
    pub data_dir: Option<PathBuf>,
    /// Directory of the key-encryption key, kept apart from the data [default: $XDG_CONFIG_HOME/legation or ~/.config/legation].
    #[arg(long, env = "LEGATION_CONFIG_DIR", value_name = "DIR", global = true)]
    pub config_dir: Option<PathBuf>,
    /// Database to use instead of the embedded one: postgres://user:password@host/name. As a flag without a password, which every user of the machine would see.
    #[arg(long, env = "LEGATION_DATABASE_URL", value_name = "URL", hide_env_values = true, global = true)]
    pub database_url: Option<String>,
    /// Address of the API and, unless link-listen is set, of the delegate link [default: 127.0.0.1:7430].
    #[arg(long, env = "LEGATION_LISTEN", value_name = "ADDRESS", global = true)]
    pub listen: Option<SocketAddr>,
    /// A second address that serves the delegate link alone; the API's address then serves no link.
    #[arg(long, env = "LEGATION_LINK_LISTEN", value_name = "ADDRESS", global = true)]
    pub link_listen: Option<SocketAddr>,
    /// Certificate chain (PEM) for HTTPS.
    #[arg(long, env = "LEGATION_TLS_CERT_FILE", value_name = "FILE", global = true)]
    pub tls_cert_file: Option<PathBuf>,
    /// Private key (PEM) of the certificate.
    #[arg(long, env = "LEGATION_TLS_KEY_FILE", value_name = "FILE", global = true)]
    pub tls_key_file: Option<PathBuf>,
    /// Serve HTTPS with a certificate made on first start and kept in the configuration directory.
    #[arg(long, env = "LEGATION_TLS_SELF_SIGNED", num_args = 0..=1, default_missing_value = "true", global = true)]
    pub tls_self_signed: Option<bool>,
    /// Names and addresses in the self-signed certificate, besides localhost.
    #[arg(long, env = "LEGATION_TLS_NAMES", value_name = "NAME,…", value_delimiter = ',', global = true)]
    pub tls_names: Option<Vec<String>>,
    /// Allow plain HTTP on an address that is not loopback (behind a TLS-terminating proxy).
    #[arg(long, env = "LEGATION_INSECURE_HTTP", num_args = 0..=1, default_missing_value = "true", global = true)]
    pub insecure_http: Option<bool>,
    /// Proxies in front of the Manager, as networks such as 10.0.0.0/8: from these alone X-Forwarded-For says who connects.
    #[arg(long, env = "LEGATION_TRUSTED_PROXIES", value_name = "CIDR,…", value_delimiter = ',', global = true)]
    pub trusted_proxies: Option<Vec<String>>,
    /// How long a delegate may act without an answered heartbeat: 15s to 24h [default: 5m].
    #[arg(long, env = "LEGATION_LEASE", value_name = "DURATION", global = true)]
    pub lease: Option<String>,
    /// How often a delegate sends a heartbeat, at most a third of the lease [default: 10s].
    #[arg(long, env = "LEGATION_HEARTBEAT", value_name = "DURATION", global = true)]
    pub heartbeat: Option<String>,
    /// Within which window delegates come back after a cut [default: 1s].
    #[arg(long, env = "LEGATION_FIRST_RETRY", value_name = "DURATION", global = true)]
    pub first_retry: Option<String>,
    /// How long audit records are kept, such as 400d; what is older is deleted up to a signed checkpoint [default: for ever].
    #[arg(long, env = "LEGATION_AUDIT_KEEP", value_name = "DURATION", global = true)]
    pub audit_keep: Option<String>,
    /// Address under which people and programs reach the API, such as `https://legation.example.com`, when that is not the one it listens on.
    #[arg(long, env = "LEGATION_PUBLIC_URL", value_name = "URL", global = true)]
    pub public_url: Option<String>,
    /// Address under which delegates connect, when that is not public-url.
    #[arg(long, env = "LEGATION_PUBLIC_LINK_URL", value_name = "URL", global = true)]
    pub public_link_url: Option<String>,
    /// How long a console session may last, however much it is used: up to 30d [default: 12h].
    #[arg(long, env = "LEGATION_CONSOLE_LIFETIME", value_name = "DURATION", global = true)]
    pub console_lifetime: Option<String>,
    /// How long a console session may go unused, at most its lifetime [default: 30m].
    #[arg(long, env = "LEGATION_CONSOLE_IDLE", value_name = "DURATION", global = true)]
    pub console_idle: Option<String>,
    /// Identity provider (OpenID Connect) at which people may log in: its issuer, such as `https://id.example.com`. Needs public-url.
    #[arg(long, env = "LEGATION_OIDC_ISSUER", value_name = "URL", global = true)]
    pub oidc_issuer: Option<String>,
    /// What the Manager is called at the identity provider.
    #[arg(long, env = "LEGATION_OIDC_CLIENT_ID", value_name = "ID", global = true)]
    pub oidc_client_id: Option<String>,
    /// File with the secret that the identity provider gave the Manager; none for a client without one.
    #[arg(long, env = "LEGATION_OIDC_CLIENT_SECRET_FILE", value_name = "FILE", global = true)]
    pub oidc_client_secret_file: Option<PathBuf>,
    /// Scopes to ask for beside openid [default: profile].
    #[arg(long, env = "LEGATION_OIDC_SCOPES", value_name = "SCOPE,…", value_delimiter = ',', global = true)]
    pub oidc_scopes: Option<Vec<String>>,
    /// Claim of the ID token that a new user is named after [default: preferred_username].
    #[arg(long, env = "LEGATION_OIDC_NAME_CLAIM", value_name = "CLAIM", global = true)]
    pub oidc_name_claim: Option<String>,
    /// Claim of the ID token that has the groups [default: groups].
    #[arg(long, env = "LEGATION_OIDC_GROUPS_CLAIM", value_name = "CLAIM", global = true)]
    pub oidc_groups_claim: Option<String>,
    /// Roles that groups give, as GROUP=ROLE@SCOPE, or GROUP=ROLE for everywhere. Who is in none of these groups is not let in.
    #[arg(long, env = "LEGATION_OIDC_GRANTS", value_name = "GROUP=ROLE,…", value_delimiter = ',', global = true)]
    pub oidc_grants: Option<Vec<String>>,
    /// Log level: error, warn, info, debug or trace, also per part as in `info,legation_manager=debug` [default: info].
    #[arg(long, env = "LEGATION_LOG", value_name = "LEVEL", global = true)]
    pub log: Option<String>,
    /// Log format: text or json [default: text].
    #[arg(long, env = "LEGATION_LOG_FORMAT", value_name = "FORMAT", global = true)]
    pub log_format: Option<String>,
    /// Write the real addresses into this file when ready (for ports chosen by the system).
    #[arg(long, env = "LEGATION_READY_FILE", value_name = "FILE", global = true)]
    pub ready_file: Option<PathBuf>,
}

/// The settings, resolved and checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// See [`Settings`].
    pub data_dir: PathBuf,
    /// See [`Settings`].
    pub config_dir: PathBuf,
    /// Where the store is; the embedded database in `data_dir` unless set.
    pub database_url: Option<String>,
    /// See [`Settings`].
    pub listen: SocketAddr,
    /// See [`Settings`].
    pub link_listen: Option<SocketAddr>,
    /// How connections are protected.
    pub transport: Transport,
    /// Those whose word about the address of others counts.
    pub trusted_proxies: Arc<[IpNet]>,
    /// The timing that Welcome tells delegates.
    pub timing: Timing,
    /// How long audit records are kept, in milliseconds; for ever without it.
    pub audit_keep: Option<Millis>,
    /// Where people reach the API, without a slash at its end.
    pub public_url: Option<String>,
    /// Where delegates connect, where that is said apart; without a slash at its end.
    pub public_link_url: Option<String>,
    /// How long console sessions last.
    pub console: Console,
    /// The identity provider, if people may log in at one.
    pub oidc: Option<OidcSettings>,
    /// See [`Settings`].
    pub log: String,
    /// Log as JSON.
    pub log_json: bool,
    /// See [`Settings`].
    pub ready_file: Option<PathBuf>,
}

/// How connections are protected besides Noise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transport {
    /// No TLS.
    Plain,
    /// TLS with an operator's certificate.
    Files {
        /// Chain, PEM.
        cert: PathBuf,
        /// Key, PEM.
        key: PathBuf,
    },
    /// TLS with a certificate of its own.
    SelfSigned {
        /// Further names in it.
        names: Vec<String>,
    },
}

/// How long console sessions last, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Console {
    /// However much one is used.
    pub lifetime: Millis,
    /// Unused.
    pub idle: Millis,
}

/// The timing of sessions, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// How long a delegate may act after it sent the last heartbeat that was answered.
    pub lease: Millis,
    /// Interval of heartbeats.
    pub heartbeat: Millis,
    /// Window of the first retry after a cut.
    pub first_retry: Millis,
}

impl Timing {
    /// The same with another lease, if one is given; heartbeats stay within a third of it.
    pub fn with_lease(self, lease: Option<Millis>) -> Self {
        let lease = lease.unwrap_or(self.lease);
        Self { lease, heartbeat: self.heartbeat.min(lease / 3), ..self }
    }

    /// The lease as the Manager counts it: from its last answer, and 1 % longer, for clocks that differ in rate.
    pub const fn lease_counted(&self) -> Millis {
        self.lease + self.lease / 100
    }
}

impl CommandLine {
    /// The command and the checked settings.
    ///
    /// # Errors
    /// One sentence per mistake, each naming the setting.
    pub fn resolve(self) -> anyhow::Result<(Command, Config)> {
        let file = self.config_file.as_deref().map(read_file).transpose()?.unwrap_or_default();
        let config = Config::new(self.settings.or(file))?;
        Ok((self.command.unwrap_or(Command::Serve), config))
    }
}

fn read_file(path: &Path) -> anyhow::Result<Settings> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read the settings file {}", path.display()))?;
    toml::from_str(&text).with_context(|| format!("the settings file {} is not right", path.display()))
}

impl Settings {
    /// These settings where they are set, the other ones elsewhere.
    fn or(self, other: Self) -> Self {
        Self {
            data_dir: self.data_dir.or(other.data_dir),
            config_dir: self.config_dir.or(other.config_dir),
            database_url: self.database_url.or(other.database_url),
            listen: self.listen.or(other.listen),
            link_listen: self.link_listen.or(other.link_listen),
            tls_cert_file: self.tls_cert_file.or(other.tls_cert_file),
            tls_key_file: self.tls_key_file.or(other.tls_key_file),
            tls_self_signed: self.tls_self_signed.or(other.tls_self_signed),
            tls_names: self.tls_names.or(other.tls_names),
            insecure_http: self.insecure_http.or(other.insecure_http),
            trusted_proxies: self.trusted_proxies.or(other.trusted_proxies),
            lease: self.lease.or(other.lease),
            heartbeat: self.heartbeat.or(other.heartbeat),
            first_retry: self.first_retry.or(other.first_retry),
            audit_keep: self.audit_keep.or(other.audit_keep),
            public_url: self.public_url.or(other.public_url),
            public_link_url: self.public_link_url.or(other.public_link_url),
            console_lifetime: self.console_lifetime.or(other.console_lifetime),
            console_idle: self.console_idle.or(other.console_idle),
            oidc_issuer: self.oidc_issuer.or(other.oidc_issuer),
            oidc_client_id: self.oidc_client_id.or(other.oidc_client_id),
            oidc_client_secret_file: self.oidc_client_secret_file.or(other.oidc_client_secret_file),
            oidc_scopes: self.oidc_scopes.or(other.oidc_scopes),
            oidc_name_claim: self.oidc_name_claim.or(other.oidc_name_claim),
            oidc_groups_claim: self.oidc_groups_claim.or(other.oidc_groups_claim),
            oidc_grants: self.oidc_grants.or(other.oidc_grants),
            log: self.log.or(other.log),
            log_format: self.log_format.or(other.log_format),
            ready_file: self.ready_file.or(other.ready_file),
        }
    }
}

impl Config {
    /// Checks settings and fills in the defaults.
    ///
    /// # Errors
    /// One sentence per mistake, each naming the setting.
    pub fn new(settings: Settings) -> anyhow::Result<Self> {
        let listen = settings.listen.unwrap_or(LISTEN_DEFAULT.parse().expect("the default is an address"));
        let transport = transport(&settings)?;
        for address in [Some(listen), settings.link_listen].into_iter().flatten() {
            let open = transport == Transport::Plain && !address.ip().is_loopback();
            if open && settings.insecure_http != Some(true) {
                bail!(
                    "{address} is not loopback and TLS is off: set tls-cert-file and tls-key-file, or tls-self-signed, \
                     or insecure-http when a proxy in front speaks TLS"
                );
            }
        }
        Ok(Self {
            data_dir: directory(settings.data_dir.as_ref(), "XDG_DATA_HOME", ".local/share")?,
            config_dir: directory(settings.config_dir.as_ref(), "XDG_CONFIG_HOME", ".config")?,
            listen,
            transport,
            trusted_proxies: trusted_proxies(&settings)?,
            timing: timing(&settings)?,
            audit_keep: audit_keep(&settings)?,
            public_url: public_url("public-url", settings.public_url.as_deref())?,
            public_link_url: public_url("public-link-url", settings.public_link_url.as_deref())?,
            console: console(&settings)?,
            oidc: OidcSettings::of(&settings)?,
            log_json: log_json(&settings)?,
            log: settings.log.unwrap_or_else(|| "info".to_owned()),
            link_listen: settings.link_listen,
            database_url: settings.database_url,
            ready_file: settings.ready_file,
        })
    }
}

impl Config {
    /// Where delegates connect, as far as it was said. The API's address is theirs too, unless they have a listener of
    /// their own.
    pub fn link_address(&self) -> Option<&str> {
        let shared = self.public_url.as_deref().filter(|_| self.link_listen.is_none());
        self.public_link_url.as_deref().or(shared)
    }

    /// Whether browsers reach the API by https, as far as is known here.
    pub fn by_https(&self) -> bool {
        let public = self.public_url.as_ref().is_some_and(|url| url.starts_with("https://"));
        public || self.transport != Transport::Plain
    }
}

fn public_url(name: &str, text: Option<&str>) -> anyhow::Result<Option<String>> {
    let Some(text) = text else { return Ok(None) };
    let text = text.trim_end_matches('/');
    let url: Option<axum::http::Uri> = text.parse().ok();
    let plain = url.filter(|url| matches!(url.scheme_str(), Some("http" | "https")) && url.path() == "/");
    let plain =
        plain.filter(|url| url.query().is_none() && url.authority().is_some_and(|at| !at.as_str().contains('@')));
    plain.with_context(|| {
        format!("{name} is not like https://legation.example.com: scheme, host and perhaps a port, nothing else")
    })?;
    Ok(Some(text.to_ascii_lowercase()))
}

/// The bounds of a console session: shorter than a minute nobody could work, longer than 30 days nobody should.
const CONSOLE_MIN: Millis = 60 * 1000;
const CONSOLE_MAX: Millis = 30 * 24 * 60 * 60 * 1000;

fn console(settings: &Settings) -> anyhow::Result<Console> {
    let lifetime = duration("console-lifetime", settings.console_lifetime.as_deref(), CONSOLE_LIFETIME_DEFAULT)?;
    let idle = duration("console-idle", settings.console_idle.as_deref(), CONSOLE_IDLE_DEFAULT.min(lifetime))?;
    if !(CONSOLE_MIN..=CONSOLE_MAX).contains(&lifetime) {
        bail!("console-lifetime is out of range: choose 1m to 30d");
    }
    if !(CONSOLE_MIN..=lifetime).contains(&idle) {
        bail!("console-idle is out of range: choose 1m up to console-lifetime");
    }
    Ok(Console { lifetime, idle })
}

fn transport(settings: &Settings) -> anyhow::Result<Transport> {
    let self_signed = settings.tls_self_signed == Some(true);
    match (&settings.tls_cert_file, &settings.tls_key_file) {
        (Some(_), Some(_)) if self_signed => {
            bail!("tls-self-signed and tls-cert-file exclude each other: choose one")
        }
        (Some(cert), Some(key)) => Ok(Transport::Files { cert: cert.clone(), key: key.clone() }),
        (None, None) if self_signed => {
            Ok(Transport::SelfSigned { names: settings.tls_names.clone().unwrap_or_default() })
        }
        (None, None) => Ok(Transport::Plain),
        _ => bail!("tls-cert-file and tls-key-file belong together: set both"),
    }
}

/// A single address counts as a network of its own.
fn trusted_proxies(settings: &Settings) -> anyhow::Result<Arc<[IpNet]>> {
    let texts = settings.trusted_proxies.iter().flatten().map(|text| text.trim()).filter(|text| !text.is_empty());
    let range = |text: &str| -> anyhow::Result<IpNet> {
        let range: Option<IpNet> = text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
        let range = range.with_context(|| {
            format!("trusted-proxies has {text:?}, which is no network: write networks like 10.0.0.0/8, or addresses")
        })?;
        if range.prefix_len() == 0 {
            bail!("trusted-proxies must not trust everybody ({text}): name the networks of your proxies");
        }
        Ok(range.trunc())
    };
    texts.map(range).collect()
}

fn timing(settings: &Settings) -> anyhow::Result<Timing> {
    let lease = duration("lease", settings.lease.as_deref(), LEASE_DEFAULT)?;
    let heartbeat = duration("heartbeat", settings.heartbeat.as_deref(), HEARTBEAT_DEFAULT.min(lease / 3))?;
    let first_retry = duration("first-retry", settings.first_retry.as_deref(), FIRST_RETRY_DEFAULT)?;
    if !(LEASE_MIN..=LEASE_MAX).contains(&lease) {
        bail!("lease is out of range: choose 15s to 24h");
    }
    if heartbeat < 100 || heartbeat > lease / 3 {
        bail!("heartbeat is out of range: choose 100ms up to a third of the lease");
    }
    Ok(Timing { lease, heartbeat, first_retry })
}

/// Shorter than this nobody could have looked: a day.
const AUDIT_KEEP_MIN: Millis = 24 * 60 * 60 * 1000;

fn audit_keep(settings: &Settings) -> anyhow::Result<Option<Millis>> {
    let Some(text) = settings.audit_keep.as_deref() else { return Ok(None) };
    let keep = duration("audit-keep", Some(text), 0)?;
    if keep < AUDIT_KEEP_MIN {
        bail!("audit-keep is too short: choose a day (1d) or more, or leave it out to keep everything");
    }
    Ok(Some(keep))
}

fn duration(name: &str, text: Option<&str>, default: Millis) -> anyhow::Result<Millis> {
    let Some(text) = text else { return Ok(default) };
    let duration: Duration = text
        .parse::<humantime::Duration>()
        .with_context(|| format!("{name} is not a duration: write it like 10s, 5m or 2h"))?
        .into();
    Millis::try_from(duration.as_millis()).with_context(|| format!("{name} is too long"))
}

fn log_json(settings: &Settings) -> anyhow::Result<bool> {
    match settings.log_format.as_deref() {
        None | Some("text") => Ok(false),
        Some("json") => Ok(true),
        Some(_) => bail!("log-format is not known: use text or json"),
    }
}

fn directory(set: Option<&PathBuf>, variable: &str, below_home: &str) -> anyhow::Result<PathBuf> {
    if let Some(directory) = set {
        return Ok(std::path::absolute(directory)?);
    }
    let base = std::env::var_os(variable).map(PathBuf::from).filter(|base| base.is_absolute());
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(below_home));
    let base = base.or_else(home).with_context(|| {
        format!("neither {variable} nor HOME is set: name the directories with --data-dir and --config-dir")
    })?;
    Ok(base.join("legation"))
}

/// The reference page of all settings, made from the definitions above.
pub fn reference() -> String {
    let mut page = String::from(
        "# Settings of the Manager\n\nGenerated from the program; a test keeps it true. Flags win over the \
         environment, the environment over the TOML file named by `--config-file`, and that over the defaults. A \
         TOML key is the flag's name with underscores.\n\n| flag | environment | TOML key | meaning |\n|---|---|---|---|\n",
    );
    for arg in CommandLine::command().get_arguments() {
        let (Some(flag), Some(variable)) = (arg.get_long(), arg.get_env()) else { continue };
        let key = if flag == "config-file" { String::new() } else { format!("`{}`", flag.replace('-', "_")) };
        let help = arg.get_help().map(ToString::to_string).unwrap_or_default().replace('|', "\\|");
        page += &format!("| `--{flag}` | `{}` | {key} | {help} |\n", variable.to_string_lossy());
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(settings: Settings) -> String {
        let home = Settings { data_dir: Some("/d".into()), config_dir: Some("/c".into()), ..Default::default() };
        Config::new(settings.or(home)).expect_err("must be refused").to_string()
    }

    #[test]
    fn mistakes_name_the_setting_and_the_fix() {
        let settings = Settings { listen: "0.0.0.0:1".parse().ok(), ..Default::default() };
        assert!(refused(settings).contains("insecure-http"));
        let settings = Settings { lease: Some("1s".into()), ..Default::default() };
        assert!(refused(settings).contains("15s to 24h"));
        let settings = Settings { heartbeat: Some("200s".into()), ..Default::default() };
        assert!(refused(settings).contains("a third of the lease"));
        let settings = Settings { audit_keep: Some("5m".into()), ..Default::default() };
        assert!(refused(settings).contains("audit-keep"));
        let settings = Settings { console_idle: Some("13h".into()), ..Default::default() };
        assert!(refused(settings).contains("up to console-lifetime"));
        for text in ["legation.example.com", "ftp://a", "https://a/b", "https://a?b", "https://me@a", "https://"] {
            let settings = Settings { public_url: Some(text.into()), ..Default::default() };
            assert!(refused(settings).contains("public-url"), "{text}");
        }
        let settings = Settings { tls_key_file: Some("/k".into()), ..Default::default() };
        assert!(refused(settings).contains("belong together"));
        for (text, told) in [("10.0.0.0/33", "10.0.0.0/8"), ("proxy", "no network"), ("0.0.0.0/0", "everybody")] {
            let settings = Settings { trusted_proxies: Some(vec![text.into()]), ..Default::default() };
            assert!(refused(settings).contains(told), "{text}");
        }
        for wrong in ["legation.example.com", "ftp://h", "https://h/path", "https://u:p@h", "https://h?q", "https://"] {
            let settings = Settings { public_link_url: Some(wrong.into()), ..Default::default() };
            assert!(refused(settings).contains("public-link-url"), "{wrong}");
        }
        assert!(toml::from_str::<Settings>("lise = 1").is_err(), "an unknown key is a mistake");
    }

    #[test]
    fn delegates_connect_where_it_was_said() {
        let link = |public: Option<&str>, link: Option<&str>, own: bool| {
            let settings = Settings {
                public_url: public.map(Into::into),
                public_link_url: link.map(Into::into),
                link_listen: own.then(|| "127.0.0.1:1".parse().expect("an address")),
                data_dir: Some("/d".into()),
                config_dir: Some("/c".into()),
                ..Default::default()
            };
            Config::new(settings).expect("settings").link_address().map(str::to_owned)
        };
        assert_eq!(link(Some("https://API/"), None, false).as_deref(), Some("https://api"));
        assert_eq!(link(Some("https://api"), None, true), None, "nobody said where the listener is reached");
        assert_eq!(link(Some("https://api"), Some("https://link"), true).as_deref(), Some("https://link"));
        assert_eq!(link(None, None, false), None);
    }

    #[test]
    fn flags_win_over_the_file() {
        let flags = Settings { lease: Some("1m".into()), ..Default::default() };
        let file = toml::from_str("lease = \"2m\"\nheartbeat = \"2s\"").expect("a file");
        let merged = flags.or(file);
        assert_eq!((merged.lease.as_deref(), merged.heartbeat.as_deref()), (Some("1m"), Some("2s")));
    }

    #[test]
    fn the_reference_page_is_fresh() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/config.md");
        if std::env::var_os("UPDATE").is_some() {
            fs::write(path, reference()).expect("writable");
        }
        let page = fs::read_to_string(path).unwrap_or_default();
        assert_eq!(page, reference(), "run `UPDATE=1 cargo test -p legation-manager reference_page`");
    }
}
