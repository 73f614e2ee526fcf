//! Rejections of commands, in the terms of gRPC.

use uuid::Uuid;

use crate::embedded::core::format::validation::Problems;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StatusError {
    pub(crate) code: Code,
    pub(crate) message: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Code {
    InvalidArgument,
    NotFound,
    AlreadyExists(Box<Collisions>),
    FailedPrecondition,
    Internal,
    Unimplemented,
    Unavailable,
}

/// A run that was not started because another run has its idempotency key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Collision {
    pub(crate) existing: Uuid,
    pub(crate) colliding: Uuid,
}

/// The result of a call that started some of its runs only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Collisions {
    /// All other ids of the call, including ids of runs that are never created.
    pub(crate) successful: Vec<Uuid>,
    pub(crate) collisions: Vec<Collision>,
}

impl StatusError {
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self { code: Code::InvalidArgument, message: message.into() }
    }

    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self { code: Code::NotFound, message: message.into() }
    }

    /// The real engine's answer to requests that its code did not expect.
    pub(crate) fn internal() -> Self {
        Self { code: Code::Internal, message: "An internal error occurred.".into() }
    }

    /// The end of a stream whose next message the real engine cannot encode.
    pub(crate) fn not_utf8() -> Self {
        let message = "grpc: error while marshaling: string field contains invalid UTF-8";
        Self { code: Code::Internal, message: message.into() }
    }

    /// A feature of the real engine that the embedded engine lacks.
    pub(crate) fn unimplemented(what: &str) -> Self {
        Self { code: Code::Unimplemented, message: format!("the embedded engine does not implement {what} yet") }
    }

    /// Some runs of a call with these ids were not started.
    pub(crate) fn collisions(ids: Vec<Uuid>, collisions: Vec<Collision>) -> Self {
        let successful = ids.into_iter().filter(|id| collisions.iter().all(|one| one.colliding != *id)).collect();
        Self {
            code: Code::AlreadyExists(Box::new(Collisions { successful, collisions })),
            message: "idempotency key collision".into(),
        }
    }
}

impl Problems {
    /// Rejects the request if there are problems. `of` is the name of the request's type.
    pub(crate) fn into_result(self, of: &str) -> Result<(), StatusError> {
        self.message(of).map_or(Ok(()), |text| Err(StatusError::invalid(text)))
    }

    /// The same with the prefix that most other services use.
    pub(crate) fn into_request_result(self, of: &str) -> Result<(), StatusError> {
        self.message(of).map_or(Ok(()), |text| Err(StatusError::invalid(format!("Invalid request: {text}"))))
    }
}
