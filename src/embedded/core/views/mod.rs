//! What the two API views, gRPC and REST, show. They derive it from the same data by different rules, and change nothing.

mod events;
mod grpc;
mod lookup;
mod rest;
mod selection;
mod status;

pub(crate) use grpc::TaskView;
pub(crate) use lookup::WorkflowView;
pub(crate) use selection::{RunFilter, has_tags};
pub(crate) use status::RestStatus;
