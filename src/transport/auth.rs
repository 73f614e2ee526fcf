//! Adds the token to every request.

use std::task::{Context, Poll};

use http::header::AUTHORIZATION;
use http::{HeaderValue, Request};
use tower::Service;

use crate::error::{Error, ErrorKind, Result};

/// Adds the token to each request.
#[derive(Clone)]
pub(super) struct Authorized<S> {
    inner: S,
    bearer: HeaderValue,
}

impl<S> Authorized<S> {
    pub(super) fn new(inner: S, bearer: HeaderValue) -> Self {
        Self { inner, bearer }
    }
}

impl<S: Service<Request<B>>, B> Service<Request<B>> for Authorized<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<std::result::Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> S::Future {
        request.headers_mut().insert(AUTHORIZATION, self.bearer.clone());
        self.inner.call(request)
    }
}

/// The value of the header. It is marked as sensitive, so that it is not in debug output and in the header compression table.
pub(crate) fn bearer(token: &str) -> Result<HeaderValue> {
    let mut value = HeaderValue::try_from(format!("Bearer {token}")).map_err(|_| {
        Error::new(ErrorKind::Config, "the token contains characters that are not valid in a header")
            .without_side_effects()
    })?;
    value.set_sensitive(true);
    Ok(value)
}
