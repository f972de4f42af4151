//! TLS between this crate's two ends, over real sockets.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{CertificateParams, IsCa, Issuer, KeyPair};
use tandem_env::SystemClock;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::{ClientTls, Incoming, ServerTls};

/// A certificate for `127.0.0.1` and `node.test`, its key, and who vouches for it.
struct Files {
    dir: tempfile::TempDir,
}

impl Files {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut ca = CertificateParams::new(Vec::new()).unwrap();
        ca.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let ca_key = KeyPair::generate().unwrap();
        std::fs::write(dir.path().join("ca.pem"), ca.self_signed(&ca_key).unwrap().pem()).unwrap();
        let issuer = Issuer::new(ca, ca_key);
        let names = ["127.0.0.1".to_owned(), "node.test".to_owned()];
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &issuer).unwrap();
        std::fs::write(dir.path().join("node.pem"), certificate.pem()).unwrap();
        std::fs::write(dir.path().join("node.key"), key.serialize_pem()).unwrap();
        Self { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn server(&self) -> ServerTls {
        ServerTls::read(&self.path("node.pem"), &self.path("node.key")).unwrap()
    }
}

/// Echoes one byte to each client, one client after the other; the port.
async fn echo(tls: ServerTls) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut incoming = Incoming::new(listener, Some(&tls), &["h2"], Arc::new(SystemClock)).unwrap();
    tokio::spawn(async move {
        loop {
            let (mut wire, _) = incoming.accept().await;
            let mut byte = [0];
            wire.read_exact(&mut byte).await.unwrap();
            wire.write_all(&byte).await.unwrap();
            wire.flush().await.unwrap();
        }
    });
    port
}

async fn ask(ca: &Path, host: &str, port: u16) -> std::io::Result<u8> {
    let stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let mut stream = ClientTls::with_ca(ca).unwrap().connect(host, stream).await?;
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(b"h2".as_slice()));
    stream.write_all(b"x").await?;
    let mut byte = [0];
    stream.read_exact(&mut byte).await?;
    Ok(byte[0])
}

#[tokio::test]
async fn only_the_right_server_is_believed() {
    let (files, strangers) = (Files::new(), Files::new());
    let port = echo(files.server()).await;
    for host in ["127.0.0.1", "node.test"] {
        assert_eq!(ask(&files.path("ca.pem"), host, port).await.unwrap(), b'x', "{host}");
    }
    let unknown = ask(&strangers.path("ca.pem"), "node.test", port).await.unwrap_err();
    assert!(unknown.to_string().contains("invalid peer certificate"), "{unknown}");
    let other = ask(&files.path("ca.pem"), "other.test", port).await.unwrap_err();
    assert!(other.to_string().contains("not valid for name"), "{other}");
}

#[tokio::test]
async fn clients_that_do_not_shake_hands_keep_nobody_waiting() {
    let files = Files::new();
    let port = echo(files.server()).await;
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(TcpStream::connect(("127.0.0.1", port)).await.unwrap());
    }
    let mut plain = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    assert_eq!(ask(&files.path("ca.pem"), "127.0.0.1", port).await.unwrap(), b'x');
}

#[test]
fn files_that_do_not_fit_are_named() {
    let (files, strangers) = (Files::new(), Files::new());
    let read = |certificate: PathBuf, key: PathBuf| ServerTls::read(&certificate, &key).unwrap_err();
    let error = read(files.path("node.pem"), strangers.path("node.key"));
    assert!(error.message().contains("node.pem") && error.message().contains("node.key"), "{error}");
    let error = read(files.path("node.key"), files.path("node.key"));
    assert!(error.message().contains("no certificate"), "{error}");
    let error = read(files.path("node.pem"), files.path("ca.pem"));
    assert!(error.message().contains("--tls-key"), "{error}");
    let error = ClientTls::with_ca(&files.path("node.key")).unwrap_err();
    assert!(error.message().contains("--tls-ca"), "{error}");
}
