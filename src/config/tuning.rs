//! Lengths of time, sizes and compression.

use std::fmt;
use std::time::Duration;

use super::layers::{Found, Layers, or_default};
use super::setting::{self, Setting};
use super::{ConfigBuilder, RetryPolicy, Source};

/// Whether messages are compressed on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Compression {
    /// Neither sent compressed nor asked for: the least work for the processor.
    #[default]
    None,
    /// Requests are sent compressed with gzip, and answers may be. The engine's limit on the size
    /// of a message is on the size *after* decompression, so this saves bandwidth, not room.
    Gzip,
}

impl Compression {
    /// The name in `HATCHET_CLIENT_GRPC_COMPRESSION`: `none` or `gzip`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
        }
    }

    fn from_name(text: &str) -> Option<Self> {
        [Self::None, Self::Gzip].into_iter().find(|kind| kind.as_str().eq_ignore_ascii_case(text))
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tuning {
    pub(super) keepalive_interval: Duration,
    pub(super) keepalive_timeout: Duration,
    pub(super) connect_timeout: Duration,
    pub(super) rpc_timeout: Duration,
    pub(super) retry: RetryPolicy,
    pub(super) max_send_message_length: usize,
    pub(super) max_recv_message_length: usize,
    pub(super) compression: Compression,
}

/// The engine's own limit, both ways.
const MESSAGE_SIZE: usize = 4 * 1024 * 1024;

/// The length prefix of a gRPC message has 32 bits.
const LARGEST_MESSAGE: usize = u32::MAX as usize;

/// Longer lengths are mistakes, and adding them to a point in time could overflow.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// The engine answers pings more often than each 5 s with GOAWAY `too_many_pings`. The second more
/// is for a network that delays one ping and not the next, so that they arrive closer together.
const SHORTEST_KEEPALIVE: Duration = Duration::from_secs(6);

pub(super) fn resolve(layers: &mut Layers<'_>, built: &ConfigBuilder) -> Tuning {
    let (milli, second) = (Duration::from_millis(1), Duration::from_secs(1));
    let secs = Duration::from_secs;
    Tuning {
        keepalive_interval: length(
            layers,
            &setting::KEEPALIVE_INTERVAL,
            built.keepalive_interval,
            secs(10),
            SHORTEST_KEEPALIVE,
        ),
        keepalive_timeout: length(layers, &setting::KEEPALIVE_TIMEOUT, built.keepalive_timeout, secs(20), second),
        connect_timeout: length(layers, &setting::CONNECT_TIMEOUT, built.connect_timeout, secs(5), milli),
        rpc_timeout: length(layers, &setting::RPC_TIMEOUT, built.rpc_timeout, secs(30), milli),
        retry: built.retry.unwrap_or_default(),
        max_send_message_length: size(layers, &setting::MAX_SEND, built.max_send_message_length),
        max_recv_message_length: size(layers, &setting::MAX_RECV, built.max_recv_message_length),
        compression: compression(layers, built),
    }
}

fn length(
    layers: &mut Layers<'_>,
    setting: &Setting,
    built: Option<Duration>,
    default: Duration,
    shortest: Duration,
) -> Duration {
    let Found { value, source } =
        built.map_or(Found::new(default, Source::Default), |length| Found::new(length, Source::Builder));
    if !(shortest..=LONGEST).contains(&value) {
        layers.report(setting, source, &format!("{value:?}"));
    }
    layers.note(setting.field, format!("{value:?}"), source);
    value
}

fn size(layers: &mut Layers<'_>, setting: &Setting, built: Option<usize>) -> usize {
    let digits = built.map(|size| size.to_string());
    let lookup = layers.text(setting, digits.as_deref()).and_then(|found| {
        let Some(Found { value, source }) = found else { return Ok(None) };
        // `parse` alone would take "+1".
        let all_digits = value.bytes().all(|b| b.is_ascii_digit());
        match value.parse() {
            Ok(size @ 1..=LARGEST_MESSAGE) if all_digits => Ok(Some(Found::new(size, source))),
            _ => {
                let found = layers.quote(&value);
                Err(layers.report(setting, source, &found))
            }
        }
    });
    let Found { value, source } = or_default(lookup, MESSAGE_SIZE);
    layers.note(setting.field, format!("{value} bytes"), source);
    value
}

fn compression(layers: &mut Layers<'_>, built: &ConfigBuilder) -> Compression {
    let lookup = layers.choice(&setting::COMPRESSION, built.compression, Compression::from_name);
    let Found { value, source } = or_default(lookup, Compression::default());
    layers.note("compression", value.as_str(), source);
    value
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::Fake;
    use super::super::resolve::resolve;
    use super::super::{Config, ConfigError};
    use super::*;

    fn build(builder: &ConfigBuilder, world: &Fake) -> Result<Config, ConfigError> {
        resolve(builder, world)
    }

    #[test]
    fn defaults() {
        let config = build(&ConfigBuilder::from_env(), &Fake::with_token()).unwrap();
        assert_eq!(config.keepalive_interval(), Duration::from_secs(10));
        assert_eq!(config.keepalive_timeout(), Duration::from_secs(20));
        assert_eq!(config.connect_timeout(), Duration::from_secs(5));
        assert_eq!(config.rpc_timeout(), Duration::from_secs(30));
        assert_eq!((config.max_send_message_length(), config.max_recv_message_length()), (4_194_304, 4_194_304));
        assert_eq!(config.compression(), Compression::None);
    }

    #[test]
    fn sizes_and_compression_from_the_environment_or_the_builder() {
        let world = Fake::with_token()
            .var("GRPC_MAX_SEND_MESSAGE_LENGTH", "1")
            .var("GRPC_MAX_RECV_MESSAGE_LENGTH", " 4294967295 ")
            .var("GRPC_COMPRESSION", "GZIP");
        let seen = |config: &Config| {
            (config.max_send_message_length(), config.max_recv_message_length(), config.compression())
        };
        let config = build(&ConfigBuilder::from_env(), &world).unwrap();
        assert_eq!(seen(&config), (1, 4_294_967_295, Compression::Gzip));

        let builder = ConfigBuilder::from_env()
            .max_send_message_length(10)
            .max_recv_message_length(20)
            .compression(Compression::None);
        let config = build(&builder, &world).unwrap();
        assert_eq!(seen(&config), (10, 20, Compression::None));
        assert_eq!(
            config.explain().get("max_send_message_length").map(|e| (e.value(), e.source())),
            Some(("10 bytes", Source::Builder))
        );
    }

    #[test]
    fn bad_sizes() {
        for bad in ["0", "-1", "+1", "4294967296", "99999999999999999999999", "4MB", "1_000", "1.5"] {
            let world = Fake::with_token().var("GRPC_MAX_RECV_MESSAGE_LENGTH", bad);
            let error = build(&ConfigBuilder::from_env(), &world).unwrap_err();
            assert_eq!(
                error.to_string(),
                format!(
                    "1 problem in the configuration\n  HATCHET_CLIENT_GRPC_MAX_RECV_MESSAGE_LENGTH: expected a whole number of bytes, 1 to 4294967295, got {bad:?}"
                )
            );
        }
        let error = build(&ConfigBuilder::from_env().max_send_message_length(0), &Fake::with_token()).unwrap_err();
        assert_eq!(
            error.problems().iter().map(super::super::Problem::name).collect::<Vec<_>>(),
            ["max_send_message_length"]
        );
    }

    #[test]
    fn lengths_of_time_have_bounds() {
        type Setter = fn(ConfigBuilder, Duration) -> ConfigBuilder;
        let setters: [(&str, Setter, Duration); 4] = [
            ("keepalive_interval", ConfigBuilder::keepalive_interval, Duration::from_secs(6)),
            ("keepalive_timeout", ConfigBuilder::keepalive_timeout, Duration::from_secs(1)),
            ("connect_timeout", ConfigBuilder::connect_timeout, Duration::from_millis(1)),
            ("rpc_timeout", ConfigBuilder::rpc_timeout, Duration::from_millis(1)),
        ];
        let nano = Duration::from_nanos(1);
        for (name, set, shortest) in setters {
            for (length, good) in [
                (shortest, true),
                (LONGEST, true),
                (shortest.saturating_sub(nano), false),
                (LONGEST.saturating_add(nano), false),
                (Duration::ZERO, false),
                (Duration::MAX, false),
            ] {
                let built = build(&set(ConfigBuilder::from_env(), length), &Fake::with_token());
                match built {
                    Ok(config) => {
                        assert!(good, "{name} {length:?}");
                        assert_eq!(
                            config.explain().get(name).map(|e| e.value().to_owned()),
                            Some(format!("{length:?}"))
                        );
                    }
                    Err(error) => {
                        assert!(!good, "{name} {length:?}");
                        assert_eq!(error.problems()[0].name(), name);
                        assert_eq!(error.problems()[0].got(), format!("{length:?}"));
                    }
                }
            }
        }
    }
}
