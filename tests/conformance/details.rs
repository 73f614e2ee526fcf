//! M: details.

use std::collections::BTreeMap;

use hatchet::raw::pb::v1::TriggerWorkflowRequest;
use hatchet::raw::pb::workflow_service_client::WorkflowServiceClient;
use hatchet::{Outcome, RunStatus};
use serde_json::{Value, json};

use crate::setup::{Setup, rows};
use crate::tasks::{Doubled, Number, double, shaky};

rows! {
    m1_details_are_found_by_run_id,
    m2_inputs_are_typed,
    m3_outputs_are_typed,
    m4_each_attempt_has_its_error,
    m7_details_contain_custom_metadata,
}

async fn m1_details_are_found_by_run_id(setup: Setup) {
    let task = double(setup.name("double"));
    let worker = setup.worker(&task).await;
    let run = setup.hatchet.run(&task, &Number { n: 3 }).start().await.unwrap();
    run.result().await.unwrap();
    // Only the id is needed.
    let id: hatchet::RunId = run.id().to_string().parse().unwrap();
    let details = setup.hatchet.run_handle(id).typed::<Doubled>().details().await.unwrap();
    assert_eq!((details.id, &details.status), (id, &RunStatus::Completed));
    assert!(details.workflow_id.is_some() && details.workflow_version_id.is_some() && details.conflicts.is_empty());
    assert_eq!(details.tasks.len(), 1);
    assert_eq!((details.tasks[0].name.as_str(), details.tasks[0].id), (task.name(), id.into()));
    assert_eq!(details.tasks[0].attempts.len(), 1);
    assert_eq!(details.tasks[0].attempts[0].worker_id, Some(worker.id()));
    assert!(details.elapsed().unwrap() >= details.ran_for().unwrap());
    assert!(details.queued_for().is_some());
    worker.shutdown().await;
}

async fn m2_inputs_are_typed(setup: Setup) {
    let task = double(setup.name("double"));
    let worker = setup.worker(&task).await;
    let run = setup.hatchet.run(&task, &Number { n: -7 }).start().await.unwrap();
    assert_eq!(
        run.details().await.unwrap().input.unwrap().parse::<Number>().unwrap(),
        Number { n: -7 },
        "before the run has ended"
    );
    run.result().await.unwrap();
    assert_eq!(run.details().await.unwrap().input.unwrap().parse::<Number>().unwrap(), Number { n: -7 });
    worker.shutdown().await;
}

async fn m3_outputs_are_typed(setup: Setup) {
    let task = double(setup.name("double"));
    let any = hatchet::Task::new(setup.name("echo"), async |input: BTreeMap<String, Value>, _: hatchet::Context| {
        Ok(input.get("value").cloned().unwrap_or_default())
    });
    let worker = setup
        .hatchet
        .worker(setup.name("worker"))
        .register(&task)
        .register(&any)
        .build()
        .unwrap()
        .start()
        .await
        .unwrap();
    let run = setup.hatchet.run(&task, &Number { n: 4 }).start().await.unwrap();
    run.result().await.unwrap();
    let details = run.details().await.unwrap();
    assert_eq!(details.output().unwrap().parse::<Doubled>().unwrap(), Doubled { doubled: 8 });
    assert_eq!(details.tasks[0].output().unwrap().parse::<Doubled>().unwrap(), Doubled { doubled: 8 });
    // Outputs that are not objects are returned unchanged.
    for value in [json!([1, 2]), json!("text"), json!(7), json!(null), json!({"a": {"b": 1}})] {
        let run =
            setup.hatchet.run(&any, &BTreeMap::from([("value".to_owned(), value.clone())])).start().await.unwrap();
        assert_eq!(run.result().await.unwrap(), value);
        assert_eq!(run.details().await.unwrap().output().unwrap().parse::<Value>().unwrap(), value);
    }
    worker.shutdown().await;
}

async fn m4_each_attempt_has_its_error(setup: Setup) {
    let task = shaky(setup.name("shaky")).retries(2);
    let worker = setup.worker(&task).await;
    let failed = setup.hatchet.run(&task, &Number { n: 9 }).start().await.unwrap();
    let Outcome::Failed(failure) = failed.outcome().await.unwrap() else { panic!() };
    assert_eq!(failure.message.as_deref(), Some("broke at attempt 3"));
    let details = failed.details().await.unwrap();
    let errors: Vec<_> = details.tasks[0].attempts.iter().map(|attempt| attempt.error.clone().unwrap()).collect();
    assert_eq!(errors, ["broke at attempt 1", "broke at attempt 2", "broke at attempt 3"]);
    assert_eq!(details.retry_count(), 2);
    // A run that completes after retries keeps the errors of its attempts, and has no error itself.
    let completed = setup.hatchet.run(&task, &Number { n: 1 }).start().await.unwrap();
    completed.result().await.unwrap();
    let details = completed.details().await.unwrap();
    let attempts: Vec<_> =
        details.tasks[0].attempts.iter().map(|attempt| (attempt.status.clone(), attempt.error.as_deref())).collect();
    assert_eq!(attempts, [(RunStatus::Failed, Some("broke at attempt 1")), (RunStatus::Completed, None)]);
    worker.shutdown().await;
}

async fn m7_details_contain_custom_metadata(setup: Setup) {
    let task = double(setup.name("double"));
    let worker = setup.worker(&task).await;
    let run = setup.hatchet.run(&task, &Number { n: 1 }).metadata("tenant", "acme").metadata("n", 1.to_string());
    let run = run.start().await.unwrap();
    // Other SDKs can set any JSON as metadata.
    let other = json!({"tenant": "acme", "nested": {"a": [1, null]}, "n": 1});
    let request = TriggerWorkflowRequest {
        name: task.name().to_owned(),
        input: json!({"n": 1}).to_string(),
        additional_metadata: Some(other.to_string()),
        ..Default::default()
    };
    let raw = WorkflowServiceClient::new(setup.hatchet.raw_channel()).trigger_workflow(request).await.unwrap();
    let by_other = setup.hatchet.run_handle(raw.into_inner().workflow_run_id.parse().unwrap());
    let given = json!({"tenant": "acme", "n": "1"});
    for (run, given) in [(run.typed(), given), (by_other, other)] {
        run.result().await.unwrap();
        let details = run.details().await.unwrap();
        assert_eq!(json!(details.metadata), given, "only the keys of the user");
        assert!(!details.engine_metadata.contains_key("tenant"));
        let filter = hatchet::RunFilter::new(setup.window()).workflow(task.name());
        let page = setup.hatchet.runs(filter).page(10).await.unwrap();
        let row = page.items.iter().find(|row| row.id == run.id()).unwrap();
        assert_eq!(json!(row.metadata), given);
    }
    // A filter matches strings only, so it does not find the number that another SDK has set.
    let found = setup.hatchet.runs(hatchet::RunFilter::new(setup.window()).workflow(task.name()).metadata("n", "1"));
    assert_eq!(found.count().await.unwrap(), hatchet::model::Total::Exactly(1));
    worker.shutdown().await;
}
