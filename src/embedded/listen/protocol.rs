//! The protocols of the listeners.

/// The protocol of a listener's connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::embedded) enum Protocol {
    /// gRPC on HTTP/2.
    Grpc,
    /// REST on HTTP/1.
    Rest,
}
