//! mosquitto: packets of MQTT 3.1.1. Those that the phases need are shorter than 128 bytes, so that their length is
//! one byte.

use std::{fs, io, process};

use anyhow::{Context as _, ensure};
use tokio::process::Command;

use super::{
    peer::{Event, Peer, Place, User},
    server::program,
};

/// Seconds without a word after which the server gives up a client. Each says something every ten seconds.
const KEEP_ALIVE: u16 = 60;
/// User and password are given, and nothing is kept of an earlier session.
const CONNECT_FLAGS: u8 = 0b1100_0010;

const CONNECT: u8 = 0x10;
const CONNACK: u8 = 0x20;
const PUBLISH: u8 = 0x30;
const SUBSCRIBE: u8 = 0x82;
const SUBACK: u8 = 0x90;
const PINGRESP: u8 = 0xd0;

pub(super) struct Mosquitto;

impl Peer for Mosquitto {
    fn name(&self) -> &'static str {
        "mosquitto"
    }

    fn version_flag(&self) -> &'static str {
        "-h"
    }

    /// Passwords are hashed as the server's own tool does it by default.
    fn configure(&self, place: &Place<'_>, users: &[&User]) -> anyhow::Result<()> {
        let passwords = place.file("passwords");
        let lines = users.iter().map(|user| format!("{}:{}\n", user.name, user.password));
        fs::write(&passwords, lines.collect::<String>())?;
        let hashed = process::Command::new(program("mosquitto_passwd")?).arg("-U").arg(&passwords).status();
        ensure!(hashed.context("mosquitto_passwd")?.success(), "mosquitto_passwd failed");
        // Started as root it would become a user who cannot read a directory of ours.
        let text = format!(
            "user root\nlistener {} {}\ncertfile {}\nkeyfile {}\ntls_version tlsv1.3\nset_tcp_nodelay true\n\
             allow_anonymous false\npassword_file {passwords}\nlog_dest stderr\nlog_type error\nlog_type warning\n",
            place.address.port(),
            place.address.ip(),
            place.file("server.crt"),
            place.file("server.key"),
        );
        Ok(fs::write(place.file("mosquitto.conf"), text)?)
    }

    fn arguments(&self, place: &Place<'_>, command: &mut Command) {
        command.arg("-c").arg(place.file("mosquitto.conf"));
    }

    fn speaks_first(&self) -> bool {
        false
    }

    fn greeting(&self, user: &User, subject: &str) -> Vec<u8> {
        let connect = [
            &text("MQTT")[..],
            &[4, CONNECT_FLAGS],
            &KEEP_ALIVE.to_be_bytes(),
            &text(subject),
            &text(user.name),
            &text(&user.password),
        ];
        // The number of the request, and that a message may get lost.
        let subscribe = [&[0, 1][..], &text(subject), &[0]];
        [packet(CONNECT, &connect.concat()), packet(SUBSCRIBE, &subscribe.concat())].concat()
    }

    fn heartbeat(&self) -> &'static [u8] {
        &[0xc0, 0]
    }

    fn publish(&self, subject: &str, payload: &[u8]) -> Vec<u8> {
        packet(PUBLISH, &[&text(subject), payload].concat())
    }

    fn take(&self, input: &mut Vec<u8>) -> io::Result<Option<Event>> {
        let [kind, length, rest @ ..] = input.as_slice() else { return Ok(None) };
        if *length >= 128 {
            return Err(io::Error::other("a packet that nobody asked for"));
        }
        let Some(body) = rest.get(..usize::from(*length)) else { return Ok(None) };
        let event = event(*kind, body)?;
        input.drain(..2 + usize::from(input[1]));
        Ok(Some(event))
    }
}

fn event(kind: u8, body: &[u8]) -> io::Result<Event> {
    match (kind, body) {
        (CONNACK, [_, 0]) => Ok(Event::Other),
        (SUBACK, [_, _, 0]) | (PINGRESP, []) => Ok(Event::Answer),
        (PUBLISH, _) => Ok(Event::Message),
        (CONNACK, _) => Err(io::Error::other(format!("not connected: {body:?}"))),
        _ => Err(io::Error::other(format!("an unexpected packet {kind:#x} {body:?}"))),
    }
}

/// Text with its length before it.
fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u16).to_be_bytes(), text.as_bytes()].concat()
}

fn packet(kind: u8, body: &[u8]) -> Vec<u8> {
    debug_assert!(body.len() < 128, "longer packets have a longer length");
    [&[kind, body.len() as u8], body].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(input: &[u8], expect: &[Event], rest: &[u8]) {
        let mut input = input.to_vec();
        let taken: Vec<_> = std::iter::from_fn(|| Mosquitto.take(&mut input).expect("the protocol")).collect();
        assert_eq!((taken.as_slice(), input.as_slice()), (expect, rest));
    }

    #[test]
    fn whole_packets_are_taken_and_the_rest_waits() {
        check(&[], &[], &[]);
        check(&[0x20, 2, 0], &[], &[0x20, 2, 0]);
        check(&[0x20, 2, 0, 0, 0x90, 3, 0, 1, 0, 0xd0], &[Event::Other, Event::Answer], &[0xd0]);
        check(&[0xd0, 0, 0x30, 4, 0, 1, b'a', b'!'], &[Event::Answer, Event::Message], &[]);
    }

    #[test]
    fn what_is_published_reads_as_it_is_written() {
        let packet = Mosquitto.publish("a", b"work");
        assert_eq!(packet, [&[0x30, 7, 0, 1][..], b"awork"].concat());
        check(&packet, &[Event::Message], &[]);
    }

    #[test]
    fn a_greeting_is_two_packets() {
        let user = User { name: "u", password: "p".to_owned() };
        let connect = [&[0x10, 19, 0, 4][..], b"MQTT", &[4, 0xc2, 0, 60, 0, 1, b's', 0, 1, b'u', 0, 1, b'p']].concat();
        let subscribe = [0x82, 6, 0, 1, 0, 1, b's', 0];
        assert_eq!(Mosquitto.greeting(&user, "s"), [&connect[..], &subscribe].concat());
    }

    #[test]
    fn a_refusal_is_an_error() {
        for refused in [&[0x20, 2, 0, 5][..], &[0x90, 3, 0, 1, 0x80], &[0x30, 0x80, 1], &[0x00, 0]] {
            assert!(Mosquitto.take(&mut refused.to_vec()).is_err(), "{refused:?}");
        }
    }
}
