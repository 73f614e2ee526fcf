//! Asking the engine for its version.

use super::batches::{batch, engine_version};
use super::*;
use crate::rpc::MAX_VERSION_AGE;
use crate::workflow::{BatchItem, BatchOptions};

#[tokio::test(start_paused = true)]
async fn the_version_is_asked_for_once_per_client() {
    let assignments = vec![(SECOND, batch("a", &[1, 2])), (2 * SECOND, batch("b", &[3]))];
    let (client, calls) = server(assignments, |call, _| (call == "GetVersion").then(engine_version));
    // Batches need a version of the engine, and so do the delays that the task chooses.
    let task: Task<(), ()> = Task::batch("task", BatchOptions::new(3), async |items: Vec<BatchItem<()>>| {
        Ok(items.iter().map(|_| Err(TaskError::retry_after("later", SECOND))).collect())
    });
    let start = async || client.worker("worker").register(&task).build().unwrap().start().await.unwrap();
    let workers = [start().await, start().await];
    tokio::time::sleep(3 * SECOND).await;
    for worker in workers {
        assert_eq!(worker.shutdown().await.failed, 3);
    }
    assert_eq!(calls.count("GetVersion"), 1);
    tokio::time::sleep(MAX_VERSION_AGE).await;
    start().await.shutdown().await;
    assert_eq!(calls.count("GetVersion"), 2, "the engine may have been upgraded");
}
