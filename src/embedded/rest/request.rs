//! The parts of a request that most routes share: the token, and the objects that the path names.

use std::collections::BTreeMap;

use axum::body::{Body, Bytes, HttpBody as _};
use axum::extract::{FromRequestParts, Path, Request, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::Response;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use uuid::Uuid;

use super::api::{Authorization, RestApi, id};
use super::response::Rejection;
use crate::embedded::core::Core;
use crate::embedded::core::store::At;

/// The maximum size of a request body. It is above the limits of the routes, which have error texts of their own.
const MAX_BODY_BYTES: usize = 16 << 20;

/// Reads the body of a request before its route runs. Without a valid token the body is not read: the route gets an empty body, and
/// rejects the request when it checks the token.
pub(super) async fn read_body(State(api): State<RestApi>, request: Request, next: Next) -> Result<Response, Rejection> {
    let (parts, body) = request.into_parts();
    let body = match api.check(&Authorization::of(&parts.headers)) {
        Ok(()) => read(body).await?,
        Err(_) => Bytes::new(),
    };
    Ok(next.run(Request::from_parts(parts, body.into())).await)
}

async fn read(body: Body) -> Result<Bytes, Rejection> {
    let too_large = || {
        Rejection::message(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("expected a body of at most {MAX_BODY_BYTES} bytes, got a larger one"),
        )
    };
    // A body with a larger declared size is rejected immediately.
    if usize::try_from(body.size_hint().lower()).is_ok_and(|size| size <= MAX_BODY_BYTES) {
        match Limited::new(body, MAX_BODY_BYTES).collect().await {
            Ok(read) => return Ok(read.to_bytes()),
            Err(error) if error.is::<LengthLimitError>() => {}
            Err(error) => {
                return Err(Rejection::message(StatusCode::BAD_REQUEST, format!("failed to read the body: {error}")));
            }
        }
    }
    Err(too_large())
}

/// The parameters of a path, by their names in the route.
pub(super) async fn names(parts: &mut Parts, api: &RestApi) -> Result<BTreeMap<String, String>, Rejection> {
    let path = Path::from_request_parts(parts, api).await;
    path.map(|Path(names)| names).map_err(|_| Rejection::NOT_FOUND)
}

/// An authorized request about objects of a tenant.
pub(super) struct OfTenant(pub(super) RestApi);

impl FromRequestParts<RestApi> for OfTenant {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, api: &RestApi) -> Result<Self, Rejection> {
        let names = names(parts, api).await?;
        api.find_tenant(names.get("tenant").map_or("", String::as_str))?;
        api.check(&Authorization::of(&parts.headers))?;
        Ok(Self(api.clone()))
    }
}

/// A request about one object of a tenant, whose route has only the ids of both. The order of the checks is: the tenant, the object,
/// the token.
pub(super) struct OfOne {
    pub(super) api: RestApi,
    tenant: String,
    id: String,
    authorization: Authorization,
}

impl FromRequestParts<RestApi> for OfOne {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, api: &RestApi) -> Result<Self, Rejection> {
        let mut names = names(parts, api).await?;
        let tenant = names.remove("tenant").unwrap_or_default();
        let id = names.into_values().next().unwrap_or_default();
        Ok(Self { api: api.clone(), tenant, id, authorization: Authorization::of(&parts.headers) })
    }
}

impl OfOne {
    /// Returns the id, and the result of `read`.
    pub(super) async fn find<T: Send + 'static>(
        &self,
        what: &str,
        missing: Rejection,
        read: impl FnOnce(&Core, Uuid, At) -> Option<T> + Send + 'static,
    ) -> Result<(Uuid, T), Rejection> {
        self.api.find_tenant(&self.tenant)?;
        let id = id(&self.id, what)?;
        let found =
            self.api.find_and_authorize(&self.authorization, missing, move |core, now| read(core, id, now)).await?;
        Ok((id, found))
    }
}
