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

    pub(super) fn inner(&self) -> &S {
        &self.inner
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

/// The value of the header. It is sensitive, which keeps it out of debug output, and out of the tables of HTTP/2's header compression on all
/// of the way to the server (RFC 7541, section 7.1.3).
///
/// If it were not sensitive, no call would be faster: h2 never indexes the value of `authorization`, and encodes it again for each request.
pub(crate) fn bearer(token: &str) -> Result<HeaderValue> {
    let mut value = HeaderValue::try_from(format!("Bearer {token}")).map_err(|_| {
        Error::new(ErrorKind::Config, "expected a token of visible ASCII characters, got one with other characters")
            .without_side_effects()
    })?;
    value.set_sensitive(true);
    Ok(value)
}
