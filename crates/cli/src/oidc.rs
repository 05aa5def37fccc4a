//! `legation login --oidc`: a browser on this machine logs in at the identity provider, and brings a code back.
//!
//! The program listens on the loopback interface alone (RFC 8252). The code opens a session only together with a word that
//! never leaves this program before that, so that no other login can land here.

use std::{net::Ipv4Addr, time::Duration};

use legation_api::{
    client::Client,
    logins::LoggedIn,
    oidc::{self, LogInByCode, Returned},
    proof::hex,
};
use legation_model::secret::SecretText;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::timeout,
};

use crate::{Failure, exit_codes, ui::Ui};

/// How long a person has: as long as the Manager waits.
const PATIENCE: Duration = Duration::from_secs(10 * 60);
/// How long a browser may take for its request, which it sends at once.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest request that is read: its first line has the code, the rest says nothing.
const REQUEST_MAX: usize = 8 << 10;

/// Logs in by a browser on this machine.
///
/// # Errors
/// Nobody came back in time; the provider or the Manager refuses.
pub async fn log_in(client: &Client, fresh: bool, ui: &Ui) -> Result<LoggedIn, Failure> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let (port, word) = (listener.local_addr()?.port(), word()?);
    ui.note("Open this address in a browser on this machine, and log in there:");
    ui.note(&oidc::begin(client.url(), port, &word, fresh));
    let waiting = ui.spinner("waiting for the browser");
    let returned = timeout(PATIENCE, returned(&listener)).await;
    waiting.finish_and_clear();
    let nobody = || Failure::new(exit_codes::UNAVAILABLE, "nobody logged in in time", "run the command again");
    match returned.map_err(|_| nobody())?? {
        Returned::Code(code) => {
            let request = LogInByCode { code: SecretText::new(code), word: SecretText::new(word) };
            Ok(client.log_in_by_code(&request).await?)
        }
        Returned::Refused(why) => Err(Failure::new(exit_codes::NOT_ALLOWED, why, "do as it says, and log in again")),
    }
}

fn word() -> Result<String, Failure> {
    let mut bytes = [0; 32];
    let failed = |error| Failure::new(exit_codes::UNEXPECTED, format!("the system gives no random bytes: {error}"), "");
    fill(&mut bytes).map_err(failed)?;
    Ok(hex(&bytes))
}

#[expect(clippy::disallowed_methods, reason = "this is the program itself, to which nobody hands entropy")]
fn fill(bytes: &mut [u8]) -> Result<(), getrandom::Error> {
    getrandom::fill(bytes)
}

/// Waits for the browser that brings the code, whatever else connects.
async fn returned(listener: &TcpListener) -> Result<Returned, Failure> {
    loop {
        let (mut stream, _) = listener.accept().await?;
        // Who connects and says nothing must not keep the browser waiting.
        if let Ok(Some(returned)) = timeout(REQUEST_TIMEOUT, answer(&mut stream)).await {
            return Ok(returned);
        }
    }
}

/// Reads one request and answers it with a page.
async fn answer(stream: &mut TcpStream) -> Option<Returned> {
    let mut request = Vec::new();
    while !request.windows(4).any(|end| end == b"\r\n\r\n") && request.len() < REQUEST_MAX {
        if stream.read_buf(&mut request).await.ok()? == 0 {
            break;
        }
    }
    let text = String::from_utf8_lossy(&request);
    let path = text.lines().next()?.strip_prefix("GET ")?.split(' ').next()?;
    let returned = Returned::read(path);
    let (status, says) = match &returned {
        Some(Returned::Code(_)) => ("200 OK", "You are logged in. Go back to the terminal; you may close this window."),
        Some(Returned::Refused(_)) => ("200 OK", "You are not logged in: the terminal says why."),
        None => ("404 Not Found", "There is nothing here."),
    };
    let page = format!("<!doctype html><meta charset=\"utf-8\"><title>Legation</title><p>{says}</p>\n");
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: text/html; charset=utf-8\r\ncontent-length: {}\r\ncache-control: no-store\r\n\
         referrer-policy: no-referrer\r\nconnection: close\r\n\r\n",
        page.len()
    );
    // The code is here whether or not the browser takes its page.
    let _ = stream.write_all((head + &page).as_bytes()).await;
    let _ = stream.shutdown().await;
    returned
}
