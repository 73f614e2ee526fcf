//! Lists that are rendered while they are sent, outside of the core's task and in parts of limited size.

use std::convert::Infallible;

use axum::body::Body;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Response};
use futures_util::stream::{self, Stream};
use serde_json::Value;

/// A part of a body ends with the row that makes it this large. Other tasks can run between two parts.
const PART_BYTES: usize = 64 << 10;

/// A page of a list, and the data from which its rows are rendered.
pub(super) struct RowPage<T> {
    pub(super) pagination: Value,
    pub(super) rows: Vec<T>,
}

impl<T: Send + 'static> RowPage<T> {
    /// The response. Its rows are rendered while its body is read.
    pub(super) fn render(self, row: impl FnMut(T) -> Value + Send + 'static) -> Response {
        let parts = Parts {
            text: format!(r#"{{"pagination":{},"rows":["#, self.pagination),
            rows: Some(self.rows.into_iter().map(row)),
            has_rows: false,
        };
        ([(CONTENT_TYPE, "application/json")], Body::from_stream(parts.into_stream())).into_response()
    }
}

/// The JSON text of a list, in parts.
struct Parts<I> {
    /// The text that has not been sent.
    text: String,
    /// `None` after the last part.
    rows: Option<I>,
    has_rows: bool,
}

impl<I: Iterator<Item = Value>> Parts<I> {
    fn next(&mut self) -> Option<String> {
        let rows = self.rows.as_mut()?;
        let mut text = std::mem::take(&mut self.text);
        while text.len() < PART_BYTES {
            let Some(row) = rows.next() else {
                text.push_str("]}");
                self.rows = None;
                break;
            };
            if self.has_rows {
                text.push(',');
            }
            self.has_rows = true;
            text.push_str(&row.to_string());
        }
        Some(text)
    }

    fn into_stream(self) -> impl Stream<Item = Result<String, Infallible>> {
        stream::unfold((self, false), |(mut parts, is_started)| async move {
            // A fast reader would otherwise block the thread.
            if is_started {
                tokio::task::yield_now().await;
            }
            Some((Ok(parts.next()?), (parts, true)))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use futures_util::FutureExt as _;
    use http_body_util::BodyExt as _;
    use serde_json::json;

    use super::*;

    fn found(count: usize) -> RowPage<usize> {
        RowPage { pagination: json!({"current_page": 1}), rows: (0..count).collect() }
    }

    #[tokio::test]
    async fn the_parts_form_one_json_text() {
        for count in [0, 1, 3] {
            let body = found(count).render(|row| json!({"row": row})).into_body().collect().await.unwrap().to_bytes();
            let rows: Vec<_> = (0..count).map(|row| json!({"row": row})).collect();
            let expected = json!({"pagination": {"current_page": 1}, "rows": rows});
            assert_eq!(serde_json::from_slice::<Value>(&body).unwrap(), expected);
        }
    }

    #[tokio::test]
    async fn rows_are_rendered_as_they_are_read() {
        let rendered = Arc::new(AtomicUsize::new(0));
        let mut body = found(1000)
            .render({
                let rendered = Arc::clone(&rendered);
                move |_| {
                    rendered.fetch_add(1, Relaxed);
                    "x".repeat(PART_BYTES).into()
                }
            })
            .into_body();
        assert_eq!(rendered.load(Relaxed), 0);
        for count in 1..=3 {
            let part = body.frame().await.unwrap().unwrap().into_data().unwrap();
            assert!(part.len() < 2 * PART_BYTES);
            assert_eq!(rendered.load(Relaxed), count);
        }
        // Other tasks can run before the next part.
        assert!(body.frame().now_or_never().is_none());
    }
}
