//! The configuration of a client: addresses, credentials, TLS, timeouts and message sizes.
//!
//! [`Config`] has the table of all settings. [`ConfigError`] reports all invalid and missing values in one error.
//! [`Config::explain`] returns each value with its source. Neither of them contains the token or a private key.
//!
//! The names of the environment variables are those of Hatchet's [contract for SDKs], so that one environment serves workers in
//! all languages. The environment and PEM files are read once, by [`ConfigBuilder::build`], which does not connect. It checks only
//! the syntax of PEM. The TLS library checks certificates and keys when the client is created.
//!
//! [contract for SDKs]: https://docs.hatchet.run/contributing/sdks

// `builder` holds the values that are set in code, `setting` is the table of settings, and `layers` takes a value from the first
// source that has it and collects problems. `resolve`, with `tls_layers` and `tuning`, does this for all settings. `address`,
// `namespace`, `pem` and `token` parse strings.

mod address;
mod builder;
mod compression;
mod env;
mod error;
mod explain;
mod layers;
mod namespace;
mod pem;
mod request;
mod resolve;
mod resolved;
mod secret;
mod setting;
mod tls;
mod tls_layers;
mod token;
mod tuning;

#[cfg(test)]
mod fixtures;

pub use builder::ConfigBuilder;
pub use compression::Compression;
pub use error::{ConfigError, Problem};
pub use explain::{Entry, Explanation, Source};
pub(crate) use request::RequestOptions;
pub use request::RetryPolicy;
pub use resolved::Config;
pub use secret::Secret;
pub use tls::{Identity, Tls, TlsStrategy, TlsVersion};
