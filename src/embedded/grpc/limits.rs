//! Rate limits: their definitions in tasks, and `PutRateLimit`.

use tonic::{Response, Status};

use super::{GrpcApi, respond};
use crate::embedded::core::store::{Cel, StatusError, TaskLimit, Window};
use crate::rpc::pb::v1::{CreateTaskRateLimit, RateLimitDuration};
use crate::rpc::pb::{PutRateLimitRequest, PutRateLimitResponse};

/// The rate limits of a task.
pub(super) fn of_task(limits: Vec<CreateTaskRateLimit>) -> Result<Vec<TaskLimit>, StatusError> {
    let unknown = |number| StatusError::unimplemented(&format!("the rate limit duration {number}"));
    let convert = |limit: CreateTaskRateLimit| {
        let expression = |text: Option<String>| text.map(Cel::of_rate_limit).transpose();
        Ok(TaskLimit {
            key: limit.key,
            units: limit.units,
            key_expression: expression(limit.key_expr)?,
            units_expression: expression(limit.units_expr)?,
            limit_expression: expression(limit.limit_values_expr)?,
            window: limit.duration.map(|number| window(number).ok_or_else(|| unknown(number))).transpose()?,
        })
    };
    limits.into_iter().map(convert).collect()
}

fn window(number: i32) -> Option<Window> {
    Some(match RateLimitDuration::try_from(number).ok()? {
        RateLimitDuration::Second => Window::Second,
        RateLimitDuration::Minute => Window::Minute,
        RateLimitDuration::Hour => Window::Hour,
        RateLimitDuration::Day => Window::Day,
        RateLimitDuration::Week => Window::Week,
        RateLimitDuration::Month => Window::Month,
        RateLimitDuration::Year => Window::Year,
    })
}

/// Creates a rate limit, or changes it. Its size is not checked.
pub(super) async fn put(api: &GrpcApi, request: PutRateLimitRequest) -> Result<Response<PutRateLimitResponse>, Status> {
    if request.key.is_empty() {
        return Err(Status::invalid_argument("key is required"));
    }
    let window = window(request.duration).ok_or_else(StatusError::internal)?;
    let PutRateLimitRequest { key, limit, .. } = request;
    api.core.call(move |core, turn| core.put_rate_limit(turn, &key, limit, window)).await?;
    respond(PutRateLimitResponse {})
}
