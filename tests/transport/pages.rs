//! Error pages from proxies instead of gRPC or JSON.

use std::sync::atomic::Ordering::SeqCst;

use hatchet::model::Window;
use hatchet::{Client, ErrorKind};

use crate::servers::{Action, grpc_server, raw_server, setup};

const BODIES: [(Option<&str>, &str); 4] = [
    (None, ""),
    (Some("text/html"), "<html>\r\n<head><title>an error page</title></head>\r\n</html>\r\n"),
    (Some("application/json"), r#"{"message":"an error page"}"#),
    (Some("text/plain"), "an error page"),
];

#[tokio::test]
async fn error_pages_instead_of_grpc_are_classified_by_status() {
    let setup = setup().await;
    for (status, kind, transient, unsent) in [
        (401, ErrorKind::Unauthenticated, false, true),
        (403, ErrorKind::Unauthenticated, false, true),
        (404, ErrorKind::Unimplemented, false, true),
        (413, ErrorKind::TooLarge, false, true),
        (429, ErrorKind::RateLimited, true, true),
        (500, ErrorKind::Server, false, false),
        (502, ErrorKind::Unavailable, true, false),
        (503, ErrorKind::Unavailable, true, false),
        (504, ErrorKind::Unavailable, true, false),
    ] {
        for (content_type, body) in BODIES {
            let (address, requests) = grpc_server(Action::Page { status, content_type, body }).await;
            let error = setup.trigger(address).await;
            let properties = (error.kind(), error.is_transient(), error.has_no_side_effects());
            assert_eq!(properties, (kind, transient, unsent), "{status} {body:?} {error:?}");
            assert_eq!(error.http_status(), Some(status), "{error:?}");
            assert!(error.to_string().contains("probably from a proxy"), "{error}");
            assert_eq!(error.to_string().contains("an error page"), !body.is_empty(), "{error}");
            assert_eq!(requests.load(SeqCst), 1, "{status}: the retry-after header is one minute");
        }
    }
}

#[tokio::test]
async fn pages_with_status_200_are_errors() {
    let setup = setup().await;
    let action = Action::Page { status: 200, content_type: Some("text/html"), body: "<title>Sign in</title>" };
    let error = setup.trigger(grpc_server(action).await.0).await;
    assert_eq!((error.kind(), error.has_no_side_effects()), (ErrorKind::Decode, false), "{error:?}");
    assert!(
        error.to_string().ends_with("HTTP 200 OK (text/html), probably from another server or a proxy: Sign in"),
        "{error}"
    );
}

#[tokio::test]
async fn pages_instead_of_json_are_errors() {
    let setup = setup().await;
    for (page, kind, text) in [
        (
            &b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: text/html\r\nserver: nginx\r\nretry-after: 60\r\nconnection: close\r\n\r\n<h1>503 Busy</h1>"[..],
            ErrorKind::Unavailable,
            "HTTP 503 Service Unavailable (text/html), probably from a proxy (nginx): 503 Busy",
        ),
        (
            b"HTTP/1.1 404 Not Found\r\ncontent-type: text/html\r\nconnection: close\r\n\r\n<h1>no such page</h1>",
            ErrorKind::Unimplemented,
            "HTTP 404 Not Found (text/html), probably from a proxy: no such page",
        ),
        (
            b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\nconnection: close\r\n\r\n<!doctype html><title>Dashboard</title>",
            ErrorKind::Decode,
            "HTTP 200 OK (text/html), probably from another server or a proxy: Dashboard",
        ),
    ] {
        let (address, _) = raw_server(page).await;
        let config = setup.config.clone().server_url(format!("http://{address}"));
        let hatchet = Client::new(config.build().unwrap()).unwrap();
        let error = hatchet.runs(Window::all()).count().await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error:?}");
        assert!(error.to_string().ends_with(text), "{error}");
    }
}
