//! TLS for the listeners: from an operator's files, or self-signed and kept.

use std::{
    fs,
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context;
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    },
};

use crate::config::Transport;

/// The self-signed certificate in the configuration directory; delegates name it in `DELEGATE_CA_FILE`.
pub const CERT_FILE: &str = "manager.crt";
const KEY_FILE: &str = "manager.key";

/// What accepts TLS connections, or nothing for plain HTTP.
///
/// # Errors
/// When a file cannot be read or made, or when certificate and key do not belong together.
pub fn acceptor(transport: &Transport, config_dir: &Path) -> anyhow::Result<Option<TlsAcceptor>> {
    let (cert, key) = match transport {
        Transport::Plain => return Ok(None),
        Transport::Files { cert, key } => (cert.clone(), key.clone()),
        Transport::SelfSigned { names } => self_signed(names, config_dir)?,
    };
    let chain =
        CertificateDer::pem_file_iter(&cert).and_then(Iterator::collect::<Result<Vec<_>, _>>).with_context(|| {
            format!(
                "cannot read certificates from {}: tls-cert-file wants a PEM file that this user can read",
                cert.display()
            )
        })?;
    let private = PrivateKeyDer::from_pem_file(&key).with_context(|| {
        format!(
            "cannot read a private key from {}: tls-key-file wants a PEM file that this user can read",
            key.display()
        )
    })?;
    let mut server =
        ServerConfig::builder().with_no_client_auth().with_single_cert(chain, private).with_context(|| {
            format!("{} and {} do not belong together: take both from one issue", cert.display(), key.display())
        })?;
    server.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Some(TlsAcceptor::from(Arc::new(server))))
}

fn self_signed(names: &[String], config_dir: &Path) -> anyhow::Result<(PathBuf, PathBuf)> {
    let (cert, key) = (config_dir.join(CERT_FILE), config_dir.join(KEY_FILE));
    if !cert.exists() || !key.exists() {
        let mut all = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
        all.extend_from_slice(names);
        let made = rcgen::generate_simple_self_signed(all).context("cannot make a self-signed certificate")?;
        write(&key, &made.signing_key.serialize_pem(), 0o600)?;
        write(&cert, &made.cert.pem(), 0o644)?;
        tracing::info!(certificate = %cert.display(), "made a self-signed certificate; delegates need it as DELEGATE_CA_FILE");
    }
    Ok((cert, key))
}

fn write(path: &Path, text: &str, mode: u32) -> anyhow::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(path)?;
    file.write_all(text.as_bytes()).with_context(|| format!("cannot write {}", path.display()))
}
