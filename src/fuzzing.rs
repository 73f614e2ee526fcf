//! Entry functions of the fuzz targets in `fuzz/`, which `tests/fuzz_corpus.rs` calls, too. Each function takes any bytes, and panics if
//! a property does not hold.

use std::convert::Infallible;

use chrono::{DateTime, TimeDelta};
use http::header::CONTENT_TYPE;
use http::{Request, Response};
use serde_json::{Value, json};
use tonic::body::Body;

use crate::client::Client;
use crate::config::{Config, ConfigError, TlsStrategy};
use crate::embedded::core::expression::{Environment, Expression, Names, ParseError};
use crate::embedded::core::format;
use crate::embedded::core::format::cron::CronSchedule;
use crate::error::BoxError;
use crate::model::cron::{Expression as CronExpression, Schedule};
use crate::model::expression::expression_problem;
use crate::model::payload::encode_output;
use crate::model::{CronSpec, Payload, RunDetails, RunId, Window};
use crate::time::{Clock, format_duration};
use crate::transport::Wire;

/// The entry function of a fuzz target.
pub type Target = fn(&[u8]);

/// All targets, by the names of the files in `fuzz/fuzz_targets/` and of the directories in `fuzz/corpus/`.
pub const TARGETS: &[(&str, Target)] = &[
    ("token", token),
    ("pem", pem),
    ("address", address),
    ("cron", cron),
    ("duration", duration),
    ("payload", payload),
    ("expression", expression),
    ("rest_json", rest_json),
];

/// A token with a tenant and addresses, and a signature that nobody checks.
const TOKEN: &str = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiI3MDdkMDg1NS04MGFiLTRlMWYtYTE1Ni1mMWM0NTQ2Y2JmNTIiLCJncnBjX2Jyb2FkY2F\
zdF9hZGRyZXNzIjoibG9jYWxob3N0OjcwNzciLCJzZXJ2ZXJfdXJsIjoiaHR0cHM6Ly9sb2NhbGhvc3Q6ODA4MCJ9.c2ln";
/// Strings of at least this length are secrets that must not be in an error. Shorter ones can be a part of any string.
const SECRET_LENGTH: usize = 24;

fn text(bytes: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

/// An error must not quote what may be a secret.
fn quotes_nothing(error: &ConfigError, secret: &str) {
    let secret = secret.trim();
    let shown = format!("{error} {error:?}");
    assert!(secret.len() < SECRET_LENGTH || !shown.contains(secret), "the error quotes the value");
}

/// A token is accepted or rejected. It is not shown.
pub fn token(bytes: &[u8]) {
    let text = text(bytes);
    match Config::builder().token(&*text).build() {
        Ok(config) => {
            assert!(config.token().expose().is_ascii(), "a token is sent as a header");
            let shown = format!("{config:?} {}", config.explain());
            assert!(text.trim().len() < SECRET_LENGTH || !shown.contains(text.trim()), "the token is shown");
        }
        Err(error) => quotes_nothing(&error, &text),
    }
}

/// Certificates and a key are accepted or rejected. Keys are not shown, and are not part of the certificates.
pub fn pem(bytes: &[u8]) {
    let text = text(bytes);
    let builder = || Config::builder().token(TOKEN);
    for built in [builder().tls_root_ca(&*text).build(), builder().tls_cert(&*text).tls_key(&*text).build()] {
        match built {
            Ok(config) => {
                let shown = format!("{config:?} {}", config.explain());
                let secret = text.lines().map(str::trim).filter(|line| line.len() >= SECRET_LENGTH);
                let body = secret.filter(|line| !line.contains("-----") && text.contains("PRIVATE KEY"));
                for line in body {
                    assert!(!shown.contains(line), "a line of a key is shown");
                }
            }
            Err(error) => quotes_nothing(&error, &text),
        }
    }
}

/// An address that is accepted can be parsed as a URI, and is accepted again in its canonical form.
pub fn address(bytes: &[u8]) {
    let text = text(bytes);
    let builder = || Config::builder().token(TOKEN);
    let plain = || builder().tls_strategy(TlsStrategy::None);
    for built in [builder().server_url(&*text).build(), plain().server_url(&*text).build()] {
        let Ok(config) = built else { continue };
        let url = config.server_url();
        assert!(url.parse::<http::Uri>().is_ok_and(|uri| uri.host().is_some()), "{url:?} is no URI");
        let again = plain().server_url(url).build();
        assert!(again.is_ok_and(|again| again.server_url() == url), "{url:?} is not canonical");
    }
    let url = "http://localhost:8080";
    for built in [builder().host_port(&*text).build(), plain().host_port(&*text).server_url(url).build()] {
        let Ok(config) = built else { continue };
        let url = format!("http://{}", config.authority());
        assert!(url.parse::<http::Uri>().is_ok_and(|uri| uri.port_u16().is_some()), "{url:?} is no URI");
    }
    // A name for TLS is checked, too.
    drop(builder().tls_server_name(&*text).build());
}

/// A cron expression is accepted by the client if the embedded engine accepts it. Its times are in the future, and grow.
pub fn cron(bytes: &[u8]) {
    let text = text(bytes);
    let (is_definition, is_rest) = (CronExpression::parse(&text).is_ok(), Schedule::parse(&text).is_ok());
    assert!(is_rest || !is_definition, "what a definition may contain is accepted everywhere");
    let _ = CronSpec::new("name", &*text).check();
    let (definition, rest) = (CronSchedule::of_definition(&text), CronSchedule::of_rest(&text));
    assert!((is_definition || definition.is_none()) && (is_rest || rest.is_none()));
    for schedule in [definition, rest].into_iter().flatten() {
        // Before a leap day and a change to summer time.
        let mut at = DateTime::UNIX_EPOCH + TimeDelta::days(21_239);
        for _ in 0..5 {
            let Some(next) = schedule.next(at) else { break };
            assert!(next > at, "{next} is not after {at}");
            at = next;
        }
    }
}

/// A duration that is accepted is formatted to the same duration, rounded up to milliseconds.
pub fn duration(bytes: &[u8]) {
    let Some(length) = format::duration::parse(&text(bytes)) else { return };
    let again = format::duration::parse(&format_duration(length));
    let millisecond = std::time::Duration::from_millis(1);
    assert!(
        again.is_some_and(|again| again >= length && again < length + millisecond + length / (1 << 30)),
        "{length:?}, {again:?}"
    );
    assert!(!format::duration::text(length).is_empty());
}

/// A payload is parsed or rejected, and can be stored. An output is unwrapped to what was wrapped.
pub fn payload(bytes: &[u8]) {
    let text = text(bytes);
    for payload in [Payload::input(&text), Payload::output(&text)] {
        drop(payload.parse::<()>());
        drop(payload.parse::<Vec<u64>>());
        let stored = serde_json::to_string(&payload);
        assert!(stored.is_ok(), "{stored:?}");
        let again = stored.and_then(|stored| serde_json::from_str::<Payload>(&stored));
        let values = (payload.parse::<Value>(), again.as_ref().ok().and_then(|again| again.parse::<Value>().ok()));
        match values {
            (Ok(value), again) => assert_eq!(Some(value), again),
            // Text that is no JSON is stored as a string.
            (Err(_), again) => assert_eq!(again, Some(Value::String(text.to_string()))),
        }
    }
    if let Ok(value) = serde_json::from_str::<Value>(&text)
        && let Ok(output) = encode_output(&value, false)
    {
        assert_eq!(Payload::output(&output).parse::<Value>().ok(), Some(value), "{output}");
    }
}

/// An expression is parsed or rejected, and its evaluation ends. What the client rejects is invalid for the embedded engine.
pub fn expression(bytes: &[u8]) {
    let text = text(bytes);
    let parsed = Expression::parse(&text, &Environment::FILTER);
    if expression_problem(&text).is_some() && !text.contains('\0') {
        assert_eq!(parsed, Err(ParseError::Invalid), "{text}");
    }
    let Ok(expression) = parsed else { return };
    let input = json!({ "a": 1, "b": "x", "c": [1, 2], "d": { "e": null, "f": 2.5 }, "id": "7" });
    let (metadata, key) = (json!({ "k": "v" }), json!("order:placed"));
    let names = Names(&[("input", &input), ("additional_metadata", &metadata), ("event_key", &key)]);
    let is_true = expression.is_true(&names);
    assert!(!is_true || expression.text(&names).is_none(), "a boolean is not a string");
    let _ = expression.truth(&names);
}

/// Any response of the REST API to any read is a value or an error. What was read can be stored.
pub fn rest_json(bytes: &[u8]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let Ok(runtime) = runtime else { return };
    runtime.block_on(async {
        let Some(client) = client_of(bytes.to_vec()) else { return };
        read_all(&client).await;
        client.close().await;
    });
}

/// A client whose REST API answers each request with these bytes, and whose gRPC API has no run that fits into a message.
fn client_of(body: Vec<u8>) -> Option<Client> {
    let grpc = tower::service_fn(|_: Request<Body>| async {
        let response = Response::builder()
            .header(CONTENT_TYPE, "application/grpc")
            .header("grpc-status", "8")
            .header("grpc-message", "grpc: received message larger than max")
            .body(Body::empty());
        response.map_err(BoxError::from)
    });
    let rest = tower::service_fn(move |_: Request<Body>| {
        let body = http_body_util::Full::new(bytes::Bytes::from(body.clone()));
        async move { Ok::<_, Infallible>(Response::new(Body::new(body))) }
    });
    let rest = Wire::new(tower::ServiceExt::map_err(rest, |never: Infallible| match never {}));
    let config = Config::builder().token(TOKEN).build();
    assert!(config.is_ok(), "{config:?}");
    let client = Client::over(config.ok()?, Wire::new(grpc), rest, Clock::tokio(None));
    assert!(client.is_ok(), "{client:?}");
    client.ok()
}

async fn read_all(client: &Client) {
    let id = RunId::from(uuid::Uuid::from_u128(0x0000_0000_0000_4000_8001_0000_0000_0001));
    let run = client.run_handle(id);
    if let Ok(details) = run.details().logs(10).await {
        let stored = serde_json::to_value(&details);
        let again = stored.as_ref().ok().and_then(|stored| serde_json::from_value::<RunDetails>(stored.clone()).ok());
        assert_eq!(again.and_then(|again| serde_json::to_value(again).ok()), stored.ok());
        let _ = (details.queued_for(), details.ran_for(), details.elapsed(), details.attempt());
    }
    let (runs, tasks) = (client.runs(Window::all()), client.tasks(Window::all()));
    drop((runs.page(10).await, runs.counts_by_status().await, tasks.page(10).await));
    // The same page again and again is an error of the walk, so it ends.
    let (mut runs, mut tasks) = (runs.items(), tasks.items());
    while let Some(Ok(row)) = runs.next().await {
        let _ = (row.trigger(), row.original_run_id());
    }
    while let Some(Ok(_)) = tasks.next().await {}
    let uuid = uuid::Uuid::from(id);
    drop(client.event_handle(uuid.into()).details().await);
    drop(client.cron_handle(uuid.into()).details().await);
    drop(client.schedule_handle(uuid.into()).details().await);
    drop(client.crons().get().await);
    drop(client.schedules().get().await);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn corpus(file: &str) -> String {
        std::fs::read_to_string(format!("{}/fuzz/corpus/{file}", env!("CARGO_MANIFEST_DIR"))).unwrap()
    }

    /// Otherwise the targets would check nothing.
    #[test]
    fn the_corpus_has_accepted_values() {
        let builder = || Config::builder().token(TOKEN);
        assert!(Config::builder().token(corpus("token/claims")).build().is_ok());
        assert!(builder().tls_root_ca(corpus("pem/both")).build().is_ok());
        assert!(builder().tls_cert(corpus("pem/both")).tls_key(corpus("pem/both")).build().is_ok());
        assert!(builder().server_url(corpus("address/url")).build().is_ok());
        assert!(builder().host_port(corpus("address/host_port")).build().is_ok());
        assert!(CronSchedule::of_definition(&corpus("cron/zone")).is_some());
        assert!(format::duration::parse(&corpus("duration/fraction")).is_some());
        assert!(Expression::parse(&corpus("expression/compare"), &Environment::FILTER).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn the_corpus_has_readable_responses() {
        let id: RunId = "00000000-0000-4000-8001-000000000001".parse().unwrap();
        let client = |file: &str| client_of(corpus(&format!("rest_json/{file}")).into_bytes()).unwrap();
        for file in ["all_in_one"] {
            let details = client(file).run_handle(id).details().await.unwrap();
            assert_eq!((details.tasks.len(), details.output().is_some()), (1, true));
            assert_eq!(client(file).event_handle(uuid::Uuid::from(id).into()).details().await.unwrap().run_ids, [id]);
        }
        assert_eq!(client("rows").runs(Window::all()).page(10).await.unwrap().items.len(), 1);
        assert_eq!(client("crons").crons().get().await.unwrap().len(), 1);
        assert_eq!(client("schedules").schedules().get().await.unwrap().len(), 1);
    }
}
