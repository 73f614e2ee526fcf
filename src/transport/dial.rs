//! Connects to a host and port over TCP, trying all addresses of the host (RFC 8305, "Happy Eyeballs").

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

/// The delay after which the next address is tried even if the previous one has not failed yet, as the RFC recommends.
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

pub(super) type Resolving = Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send>>;

/// Resolves a host to its addresses: the system's resolver, except in tests.
pub(super) trait Resolve: Send + Sync {
    fn resolve(&self, host: &str, port: u16) -> Resolving;
}

pub(super) struct SystemResolver;

impl Resolve for SystemResolver {
    fn resolve(&self, host: &str, port: u16) -> Resolving {
        let host = host.to_owned();
        Box::pin(async move { Ok(lookup_host((host, port)).await?.collect()) })
    }
}

/// Connects to the first address of a host that accepts the connection.
pub(super) async fn dial(
    resolver: &dyn Resolve,
    host: &str,
    port: u16,
    deadline: Instant,
) -> Result<TcpStream, DialError> {
    let addresses = match timeout_at(deadline, resolver.resolve(host, port)).await {
        Ok(Ok(addresses)) => interleaved(addresses),
        Ok(Err(error)) => return Err(DialError::unresolved(error)),
        Err(_) => return Err(DialError::unresolved(io::ErrorKind::TimedOut.into())),
    };
    race(addresses, deadline, TcpStream::connect).await
}

/// The addresses with alternating families, starting with the family that the resolver prefers, without duplicates.
fn interleaved(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first_is_v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) = addresses.into_iter().partition(|address| address.is_ipv6() == first_is_v6);
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    let mut ordered = Vec::new();
    loop {
        let pair = [first.next(), second.next()];
        if pair == [None, None] {
            return ordered;
        }
        for address in pair.into_iter().flatten() {
            if !ordered.contains(&address) {
                ordered.push(address);
            }
        }
    }
}

/// Tries the addresses in order, and starts the next one after [`ATTEMPT_DELAY`] at the latest. The first established connection
/// is returned, and the others are dropped.
async fn race<T, F>(
    addresses: Vec<SocketAddr>,
    deadline: Instant,
    connect: impl Fn(SocketAddr) -> F,
) -> Result<T, DialError>
where
    F: Future<Output = io::Result<T>>,
{
    let mut failures = Vec::new();
    let (mut waiting, mut trying, mut pending) = (addresses.into_iter(), FuturesUnordered::new(), Vec::new());
    loop {
        if let Some(address) = waiting.next() {
            let attempt = connect(address);
            trying.push(async move { (address, attempt.await) });
            pending.push(address);
        }
        tokio::select! {
            biased;
            tried = trying.next() => match tried {
                Some((_, Ok(connected))) => return Ok(connected),
                Some((address, Err(error))) => {
                    pending.retain(|other| *other != address);
                    failures.push((address, error));
                }
                // All addresses have failed, or there was none.
                None => return Err(DialError::of(failures)),
            },
            () = sleep_until(deadline) => {
                failures.extend(pending.into_iter().map(|address| (address, io::ErrorKind::TimedOut.into())));
                return Err(DialError::of(failures));
            }
            () = sleep(ATTEMPT_DELAY), if waiting.len() > 0 => {}
        }
    }
}

/// The error if no address of a host could be connected to.
#[derive(Debug)]
pub(super) struct DialError {
    /// The addresses that were tried, if there were several, or the failed step.
    pub(super) detail: Option<String>,
    pub(super) source: io::Error,
}

impl DialError {
    fn unresolved(source: io::Error) -> Self {
        Self { detail: Some("failed to resolve the host name".to_owned()), source }
    }

    fn of(mut failures: Vec<(SocketAddr, io::Error)>) -> Self {
        let detail = match &failures[..] {
            [] => Some("the host name has no addresses".to_owned()),
            [_] => None,
            several => {
                let each = several.iter().map(|(address, error)| format!("{address} ({error})"));
                Some(format!("tried {}", each.collect::<Vec<_>>().join(", ")))
            }
        };
        failures.sort_by_key(|(_, error)| rank(error));
        Self { detail, source: failures.pop().map_or(io::ErrorKind::NotFound.into(), |(_, error)| error) }
    }
}

/// The rank of a failure; the highest one is reported, and the last one among equals. A rejection by the server ranks over a
/// timeout, and a timeout over an address family that this machine does not support.
fn rank(error: &io::Error) -> u8 {
    match error.kind() {
        io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable | io::ErrorKind::AddrNotAvailable => 0,
        io::ErrorKind::TimedOut => 1,
        _ => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    const V6: &str = "[2001:db8::1]:7077";
    const V4: &str = "192.0.2.1:7077";
    const OTHER_V4: &str = "192.0.2.2:7077";
    const LIMIT: Duration = Duration::from_secs(5);

    fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    /// How an address responds to a connection.
    #[derive(Clone, Copy)]
    enum Behavior {
        Accept(u64),
        Refuse(u64),
        Ignore,
    }

    /// The address that accepted or the error, the times at which each address was tried, and the total time, in milliseconds.
    async fn outcome(hosts: &[(&str, Behavior)]) -> (Result<String, DialError>, Vec<(String, u128)>, u128) {
        let (start, tried) = (Instant::now(), RefCell::new(Vec::new()));
        let connect = |address: SocketAddr| {
            tried.borrow_mut().push((address.to_string(), start.elapsed().as_millis()));
            let behavior = hosts.iter().find(|(host, _)| *host == address.to_string()).unwrap().1;
            async move {
                let after = |millis| sleep(Duration::from_millis(millis));
                match behavior {
                    Behavior::Accept(millis) => after(millis).await,
                    Behavior::Refuse(millis) => {
                        after(millis).await;
                        return Err(io::ErrorKind::ConnectionRefused.into());
                    }
                    Behavior::Ignore => std::future::pending().await,
                }
                Ok(address.to_string())
            }
        };
        let hosts: Vec<_> = hosts.iter().map(|(host, _)| *host).collect();
        let result = race(interleaved(addresses(&hosts)), start + LIMIT, connect).await;
        (result, tried.take(), start.elapsed().as_millis())
    }

    fn at(times: &[(&str, u128)]) -> Vec<(String, u128)> {
        times.iter().map(|(address, millis)| ((*address).to_owned(), *millis)).collect()
    }

    #[test]
    fn families_alternate_without_duplicates() {
        for (given, expected) in [
            (&[V6, "[2001:db8::2]:7077", V4, OTHER_V4][..], &[V6, V4, "[2001:db8::2]:7077", OTHER_V4][..]),
            (&[V4, OTHER_V4, V6], &[V4, V6, OTHER_V4]),
            (&[V4, V4, V6, V6], &[V4, V6]),
            (&[], &[]),
        ] {
            assert_eq!(interleaved(addresses(given)), addresses(expected));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_next_address_is_tried_after_250_ms() {
        let (result, tried, took) = outcome(&[(V6, Behavior::Ignore), (V4, Behavior::Accept(10))]).await;
        assert_eq!((result.unwrap().as_str(), tried, took), (V4, at(&[(V6, 0), (V4, 250)]), 260));
    }

    #[tokio::test(start_paused = true)]
    async fn refused_addresses_are_skipped_immediately() {
        let (result, tried, took) = outcome(&[(V6, Behavior::Refuse(3)), (V4, Behavior::Accept(10))]).await;
        assert_eq!((result.unwrap().as_str(), tried, took), (V4, at(&[(V6, 0), (V4, 3)]), 13));
        let (result, tried, took) = outcome(&[(V6, Behavior::Accept(400)), (V4, Behavior::Accept(400))]).await;
        assert_eq!((result.unwrap().as_str(), tried, took), (V6, at(&[(V6, 0), (V4, 250)]), 400));
    }

    #[tokio::test(start_paused = true)]
    async fn errors_contain_all_failures() {
        let hosts = [(V6, Behavior::Ignore), (V4, Behavior::Refuse(1)), (OTHER_V4, Behavior::Ignore)];
        let (result, tried, took) = outcome(&hosts).await;
        assert_eq!((tried, took), (at(&[(V6, 0), (V4, 250), (OTHER_V4, 251)]), LIMIT.as_millis()));
        let error = result.unwrap_err();
        assert_eq!(error.source.kind(), io::ErrorKind::ConnectionRefused);
        assert_eq!(
            error.detail.as_deref(),
            Some(
                "tried 192.0.2.1:7077 (connection refused), [2001:db8::1]:7077 (timed out), 192.0.2.2:7077 (timed out)"
            )
        );
    }

    #[tokio::test(start_paused = true)]
    async fn errors_of_one_address_have_no_details() {
        let (result, _, took) = outcome(&[(V4, Behavior::Refuse(7))]).await;
        let error = result.unwrap_err();
        assert_eq!((error.detail, error.source.kind(), took), (None, io::ErrorKind::ConnectionRefused, 7));
        let (result, ..) = outcome(&[]).await;
        assert_eq!(result.unwrap_err().detail.as_deref(), Some("the host name has no addresses"));
    }

    #[tokio::test(start_paused = true)]
    async fn name_resolution_times_out() {
        struct Silent;
        impl Resolve for Silent {
            fn resolve(&self, _: &str, _: u16) -> Resolving {
                Box::pin(std::future::pending())
            }
        }
        let start = Instant::now();
        let error = dial(&Silent, "a", 1, start + LIMIT).await.unwrap_err();
        assert_eq!((error.source.kind(), start.elapsed()), (io::ErrorKind::TimedOut, LIMIT));
        assert_eq!(error.detail.as_deref(), Some("failed to resolve the host name"));
    }
}
