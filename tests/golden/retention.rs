//! Runs that are dropped because they are old.

use std::time::Duration;

use hatchet::ErrorKind;
use hatchet::embedded::{Engine, Quirks};
use http::Method;
use serde_json::json;
use tokio::time::sleep;
use tonic::Code;

use super::setup::{ALL_TIME, Setup};

const NAME: &str = "fx";
const SECONDS_PER_DAY: u64 = 24 * 3600;
const DAY: Duration = Duration::from_secs(SECONDS_PER_DAY);

#[tokio::test(start_paused = true)]
async fn a_dropped_run_is_unknown_to_grpc_and_rest() {
    for quirks in [Quirks::none(), Quirks::all()] {
        let setup = Setup::keeping(quirks, DAY).await;
        setup.put(&super::recording::workflow(&json!(null), NAME, &json!({"schedule_timeout": "1000h"}))).await;
        let (ended, waiting) =
            (setup.trigger(NAME, &json!({})).await.unwrap(), setup.trigger(NAME, &json!({})).await.unwrap());
        setup.end(&ended, "COMPLETED", "{}").await;
        sleep(Duration::from_secs(SECONDS_PER_DAY - 1)).await;
        assert_eq!(setup.listed(ALL_TIME).await.len(), 2);
        sleep(DAY + Duration::from_secs(2)).await;
        let missing = setup.details(&ended).await.unwrap_err();
        assert_eq!((missing.code(), missing.message()), (Code::NotFound, "workflow run not found"));
        for path in ["workflow-runs/{}", "workflow-runs/{}/status", "tasks/{}", "tasks/{}/logs"] {
            let path = format!("stable/{}", path.replace("{}", &ended));
            assert_eq!(setup.send(Method::GET, &path, None).await.0, 404, "{path}");
        }
        let rows = setup.listed(ALL_TIME).await;
        assert_eq!(rows.iter().map(|row| &row["metadata"]["id"]).collect::<Vec<_>>(), [&json!(waiting)]);
        assert!(setup.details(&waiting).await.is_ok());
    }
}

#[tokio::test(start_paused = true)]
async fn invalid_retentions_are_rejected() {
    for length in [Duration::ZERO, 3654 * DAY, Duration::MAX] {
        let error = Engine::builder().retention(length).start().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        assert!(error.to_string().contains("expected more than zero and at most ten years, got "), "{error}");
    }
    let engine = Engine::builder().retention(3653 * DAY).start().await.unwrap();
    engine.shutdown().await;
}
