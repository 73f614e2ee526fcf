//! Tests of when connections end, with in-memory connections and paused time.

use std::convert::Infallible;
use std::time::Duration;

use futures_util::StreamExt as _;
use http::{Request, Response};
use http_body_util::BodyExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;

use super::connection::{
    HEADER_TIMEOUT, IDLE_TIMEOUT, PING_INTERVAL, PING_TIMEOUT, SHUTDOWN_GRACE_PERIOD as GRACE, WRITE_TIMEOUT, serve,
};
use super::request::BODY_TIMEOUT;
use super::{Handler, Protocol, Shared};
use crate::embedded::failure::Failure;

const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n";
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// Answers with a body that panics after its first part.
fn panicking() -> impl Handler {
    tower::service_fn(async |_: Request<Body>| {
        let parts = futures_util::stream::iter([true, false]).map(|is_first| {
            assert!(is_first, "handler panicked");
            Ok::<_, Infallible>(hyper::body::Frame::data(bytes::Bytes::from_static(b"first")))
        });
        Ok::<_, Infallible>(Response::new(Body::new(http_body_util::StreamBody::new(parts))))
    })
}

fn shared() -> Shared {
    Shared { failure: Failure::default(), stop: CancellationToken::new(), shutdown_grace_period: GRACE }
}

/// Reads a request, and responds with a body of this length.
fn responding(length: usize) -> impl Handler {
    tower::service_fn(move |request: Request<Body>| async move {
        let status = if request.into_body().collect().await.is_ok() { 200 } else { 408 };
        let body = http_body_util::Full::from("x".repeat(length));
        let mut response = Response::new(Body::new(body));
        *response.status_mut() = http::StatusCode::from_u16(status).unwrap();
        Ok::<_, Infallible>(response)
    })
}

/// The peer's side of a connection, and the duration of the connection.
fn connect(protocol: Protocol, handler: impl Handler, shared: Shared) -> (DuplexStream, JoinHandle<Duration>) {
    let (peer, io) = tokio::io::duplex(1 << 16);
    let duration = tokio::spawn(async move {
        let start = Instant::now();
        serve(io, protocol, handler, shared).await;
        start.elapsed()
    });
    (peer, duration)
}

/// The duration of a connection on which only these bytes are sent.
async fn duration(protocol: Protocol, sent: &[u8]) -> Duration {
    let (mut peer, duration) = connect(protocol, responding(1), shared());
    peer.write_all(sent).await.unwrap();
    duration.await.unwrap()
}

async fn read_some(peer: &mut DuplexStream) -> String {
    let mut bytes = vec![0; 4096];
    let count = peer.read(&mut bytes).await.unwrap();
    String::from_utf8_lossy(&bytes[..count]).into_owned()
}

#[tokio::test(start_paused = true)]
async fn connections_without_a_request_are_closed() {
    // HTTP/2 sends GOAWAY first, and a peer that has sent no preface has the grace period to read it.
    for sent in [&b""[..], &PREFACE[..10]] {
        assert_eq!(duration(Protocol::Grpc, sent).await, HEADER_TIMEOUT + GRACE, "{sent:?}");
    }
    for sent in [&b""[..], &GET[..20]] {
        assert_eq!(duration(Protocol::Rest, sent).await, HEADER_TIMEOUT, "{sent:?}");
    }
    // The timeout is the same for the next request of HTTP/1.
    assert_eq!(duration(Protocol::Rest, GET).await, HEADER_TIMEOUT);
}

type Requests = h2::client::SendRequest<bytes::Bytes>;

async fn handshake(peer: DuplexStream) -> (Requests, h2::client::Connection<DuplexStream>) {
    h2::client::handshake(peer).await.unwrap()
}

fn request() -> Request<()> {
    Request::post("http://x/a/B").body(()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn used_connections_have_a_longer_idle_timeout() {
    let (peer, duration) = connect(Protocol::Grpc, responding(1), shared());
    let (mut requests, connection) = handshake(peer).await;
    tokio::spawn(connection);
    for _ in 0..2 {
        tokio::time::sleep(HEADER_TIMEOUT / 2).await;
        let (response, _) = requests.send_request(request(), true).unwrap();
        response.await.unwrap().into_body().data().await.unwrap().unwrap();
    }
    assert_eq!(duration.await.unwrap(), HEADER_TIMEOUT + IDLE_TIMEOUT);
}

#[tokio::test(start_paused = true)]
async fn peers_that_do_not_answer_pings_are_disconnected() {
    let endless = tower::service_fn(async |_: Request<Body>| -> Result<Response<Body>, Infallible> {
        std::future::pending().await
    });
    let (peer, duration) = connect(Protocol::Grpc, endless, shared());
    let (mut requests, mut connection) = handshake(peer).await;
    let (_answer, _) = requests.send_request(request(), true).unwrap();
    // The request is sent, and then the client reads nothing.
    let _ = tokio::time::timeout(Duration::ZERO, &mut connection).await;
    assert_eq!(duration.await.unwrap(), PING_INTERVAL + PING_TIMEOUT);
}

#[tokio::test(start_paused = true)]
async fn stalled_bodies_time_out() {
    let (mut peer, _lasts) = connect(Protocol::Rest, responding(1), shared());
    peer.write_all(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n").await.unwrap();
    // The timeout applies to each part.
    tokio::time::sleep(BODY_TIMEOUT / 2).await;
    peer.write_all(b"12345").await.unwrap();
    let start = Instant::now();
    let response = read_some(&mut peer).await;
    assert!(response.starts_with("HTTP/1.1 408 "), "{response}");
    assert_eq!(start.elapsed(), BODY_TIMEOUT);
}

#[tokio::test(start_paused = true)]
async fn only_streams_of_requests_may_be_idle() {
    for (method, times_out) in [("Register", true), ("ListenV2", true), ("SubscribeToWorkflowRuns", false)] {
        let (peer, _lasts) = connect(Protocol::Grpc, responding(1), shared());
        let (mut requests, connection) = handshake(peer).await;
        tokio::spawn(connection);
        let request = Request::post(format!("http://x/Dispatcher/{method}")).body(()).unwrap();
        let (response, _open) = requests.send_request(request, false).unwrap();
        let response = tokio::time::timeout(10 * BODY_TIMEOUT, response).await;
        assert_eq!(response.is_ok_and(|response| response.unwrap().status() == 408), times_out, "{method}");
    }
}

#[tokio::test(start_paused = true)]
async fn peers_that_do_not_read_are_disconnected() {
    let (mut peer, duration) = connect(Protocol::Rest, responding(1 << 20), shared());
    peer.write_all(GET).await.unwrap();
    assert_eq!(duration.await.unwrap(), WRITE_TIMEOUT);
}

#[tokio::test(start_paused = true)]
async fn panics_are_answered_and_recorded() {
    let handler = || {
        tower::service_fn(async |_: Request<Body>| -> Result<Response<Body>, Infallible> { panic!("handler panicked") })
    };
    let shared = shared();
    let (mut peer, _lasts) = connect(Protocol::Rest, handler(), shared.clone());
    peer.write_all(GET).await.unwrap();
    let response = read_some(&mut peer).await;
    assert!(response.starts_with("HTTP/1.1 500 "), "{response}");
    assert!(response.ends_with(r#"{"message":"the embedded engine panicked: handler panicked"}"#), "{response}");
    assert_eq!(shared.failure.message(), Some("handler panicked"));

    let (peer, _lasts) = connect(Protocol::Grpc, handler(), shared);
    let (mut requests, connection) = handshake(peer).await;
    tokio::spawn(connection);
    let (response, _) = requests.send_request(request(), true).unwrap();
    let response = response.await.unwrap();
    assert_eq!((&response.headers()["grpc-status"], response.body().is_end_stream()), (&"13".parse().unwrap(), true));
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_a_body_is_recorded_and_ends_it() {
    let shared_rest = shared();
    let (mut peer, duration) = connect(Protocol::Rest, panicking(), shared_rest.clone());
    peer.write_all(GET).await.unwrap();
    let mut response = Vec::new();
    peer.read_to_end(&mut response).await.unwrap();
    // The last part of a body that is complete is empty.
    assert!(!response.ends_with(b"0\r\n\r\n"), "{response:?}");
    assert_eq!((shared_rest.failure.message(), duration.await.unwrap()), (Some("handler panicked"), Duration::ZERO));

    let shared_grpc = shared();
    let (peer, _lasts) = connect(Protocol::Grpc, panicking(), shared_grpc.clone());
    let (mut requests, connection) = handshake(peer).await;
    tokio::spawn(connection);
    let (response, _) = requests.send_request(request(), true).unwrap();
    let mut body = response.await.unwrap().into_body();
    assert_eq!(body.data().await.unwrap().unwrap(), "first");
    let trailers = body.trailers().await.unwrap().unwrap();
    assert_eq!(
        (&trailers["grpc-status"], shared_grpc.failure.message()),
        (&"13".parse().unwrap(), Some("handler panicked"))
    );
}

#[test]
fn connection_errors_do_not_pause_the_listener() {
    use std::io::{Error, ErrorKind};

    for kind in [ErrorKind::ConnectionAborted, ErrorKind::ConnectionReset, ErrorKind::HostUnreachable] {
        assert!(super::is_connection_error(&kind.into()), "{kind}");
    }
    // EMFILE, ENFILE, and ENOMEM.
    for number in [24, 23, 12] {
        assert!(!super::is_connection_error(&Error::from_raw_os_error(number)), "{number}");
    }
}
