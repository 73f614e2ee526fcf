//! The generated code. The older contract has no package, and its code refers to the newer one's as `v1::…`.

#![allow(
    dead_code,
    missing_debug_implementations,
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::pedantic,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    reason = "generated, and documented in proto/"
)]

include!(concat!(env!("OUT_DIR"), "/_.rs"));

pub mod v1 {
    include!(concat!(env!("OUT_DIR"), "/v1.rs"));
}
