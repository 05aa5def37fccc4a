//! The request that `task run` sends, from its arguments, files and environment.

use std::{
    collections::BTreeMap,
    env,
    fs::File,
    io::{self, Read},
    path::Path,
};

use legation_api::tasks::{Http, Shell, SubmitTask, Work};
use legation_model::{
    secret::SecretText,
    task::{SECRET_MAX, WORK_MAX},
};

use super::Run;
use crate::{Failure, shell_words};

impl Run {
    /// Builds and checks the request.
    pub(super) fn request(&self) -> Result<SubmitTask, Failure> {
        let mut request = SubmitTask::new(self.scope.scope.clone(), self.work()?);
        request.selectors.clone_from(&self.selectors);
        request.timeout_ms = self.timeout;
        request.queue_timeout_ms = self.queue_timeout;
        request.output_limit = self.output_limit;
        request.secrets = self.secrets.iter().map(|text| secret(text)).collect::<Result<_, _>>()?;
        request.retries = self.retries;
        request.idempotent = self.retries > 0;
        request.check().map_err(|problem| Failure::usage(problem.detail, problem.fix))?;
        Ok(request)
    }

    fn work(&self) -> Result<Work, Failure> {
        let reads_twice = [&self.script, &self.input].into_iter().flatten().filter(|path| is_stdin(path)).count() > 1;
        if reads_twice {
            return Err(Failure::usage("standard input can only be read once", "name a file for --script or --input"));
        }
        let input = self.input.as_deref().map(|path| read(path, WORK_MAX)).transpose()?.unwrap_or_default();
        if let [method, url] = self.http.as_slice() {
            let headers = pairs(&self.headers, ':', "--header NAME:VALUE")?;
            return Ok(Work::Http(Http {
                method: method.to_ascii_uppercase(),
                url: url.clone(),
                headers,
                body: input,
            }));
        }
        let script = match &self.script {
            Some(path) => read(path, WORK_MAX)?,
            None => shell_words::script(&self.command),
        };
        Ok(Work::Shell(Shell {
            script,
            interpreter: self.interpreter.clone(),
            env: pairs(&self.env, '=', "--env NAME=VALUE")?,
            cwd: self.cwd.clone(),
            stdin: input,
        }))
    }
}

fn is_stdin(path: &Path) -> bool {
    path.as_os_str() == "-"
}

fn pairs(texts: &[String], separator: char, form: &str) -> Result<BTreeMap<String, String>, Failure> {
    let pair = |text: &String| match text.split_once(separator) {
        Some((name, value)) => Ok((name.trim().to_owned(), value.trim_start().to_owned())),
        None => Err(Failure::usage(format!("{text:?} has no {separator:?}"), format!("write it as {form}"))),
    };
    texts.iter().map(pair).collect()
}

/// `NAME=@FILE` or `NAME`. A value on the command line would be seen by every user of the machine.
fn secret(text: &str) -> Result<(String, SecretText), Failure> {
    let fix = "write --secret NAME=@FILE, or --secret NAME to take it from the environment";
    match text.split_once('=') {
        Some((name, file)) => match file.strip_prefix('@') {
            Some(path) => {
                let value = read(Path::new(path), SECRET_MAX)?;
                let value = value.strip_suffix('\n').unwrap_or(&value);
                Ok((name.to_owned(), SecretText::new(value.to_owned())))
            }
            None => Err(Failure::usage(format!("the value of secret {name} must not stand on the command line"), fix)),
        },
        None => match env::var(text) {
            Ok(value) => Ok((text.to_owned(), SecretText::new(value))),
            Err(_) => Err(Failure::usage(format!("the environment has no text variable {text}"), fix)),
        },
    }
}

fn read(path: &Path, max: usize) -> Result<String, Failure> {
    let from: Result<Box<dyn Read>, io::Error> = match is_stdin(path) {
        true => Ok(Box::new(io::stdin())),
        false => File::open(path).map(|file| Box::new(file) as Box<dyn Read>),
    };
    let mut text = String::new();
    let read = from.and_then(|from| from.take(max as u64 + 1).read_to_string(&mut text));
    read.map_err(|error| {
        Failure::settings(
            format!("{} cannot be read: {error}", path.display()),
            "name a file of UTF-8 text that you may read",
        )
    })?;
    if text.len() > max {
        return Err(Failure::usage(format!("{} is too large", path.display()), format!("send at most {max} bytes")));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::{
        args::{Cli, Command},
        tasks::Tasks,
    };

    fn request(arguments: &[&str]) -> Result<SubmitTask, Failure> {
        let all = ["legation", "task", "run"].iter().chain(arguments);
        let Command::Task(Tasks::Run(run)) = Cli::try_parse_from(all).expect("arguments").command else {
            panic!("another command");
        };
        run.request()
    }

    #[test]
    fn a_command_becomes_a_script_with_everything_asked_for() {
        let task = request(&[
            "--on",
            "gpu",
            "--on",
            "pinned:eu",
            "--timeout",
            "5m",
            "--output-limit",
            "10MiB",
            "--env",
            "A=b=c",
            "--",
            "echo",
            "a b",
        ])
        .expect("a request");
        assert_eq!(task.timeout_ms, Some(300_000));
        assert_eq!(task.output_limit, Some(10 << 20));
        assert_eq!(task.selectors.len(), 2);
        let Work::Shell(shell) = task.work else { panic!("not shell") };
        assert_eq!((shell.script.as_str(), shell.env["A"].as_str()), ("echo 'a b'", "b=c"));
    }

    #[test]
    fn an_http_request() {
        let task = request(&["--http", "get", "https://example.com/", "--header", "Accept: text/plain"]).expect("one");
        let Work::Http(http) = task.work else { panic!("not http") };
        assert_eq!((http.method.as_str(), http.headers["Accept"].as_str()), ("GET", "text/plain"));
        assert!(request(&["--http", "GET", "file:///etc/passwd"]).is_err());
    }

    #[test]
    fn a_secret_never_comes_from_the_command_line() {
        let refused = request(&["--secret", "A=hunter2", "--", "true"]).expect_err("a refusal");
        assert!(refused.fix.contains("@FILE") && !format!("{refused:?}").contains("hunter2"));
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("secret");
        std::fs::write(&path, "hunter2\n").expect("written");
        let task = request(&["--secret", &format!("A=@{}", path.display()), "--", "true"]).expect("a request");
        assert_eq!(task.secrets["A"].expose(), "hunter2");
        assert!(request(&["--secret", "LEGATION_NO_SUCH_VARIABLE", "--", "true"]).is_err());
    }

    #[test]
    fn a_missing_or_large_file_is_told_by_name() {
        assert!(request(&["--script", "/no/such/file"]).expect_err("a refusal").what.contains("/no/such/file"));
        assert!(request(&["--script", "/dev/zero"]).is_err());
    }
}
