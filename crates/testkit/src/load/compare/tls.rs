//! A certificate for one run, and clients that trust nothing else.

use std::{fs, path::Path, sync::Arc};

use rcgen::{CertificateParams, KeyPair};
use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, RootCertStore,
        client::Resumption,
        crypto::{CryptoProvider, aws_lc_rs},
        version::TLS13,
    },
};

/// For whom the certificate is.
pub(super) const HOST: &str = "localhost";

/// Writes `server.crt` and `server.key`; what clients connect with.
pub(super) fn certificate(directory: &Path) -> anyhow::Result<TlsConnector> {
    let key = KeyPair::generate()?;
    let certificate = CertificateParams::new(vec![HOST.to_owned()])?.self_signed(&key)?;
    fs::write(directory.join("server.crt"), certificate.pem())?;
    fs::write(directory.join("server.key"), key.serialize_pem())?;
    let mut roots = RootCertStore::empty();
    roots.add(certificate.der().clone())?;
    Ok(TlsConnector::from(Arc::new(clients(roots)?)))
}

/// Each connects anew, with the curve that our own handshake has, so that nobody is spared or burdened.
fn clients(roots: RootCertStore) -> anyhow::Result<ClientConfig> {
    let provider = CryptoProvider { kx_groups: vec![aws_lc_rs::kx_group::X25519], ..aws_lc_rs::default_provider() };
    let config = ClientConfig::builder_with_provider(Arc::new(provider)).with_protocol_versions(&[&TLS13])?;
    let mut config = config.with_root_certificates(roots).with_no_client_auth();
    config.resumption = Resumption::disabled();
    Ok(config)
}
