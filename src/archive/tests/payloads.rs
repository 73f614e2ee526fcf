//! Runs that are archived without their payloads.

use bytes::Bytes;
use parquet::file::reader::{FileReader as _, SerializedFileReader};

use super::*;

/// What must not be in the archive. It is in each input, output, payload of an event and log line, and in nothing else.
const SECRET: &str = "8d1f-secret-c07a";

/// The columns of the committed files that contain the secret, after the runs of these workflows were found.
async fn columns_with_secret(store: &Store, expected: &[&str]) -> BTreeSet<String> {
    let (mut columns, mut workflows) = (BTreeSet::new(), BTreeSet::new());
    for file in Archive::over(store.clone()).files(Window::all()).await.unwrap() {
        let content: Bytes = store.read(&file.path).await.unwrap();
        for row in SerializedFileReader::new(content).unwrap().get_row_iter(None).unwrap() {
            for (name, value) in row.unwrap().get_column_iter() {
                let text = value.to_string();
                if name == "workflow_name" {
                    workflows.insert(text.trim_matches('"').to_owned());
                }
                if text.contains(SECRET) {
                    columns.insert(name.clone());
                }
            }
        }
    }
    assert!(workflows.iter().eq(expected), "{workflows:?}");
    columns
}

/// A task that logs the secret, and returns it.
fn logging_secret(name: &str) -> Task<Value, Value> {
    Task::new(name, async |_: Value, context: Context| {
        context.log(SECRET);
        Ok(json!({ "secret": SECRET }))
    })
}

/// A task that fails once, and again if its input says so. It logs the secret.
fn failing(name: &str) -> Task<Value, Value> {
    let task = Task::new(name, async |input: Value, context: Context| {
        context.log(SECRET);
        if context.attempt() == 1 || input["fails"] == true {
            return Err(TaskError::new("as planned"));
        }
        Ok(json!([SECRET]))
    });
    task.retries(1)
}

#[tokio::test(start_paused = true)]
async fn no_column_contains_an_omitted_payload() {
    let bench = Bench::new().await;
    let client = &bench.client;
    let dag = Workflow::new("dag").task(&logging_secret("first")).task_after(&logging_secret("second"), ["first"]);
    let broken_dag =
        Workflow::new("broken-dag").task(&logging_secret("first")).task_after(&failing("second"), ["first"]);
    let on_event = logging_secret("on-event").on_event("order:created");
    let (alone, retried, slow) = (logging_secret("alone"), failing("retried"), slow("slow"));
    let child = logging_secret("child");
    let parent =
        Task::with_state("parent", child.clone(), async |child: Task<Value, Value>, input: Value, context: Context| {
            Ok(context.run(&child, &input).result().await?)
        });
    let worker = client.worker("other").slots(20).register(&dag).register(&broken_dag).register(&on_event);
    let worker = worker.register(&alone).register(&retried).register(&slow).register(&child).register(&parent);
    let worker = worker.build().unwrap().start().await.unwrap();
    let input = json!({ "secret": SECRET, "fails": true });
    let runs = [
        client.run(&dag, &input).start().await.unwrap().id(),
        client.run(&broken_dag, &input).start().await.unwrap().id(),
        client.run(&alone, &input).start().await.unwrap().id(),
        client.run(&retried, &input).start().await.unwrap().id(),
        client.run(&retried, &json!({ "secret": SECRET })).start().await.unwrap().id(),
        client.run(&slow, &input).start().await.unwrap().id(),
        client.run(&parent, &input).start().await.unwrap().id(),
    ];
    client.push("order:created", &input).send().await.unwrap();
    for run in runs {
        client.run_handle(run).outcome().await.unwrap();
    }
    sleep(HOUR).await;
    assert_eq!(bench.live().await.len(), 9);

    let workflows = ["alone", "broken-dag", "child", "dag", "on-event", "parent", "retried", "slow"];
    // With payloads, it is in each of the columns where it can be.
    let store = Store::open("memory://", Vec::new()).unwrap();
    let report = Archive::over(store.clone()).collect(client, all()).logs(100).send().await.unwrap();
    let columns = columns_with_secret(&store, &workflows).await;
    assert_eq!(columns, ["input", "logs", "output", "tasks", "trigger"].map(str::to_owned).into(), "{report}");
    // Without them, it is in none.
    let store = Store::open("memory://", Vec::new()).unwrap();
    let (archive, other) = (Archive::over(store.clone()), Archive::over(store.clone()));
    let retention = Retention::default().default_rule(Rule::older_than(Duration::ZERO).without_payloads());
    assert_eq!(archive.collect(client, retention.clone()).logs(100).send().await.unwrap().archived, 9);
    assert_eq!(columns_with_secret(&store, &workflows).await, BTreeSet::new());
    // What is left can be read: facts, errors and metadata.
    assert_eq!(listed(other.runs(Window::all()).items()).await, bench.live().await);
    for (at, run) in runs.into_iter().enumerate() {
        let (kept, live) = (other.details(run).await.unwrap(), client.run_handle(run).details().await.unwrap());
        assert_eq!((&kept.input, &kept.status), (&None, &live.status));
        assert!(kept.logs.is_empty() && kept.output().is_none_or(|output| output.as_str() == "null"));
        assert_eq!((kept.tasks.len(), kept.retry_count()), (live.tasks.len(), live.retry_count()), "run {at}");
        let attempts =
            |details: &RunDetails| details.tasks.iter().flat_map(|task| task.attempts.clone()).collect::<Vec<_>>();
        assert_eq!(attempts(&kept), attempts(&live), "run {at}");
    }
    // A merge adds nothing.
    sleep(HOUR).await;
    client.run(&alone, &input).outcome().await.unwrap();
    sleep(HOUR).await;
    assert_eq!(archive.collect(client, retention).send().await.unwrap().archived, 1);
    assert_eq!(archive.compact().send().await.unwrap().files_merged, 2);
    assert_eq!(columns_with_secret(&store, &workflows).await, BTreeSet::new());
    worker.shutdown().await;
    bench.end().await;
}
