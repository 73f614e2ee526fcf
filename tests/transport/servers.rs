//! Servers with scripted behavior, and a client for them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use h2::server::SendResponse;
use hatchet::config::ConfigBuilder;
use hatchet::embedded::Engine;
use hatchet::worker::RunningWorker;
use hatchet::{Client, Context, Task};
use http::{HeaderMap, Response, StatusCode};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

use crate::support;

/// The action of a gRPC server after it has read a request.
#[derive(Debug, Clone)]
pub(crate) enum Action {
    /// Resets the stream.
    Reset(Reason),
    /// Sends the headers of a response, and then resets the stream.
    ResetAfterHeaders(Reason),
    /// Sends GOAWAY with this code and closes the connection.
    GoAway(Reason),
    /// Closes the connection.
    Close,
    /// Ends the response without a status.
    EndWithoutStatus,
    /// Responds with a gRPC status, in the headers or in trailers.
    Status { code: u16, in_trailers: bool, details: Option<&'static str> },
    /// Responds with a message that is not valid protobuf.
    Garbage,
    /// Resets this many streams without processing them, and then performs another action.
    RefuseBefore(usize, Box<Action>),
    /// Responds like a proxy with a `retry-after` of one minute.
    Page { status: u16, content_type: Option<&'static str>, body: &'static str },
}

/// A gRPC server that performs the same action for every request, and counts the requests.
pub(crate) async fn grpc_server(action: Action) -> (SocketAddr, Arc<AtomicUsize>) {
    let (listener, address) = listen().await;
    let requests = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&requests);
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            tokio::spawn(serve(tcp, action.clone(), Arc::clone(&counted)));
        }
    });
    (address, requests)
}

async fn serve(tcp: TcpStream, action: Action, requests: Arc<AtomicUsize>) {
    let mut connection = h2::server::handshake(tcp).await.unwrap();
    let (end, mut is_over) = mpsc::channel(1);
    loop {
        tokio::select! {
            accepted = connection.accept() => {
                let Some(Ok((request, responder))) = accepted else { return };
                let (action, requests, end) = (action.clone(), Arc::clone(&requests), end.clone());
                tokio::spawn(async move {
                    let mut body = request.into_body();
                    while let Some(data) = body.data().await {
                        let data = data.unwrap();
                        body.flow_control().release_capacity(data.len()).unwrap();
                    }
                    let earlier = requests.fetch_add(1, SeqCst);
                    let action = match action {
                        Action::RefuseBefore(refused, _) if earlier < refused => Action::Reset(Reason::REFUSED_STREAM),
                        Action::RefuseBefore(_, action) => *action,
                        action => action,
                    };
                    perform(action, responder, &end).await;
                });
            }
            over = is_over.recv() => match over.unwrap() {
                Some(reason) => connection.abrupt_shutdown(reason),
                None => return,
            },
        }
    }
}

async fn perform(action: Action, mut responder: SendResponse<Bytes>, end: &mpsc::Sender<Option<Reason>>) {
    let headers = || Response::builder().header("content-type", "application/grpc");
    match action {
        Action::RefuseBefore(..) => panic!("the caller resolves it"),
        Action::Reset(reason) => responder.send_reset(reason),
        Action::ResetAfterHeaders(reason) => {
            let mut body = responder.send_response(headers().body(()).unwrap(), false).unwrap();
            // These must be two frames.
            tokio::time::sleep(Duration::from_millis(20)).await;
            body.send_reset(reason);
        }
        Action::GoAway(reason) => {
            end.send(Some(reason)).await.unwrap();
            // The stream must not end before the connection.
            std::future::pending::<()>().await;
        }
        Action::Close => {
            end.send(None).await.unwrap();
            std::future::pending::<()>().await;
        }
        Action::EndWithoutStatus => {
            responder.send_response(headers().body(()).unwrap(), true).unwrap();
        }
        Action::Status { code, in_trailers, details } => {
            let mut status = HeaderMap::new();
            status.insert("grpc-status", code.to_string().parse().unwrap());
            status.insert("grpc-message", "scripted".parse().unwrap());
            if let Some(details) = details {
                status.insert("grpc-status-details-bin", details.parse().unwrap());
            }
            let mut response = headers().body(()).unwrap();
            if in_trailers {
                responder.send_response(response, false).unwrap().send_trailers(status).unwrap();
            } else {
                response.headers_mut().extend(status);
                responder.send_response(response, true).unwrap();
            }
        }
        Action::Garbage => {
            let mut body = responder.send_response(headers().body(()).unwrap(), false).unwrap();
            body.send_data(Bytes::from_static(b"\0\0\0\0\x02\xff\xff"), false).unwrap();
            let mut status = HeaderMap::new();
            status.insert("grpc-status", "0".parse().unwrap());
            body.send_trailers(status).unwrap();
        }
        Action::Page { status, content_type, body } => {
            let mut response = Response::builder().status(StatusCode::from_u16(status).unwrap());
            response = response.header("retry-after", "60");
            if let Some(content_type) = content_type {
                response = response.header("content-type", content_type);
            }
            let mut sent = responder.send_response(response.body(()).unwrap(), body.is_empty()).unwrap();
            if !body.is_empty() {
                sent.send_data(Bytes::from_static(body.as_bytes()), true).unwrap();
            }
        }
    }
}

/// A server that reads from each connection, sends these bytes, and closes it. Counts connections.
pub(crate) async fn raw_server(response: &'static [u8]) -> (SocketAddr, Arc<AtomicUsize>) {
    let (listener, address) = listen().await;
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&connections);
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            counted.fetch_add(1, SeqCst);
            tokio::spawn(respond(tcp, response));
        }
    });
    (address, connections)
}

async fn respond(mut connection: impl AsyncRead + AsyncWrite + Unpin, response: &[u8]) {
    let mut space = [0; 4096];
    let _ = connection.read(&mut space).await;
    let _ = connection.write_all(response).await;
    let _ = connection.shutdown().await;
}

/// The reaction of a TLS server to plain text.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Plain {
    /// Sends an alert, as rustls and OpenSSL do.
    Alert,
    /// Closes the connection, as servers written in Go do.
    Close,
    /// Responds with an HTTP error, as nginx does.
    HttpError,
}

/// A TLS server with an untrusted certificate. Counts connections.
pub(crate) async fn tls_server(plain: Plain) -> (SocketAddr, Arc<AtomicUsize>) {
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let (listener, address) = listen().await;
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&connections);
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            counted.fetch_add(1, SeqCst);
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let mut first = [0; 1];
                let _ = tcp.peek(&mut first).await;
                match plain {
                    Plain::Close if first != [0x16] => drop(tcp),
                    Plain::HttpError if first != [0x16] => {
                        let page = b"HTTP/1.1 400 Bad Request\r\nServer: nginx\r\nConnection: close\r\n\r\n\
                            <html><title>400 The plain HTTP request was sent to HTTPS port</title></html>";
                        respond(tcp, page).await;
                    }
                    _ => drop(acceptor.accept(tcp).await),
                }
            });
        }
    });
    (address, connections)
}

pub(crate) async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// An engine with a registered task, and its addresses and token.
pub(crate) struct Setup {
    pub(crate) engine: Engine,
    pub(crate) task: Task<(), ()>,
    pub(crate) config: ConfigBuilder,
    _worker: RunningWorker,
}

pub(crate) async fn setup() -> Setup {
    let engine = Engine::builder().listen().start().await.unwrap();
    let task = Task::new("task", async |(): (), _: Context| Ok(()));
    let worker = engine.client().worker("worker").register(&task).build().unwrap().start().await.unwrap();
    let config = support::config(&engine);
    Setup { engine, task, config, _worker: worker }
}

impl Setup {
    /// A client with another gRPC address.
    pub(crate) fn client(&self, grpc: SocketAddr) -> Client {
        Client::new(self.config.clone().host_port(grpc.to_string()).build().unwrap()).unwrap()
    }

    /// The error of a trigger.
    pub(crate) async fn trigger(&self, grpc: SocketAddr) -> hatchet::Error {
        self.client(grpc).run(&self.task, &()).start().await.unwrap_err()
    }
}

/// An error with its causes.
pub(crate) fn chain(error: &hatchet::Error) -> String {
    let causes = std::iter::successors(Some(error as &dyn std::error::Error), |cause| cause.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
