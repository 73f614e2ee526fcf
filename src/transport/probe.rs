//! Detects whether a server expects TLS, without a TLS implementation.
//!
//! Some TLS servers, such as those written in Go, respond to plain text by closing the connection, like a server that is shutting
//! down. Their response to a TLS `ClientHello` distinguishes the two.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::timeout;

use super::protocol::{Protocol, unexpected};

const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// A record with a `ClientHello` that offers the usual ciphers of TLS 1.2 and 1.3. Its random numbers and its key are not
/// random: no connection is made with them.
const CLIENT_HELLO: &[u8] = &[
    0x16, 3, 1, 0, 142, // a handshake record
    1, 0, 0, 138, // ClientHello
    3, 3, // TLS 1.2, as TLS 1.3 has it too
    1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31,
    32, // random
    0,  // no session
    0, 14, 0x13, 1, 0x13, 2, 0x13, 3, 0xc0, 0x2b, 0xc0, 0x2f, 0xc0, 0x2c, 0xc0, 0x30, // ciphers
    1, 0, // no compression
    0, 83, // extensions
    0, 10, 0, 6, 0, 4, 0, 29, 0, 23, // groups: x25519, secp256r1
    0, 11, 0, 2, 1, 0, // points: uncompressed
    0, 13, 0, 12, 0, 10, 4, 3, 8, 4, 4, 1, 5, 3, 8, 5, // signatures: ECDSA, RSA-PSS, RSA
    0, 43, 0, 5, 4, 3, 4, 3, 3, // versions: 1.3, 1.2
    0, 51, 0, 38, 0, 36, 0, 29, 0, 32, // a key for x25519
    9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
];

/// Whether the peer of a new connection responds in TLS.
pub(super) async fn speaks_tls(mut connection: impl AsyncRead + AsyncWrite + Unpin) -> bool {
    let response = async {
        let mut first = [0; 1];
        connection.write_all(CLIENT_HELLO).await.ok()?;
        connection.read_exact(&mut first).await.ok()?;
        unexpected(Protocol::Http2, false, &first)
    };
    matches!(timeout(PROBE_TIMEOUT, response).await, Ok(Some(Protocol::Tls)))
}
