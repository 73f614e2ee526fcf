//! Streams the chunks of a task to a browser, as server-sent events, with axum.
//!
//! ```text
//! cargo run --example sse
//! ```
//!
//! Then open `http://127.0.0.1:8080/`. If `HATCHET_CLIENT_TOKEN` is set, the example runs against a real Hatchet server. Press Ctrl-C to
//! stop it.

#![expect(clippy::print_stdout, reason = "examples print to the terminal")]

use std::convert::Infallible;
use std::error::Error;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use futures_util::StreamExt as _;
use hatchet::embedded::Engine;
use hatchet::{Client, Context, RunId, Task};

const PAGE: &str = r##"<!doctype html>
<meta charset="utf-8">
<title>Chunks of a run</title>
<button>Start a run</button>
<p id="status"></p>
<pre></pre>
<script>
  const [button, status, text] = ["button", "#status", "pre"].map((name) => document.querySelector(name));
  button.onclick = async () => {
    const response = await fetch("/runs", { method: "POST" });
    const run = await response.text();
    [button.disabled, text.textContent, status.textContent] = [true, "", `run ${run}`];
    const events = new EventSource(`/runs/${run}/chunks`);
    const end = (message) => {
      events.close(); // otherwise, the browser connects again
      [button.disabled, status.textContent] = [false, `run ${run}: ${message}`];
    };
    events.onmessage = (event) => { text.textContent += event.data; };
    events.addEventListener("bytes", (event) => { text.textContent += `[${atob(event.data).length} bytes] `; });
    events.addEventListener("gap", (event) => {
      const gap = JSON.parse(event.data);
      text.textContent += `[chunks ${gap.first_index} to ${gap.last_index} are missing] `;
    });
    // A later attempt sends its chunks from the start.
    events.addEventListener("restart", () => { text.textContent = ""; });
    events.addEventListener("interrupted", (event) => { text.textContent += `[${event.data}] `; });
    events.addEventListener("end", (event) => end(event.data));
    events.addEventListener("failed", (event) => end(event.data));
    // The connection was lost and the browser connects again, or the server has rejected the request.
    events.onerror = () => { if (events.readyState === EventSource.CLOSED) end("not available"); };
  };
</script>
"##;

/// What the handlers need.
#[derive(Clone)]
struct App {
    hatchet: Client,
    answer: Task<(), ()>,
}

/// Starts a run, and returns its id.
async fn start(State(app): State<App>) -> Result<String, StatusCode> {
    let run = app.hatchet.run(&app.answer, &()).start().await.map_err(|_| StatusCode::BAD_GATEWAY)?;
    Ok(run.id().to_string())
}

/// The chunks of a run. A real service checks here whether the user may read them.
async fn chunks(State(app): State<App>, Path(run): Path<RunId>, headers: HeaderMap) -> Response {
    // A browser that connects again reports what it has received.
    let last = headers.get("last-event-id").and_then(|id| id.to_str().ok()).unwrap_or_default();
    let frames = app.hatchet.run_handle(run).chunks().into_sse().last_event_id(last);
    let body = Body::from_stream(frames.map(Ok::<_, Infallible>));
    ([(CONTENT_TYPE, "text/event-stream"), (CACHE_CONTROL, "no-store")], body).into_response()
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let engine = if std::env::var_os("HATCHET_CLIENT_TOKEN").is_none() { Some(Engine::start().await?) } else { None };
    let hatchet = engine.as_ref().map_or_else(Client::from_env, |engine| Ok(engine.client()))?;

    let answer: Task<(), ()> = Task::new("example-sse", async |(): (), context: Context| {
        // Chunks from before the browser has subscribed are reported to it as a gap.
        tokio::time::sleep(Duration::from_secs(1)).await;
        for line in 1..=5 {
            for token in format!("This is line {line} of the answer.\n").split_inclusive(' ') {
                context.put(token).await?;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        Ok(())
    });
    let worker = hatchet.worker("answers").register(&answer).build()?.start().await?;

    let app = Router::new()
        .route("/", get(async || Html(PAGE)))
        .route("/runs", post(start))
        .route("/runs/{run}/chunks", get(chunks))
        .with_state(App { hatchet, answer });
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8080".into());
    let listener = tokio::net::TcpListener::bind(address).await?;
    println!("open http://{}/", listener.local_addr()?);
    let stop = async {
        // If Ctrl-C cannot be received, run until the process is killed.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        // Open streams of chunks do not delay the end.
        served = std::future::IntoFuture::into_future(axum::serve(listener, app)) => served?,
        () = stop => {}
    }
    worker.shutdown().await;
    if let Some(engine) = engine {
        engine.shutdown().await;
    }
    Ok(())
}
