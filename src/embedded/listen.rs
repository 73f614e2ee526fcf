//! The engine on the loopback address, for programs in other processes and other languages.

use std::net::SocketAddr;

use futures_util::stream::unfold;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::grpc::Services;
use crate::error::{Error, ErrorKind, Result};

/// A socket that will be listened on.
pub(super) async fn bind(address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| {
        Error::new(ErrorKind::Unavailable, format!("cannot listen on {address}")).with_source(error).unsent()
    })
}

pub(super) fn address(listener: &TcpListener) -> Result<SocketAddr> {
    listener
        .local_addr()
        .map_err(|error| Error::new(ErrorKind::Unavailable, "the socket has no address").with_source(error))
}

pub(super) fn grpc(listener: TcpListener, services: Services, stop: CancellationToken) -> JoinHandle<()> {
    let incoming = unfold(listener, |listener| async move {
        let connection = listener.accept().await.map(|(stream, _)| {
            // Small messages must not wait for company.
            let _ = stream.set_nodelay(true);
            stream
        });
        Some((connection, listener))
    });
    tokio::spawn(async move {
        let served = tonic::transport::Server::builder()
            .serve_with_incoming_shutdown(services, Box::pin(incoming), stop.cancelled_owned())
            .await;
        if let Err(error) = served {
            tracing::error!(%error, "the gRPC server has stopped");
        }
    })
}

pub(super) fn rest(listener: TcpListener, router: axum::Router, stop: CancellationToken) -> JoinHandle<()> {
    tokio::spawn(async move {
        let served = axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await;
        if let Err(error) = served {
            tracing::error!(%error, "the REST server has stopped");
        }
    })
}
