//! Workers: their connections, and what they report about tasks.

pub(crate) mod logs;
pub(crate) mod refresh;
pub(crate) mod registration;
pub(crate) mod release;
pub(crate) mod reports;
pub(crate) mod sessions;
