//! What the two API views, gRPC and REST, show. They derive it from the same data by different rules, and change nothing.

mod events;
mod grpc;
mod lookup;
mod metadata;
mod rate_limits;
mod rest;
mod selection;
mod status;
mod workers;

pub(crate) use grpc::TaskView;
pub(crate) use lookup::WorkflowView;
pub(crate) use metadata::MetadataFilter;
pub(crate) use rate_limits::RateLimitView;
pub(crate) use selection::{RunFilter, Selection};
pub(crate) use status::RestStatus;
