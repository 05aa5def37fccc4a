//! What differs between the servers that others made.

use std::{io, net::SocketAddr, path::Path};

use tokio::process::Command;

/// One kind of server: how it is set up, and the few messages that the phases need. The bytes are made and taken
/// apart here, and moved elsewhere.
pub(super) trait Peer: Sync {
    /// Its program.
    fn name(&self) -> &'static str;

    /// The argument at which the program says its version.
    fn version_flag(&self) -> &'static str;

    /// Writes its settings, with which exactly these users may connect.
    fn configure(&self, place: &Place<'_>, users: &[&User]) -> anyhow::Result<()>;

    /// Adds the arguments with which it runs in the foreground on these settings.
    fn arguments(&self, place: &Place<'_>, command: &mut Command);

    /// Whether it speaks a line in the clear before TLS begins.
    fn speaks_first(&self) -> bool;

    /// What a client says first: who it is, and to which subject it listens. It is answered once.
    fn greeting(&self, user: &User, subject: &str) -> Vec<u8>;

    /// A heartbeat, which is answered.
    fn heartbeat(&self) -> &'static [u8];

    /// A message to whoever listens to a subject.
    fn publish(&self, subject: &str, payload: &[u8]) -> Vec<u8>;

    /// Takes what the server said out of `input`, if it is complete.
    ///
    /// # Errors
    /// A refusal, or what is not the protocol.
    fn take(&self, input: &mut Vec<u8>) -> io::Result<Option<Event>>;
}

/// What a server says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// The answer to a greeting or to a heartbeat.
    Answer,
    /// A message to the subject that this client listens to.
    Message,
    /// It wants to hear this back.
    Question(&'static [u8]),
    /// What no phase needs.
    Other,
}

/// Where one server runs.
pub(super) struct Place<'a> {
    /// Its files, the certificate and its key among them.
    pub(super) directory: &'a Path,
    pub(super) address: SocketAddr,
}

impl Place<'_> {
    /// The path of one of its files.
    pub(super) fn file(&self, name: &str) -> String {
        self.directory.join(name).display().to_string()
    }
}

/// Who may connect.
pub(super) struct User {
    pub(super) name: &'static str,
    pub(super) password: String,
}

impl User {
    /// One with a password of its own.
    pub(super) fn new(name: &'static str) -> Self {
        Self { name, password: format!("{:032x}", rand::random::<u128>()) }
    }
}
