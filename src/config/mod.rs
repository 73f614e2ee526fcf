//! Where the client connects, as whom, and how: one validated [`Config`].
//!
//! [`Config`] has the table of all settings. Everything that is wrong is reported at once, see
//! [`ConfigError`]; what was decided, and by which layer, is told by [`Config::explain`]. Neither
//! ever shows the token or a private key.
//!
//! The way through the files: a [`ConfigBuilder`] holds what the program says, `setting` names what
//! there is, `layers` finds the first layer that has a value and notes what is wrong with it,
//! `resolve` (with `tls_layers` and `tuning`) asks for each setting in its turn. `address`, `namespace`, `pem` and `token` are pure
//! functions on texts.
//!
//! # Why
//!
//! The names are those of Hatchet's [contract for SDKs], so that one environment serves workers
//! in every language. The room is pure: it reads the environment and PEM files once, in
//! [`ConfigBuilder::build`], and nothing is dialled. PEM is checked for its outer form only; what
//! is in it is judged by the TLS library when the channel is made.
//!
//! [contract for SDKs]: https://docs.hatchet.run/contributing/sdks

mod address;
mod builder;
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
pub use error::{ConfigError, Problem};
pub use explain::{Entry, Explanation, Source};
pub(crate) use request::RequestOptions;
pub use request::RetryPolicy;
pub use resolved::Config;
pub use secret::Secret;
pub use tls::{Identity, Tls, TlsStrategy, TlsVersion};
pub use tuning::Compression;
