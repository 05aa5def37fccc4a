//! The table of everything that can be set: environment name, flag, and what it means.

/// One setting.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// The environment variable.
    pub env: &'static str,
    /// The flag; `None` for what must not be an argument.
    pub flag: Option<&'static str>,
    /// What it means, with its default.
    pub help: &'static str,
}

macro_rules! settings {
    ($($name:ident = $env:literal, $flag:expr, $help:literal;)*) => {
        $(pub(crate) const $name: Setting = Setting { env: $env, flag: $flag, help: $help };)*
        /// Every setting, in the order of the help text.
        pub const SETTINGS: &[Setting] = &[$($name),*];
    };
}

settings! {
    TOKEN = "DELEGATE_TOKEN", None, "the delegate token; or DELEGATE_TOKEN_FILE, not both";
    TOKEN_FILE = "DELEGATE_TOKEN_FILE", Some("--token-file"), "a file that holds the token and may be replaced while it runs";
    MANAGER = "MANAGER_HOST_AND_PORT", Some("--manager"), "the Manager's address, such as https://manager.example:7430";
    NAME = "DELEGATE_NAME", Some("--name"), "its name; replicas share one (default: the host's name)";
    TAGS = "DELEGATE_TAGS", Some("--tags"), "its tags, separated by commas";
    DESCRIPTION = "DELEGATE_DESCRIPTION", Some("--description"), "free text about it";
    ACCOUNT = "ACCOUNT_ID", Some("--account"), "the account that the token must belong to, if given";
    CA_FILE = "DELEGATE_CA_FILE", Some("--ca-file"), "trust only the certificates in this PEM file";
    STATE_DIR = "DELEGATE_STATE_DIR", Some("--state-dir"), "its key and its unsent results (default: /var/lib/legation-delegate for root, else ~/.local/state/legation-delegate)";
    ON_REVOKED = "DELEGATE_ON_REVOKED", Some("--on-revoked"), "exit (default) or park, when the Manager stops it";
    CAPACITY = "DELEGATE_CAPACITY", Some("--capacity"), "how many tasks run at once, 1 to 256 (default: 4)";
    TASK_USER = "DELEGATE_TASK_USER", Some("--task-user"), "run tasks as this user: name, uid or uid:gid (needs root; keeps the token from tasks); the delegate's own user switches confinement off";
    POLICY_FILE = "DELEGATE_POLICY_FILE", Some("--policy-file"), "a TOML file that says what tasks may do here";
    HEALTH_ADDR = "DELEGATE_HEALTH_ADDR", Some("--health-addr"), "serve /healthz, /readyz and /metrics here, such as 127.0.0.1:7431 (default: off)";
    LOG = "DELEGATE_LOG", Some("--log"), "error, warn, info (default), debug or trace";
}

/// Read by the dialler, as other programs do.
const PROXY_VARIABLES: &str = "HTTPS_PROXY, HTTP_PROXY, NO_PROXY";
const PROXY_HELP: &str = "proxies on the way to the Manager, also user:password@host";

/// The help text.
pub fn help() -> String {
    let mut text = String::from(
        "legation-delegate: connects to a Legation Manager and runs its tasks\n\n\
         Usage: legation-delegate [--flag value]...   (a flag wins over its variable)\n\nSettings:\n",
    );
    for setting in SETTINGS {
        let flag = setting.flag.unwrap_or("(never a flag)");
        text.push_str(&format!("  {:<23} {:<16} {}\n", setting.env, flag, setting.help));
    }
    text.push_str(&format!("  {:<40} {}\n", PROXY_VARIABLES, PROXY_HELP));
    text.push_str(
        "\nOptions:\n  --help      this text\n  --version   the version\n\
         \nExit codes:\n  0   stopped as asked\n  1   something unexpected\n  64  wrong configuration or command line\n  \
         69  something on this machine is missing or in use, such as the state directory\n  \
         78  the Manager refused the token or stopped this delegate: do not restart it\n",
    );
    text
}

/// The reference page, `docs/delegate.md`.
pub fn reference() -> String {
    let mut page = String::from(
        "# Settings of a delegate\n\nGenerated from the program; a test keeps it true. A flag wins over its \
         variable.\n\n| environment | flag | meaning |\n|---|---|---|\n",
    );
    for setting in SETTINGS {
        let flag = setting.flag.map_or_else(|| "never a flag".to_owned(), |flag| format!("`{flag}`"));
        page.push_str(&format!("| `{}` | {flag} | {} |\n", setting.env, setting.help));
    }
    let proxies = PROXY_VARIABLES.replace(", ", "`, `");
    page.push_str(&format!("| `{proxies}` | no flag | {PROXY_HELP} |\n"));
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_page_is_fresh() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/delegate.md");
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(path, reference()).expect("writable");
        }
        let page = std::fs::read_to_string(path).unwrap_or_default();
        assert_eq!(page, reference(), "run `UPDATE=1 cargo test -p legation-delegate reference_page`");
    }
}
