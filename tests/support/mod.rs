//! Helpers that several test programs share.

#![allow(dead_code, reason = "each test program uses only some of them")]

use hatchet::Config;
use hatchet::config::{ConfigBuilder, TlsStrategy};
use hatchet::embedded::Engine;

/// The token of a listening engine.
pub(crate) fn token(engine: &Engine) -> String {
    engine.environment().into_iter().find(|(name, _)| *name == "HATCHET_CLIENT_TOKEN").unwrap().1
}

/// The configuration of a client that connects to a listening engine over its sockets.
pub(crate) fn config(engine: &Engine) -> ConfigBuilder {
    let builder = Config::builder().tls_strategy(TlsStrategy::None);
    engine.environment().into_iter().fold(builder, |builder, (name, value)| match name {
        "HATCHET_CLIENT_TOKEN" => builder.token(value),
        "HATCHET_CLIENT_HOST_PORT" => builder.host_port(value),
        "HATCHET_CLIENT_SERVER_URL" => builder.server_url(value),
        _ => builder,
    })
}
