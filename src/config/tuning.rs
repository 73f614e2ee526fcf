//! Timeouts, message sizes and compression.

use std::time::Duration;

use super::layers::{Layers, Sourced, or_default};
use super::request::MAX_TIMEOUT;
use super::setting::{self, Setting};
use super::{Compression, ConfigBuilder, RetryPolicy, Source};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tuning {
    pub(super) keepalive_interval: Duration,
    pub(super) keepalive_timeout: Duration,
    pub(super) connect_timeout: Duration,
    pub(super) rpc_timeout: Duration,
    pub(super) retry: RetryPolicy,
    pub(super) watch_request_rate: u32,
    pub(super) wait_request_rate: u32,
    pub(super) max_send_message_length: usize,
    pub(super) max_recv_message_length: usize,
    pub(super) compression: Compression,
}

/// The engine's default limit, for requests and responses.
const DEFAULT_MESSAGE_SIZE: usize = 4 * 1024 * 1024;

/// The requests per second of all watches of a client.
const DEFAULT_WATCH_RATE: u32 = 200;
/// That of all waits. Few runs are fetched, except after an outage.
const DEFAULT_WAIT_RATE: u32 = 1000;
const MAX_REQUEST_RATE: u32 = 100_000;

/// The length prefix of a gRPC message has 32 bits.
const MAX_MESSAGE_SIZE: usize = u32::MAX as usize;

/// The engine closes a connection with GOAWAY `too_many_pings` if pings arrive more often than every 5 s. A second is added because the
/// network may delay one ping more than the next.
const MIN_KEEPALIVE_INTERVAL: Duration = Duration::from_secs(6);

pub(super) fn resolve(layers: &mut Layers<'_>, builder: &ConfigBuilder) -> Tuning {
    let (milli, second) = (Duration::from_millis(1), Duration::from_secs(1));
    let secs = Duration::from_secs;
    Tuning {
        keepalive_interval: duration(
            layers,
            &setting::KEEPALIVE_INTERVAL,
            builder.keepalive_interval,
            secs(10),
            MIN_KEEPALIVE_INTERVAL,
        ),
        keepalive_timeout: duration(layers, &setting::KEEPALIVE_TIMEOUT, builder.keepalive_timeout, secs(20), second),
        connect_timeout: duration(layers, &setting::CONNECT_TIMEOUT, builder.connect_timeout, secs(5), milli),
        rpc_timeout: duration(layers, &setting::RPC_TIMEOUT, builder.rpc_timeout, secs(30), milli),
        retry: retry(layers, builder),
        watch_request_rate: request_rate(layers, &setting::WATCH_RATE, builder.watch_request_rate, DEFAULT_WATCH_RATE),
        wait_request_rate: request_rate(layers, &setting::WAIT_RATE, builder.wait_request_rate, DEFAULT_WAIT_RATE),
        max_send_message_length: size(layers, &setting::MAX_SEND, builder.max_send_message_length),
        max_recv_message_length: size(layers, &setting::MAX_RECV, builder.max_recv_message_length),
        compression: compression(layers, builder),
    }
}

fn duration(
    layers: &mut Layers<'_>,
    setting: &Setting,
    from_builder: Option<Duration>,
    default: Duration,
    min: Duration,
) -> Duration {
    let Sourced { value, source } =
        from_builder.map_or(Sourced::new(default, Source::Default), |value| Sourced::new(value, Source::Builder));
    if !(min..=MAX_TIMEOUT).contains(&value) {
        layers.report(setting, source, &format!("{value:?}"));
    }
    layers.add_entry(setting.builder_method, format!("{value:?}"), source);
    value
}

fn size(layers: &mut Layers<'_>, setting: &Setting, from_builder: Option<usize>) -> usize {
    let digits = from_builder.map(|size| size.to_string());
    let lookup = layers.string(setting, digits.as_deref()).and_then(|found| {
        let Some(Sourced { value, source }) = found else { return Ok(None) };
        // `parse` also accepts "+1".
        let all_digits = value.bytes().all(|b| b.is_ascii_digit());
        match value.parse() {
            Ok(size @ 1..=MAX_MESSAGE_SIZE) if all_digits => Ok(Some(Sourced::new(size, source))),
            _ => {
                let got = layers.quote(&value);
                Err(layers.report(setting, source, &got))
            }
        }
    });
    let Sourced { value, source } = or_default(lookup, DEFAULT_MESSAGE_SIZE);
    layers.add_entry(setting.builder_method, format!("{value} bytes"), source);
    value
}

fn retry(layers: &mut Layers<'_>, builder: &ConfigBuilder) -> RetryPolicy {
    let source = if builder.retry.is_some() { Source::Builder } else { Source::Default };
    let policy = builder.retry.unwrap_or_default();
    layers.add_entry("retry", policy.to_string(), source);
    policy
}

fn request_rate(layers: &mut Layers<'_>, setting: &Setting, from_builder: Option<u32>, default: u32) -> u32 {
    let (value, source) = from_builder.map_or((default, Source::Default), |value| (value, Source::Builder));
    if !(1..=MAX_REQUEST_RATE).contains(&value) {
        layers.report(setting, source, &value.to_string());
    }
    layers.add_entry(setting.builder_method, value.to_string(), source);
    value
}

fn compression(layers: &mut Layers<'_>, builder: &ConfigBuilder) -> Compression {
    let lookup = layers.choice(&setting::COMPRESSION, builder.compression, Compression::from_name);
    let Sourced { value, source } = or_default(lookup, Compression::default());
    layers.add_entry("compression", value.as_str(), source);
    value
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::FakeEnv;
    use super::super::resolve::resolve;
    use super::super::{Config, ConfigError};
    use super::*;

    fn build(builder: &ConfigBuilder, env: &FakeEnv) -> Result<Config, ConfigError> {
        resolve(builder, env)
    }

    #[test]
    fn defaults_are_used_without_values() {
        let config = build(&ConfigBuilder::from_env(), &FakeEnv::with_token()).unwrap();
        assert_eq!(config.keepalive_interval(), Duration::from_secs(10));
        assert_eq!(config.keepalive_timeout(), Duration::from_secs(20));
        assert_eq!(config.connect_timeout(), Duration::from_secs(5));
        assert_eq!(config.rpc_timeout(), Duration::from_secs(30));
        assert_eq!((config.max_send_message_length(), config.max_recv_message_length()), (4_194_304, 4_194_304));
        assert_eq!(config.compression(), Compression::None);
        assert_eq!((config.watch_request_rate(), config.wait_request_rate()), (200, 1000));
    }

    #[test]
    fn request_rates_out_of_range_are_rejected() {
        let of = |watches, waits| {
            let builder = ConfigBuilder::from_env().watch_request_rate(watches).wait_request_rate(waits);
            build(&builder, &FakeEnv::with_token())
        };
        for (watches, waits) in [(1, 100_000), (100_000, 1)] {
            let config = of(watches, waits).unwrap();
            assert_eq!((config.watch_request_rate(), config.wait_request_rate()), (watches, waits));
        }
        let expected = "2 problems in the configuration
  watch_request_rate: expected an integer from 1 to 100000 (requests per second), got 0
  wait_request_rate: expected an integer from 1 to 100000 (requests per second), got 100001";
        assert_eq!(of(0, 100_001).unwrap_err().to_string(), expected);
    }

    #[test]
    fn sizes_and_compression_from_the_environment_or_the_builder() {
        let env = FakeEnv::with_token()
            .var("GRPC_MAX_SEND_MESSAGE_LENGTH", "1")
            .var("GRPC_MAX_RECV_MESSAGE_LENGTH", " 4294967295 ")
            .var("GRPC_COMPRESSION", "GZIP");
        let values = |config: &Config| {
            (config.max_send_message_length(), config.max_recv_message_length(), config.compression())
        };
        let config = build(&ConfigBuilder::from_env(), &env).unwrap();
        assert_eq!(values(&config), (1, 4_294_967_295, Compression::Gzip));

        let builder = ConfigBuilder::from_env()
            .max_send_message_length(10)
            .max_recv_message_length(20)
            .compression(Compression::None);
        let config = build(&builder, &env).unwrap();
        assert_eq!(values(&config), (10, 20, Compression::None));
        assert_eq!(
            config.explain().get("max_send_message_length").map(|e| (e.value(), e.source())),
            Some(("10 bytes", Source::Builder))
        );
    }

    #[test]
    fn invalid_sizes_are_rejected() {
        for bad in ["0", "-1", "+1", "4294967296", "99999999999999999999999", "4MB", "1_000", "1.5"] {
            let env = FakeEnv::with_token().var("GRPC_MAX_RECV_MESSAGE_LENGTH", bad);
            let error = build(&ConfigBuilder::from_env(), &env).unwrap_err();
            assert_eq!(
                error.to_string(),
                format!(
                    "1 problem in the configuration\n  HATCHET_CLIENT_GRPC_MAX_RECV_MESSAGE_LENGTH: expected an integer from 1 to 4294967295 (bytes), got {bad:?}"
                )
            );
        }
        let error = build(&ConfigBuilder::from_env().max_send_message_length(0), &FakeEnv::with_token()).unwrap_err();
        assert_eq!(
            error.problems().iter().map(super::super::Problem::name).collect::<Vec<_>>(),
            ["max_send_message_length"]
        );
    }

    #[test]
    fn durations_out_of_range_are_rejected() {
        type Setter = fn(ConfigBuilder, Duration) -> ConfigBuilder;
        let setters: [(&str, Setter, Duration); 4] = [
            ("keepalive_interval", ConfigBuilder::keepalive_interval, Duration::from_secs(6)),
            ("keepalive_timeout", ConfigBuilder::keepalive_timeout, Duration::from_secs(1)),
            ("connect_timeout", ConfigBuilder::connect_timeout, Duration::from_millis(1)),
            ("rpc_timeout", ConfigBuilder::rpc_timeout, Duration::from_millis(1)),
        ];
        let nano = Duration::from_nanos(1);
        for (name, set, min) in setters {
            for (length, good) in [
                (min, true),
                (MAX_TIMEOUT, true),
                (min.saturating_sub(nano), false),
                (MAX_TIMEOUT.saturating_add(nano), false),
                (Duration::ZERO, false),
                (Duration::MAX, false),
            ] {
                let built = build(&set(ConfigBuilder::from_env(), length), &FakeEnv::with_token());
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
