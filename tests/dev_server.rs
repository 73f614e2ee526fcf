//! The `dev_server` example stops on a signal, even if clients keep connections open. This test binary starts itself as the server.

#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests may panic")]

#[path = "../examples/dev_server.rs"]
#[expect(dead_code, reason = "the program has its own main")]
mod dev_server;

use std::net::SocketAddr;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::{Instant, timeout};

/// Set in the process that runs the server.
const SERVER_ENV: &str = "HATCHET_TEST_DEV_SERVER";
/// The grace period of connections, and the tolerance for a loaded machine.
const GRACE_PERIOD: Duration = Duration::from_secs(2);
/// The timeout of each step.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The server, in its own process. Does nothing in the test process.
#[tokio::test]
async fn server() {
    if std::env::var_os(SERVER_ENV).is_some() {
        dev_server::run(["0", "0"].map(str::to_owned).into_iter()).await.unwrap();
    }
}

/// Starts the server, and waits until gRPC and REST are available.
async fn start() -> (Child, SocketAddr, SocketAddr) {
    let mut server = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "server", "--nocapture"])
        .env(SERVER_ENV, "1")
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(server.stdout.take().unwrap()).lines();
    let (mut grpc, mut rest) = (None, None);
    loop {
        let line = timeout(TIMEOUT, lines.next_line()).await.unwrap().unwrap().unwrap();
        if let Some((_, address)) = line.split_once("HATCHET_CLIENT_HOST_PORT=") {
            grpc = address.parse().ok();
        } else if let Some((_, address)) = line.split_once("HATCHET_CLIENT_SERVER_URL=http://") {
            rest = address.parse().ok();
        } else if line.contains("serving until Ctrl-C") {
            // Further output must not block the server.
            tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
            return (server, grpc.unwrap(), rest.unwrap());
        }
    }
}

async fn signal(server: &Child, signal: &str) {
    let id = server.id().unwrap().to_string();
    assert!(Command::new("kill").args([signal, &id]).status().await.unwrap().success());
}

async fn end(server: &mut Child) -> ExitStatus {
    timeout(TIMEOUT, server.wait()).await.unwrap().unwrap()
}

/// Clients that make no progress and do not disconnect.
async fn unresponsive_clients(grpc: SocketAddr, rest: SocketAddr) -> [TcpStream; 3] {
    let connect = async |address: SocketAddr, sent: &[u8]| {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(sent).await.unwrap();
        stream
    };
    [
        connect(grpc, b"").await,
        connect(grpc, b"PRI * HTTP/2.0\r\n").await,
        connect(rest, b"GET / HTTP/1.1\r\nhost: x\r\n").await,
    ]
}

#[tokio::test]
async fn the_first_signal_stops_the_server_gracefully() {
    for name in ["-INT", "-TERM"] {
        let (mut server, grpc, rest) = start().await;
        let clients = unresponsive_clients(grpc, rest).await;
        let signalled_at = Instant::now();
        signal(&server, name).await;
        assert!(end(&mut server).await.success(), "{name}");
        assert!(signalled_at.elapsed() < TIMEOUT / 2, "{name}: {:?}", signalled_at.elapsed());
        drop(clients);
    }
}

#[tokio::test]
async fn the_second_signal_stops_the_server_immediately() {
    let (mut server, grpc, rest) = start().await;
    let clients = unresponsive_clients(grpc, rest).await;
    signal(&server, "-INT").await;
    let signalled_at = Instant::now();
    // The server has handled the first signal when it no longer listens.
    while TcpStream::connect(grpc).await.is_ok() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    signal(&server, "-INT").await;
    assert_eq!(end(&mut server).await.code(), Some(130));
    assert!(signalled_at.elapsed() < GRACE_PERIOD, "{:?}", signalled_at.elapsed());
    drop(clients);
}
