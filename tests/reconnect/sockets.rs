//! Broken connections. Uses real time, because it uses real sockets.

use hatchet::embedded::Engine;

use super::proxy::{Mode, Proxy};
use super::*;

/// Follows a run of some seconds through a proxy, which breaks the connections meanwhile. Returns the number of connections.
async fn follow_while(input: Input, breaks: impl AsyncFnOnce(&Proxy)) -> (Received, usize) {
    let engine = Engine::builder().listen().start().await.unwrap();
    let proxy = Proxy::start(engine.grpc_address().unwrap()).await;
    // The worker is not affected.
    let worker = support::start_worker(&engine.client(), &talk()).await;
    let config = support::config(&engine).host_port(proxy.address.to_string());
    let config = config.keepalive_interval(6 * SECOND).keepalive_timeout(SECOND);
    let hatchet = Client::new(config.build().unwrap()).unwrap();
    let run = hatchet.run(&talk(), &input).start().await.unwrap();
    let broken = async {
        sleep(SECOND).await;
        breaks(&proxy).await;
    };
    assert_eq!(proxy.accepted(), 1, "gRPC uses one connection");
    let (received, ()) = tokio::join!(follow(&run), broken);
    received.check(input);
    worker.shutdown().await;
    (received, proxy.accepted())
}

#[tokio::test]
async fn a_dropped_connection_is_replaced() {
    let input = Input { chunks: 40, millis: 100 };
    let (received, connections) = follow_while(input, async |proxy| proxy.set(Mode::Cut)).await;
    assert_eq!(received.check_chunks().last(), Some(&39));
    assert_eq!(connections, 2);
}

#[tokio::test]
async fn a_restarted_server_is_found_again() {
    let input = Input { chunks: 80, millis: 100 };
    let (received, connections) = follow_while(input, async |proxy| {
        proxy.set(Mode::Refuse);
        sleep(3 * SECOND).await;
        proxy.set(Mode::Forward);
    })
    .await;
    assert_eq!(received.check_chunks().last(), Some(&79));
    assert!(connections > 2, "the client has tried again: {connections}");
}

/// The client's pings are not answered any more: after an interval of 6 seconds and a timeout of one, the connection is replaced.
#[tokio::test]
async fn a_half_open_connection_is_detected() {
    let input = Input { chunks: 150, millis: 100 };
    let (received, connections) = follow_while(input, async |proxy| proxy.set(Mode::Freeze)).await;
    let arrived = received.check_chunks();
    assert_eq!(arrived.last(), Some(&149));
    let missing = arrived.windows(2).map(|pair| pair[1] - pair[0] - 1).max();
    assert!(missing.is_some_and(|missing| (30..100).contains(&missing)), "{missing:?}");
    assert_eq!(connections, 2);
}

/// The streams that are open continue on the old connection, and new calls use another one.
#[tokio::test]
async fn a_connection_that_goes_away_loses_nothing() {
    let input = Input { chunks: 40, millis: 100 };
    let (received, connections) = follow_while(input, async |proxy| proxy.set(Mode::GoAway)).await;
    let arrived = received.check_chunks();
    assert_eq!(arrived.last(), Some(&39));
    assert!(arrived.windows(2).all(|pair| pair[1] == pair[0] + 1), "{arrived:?}");
    assert_eq!(connections, 2);
}
