//! Small servers on port 0.

use axum::Router;
use legation_api::client::Client;
use legation_model::secret::SecretText;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

/// The key that every test client sends.
pub(crate) const KEY: &str = "lak_test";

/// Serves the routes until the test's runtime ends; answers the address.
pub(crate) async fn serve(router: Router) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move { axum::serve(listener, router).await });
    format!("http://{address}")
}

/// Answers every connection with these bytes, whatever it asked.
pub(crate) async fn serve_bytes(bytes: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let _ = socket.read(&mut [0; 1024]).await;
            let _ = socket.write_all(bytes).await;
        }
    });
    format!("127.0.0.1:{}", address.port())
}

pub(crate) fn client(url: &str) -> Client {
    Client::new(url, Some(&SecretText::new(KEY.to_owned())), None).expect("a client")
}
