//! One running server of another make.

use std::{
    env,
    ffi::OsStr,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::PathBuf,
    time::Instant,
};

use anyhow::Context;
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::{net::TcpStream, process::Command};
use tokio_rustls::TlsConnector;

use super::{
    peer::{Peer, Place, User},
    tls::certificate,
};
use crate::{Process, eventually, procfs};

/// A server with directory, certificate and users of its own; killed when dropped, before its directory goes.
pub(super) struct Server {
    pub(super) peer: &'static dyn Peer,
    pub(super) address: SocketAddr,
    pub(super) connector: TlsConnector,
    process: Process,
    directory: TempDir,
}

impl Server {
    /// Starts one that lets these users in.
    pub(super) async fn start(peer: &'static dyn Peer, users: &[&User]) -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new().prefix("legation-compare.").tempdir()?;
        let address = free_address()?;
        let place = Place { directory: directory.path(), address };
        let connector = certificate(place.directory)?;
        peer.configure(&place, users)?;
        let mut command = Command::new(program(peer.name())?);
        peer.arguments(&place, &mut command);
        let mut process = Process::spawn(peer.name(), &mut command, &directory.path().join("server.log"))?;
        eventually(&format!("{} listens", peer.name()), async || {
            assert_eq!(process.ended(), None, "{} ended before it listened", peer.name());
            TcpStream::connect(address).await.ok()
        })
        .await;
        Ok(Self { peer, address, connector, process, directory })
    }

    /// Lets only these users in any longer, and tells it to read that; the moment before it was told.
    pub(super) fn allow_only(&self, users: &[&User]) -> anyhow::Result<Instant> {
        self.peer.configure(&Place { directory: self.directory.path(), address: self.address }, users)?;
        let begun = Instant::now();
        self.process.signal(Signal::HUP);
        Ok(begun)
    }

    pub(super) fn pid(&self) -> anyhow::Result<u32> {
        self.process.pid().context("the server ended")
    }

    pub(super) fn resident(&self) -> anyhow::Result<u64> {
        Ok(procfs::memory(self.pid()?).context("the server ended")?.resident)
    }
}

/// Where a program is. Debian keeps daemons outside of an ordinary PATH.
pub(super) fn program(name: &str) -> anyhow::Result<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut places = env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
    let found = places.find_map(|place| Some(place.join(name)).filter(|file| file.is_file()));
    found.with_context(|| format!("{name} is missing: `make bench-compare` installs it"))
}

/// The version that a program says it has: the first word of numbers and points.
pub(super) async fn version(peer: &dyn Peer) -> anyhow::Result<String> {
    let output = Command::new(program(peer.name())?).arg(OsStr::new(peer.version_flag())).output().await?;
    Ok(number(&String::from_utf8_lossy(&output.stdout)).unwrap_or_default())
}

fn number(said: &str) -> Option<String> {
    let words = said.split_whitespace().map(|word| word.trim_start_matches('v'));
    let mut numbers = words.filter(|word| word.contains('.') && word.starts_with(|first: char| first.is_ascii_digit()));
    numbers.next().map(str::to_owned)
}

/// A port that is free now. Somebody may take it before its user does, but the kernel hands out others first.
fn free_address() -> std::io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_found_in_what_a_program_says() {
        for (said, version) in [
            ("nats-server: v2.9.10\n", Some("2.9.10")),
            ("mosquitto version 2.0.11\n\nmosquitto is an MQTT v5.0/v3.1.1/v3.1 broker.\n", Some("2.0.11")),
            ("mosquitto", None),
        ] {
            assert_eq!(number(said).as_deref(), version, "{said}");
        }
    }

    #[test]
    fn a_program_that_is_missing_is_an_error_that_says_what_to_do() {
        let error = program("no-such-program").expect_err("there is none");
        assert!(error.to_string().contains("make bench-compare"), "{error}");
    }
}
