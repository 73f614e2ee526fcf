//! The sources of gRPC statuses, which distinguish a status of the server from that of an interrupted response.

use std::fmt;

use tonic::Status;

/// The source of a status that the server sent.
#[derive(Debug)]
pub(super) struct SentByServer;

impl fmt::Display for SentByServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the server sent this status")
    }
}

impl std::error::Error for SentByServer {}

/// The source of a status for a response that was interrupted after its headers.
#[derive(Debug)]
pub(super) struct Interrupted(pub(super) Option<Status>);

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the response was interrupted")?;
        if self.0.is_none() { f.write_str(": it ended without a status") } else { Ok(()) }
    }
}

impl std::error::Error for Interrupted {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.as_ref().map(|status| status as _)
    }
}
