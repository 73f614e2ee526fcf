//! The state that the routes share, and the checks of a request: whether what it is about exists, and then its token.

use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use serde_json::Value;
use uuid::Uuid;

use super::response::{Rejection, RestResult, respond};
use crate::embedded::actor::Handle;
use crate::embedded::core::Core;
use crate::embedded::core::store::{At, RunIx};
use crate::embedded::faults;

/// The state that all routes share.
#[derive(Clone)]
pub(super) struct RestApi {
    pub(super) core: Handle,
    pub(super) tenant: Uuid,
    token: Arc<str>,
    /// When the engine was started.
    pub(super) started: At,
}

/// The header, if the request has it.
pub(super) struct Authorization(pub(super) Option<String>);

impl Authorization {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        Self(headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).map(Into::into))
    }
}

impl<S: Sync> FromRequestParts<S> for Authorization {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        Ok(Self::of(&parts.headers))
    }
}

impl RestApi {
    pub(super) fn new(core: Handle, tenant: Uuid, token: Arc<str>) -> Self {
        Self { started: core.clock.now(), core, tenant, token }
    }

    /// Reads what a request is about, and then checks the token: whether something exists is answered without a valid token, too.
    pub(super) async fn find_and_authorize<T: Send + 'static>(
        &self,
        authorization: &Authorization,
        missing: Rejection,
        read: impl FnOnce(&Core, At) -> Option<T> + Send + 'static,
    ) -> Result<T, Rejection> {
        let found = self.core.call(move |core, turn| read(core, turn.now)).await?.ok_or(missing)?;
        self.check(authorization)?;
        Ok(found)
    }

    /// The response to a request about a known run. It is rendered from a snapshot of the run, outside of the core's task.
    pub(super) async fn of_run(
        &self,
        authorization: &Authorization,
        run: impl FnOnce(&Core, At) -> Option<RunIx> + Send + 'static,
        render: impl FnOnce(&Core, At) -> Option<Value>,
    ) -> RestResult {
        let read = move |core: &Core, now| Some((core.snapshot([run(core, now)?]), now));
        let (snapshot, now) = self.find_and_authorize(authorization, Rejection::NOT_FOUND, read).await?;
        Ok(respond(&render(&snapshot, now).ok_or(Rejection::NOT_FOUND)?))
    }

    pub(super) fn check(&self, authorization: &Authorization) -> Result<(), Rejection> {
        let token = authorization.0.as_deref().and_then(|header| header.strip_prefix("Bearer "));
        if token == Some(&*self.token) {
            Ok(())
        } else {
            Err(Rejection::message(StatusCode::FORBIDDEN, faults::INVALID_CREDENTIALS))
        }
    }

    /// The tenant of a path.
    pub(super) fn find_tenant(&self, text: &str) -> Result<(), Rejection> {
        if id(text, "tenant")? == self.tenant { Ok(()) } else { Err(Rejection::NOT_FOUND) }
    }
}

pub(super) fn id(text: &str, what: &str) -> Result<Uuid, Rejection> {
    text.parse().map_err(|_| Rejection::message(StatusCode::BAD_REQUEST, format!("invalid {what} id")))
}
