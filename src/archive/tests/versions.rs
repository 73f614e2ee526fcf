//! Files that the first version of the schema has written, so that later versions of the crate still read them.

use futures_util::TryStreamExt as _;

use super::*;

/// An archive, and the details of its runs as JSON.
const DIRECTORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/archive-v1");
const EXPECTED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/archive-v1.json");

/// The table in the documentation of the module has each column, in the order of the files.
#[test]
fn each_column_is_documented() {
    let module = include_str!("../mod.rs");
    let schema = module.split("//! # Schema").nth(1).unwrap();
    assert!(schema.contains(&format!("This is version {}.", super::super::schema::VERSION)));
    let rows = schema.lines().filter_map(|line| line.strip_prefix("//! | `"));
    let names = rows.flat_map(|row| row.split(" | ").next().unwrap().split(", ").map(|name| name.trim_matches('`')));
    let columns: Vec<_> = Column::ALL.iter().map(|column| column.name()).collect();
    assert_eq!(names.collect::<Vec<_>>(), columns);
}

async fn all_details(archive: &Archive) -> Value {
    let details: Vec<RunDetails> = archive.runs(Window::all()).details().try_collect().await.unwrap();
    Value::Array(details.iter().map(as_json).collect())
}

#[tokio::test(start_paused = true)]
async fn an_archive_of_the_first_version_is_read() {
    let archive = Archive::open(DIRECTORY).unwrap();
    let expected: Value = serde_json::from_str(&std::fs::read_to_string(EXPECTED).unwrap()).unwrap();
    assert_eq!(all_details(&archive).await, expected);
    let counts = archive.runs(Window::all()).counts_by_status().await.unwrap();
    for status in [RunStatus::Completed, RunStatus::Failed, RunStatus::Cancelled, RunStatus::TimedOut] {
        assert!(counts.get(&status).is_some_and(|count| count > 0), "{status}");
    }
}

#[tokio::test(start_paused = true)]
#[ignore = "writes the files of the test above, once for each version of the schema"]
async fn write_an_archive() {
    let bench = Bench::new().await;
    let client = &bench.client;
    let dag: Workflow<Input> = {
        let first = Task::new("first", async |input: Input, context: Context| {
            context.log("first");
            Ok(input)
        });
        let second = Task::new("second", async |_: Input, _: Context| Ok("text".to_owned()));
        Workflow::new("dag").task(&first).task_after(&second, ["first"])
    };
    let slow = slow("slow").on_event("order:created");
    let worker = client.worker("other").register(&dag).register(&slow).build().unwrap().start().await.unwrap();
    bench.start(0..2).await;
    client.run(&dag, &Input { n: 7 }).metadata("s", "1").start().await.unwrap().outcome().await.unwrap();
    client.push("order:created", &json!({ "n": 1 })).send().await.unwrap();
    let cancelled = client.run(&slow, &json!({})).start().await.unwrap();
    sleep(Duration::from_secs(1)).await;
    cancelled.cancel().reason("not needed").by("ada").send().await.unwrap();
    sleep(Duration::from_secs(60)).await;
    std::fs::remove_dir_all(DIRECTORY).ok();
    let archive = Archive::open(DIRECTORY).unwrap();
    let report = archive.collect(client, all()).logs(10).send().await.unwrap();
    assert_eq!(report.archived, 5, "{report}");
    let json = serde_json::to_string_pretty(&all_details(&archive).await).unwrap();
    std::fs::write(EXPECTED, json + "\n").unwrap();
    worker.shutdown().await;
    bench.end().await;
}
