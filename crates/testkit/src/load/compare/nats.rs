//! nats-server: lines of text.

use std::{fs, io};

use memchr::memmem;
use tokio::process::Command;

use super::peer::{Event, Peer, Place, User};

const END: &[u8] = b"\r\n";
/// Seconds that a login may take, which many do at the same time: the default of 2 is for one at a time.
const PATIENCE: u64 = 60;

pub(super) struct Nats;

impl Peer for Nats {
    fn name(&self) -> &'static str {
        "nats-server"
    }

    fn version_flag(&self) -> &'static str {
        "--version"
    }

    /// The passwords are in the clear, which costs the server least at a login.
    fn configure(&self, place: &Place<'_>, users: &[&User]) -> anyhow::Result<()> {
        let user = |user: &&User| format!("{{ user: {}, password: \"{}\" }}", user.name, user.password);
        let text = format!(
            "listen: \"{}\"\ntls {{ cert_file: \"{}\", key_file: \"{}\", timeout: {PATIENCE} }}\n\
             authorization {{ timeout: {PATIENCE}, users: [ {} ] }}\n",
            place.address,
            place.file("server.crt"),
            place.file("server.key"),
            users.iter().map(user).collect::<Vec<_>>().join(", ")
        );
        Ok(fs::write(place.file("nats.conf"), text)?)
    }

    fn arguments(&self, place: &Place<'_>, command: &mut Command) {
        command.arg("--config").arg(place.file("nats.conf"));
    }

    fn speaks_first(&self) -> bool {
        true
    }

    fn greeting(&self, user: &User, subject: &str) -> Vec<u8> {
        let (name, password) = (user.name, &user.password);
        format!(
            "CONNECT {{\"verbose\":false,\"pedantic\":false,\"tls_required\":true,\"user\":\"{name}\",\
             \"pass\":\"{password}\",\"name\":\"{subject}\",\"lang\":\"rust\",\"version\":\"0\"}}\r\n\
             SUB {subject} 1\r\nPING\r\n"
        )
        .into_bytes()
    }

    fn heartbeat(&self) -> &'static [u8] {
        b"PING\r\n"
    }

    fn publish(&self, subject: &str, payload: &[u8]) -> Vec<u8> {
        [format!("PUB {subject} {}\r\n", payload.len()).as_bytes(), payload, END].concat()
    }

    fn take(&self, input: &mut Vec<u8>) -> io::Result<Option<Event>> {
        let Some(end) = memmem::find(input, END) else { return Ok(None) };
        let line = String::from_utf8_lossy(&input[..end]).into_owned();
        let whole = end + END.len() + body(&line)?;
        if input.len() < whole {
            return Ok(None);
        }
        input.drain(..whole);
        event(&line).map(Some)
    }
}

fn event(line: &str) -> io::Result<Event> {
    match line.split(' ').next().unwrap_or_default() {
        "PONG" => Ok(Event::Answer),
        "MSG" => Ok(Event::Message),
        "PING" => Ok(Event::Question(b"PONG\r\n")),
        "INFO" | "+OK" => Ok(Event::Other),
        _ => Err(io::Error::other(line.to_owned())),
    }
}

/// Bytes behind the line that belong to it: a message has its payload there, and the last word is its length.
fn body(line: &str) -> io::Result<usize> {
    if !line.starts_with("MSG ") {
        return Ok(0);
    }
    let length = line.rsplit(' ').next().and_then(|word| word.parse::<u16>().ok());
    length.map(|length| usize::from(length) + END.len()).ok_or_else(|| io::Error::other(line.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(input: &str, expect: &[Event], rest: &str) {
        let mut input = input.as_bytes().to_vec();
        let taken: Vec<_> = std::iter::from_fn(|| Nats.take(&mut input).expect("the protocol")).collect();
        assert_eq!((taken.as_slice(), input.as_slice()), (expect, rest.as_bytes()));
    }

    #[test]
    fn whole_lines_are_taken_and_the_rest_waits() {
        check("", &[], "");
        check("PO", &[], "PO");
        check("PONG\r\nPING\r\nINFO {\"a\":1}\r\nPON", &[Event::Answer, Nats::QUESTION, Event::Other], "PON");
    }

    #[test]
    fn a_message_is_taken_with_its_payload_whatever_is_in_it() {
        check("MSG load-1 1 6\r\nPONG\r\n\r\nPONG\r\n", &[Event::Message, Event::Answer], "");
        check("MSG load-1 1 6\r\nPONG\r\n", &[], "MSG load-1 1 6\r\nPONG\r\n");
    }

    #[test]
    fn what_is_published_reads_as_it_is_written() {
        assert_eq!(Nats.publish("load-1", b"work"), b"PUB load-1 4\r\nwork\r\n");
    }

    #[test]
    fn a_refusal_is_an_error_that_says_what_the_server_said() {
        let said = Nats.take(&mut b"-ERR 'Authorization Violation'\r\n".to_vec()).expect_err("a refusal");
        assert!(said.to_string().contains("Authorization Violation"), "{said}");
        assert!(Nats.take(&mut b"MSG load-1 1 many\r\n".to_vec()).is_err());
    }

    impl Nats {
        const QUESTION: Event = Event::Question(b"PONG\r\n");
    }
}
