//! The rules of a submitted task that its types cannot express.

use std::collections::BTreeMap;

use legation_model::{
    Millis,
    delegate::SELECTORS_MAX,
    task::{
        ENV_MAX, HEADERS_MAX, INTERPRETER_MAX, KEY_MAX, OUTPUT_LIMIT_MAX, RETRIES_MAX, SECRET_MAX, SECRETS_MAX,
        TIMEOUT_MAX, VALUE_MAX, WORK_MAX, WORK_TOTAL_MAX,
    },
};

use crate::{
    Code, Problem,
    tasks::{Http, Shell, SubmitTask, Work},
};

impl SubmitTask {
    /// The rules that a type cannot express.
    ///
    /// # Errors
    /// `invalid_request` or `body_too_large` with the field and what to write instead; never a value.
    pub fn check(&self) -> Result<(), Problem> {
        self.check_numbers()?;
        self.check_secrets()?;
        match &self.work {
            Work::Shell(shell) => shell.check(),
            Work::Http(http) => http.check(),
        }
    }

    fn check_numbers(&self) -> Result<(), Problem> {
        check_time("timeout_ms", self.timeout_ms)?;
        check_time("queue_timeout_ms", self.queue_timeout_ms)?;
        if self.selectors.len() > SELECTORS_MAX {
            return Err(Problem::invalid("selectors", "too many", format!("use at most {SELECTORS_MAX}")));
        }
        if self.output_limit.is_some_and(|limit| limit > OUTPUT_LIMIT_MAX) {
            let fix = format!("use at most {OUTPUT_LIMIT_MAX} bytes");
            return Err(Problem::invalid("output_limit", "the limit is out of range", fix));
        }
        if self.retries > RETRIES_MAX {
            return Err(Problem::invalid("retries", "too many", format!("use at most {RETRIES_MAX}")));
        }
        if self.retries > 0 && !self.idempotent {
            let fix = "set idempotent to true if running it twice does no harm, or retries to 0";
            return Err(Problem::invalid("retries", "only an idempotent task may be tried again", fix));
        }
        Ok(())
    }

    fn check_secrets(&self) -> Result<(), Problem> {
        if self.secrets.len() > SECRETS_MAX {
            return Err(Problem::invalid("secrets", "too many", format!("use at most {SECRETS_MAX}")));
        }
        for (name, secret) in &self.secrets {
            check_env_name("secrets", name)?;
            check_size("secrets", secret.expose(), SECRET_MAX)?;
            if secret.expose().is_empty() || secret.expose().contains('\0') {
                let fix = "give the secret a value that can stand in an environment";
                return Err(Problem::invalid("secrets", "a secret is empty or has a zero byte", fix));
            }
        }
        Ok(())
    }
}

impl Shell {
    fn check(&self) -> Result<(), Problem> {
        if self.script.trim().is_empty() {
            return Err(Problem::invalid("work.shell.script", "the script is empty", "write the command to run"));
        }
        check_size("work.shell.script", &self.script, WORK_MAX)?;
        check_size("work.shell.stdin", &self.stdin, WORK_MAX)?;
        check_count("work.shell.interpreter", self.interpreter.len(), INTERPRETER_MAX)?;
        for word in self.interpreter.iter().chain(&self.cwd) {
            check_word("work.shell.interpreter and cwd", word, VALUE_MAX)?;
        }
        check_pairs("work.shell.env", &self.env, ENV_MAX)?;
        self.env.keys().try_for_each(|name| check_env_name("work.shell.env", name))?;
        let words = self.interpreter.iter().chain(&self.cwd).map(String::len).sum::<usize>();
        check_total(self.script.len() + self.stdin.len() + words + bytes(&self.env))
    }
}

impl Http {
    fn check(&self) -> Result<(), Problem> {
        check_size("work.http.body", &self.body, WORK_MAX)?;
        check_word("work.http.url", &self.url, VALUE_MAX)?;
        if !(self.url.starts_with("http://") || self.url.starts_with("https://")) {
            let fix = "start it with http:// or https://";
            return Err(Problem::invalid("work.http.url", "not a web address", fix));
        }
        if self.method.is_empty() || !self.method.bytes().all(|byte| byte.is_ascii_uppercase()) {
            let fix = "use a method in capitals, such as GET";
            return Err(Problem::invalid("work.http.method", "not an HTTP method", fix));
        }
        check_word("work.http.method", &self.method, KEY_MAX)?;
        check_pairs("work.http.headers", &self.headers, HEADERS_MAX)?;
        check_total(self.body.len() + self.url.len() + self.method.len() + bytes(&self.headers))
    }
}

fn check_time(field: &str, asked: Option<Millis>) -> Result<(), Problem> {
    match asked {
        Some(time) if !(1..=TIMEOUT_MAX).contains(&time) => {
            let fix = format!("use 1 to {TIMEOUT_MAX} milliseconds (24 hours)");
            Err(Problem::invalid(field, "the time is out of range", fix))
        }
        _ => Ok(()),
    }
}

fn check_size(field: &str, text: &str, max: usize) -> Result<(), Problem> {
    if text.len() <= max {
        return Ok(());
    }
    let detail = format!("{field}: {} bytes are more than the {max} allowed", text.len());
    Err(Problem::new(Code::BodyTooLarge, detail))
}

fn check_total(bytes: usize) -> Result<(), Problem> {
    if bytes <= WORK_TOTAL_MAX {
        return Ok(());
    }
    let detail = format!("work: {bytes} bytes in all are more than the {WORK_TOTAL_MAX} allowed");
    Err(Problem::new(Code::BodyTooLarge, detail))
}

fn check_count(field: &str, entries: usize, max: usize) -> Result<(), Problem> {
    if entries <= max { Ok(()) } else { Err(Problem::invalid(field, "too many entries", format!("use at most {max}"))) }
}

fn check_pairs(field: &str, pairs: &BTreeMap<String, String>, max: usize) -> Result<(), Problem> {
    check_count(field, pairs.len(), max)?;
    pairs.iter().try_for_each(|(name, value)| {
        check_word(field, name, KEY_MAX)?;
        check_word(field, value, VALUE_MAX)
    })
}

fn bytes(pairs: &BTreeMap<String, String>) -> usize {
    pairs.iter().map(|(name, value)| name.len() + value.len()).sum()
}

fn check_word(field: &str, word: &str, max: usize) -> Result<(), Problem> {
    check_size(field, word, max)?;
    if word.contains('\0') {
        return Err(Problem::invalid(field, "has a zero byte", "remove it"));
    }
    Ok(())
}

/// POSIX names of environment variables, the only ones that every shell can read.
fn check_env_name(field: &str, name: &str) -> Result<(), Problem> {
    let legal = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && name.bytes().next().is_some_and(|first| !first.is_ascii_digit())
        && name.len() <= 255;
    if legal {
        return Ok(());
    }
    let fix = "use letters, digits and _, not starting with a digit, at most 255";
    Err(Problem::invalid(field, "a name is not one of an environment variable", fix))
}

#[cfg(test)]
mod tests {
    use legation_model::secret::SecretText;

    use super::*;

    fn shell(script: &str) -> SubmitTask {
        let shell = Shell { script: script.to_owned(), ..Shell::default() };
        SubmitTask::new("default".parse().expect("a scope"), Work::Shell(shell))
    }

    fn refused(change: impl FnOnce(&mut SubmitTask)) -> Problem {
        let mut task = shell("true");
        change(&mut task);
        task.check().expect_err("a refusal")
    }

    #[test]
    fn a_plain_task_is_fine() {
        assert_eq!(shell("true").check(), Ok(()));
    }

    #[test]
    fn every_bound_is_checked() {
        assert!(refused(|task| task.timeout_ms = Some(0)).detail.starts_with("timeout_ms"));
        assert!(refused(|task| task.queue_timeout_ms = Some(Millis::MAX)).detail.starts_with("queue_timeout_ms"));
        assert!(refused(|task| task.output_limit = Some(u64::MAX)).detail.starts_with("output_limit"));
        assert!(refused(|task| task.retries = 1).detail.contains("idempotent"));
        assert!(refused(|task| task.selectors = vec!["a".parse().expect("one"); 17]).detail.contains("selectors"));
        assert_eq!(refused(|task| *task = shell(&"x".repeat(WORK_MAX + 1))).code, Code::BodyTooLarge);
        assert!(refused(|task| *task = shell(" \n")).detail.contains("empty"));
    }

    #[test]
    fn a_bad_secret_is_refused_without_being_repeated() {
        for (name, value) in [("1A", "hunter2"), ("A=B", "hunter2"), ("A", ""), ("A", "hunter2\0")] {
            let secrets = BTreeMap::from([(name.to_owned(), SecretText::new(value.to_owned()))]);
            let problem = refused(|task| task.secrets = secrets);
            assert!(!format!("{problem:?}").contains("hunter2"), "{problem}");
        }
    }

    #[test]
    fn an_http_task_needs_a_method_and_a_web_address() {
        let http = |method: &str, url: &str| {
            let http = Http { method: method.to_owned(), url: url.to_owned(), ..Http::default() };
            refused(|task| task.work = Work::Http(http)).detail
        };
        assert!(http("GET", "file:///etc/passwd").contains("url"));
        assert!(http("get", "http://x/").contains("method"));
    }
}
