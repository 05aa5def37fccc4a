//! What the delegate's owner lets tasks do, whoever submits them.

use legation_model::task::TaskKind;
use legation_wire::message::Work;
use serde::Deserialize;

/// The local policy. A list that is missing allows everything, an empty one nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// Kinds of task, `shell` and `http`.
    pub kinds: Option<Vec<TaskKind>>,
    /// Programs that may interpret a script, by their exact path.
    pub interpreters: Option<Vec<String>>,
    /// Hosts that an HTTP task may reach: `host`, `host:port`, or `*.domain` for all below it.
    pub hosts: Option<Vec<String>>,
}

impl Policy {
    /// Reads a policy file.
    ///
    /// # Errors
    /// What TOML, or this program, does not understand; an unknown word is refused, so that a mistyped rule
    /// is not silently no rule.
    pub fn parse(text: &str) -> Result<Self, toml::de::Error> {
        toml::from_str(text)
    }

    /// Whether a kind of task may run at all.
    pub fn allows_kind(&self, kind: TaskKind) -> bool {
        self.kinds.as_ref().is_none_or(|kinds| kinds.contains(&kind))
    }

    /// Checks work before it starts.
    ///
    /// # Errors
    /// A sentence for the person who submitted it.
    pub fn check(&self, work: &Work) -> Result<(), String> {
        if !self.allows_kind(work.kind()) {
            return Err(format!("the delegate's owner does not allow {} tasks", work.kind()));
        }
        match work {
            Work::Shell { interpreter, .. } => self.check_interpreter(program(interpreter)),
            Work::Http { url, .. } => {
                let url = reqwest::Url::parse(url).map_err(|error| format!("the URL cannot be used: {error}"))?;
                self.check_host(&url)
            }
        }
    }

    /// Checks where a request, or a redirect of it, goes.
    ///
    /// # Errors
    /// A sentence for the person who submitted it.
    pub fn check_host(&self, url: &reqwest::Url) -> Result<(), String> {
        let host = url.host_str().unwrap_or_default();
        let with_port = format!("{host}:{}", url.port_or_known_default().unwrap_or_default());
        let covers = |rule: &String| match rule.strip_prefix("*.") {
            Some(domain) => host.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.')),
            None => rule == host || *rule == with_port,
        };
        if self.hosts.as_ref().is_none_or(|hosts| hosts.iter().any(covers)) {
            return Ok(());
        }
        Err(format!("the delegate's owner does not allow requests to {host}"))
    }

    fn check_interpreter(&self, program: &str) -> Result<(), String> {
        if self.interpreters.as_ref().is_none_or(|known| known.iter().any(|path| path == program)) {
            return Ok(());
        }
        Err(format!("the delegate's owner does not allow the interpreter {program:?}"))
    }
}

/// The program that runs a script, the shell when its task names none. Asked both by the check and by what starts the
/// program, so that the owner's rule is about what runs.
pub fn program(interpreter: &[String]) -> &str {
    interpreter.first().map_or("/bin/sh", String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn http(url: &str) -> Work {
        Work::Http { method: "GET".into(), url: url.into(), headers: vec![], body: vec![] }
    }

    fn shell(interpreter: &[&str]) -> Work {
        let interpreter = interpreter.iter().map(|word| (*word).to_owned()).collect();
        Work::Shell { script: String::new(), interpreter, env: vec![], cwd: None, stdin: vec![] }
    }

    #[test]
    fn without_rules_everything_goes() {
        let policy = Policy::parse("").expect("empty");
        assert_eq!((policy.check(&http("http://x")), policy.check(&shell(&[]))), (Ok(()), Ok(())));
    }

    #[test]
    fn a_list_allows_what_is_in_it_and_nothing_else() {
        let policy =
            Policy::parse("kinds = ['http']\nhosts = ['a.example', 'b.example:8443', '*.c.example']").expect("legal");
        assert!(policy.check(&shell(&[])).is_err());
        for url in ["http://a.example/x", "https://b.example:8443", "https://x.c.example"] {
            assert_eq!(policy.check(&http(url)), Ok(()), "{url}");
        }
        for url in ["http://b.example", "http://c.example", "http://evilc.example", "http://a.example.evil", "x"] {
            assert!(policy.check(&http(url)).is_err(), "{url}");
        }
        let policy = Policy::parse("interpreters = ['/bin/bash']").expect("legal");
        assert_eq!(policy.check(&shell(&["/bin/bash", "-e"])), Ok(()));
        assert!(policy.check(&shell(&[])).is_err());
    }

    #[test]
    fn a_mistyped_rule_is_an_error() {
        assert!(Policy::parse("kind = ['http']").is_err());
        assert!(Policy::parse("kinds = ['htp']").is_err());
    }
}
