//! A proxy between a client and a server that breaks its connections.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What the proxy does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Forward,
    /// Connections are closed. New ones work.
    Cut,
    /// Connections are closed, and new ones are closed at once.
    Reject,
    /// Nothing is forwarded on the connections that are open, which stay open. New ones work.
    Freeze,
    /// The server asks its clients to use another connection for new calls.
    GoAway,
    /// The server ends the connections because their clients send too much, and all streams on them. New ones work.
    TooMany,
}

pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    mode: watch::Sender<(Mode, usize)>,
    accepted: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Proxy {
    pub(crate) async fn start(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, (mode, of_connections)) = (listener.local_addr().unwrap(), watch::channel((Mode::Forward, 0)));
        let accepted = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&accepted);
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let (client, _) = listener.accept().await.unwrap();
                count.fetch_add(1, SeqCst);
                connections.spawn(connection(client, server, of_connections.clone()));
            }
        });
        Self { address, mode, accepted, task }
    }

    /// Changes what happens to the connections that are open.
    pub(crate) fn set(&self, mode: Mode) {
        self.mode.send_modify(|(current, number)| {
            *current = mode;
            *number += 1;
        });
    }

    /// The number of connections so far.
    pub(crate) fn accepted(&self) -> usize {
        self.accepted.load(SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Forwards the bytes of one connection until it is broken.
async fn connection(client: TcpStream, server: SocketAddr, mut mode: watch::Receiver<(Mode, usize)>) {
    if mode.borrow_and_update().0 == Mode::Reject {
        return;
    }
    let Ok(server) = TcpStream::connect(server).await else { return };
    let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
        (client.into_split(), server.into_split());
    let up = tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_server).await.map(drop) });
    let mut frames = Frames::default();
    let mut buffer = vec![0; 1 << 16];
    loop {
        tokio::select! {
            read = from_server.read(&mut buffer) => {
                let Some(bytes) = read.ok().filter(|read| *read > 0).and_then(|read| buffer.get(..read)) else { break };
                let is_last = frames.next == Some(TOO_MANY);
                if to_client.write_all(&frames.take(bytes)).await.is_err() || is_last && frames.next.is_none() {
                    break;
                }
            }
            changed = mode.changed() => {
                let now = mode.borrow_and_update().0;
                match now {
                    _ if changed.is_err() => break,
                    Mode::Forward => {}
                    Mode::Cut | Mode::Reject => break,
                    Mode::Freeze => {
                        // Both directions stop, and nobody is notified.
                        up.abort();
                        std::future::pending::<()>().await;
                    }
                    Mode::GoAway => frames.next = Some(GO_AWAY),
                    Mode::TooMany => frames.next = Some(TOO_MANY),
                }
            }
        }
    }
    up.abort();
}

/// `GOAWAY` without an error, after which all streams that are open continue.
const GO_AWAY: &[u8] = &[0, 0, 8, 7, 0, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0];
/// `GOAWAY` with the error `ENHANCE_YOUR_CALM`.
const TOO_MANY: &[u8] = b"\0\0\x16\x07\0\0\0\0\0\x7f\xff\xff\xff\0\0\0\x0btoo_many_pings";

/// The HTTP/2 frames that the server sends. Between two of them, one more can be inserted.
#[derive(Default)]
struct Frames {
    /// The frame that is inserted next.
    next: Option<&'static [u8]>,
    /// The bytes of a frame that is not complete.
    partial: Vec<u8>,
}

impl Frames {
    fn take(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.partial.extend_from_slice(bytes);
        let mut sent = Vec::new();
        while let [a, b, c, rest @ ..] = &self.partial[..] {
            let length = usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c);
            if rest.len() < length + 6 {
                break;
            }
            let next = self.partial.split_off(length + 9);
            sent.append(&mut self.partial);
            self.partial = next;
            sent.extend_from_slice(self.next.take().unwrap_or_default());
        }
        sent
    }
}
