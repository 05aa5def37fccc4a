//! A forward proxy that wants a password: tinyproxy, another implementation than ours.

use std::{
    fs, io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::Path,
};

use tokio::{net::TcpStream, process::Command};

use crate::{Process, eventually};

/// The user that the proxy knows.
pub const USER: &str = "delegate";
/// That user's password.
pub const PASSWORD: &str = "canary-of-the-proxy";

/// A running tinyproxy, killed when dropped.
#[derive(Debug)]
pub struct Tinyproxy {
    process: Process,
    address: SocketAddr,
}

impl Tinyproxy {
    /// Starts one with its files in `directory`.
    ///
    /// # Panics
    /// When the program `tinyproxy` cannot be started; the test script installs it.
    pub async fn start(directory: &Path) -> Self {
        let address = free_address().expect("a free port");
        let settings = directory.join("tinyproxy.conf");
        let text = format!(
            "Listen 127.0.0.1\nPort {}\nMaxClients 64\nTimeout 600\nAllow 127.0.0.1\nBasicAuth {USER} {PASSWORD}\n\
             LogLevel Connect\nLogFile \"{}\"\n",
            address.port(),
            directory.join("tinyproxy.log").display()
        );
        fs::write(&settings, text).expect("the world's directory takes files");
        let log = directory.join("tinyproxy.out");
        let mut command = Command::new("tinyproxy");
        command.arg("-d").arg("-c").arg(&settings);
        let process =
            Process::spawn("tinyproxy", &mut command, &log).expect("tinyproxy starts: `make test` installs it");
        eventually("tinyproxy listens", async || TcpStream::connect(address).await.ok()).await;
        Self { process, address }
    }

    /// The proxy's URL with user and password.
    pub fn url(&self) -> String {
        format!("http://{USER}:{PASSWORD}@{}", self.address)
    }

    /// The proxy's URL without either.
    pub fn anonymous_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What it says it did.
    pub fn log(&self, directory: &Path) -> String {
        self.process.log() + &fs::read_to_string(directory.join("tinyproxy.log")).unwrap_or_default()
    }
}

/// A port that is free now. Somebody may take it before its user does, but the kernel hands out others first.
fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}
