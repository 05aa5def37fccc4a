//! An identity provider: oidc-provider-mock, another implementation than ours, and people who log in there.

use std::{collections::BTreeMap, path::Path};

use reqwest::{
    StatusCode, Url,
    header::{COOKIE, HeaderMap, LOCATION, SET_COOKIE},
};
use serde_json::Value;
use tokio::process::Command;

use crate::{Process, eventually, repo};

/// A running provider, killed when dropped.
#[derive(Debug)]
pub struct Provider {
    _process: Process,
    /// Its issuer.
    pub issuer: String,
    http: reqwest::Client,
}

impl Provider {
    /// Starts one on a port of its own.
    ///
    /// # Panics
    /// When its environment cannot be made, or it does not start.
    pub async fn start(directory: &Path) -> Self {
        let script = repo::top().join("scripts/python.sh");
        let made = Command::new(script).output().await.expect("the script that makes the environment");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let programs = String::from_utf8(made.stdout).expect("a directory");
        let mut command = Command::new(Path::new(programs.trim()).join("oidc-provider-mock"));
        command.args(["--port", "0"]).env("PYTHONWARNINGS", "ignore");
        let process = Process::spawn("oidc-provider-mock", &mut command, &directory.join("provider.log"));
        let process = process.expect("it starts");
        let issuer = eventually("the provider says where it listens", async || {
            let log = process.log();
            let rest = log.split_once("running on ")?.1;
            rest.split_whitespace().next().filter(|url| url.starts_with("http://")).map(str::to_owned)
        })
        .await;
        let client = reqwest::Client::builder().no_proxy().tls_certs_only([]);
        let http = client.redirect(reqwest::redirect::Policy::none()).build().expect("a client");
        Self { _process: process, issuer, http }
    }

    /// Makes a person, or changes what is said of them.
    ///
    /// # Panics
    /// When the provider refuses.
    pub async fn person(&self, subject: &str, claims: Value) {
        let request = self.http.put(format!("{}/users/{subject}", self.issuer));
        let request = request.header("content-type", "application/json").body(claims.to_string());
        assert_eq!(request.send().await.expect("an answer").status(), StatusCode::NO_CONTENT);
    }

    /// Logs a person in on the provider's page; where their browser is sent to then.
    ///
    /// # Panics
    /// When the page is none that logs in.
    pub async fn log_in(&self, page: &str, subject: &str) -> String {
        self.submit(page, &format!("sub={subject}")).await
    }

    /// The same for somebody who does not want to be logged in.
    ///
    /// # Panics
    /// When the page is none that logs in.
    pub async fn deny(&self, page: &str) -> String {
        self.submit(page, "action=deny").await
    }

    async fn submit(&self, page: &str, form: &str) -> String {
        assert!(page.starts_with(&self.issuer), "{page}");
        let request = self.http.post(page).header("content-type", "application/x-www-form-urlencoded");
        let answer = request.body(form.to_owned()).send().await.expect("an answer");
        assert_eq!(answer.status(), StatusCode::FOUND, "{:?}", answer.text().await);
        location(answer.headers())
    }
}

/// A browser: it keeps cookies and goes where it is told, one step at a time.
#[derive(Debug)]
pub struct Browser {
    http: reqwest::Client,
    /// Its cookies, by name.
    pub cookies: BTreeMap<String, String>,
}

/// What a browser got.
#[derive(Debug)]
pub struct Got {
    /// The status.
    pub status: u16,
    /// Where it is told to go.
    pub location: String,
    /// What it shows.
    pub text: String,
}

impl Default for Browser {
    fn default() -> Self {
        let client = reqwest::Client::builder().no_proxy().tls_certs_only([]);
        let http = client.redirect(reqwest::redirect::Policy::none()).build().expect("a client");
        Self { http, cookies: BTreeMap::new() }
    }
}

impl Browser {
    /// Opens an address.
    ///
    /// # Panics
    /// When nobody answers.
    pub async fn open(&mut self, address: &str) -> Got {
        let cookies: Vec<String> = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let request = self.http.get(address).header(COOKIE, cookies.join("; "));
        let answer = request.send().await.expect("an answer");
        for set in answer.headers().get_all(SET_COOKIE) {
            let pair = set.to_str().expect("text").split(';').next().unwrap_or_default();
            let (name, value) = pair.split_once('=').expect("a cookie");
            self.cookies.insert(name.to_owned(), value.to_owned());
        }
        let (status, location) = (answer.status().as_u16(), location(answer.headers()));
        Got { status, location, text: answer.text().await.expect("a page") }
    }
}

fn location(headers: &HeaderMap) -> String {
    headers.get(LOCATION).and_then(|to| to.to_str().ok()).unwrap_or_default().to_owned()
}

/// A parameter of an address.
pub fn parameter(address: &str, name: &str) -> Option<String> {
    let url = Url::parse(address).ok()?;
    url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
}
