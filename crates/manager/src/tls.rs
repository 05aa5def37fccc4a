//! TLS for the listeners: from an operator's files, or self-signed and kept.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context;
use rcgen::{CertificateParams, KeyPair};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    },
};
use zeroize::Zeroizing;

use crate::{config::Transport, whole_file};

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
    if !key.exists() {
        let made = KeyPair::generate().context("cannot make a key for TLS")?;
        remove(&cert)?;
        whole_file::create(&key, &made.serialize_pem(), 0o600)?;
    }
    if !cert.exists() {
        whole_file::create(&cert, &certificate(names, &key)?, 0o644)?;
        tracing::info!(certificate = %cert.display(), "made a self-signed certificate; delegates need it as DELEGATE_CA_FILE");
    }
    Ok((cert, key))
}

/// A certificate of a key that is gone proves nothing, and would not fit the new one.
fn remove(cert: &Path) -> anyhow::Result<()> {
    match fs::remove_file(cert) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}, whose key is gone", cert.display()))
        }
        _ => Ok(()),
    }
}

fn certificate(names: &[String], key: &Path) -> anyhow::Result<String> {
    let pem = Zeroizing::new(fs::read_to_string(key).with_context(|| format!("cannot read {}", key.display()))?);
    let pair = KeyPair::from_pem(&pem).with_context(|| {
        format!("{} is not a private key: restore it, or remove it to have a new one made", key.display())
    })?;
    let mut all = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    all.extend_from_slice(names);
    let made = CertificateParams::new(all).and_then(|params| params.self_signed(&pair));
    Ok(made.context("cannot make a self-signed certificate: check tls-names")?.pem())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_never_replaced_and_a_pair_is_completed() {
        let directory = tempfile::tempdir().expect("a directory");
        let transport = Transport::SelfSigned { names: vec!["manager.example".to_owned()] };
        let start = || acceptor(&transport, directory.path()).expect("TLS").is_some();
        let read = |name: &str| fs::read_to_string(directory.path().join(name)).expect("a file");
        assert!(start());
        let (cert, key) = (read(CERT_FILE), read(KEY_FILE));
        assert!(start());
        assert_eq!((read(CERT_FILE), read(KEY_FILE)), (cert, key.clone()));
        // As after a crash between the two files.
        fs::remove_file(directory.path().join(CERT_FILE)).expect("removed");
        assert!(start());
        assert_eq!(read(KEY_FILE), key);
        fs::remove_file(directory.path().join(KEY_FILE)).expect("removed");
        assert!(start(), "a new pair that fits");
    }
}
