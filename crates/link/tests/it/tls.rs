//! TLS: whom the dialer trusts, and what it says when schemes and ports do not match.

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use legation_link::{DialConfig, DialError};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_rustls::{
    TlsAcceptor,
    rustls::{ServerConfig, crypto::aws_lc_rs, pki_types::PrivateKeyDer},
    server::TlsStream,
};

use crate::support::{answering, config, dial, listen, refused, upgrade};

/// An authority and a server certificate of it.
pub(crate) struct Authority {
    dir: TempDir,
    acceptor: TlsAcceptor,
}

impl Authority {
    pub(crate) fn for_host(host: &str) -> Self {
        let ca_key = KeyPair::generate().expect("entropy");
        let mut ca = CertificateParams::new(Vec::new()).expect("no names");
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca_pem = ca.self_signed(&ca_key).expect("a key").pem();
        let key = KeyPair::generate().expect("entropy");
        let leaf = CertificateParams::new(vec![host.to_owned()]).expect("a name");
        let leaf = leaf.signed_by(&key, &Issuer::from_params(&ca, &ca_key)).expect("a key");
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join("ca.pem"), ca_pem).expect("room");
        let key = PrivateKeyDer::try_from(key.serialize_der()).expect("PKCS 8");
        let server = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![leaf.der().clone()], key)
            .expect("a pair");
        Self { dir, acceptor: TlsAcceptor::from(Arc::new(server)) }
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    async fn accept(&self, io: TcpStream) -> std::io::Result<TlsStream<TcpStream>> {
        self.acceptor.accept(io).await
    }

    /// A Manager behind TLS, for one connection.
    pub(crate) async fn serve(&self) -> SocketAddr {
        let (listener, address) = listen().await;
        let acceptor = self.acceptor.clone();
        let authority = Self { dir: tempfile::tempdir().expect("a directory"), acceptor };
        tokio::spawn(async move {
            let (io, _) = listener.accept().await.expect("a connection");
            if let Ok(io) = authority.accept(io).await {
                let mut socket = upgrade(io).await;
                let _ = socket.receive().await;
            }
        });
        address
    }
}

fn trusting(address: SocketAddr, ca_file: Option<PathBuf>) -> DialConfig {
    DialConfig { ca_file, ..config(format!("https://localhost:{}", address.port())) }
}

#[tokio::test]
async fn an_authority_of_ones_own_is_trusted_when_named() {
    let authority = Authority::for_host("localhost");
    let address = authority.serve().await;
    dial(&trusting(address, Some(authority.file()))).await.expect("a Manager");
}

#[tokio::test]
async fn any_other_authority_is_not_trusted_and_the_fix_is_named() {
    let authority = Authority::for_host("localhost");
    let other = Authority::for_host("localhost");
    for ca_file in [None, Some(other.file())] {
        let address = authority.serve().await;
        let (error, text) = refused(&trusting(address, ca_file)).await;
        assert!(matches!(error, DialError::Untrusted { .. }), "{error:?}");
        assert!(text.contains("DELEGATE_CA_FILE"), "{text}");
    }
}

#[tokio::test]
async fn a_certificate_for_another_host_is_not_trusted() {
    let authority = Authority::for_host("other.example");
    let address = authority.serve().await;
    let (error, text) = refused(&trusting(address, Some(authority.file()))).await;
    assert!(matches!(error, DialError::Untrusted { .. }) && text.contains("host name"), "{text}");
}

#[tokio::test]
async fn https_to_a_plain_port_is_named_so() {
    let address = answering("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").await;
    let (error, text) = refused(&config(format!("https://{address}"))).await;
    assert!(matches!(error, DialError::NotTls { .. }), "{error:?}");
    assert!(text.contains("http://"), "{text}");
}

#[tokio::test]
async fn http_to_a_tls_port_is_named_so() {
    let authority = Authority::for_host("localhost");
    let address = authority.serve().await;
    let (error, text) = refused(&config(format!("http://{address}"))).await;
    assert!(matches!(error, DialError::NotHttp { .. }), "{error:?}");
    assert!(text.contains("https://"), "{text}");
}

#[tokio::test]
async fn a_ca_file_that_is_missing_empty_or_huge_is_named() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = |name: &str, content: &[u8]| {
        let path = dir.path().join(name);
        std::fs::write(&path, content).expect("room");
        path
    };
    let cases = [
        dir.path().join("missing.pem"),
        file("empty.pem", b""),
        file("words.pem", b"not a certificate"),
        file("broken.pem", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
        file("huge.pem", &vec![b'x'; 2 << 20]),
    ];
    for path in cases {
        let (error, text) = refused(&DialConfig { ca_file: Some(path), ..config("https://localhost:1") }).await;
        assert!(matches!(error, DialError::CaFile { .. }), "{error:?}");
        assert!(text.contains("DELEGATE_CA_FILE") && text.contains(".pem"), "{text}");
    }
}
