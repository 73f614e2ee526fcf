//! TLS to a plain-text server, plain text to a TLS server, and swapped ports are reported immediately, with the setting to change.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use hatchet::config::{ConfigBuilder, TlsStrategy};
use hatchet::model::Window;
use hatchet::{Client, Error, ErrorKind};
use tokio::time::Instant;

use crate::servers::{Plain, Setup, chain, raw_server, setup, tls_server};

/// The maximum duration of a permanent failure.
const MAX_FAILURE_TIME: Duration = Duration::from_secs(2);

async fn by_grpc(config: ConfigBuilder) -> Error {
    let hatchet = Client::new(config.build().unwrap()).unwrap();
    let unknown = "00000000-0000-4000-8001-000000000001".parse().unwrap();
    hatchet.run_handle(unknown).cancel().send().await.map(drop).unwrap_err()
}

async fn by_rest(config: ConfigBuilder) -> Error {
    Client::new(config.build().unwrap()).unwrap().runs(Window::all()).count().await.unwrap_err()
}

fn grpc_at(setup: &Setup, address: SocketAddr, strategy: TlsStrategy) -> ConfigBuilder {
    setup.config.clone().host_port(format!("localhost:{}", address.port())).tls_strategy(strategy)
}

fn rest_at(setup: &Setup, scheme: &str, address: SocketAddr) -> ConfigBuilder {
    setup.config.clone().server_url(format!("{scheme}://localhost:{}", address.port()))
}

/// Checks that an error was returned immediately, after one connection or the few that the detection needs.
fn assert_permanent(error: &Error, start: Instant, connections: Option<&Arc<AtomicUsize>>, expected: &str) {
    assert!(start.elapsed() < MAX_FAILURE_TIME, "{:?}: {error:?}", start.elapsed());
    assert!(error.to_string().contains(expected), "{error:?}");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    assert!(!error.is_transient(), "{error:?}");
    if let Some(connections) = connections {
        assert!(connections.load(SeqCst) <= 3, "{} connections", connections.load(SeqCst));
    }
}

#[tokio::test]
async fn servers_without_tls_are_detected() {
    let setup = setup().await;
    let (grpc, rest) = (setup.engine.grpc_address().unwrap(), setup.engine.rest_address().unwrap());
    let (raw, connections) = raw_server(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n400 Bad Request").await;
    for address in [grpc, rest, raw] {
        let start = Instant::now();
        let error = by_grpc(grpc_at(&setup, address, TlsStrategy::Tls)).await;
        assert_permanent(&error, start, None, "does not speak TLS: it answered in plain text");
        assert!(error.has_no_side_effects(), "{error:?}");
        assert!(error.to_string().contains("HATCHET_CLIENT_TLS_STRATEGY=none"), "{error}");
        let start = Instant::now();
        let error = by_rest(rest_at(&setup, "https", address)).await;
        assert_permanent(&error, start, None, "does not speak TLS: it answered in plain text");
        assert!(error.to_string().contains("HATCHET_CLIENT_SERVER_URL to an http:// URL"), "{error}");
    }
    assert!(connections.load(SeqCst) <= 4, "{connections:?}");
}

#[tokio::test]
async fn servers_with_tls_are_detected() {
    let setup = setup().await;
    for plain in [Plain::Alert, Plain::Close, Plain::HttpError] {
        let (address, connections) = tls_server(plain).await;
        let start = Instant::now();
        let error = by_grpc(grpc_at(&setup, address, TlsStrategy::None)).await;
        assert_permanent(&error, start, Some(&connections), "HATCHET_CLIENT_TLS_STRATEGY=tls");
        let (address, connections) = tls_server(plain).await;
        let start = Instant::now();
        let error = by_rest(rest_at(&setup, "http", address)).await;
        assert_permanent(&error, start, Some(&connections), "HATCHET_CLIENT_SERVER_URL to an https:// URL");
        // A server that closes without a byte may have read the call.
        assert_eq!(error.has_no_side_effects(), !matches!(plain, Plain::Close), "{error:?}");
    }
}

#[tokio::test]
async fn ports_of_the_other_api_are_detected() {
    let setup = setup().await;
    let grpc = setup.engine.grpc_address().unwrap();
    let (http1, _) = raw_server(b"HTTP/1.1 505 HTTP Version Not Supported\r\nConnection: close\r\n\r\n").await;
    let start = Instant::now();
    let error = by_grpc(grpc_at(&setup, http1, TlsStrategy::None)).await;
    assert_permanent(&error, start, None, "speaks HTTP/1.1 and not gRPC");
    let start = Instant::now();
    let error = by_rest(rest_at(&setup, "http", grpc)).await;
    assert_permanent(&error, start, None, "speaks HTTP/2 only, as gRPC does");
}

/// A worker must not retry a permanent failure.
#[tokio::test]
async fn workers_do_not_start_if_the_server_expects_tls() {
    let setup = setup().await;
    let (address, _) = tls_server(Plain::Close).await;
    let hatchet = Client::new(grpc_at(&setup, address, TlsStrategy::None).build().unwrap()).unwrap();
    let start = Instant::now();
    let error = hatchet.worker("worker").register(&setup.task).build().unwrap().start().await.unwrap_err();
    assert_permanent(&error, start, None, "HATCHET_CLIENT_TLS_STRATEGY=tls");
}

/// A server that shuts down also closes connections silently. Such calls are retried, and the error does not mention TLS.
#[tokio::test]
async fn silently_closed_connections_are_retried() {
    let setup = setup().await;
    let (address, connections) = raw_server(b"").await;
    let short = Duration::from_millis(500);
    for error in [
        by_grpc(grpc_at(&setup, address, TlsStrategy::None).rpc_timeout(short)).await,
        by_rest(rest_at(&setup, "http", address).rpc_timeout(short)).await,
    ] {
        // The deadline may pass during a try or between two.
        assert!(matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Timeout), "{error:?}");
        assert!(error.is_transient(), "{error:?}");
        assert!(!chain(&error).contains("TLS"), "{error:?}");
    }
    assert!(connections.load(SeqCst) > 4, "{connections:?}");
}
