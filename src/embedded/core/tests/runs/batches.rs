//! Tasks that are assigned in batches.

use serde_json::{Value, json};

use crate::embedded::core::store::{BatchAction, BatchOptions, Cel, TaskLimit, Window};
use crate::embedded::core::tests::*;
use crate::embedded::quirks::Quirk;

use RestStatus::{Cancelled, Completed, Failed, Queued, Running};

fn options(max_size: i32) -> BatchOptions {
    BatchOptions::new(max_size, None, None, None, false).unwrap()
}

fn keyed(max_size: i32, key: &str) -> BatchOptions {
    BatchOptions::new(max_size, None, Some(key.into()), None, false).unwrap()
}

fn batched(options: BatchOptions) -> TaskDefinition {
    TaskDefinition { batch: Some(options), ..task() }
}

impl Bench {
    /// Starts several runs with one call.
    fn trigger_many(&mut self, inputs: &[Value]) -> Vec<Uuid> {
        let triggers = inputs.iter().map(|input| Trigger { input: input.clone(), ..trigger(None) }).collect();
        self.turn(|core, turn| core.trigger(turn, triggers)).unwrap()
    }

    fn batches(&mut self) -> Vec<BatchAction> {
        let batch = |effect| match effect {
            Effect::Send(_, Message::Batch(batch)) => Some(*batch),
            _ => None,
        };
        self.effects().into_iter().filter_map(batch).collect()
    }

    fn all_rest(&self, runs: &[Uuid]) -> Vec<RestStatus> {
        runs.iter().map(|run| self.rest(*run)).collect()
    }

    fn free_slots(&self, worker: Uuid) -> i64 {
        self.core.workers[&worker].free_slots("default")
    }
}

fn tasks_of(batch: &BatchAction) -> Vec<Uuid> {
    let payload: serde_json::Map<String, Value> = serde_json::from_str(&batch.payload).unwrap();
    payload.keys().map(|id| id.parse().unwrap()).collect()
}

#[test]
fn a_full_batch_is_one_action_with_one_slot() {
    let mut bench = Bench::new(Quirks::none());
    bench.put(batched(options(2)));
    let (worker, _) = bench.worker(3);
    let first = bench.trigger();
    assert_eq!((bench.rest(first), bench.grpc(first), bench.batches().len()), (Queued, Queued, 0));
    let waiting = "Waiting for batch (1/2). Batch group key: default. Flush at 2026-01-01T12:00:01Z (interval 1s). \
                   Max concurrent batches per key: 100.";
    assert_eq!(bench.text(first, TaskEventKind::WaitingForBatch), waiting);
    let second = bench.trigger();
    let batches = bench.batches();
    let [batch] = &*batches else { panic!("{batches:?}") };
    assert_eq!((&*batch.name, &*batch.key, batch.size), ("w:t", "default", 2));
    assert_eq!((&*batch.reason, batch.at), ("batch size threshold 2 reached", bench.now));
    let payload = r#"{"workflow_run_id":"ID","payload":{"input":{"n":1},"parents":{},"triggers":{"filter_payload":null},"overrides":null,"user_data":null,"triggered_by":"manual"}}"#;
    let item = |run: Uuid| format!(r#""{run}":{}"#, payload.replace("ID", &run.to_string()));
    assert_eq!(batch.payload, format!("{{{},{}}}", item(first), item(second)));
    assert_eq!(bench.all_rest(&[first, second]), [Running, Running]);
    assert_eq!(bench.kinds(second), [("QUEUED", 0), ("WAITING_FOR_BATCH", 0), ("BATCH_FLUSHED", 0)]);
    let flushed = format!(
        "Batch {} flushed (2/2 tasks) at 2026-01-01T12:00:00Z because batch size threshold 2 reached. Batch group key: \
         default. Max concurrent batches per key: 100. Configured batch max interval: 1s.",
        batch.id
    );
    assert_eq!(bench.text(first, TaskEventKind::BatchFlushed), flushed);
    // The slot is free after the end of both.
    assert_eq!(bench.free_slots(worker), 2);
    bench.report(first, ReportKind::Completed, 0, "{}");
    assert_eq!((bench.rest(first), bench.rest(second), bench.free_slots(worker)), (Completed, Running, 2));
    bench.report(second, ReportKind::Failed, 0, "no");
    assert_eq!((bench.rest(second), bench.free_slots(worker)), (Failed, 3));
    assert_eq!(bench.core.batches.tasks(), 0);
    assert_eq!(bench.core.batches.all().count(), 0);
}

#[test]
fn those_that_have_waited_for_the_interval_are_assigned() {
    let mut bench = Bench::new(Quirks::none());
    bench.put(batched(options(3)));
    let (worker, _) = bench.worker(9);
    let runs = bench.trigger_many(&vec![json!({}); 5]);
    assert_eq!(bench.batches().iter().map(tasks_of).collect::<Vec<_>>(), [&runs[..3]]);
    bench.pass(Duration::from_millis(999));
    assert_eq!(bench.batches().len(), 0);
    bench.pass(Duration::from_millis(1));
    let batches = bench.batches();
    assert_eq!(batches.iter().map(tasks_of).collect::<Vec<_>>(), [&runs[3..]]);
    assert_eq!((&*batches[0].reason, batches[0].size), ("batch max interval 1s elapsed", 2));
    assert_eq!(bench.free_slots(worker), 7);
    // A task that comes later waits for an interval of its own.
    bench.pass(seconds(2));
    let late = bench.trigger();
    bench.pass(Duration::from_millis(999));
    assert_eq!(bench.rest(late), Queued);
    bench.pass(Duration::from_millis(1));
    assert_eq!(bench.rest(late), Running);
}

#[test]
fn only_tasks_with_equal_keys_share_batches() {
    let mut bench = Bench::new(Quirks::none());
    bench.put(batched(keyed(2, "input.k")));
    bench.worker(9);
    let keys = ["a", "b", " a ", "", ""].map(|key| json!({ "k": key }));
    let runs = bench.trigger_many(&keys);
    let batches = bench.batches();
    let shown: Vec<_> = batches.iter().map(|batch| (&*batch.key, tasks_of(batch))).collect();
    assert_eq!(shown, [("a", vec![runs[0], runs[2]]), ("", vec![runs[3], runs[4]])]);
    assert!(!bench.text(runs[4], TaskEventKind::WaitingForBatch).contains("key:  "));
    assert_eq!(bench.rest(runs[1]), Queued);
}

#[test]
fn a_key_that_cannot_be_evaluated_fails_the_task() {
    let mut bench = Bench::new(Quirks::none());
    for (key, problem) in [
        ("input.n", "expected string output for batch key, got int"),
        ("input.missing", "no such key: missing"),
        ("unknown.x", "it is not valid CEL"),
    ] {
        bench.put(batched(keyed(2, key)));
        let run = bench.trigger();
        let text = format!("failed to parse batch group key expression ({key}): {problem}");
        assert_eq!((bench.rest(run), bench.text(run, TaskEventKind::Failed)), (Failed, &*text));
    }
}

#[test]
fn batches_wait_for_workers_and_for_other_batches_of_their_key() {
    let mut bench = Bench::new(Quirks::none());
    bench.put(batched(BatchOptions { group_max_runs: 1, ..options(2) }));
    let runs = bench.trigger_many(&vec![json!({}); 4]);
    assert_eq!(bench.all_rest(&runs), [Queued; 4]);
    let (worker, _) = bench.worker(5);
    assert_eq!((bench.all_rest(&runs), bench.free_slots(worker)), (vec![Running, Running, Queued, Queued], 4));
    bench.pass_with_heartbeats(worker, seconds(5));
    assert_eq!(bench.all_rest(&runs), [Running, Running, Queued, Queued]);
    bench.report(runs[0], ReportKind::Completed, 0, "{}");
    assert_eq!(bench.rest(runs[2]), Queued);
    bench.report(runs[1], ReportKind::Completed, 0, "{}");
    assert_eq!(bench.all_rest(&runs), [Completed, Completed, Running, Running]);
    assert_eq!(bench.batches().len(), 2);
}

#[test]
fn a_batch_that_is_not_full_and_finds_no_worker_waits_for_another_interval() {
    let mut bench = Bench::new(Quirks::none());
    bench.put(batched(BatchOptions { max_interval_ms: 10_000, ..options(3) }));
    let run = bench.trigger();
    bench.pass(seconds(11));
    let (worker, _) = bench.worker(1);
    assert_eq!(bench.rest(run), Queued);
    bench.pass_with_heartbeats(worker, seconds(8));
    assert_eq!(bench.rest(run), Queued);
    bench.pass_with_heartbeats(worker, seconds(1));
    assert_eq!(bench.rest(run), Running);
}

#[test]
fn members_are_cancelled_and_time_out_in_the_queue_one_by_one() {
    let mut bench = Bench::new(Quirks::none());
    let options = BatchOptions { max_interval_ms: 86_400_000, ..options(3) };
    bench.put(TaskDefinition { schedule_timeout: Some("4s".into()), ..batched(options) });
    let (worker, _) = bench.worker(1);
    let runs = bench.trigger_many(&vec![json!({}); 2]);
    bench.turn(|core, turn| core.cancel(turn, &[runs[0]]));
    bench.pass_with_heartbeats(worker, seconds(4));
    assert_eq!(bench.all_rest(&runs), [Cancelled, Failed]);
    assert_eq!((bench.core.batches.tasks(), bench.core.batches.all().count()), (0, 0));
    let runs = bench.trigger_many(&vec![json!({}); 3]);
    bench.effects();
    bench.turn(|core, turn| core.cancel(turn, &[runs[1]]));
    let actions = bench.actions();
    let [(_, cancel)] = &*actions else { panic!("{actions:?}") };
    assert!(cancel.cancel && cancel.task == runs[1] && cancel.payload.is_empty());
    assert_eq!((bench.all_rest(&runs), bench.free_slots(worker)), (vec![Running, Cancelled, Running], 0));
}

#[test]
fn the_timeout_of_one_member_fails_all() {
    let mut bench = Bench::new(Quirks::none());
    bench.put(TaskDefinition { timeout: "5s".into(), ..batched(options(3)) });
    let (worker, _) = bench.worker(1);
    let runs = bench.trigger_many(&vec![json!({}); 3]);
    bench.report(runs[0], ReportKind::Completed, 0, "{}");
    bench.turn(|core, turn| core.refresh_timeout(turn, runs[2], "1h")).unwrap();
    bench.effects();
    bench.pass_with_heartbeats(worker, seconds(5));
    assert_eq!(bench.all_rest(&runs), [Completed, Failed, Failed]);
    let text = "Task failed due to batch timeout, exceeded timeout of 5s";
    assert_eq!(bench.text(runs[1], TaskEventKind::TimedOut), text);
    assert_eq!(bench.task(runs[1]).grpc_view(bench.now).error, Some(text));
    let text = "Task exceeded timeout of batch timeout";
    assert_eq!(bench.text(runs[2], TaskEventKind::TimedOut), text);
    let cancelled: Vec<_> = bench.actions().iter().map(|(_, action)| (action.cancel, action.task)).collect();
    assert_eq!(cancelled, [(true, runs[1]), (true, runs[2])]);
    assert_eq!((bench.free_slots(worker), bench.core.batches.tasks()), (1, 0));
}

#[test]
fn retries_wait_for_a_batch_again() {
    let mut bench = Bench::new(Quirks::none());
    bench.put(TaskDefinition { retries: 2, timeout: "5s".into(), ..batched(options(2)) });
    let (worker, _) = bench.worker(1);
    let runs = bench.trigger_many(&vec![json!({}); 2]);
    bench.report(runs[0], ReportKind::Failed, 0, "no");
    bench.batches();
    assert_eq!(bench.all_rest(&runs), [Queued, Running]);
    // The other one has the only slot.
    bench.pass_with_heartbeats(worker, seconds(3));
    assert_eq!(bench.all_rest(&runs), [Queued, Running]);
    bench.pass_with_heartbeats(worker, seconds(2));
    let batches = bench.batches();
    assert_eq!(batches.iter().map(|batch| tasks_of(batch).len()).collect::<Vec<_>>(), [2]);
    assert_eq!(runs.iter().map(|run| bench.task(*run).retry_count).collect::<Vec<_>>(), [1, 1]);
    for run in &runs {
        bench.report(*run, ReportKind::Completed, 1, "{}");
    }
    assert_eq!((bench.all_rest(&runs), bench.free_slots(worker)), (vec![Completed; 2], 1));
}

#[test]
fn members_of_a_lost_worker_are_assigned_again() {
    for quirks in [Quirks::none(), Quirks::all()] {
        let mut bench = Bench::new(quirks);
        bench.put(batched(options(2)));
        bench.worker(1);
        let runs = bench.trigger_many(&vec![json!({}); 2]);
        bench.batches();
        bench.pass(seconds(31));
        assert_eq!(bench.all_rest(&runs), [Queued; 2]);
        bench.worker(1);
        assert_eq!(bench.all_rest(&runs), [Running; 2]);
        assert_eq!(tasks_of(&bench.batches()[0]).len(), 2);
    }
}

#[test]
fn released_members_free_the_slot_together() {
    let mut bench = Bench::new(Quirks::none());
    bench.put(batched(options(2)));
    let (worker, _) = bench.worker(1);
    let runs = bench.trigger_many(&vec![json!({}); 2]);
    bench.turn(|core, turn| core.release_slot(turn, runs[0])).unwrap();
    assert_eq!(bench.free_slots(worker), 0);
    bench.turn(|core, turn| core.release_slot(turn, runs[1])).unwrap();
    assert_eq!(bench.free_slots(worker), 1);
    bench.report(runs[0], ReportKind::Completed, 0, "{}");
    bench.report(runs[1], ReportKind::Completed, 0, "{}");
    assert_eq!((bench.all_rest(&runs), bench.free_slots(worker)), (vec![Completed; 2], 1));
}

#[test]
fn rate_limits_apply_before_a_task_waits_for_its_batch() {
    let mut bench = Bench::new(Quirks::none());
    bench.turn(|core, turn| core.put_rate_limit(turn, "k", 1, Window::Minute));
    let limit = TaskLimit {
        key: "k".into(),
        units: Some(1),
        key_expression: None,
        units_expression: None,
        limit_expression: None,
        window: None,
    };
    bench.put(TaskDefinition { rate_limits: vec![limit], ..batched(options(2)) });
    let (worker, _) = bench.worker(1);
    let runs = bench.trigger_many(&vec![json!({}); 2]);
    assert_eq!(bench.kinds(runs[0]).last().unwrap().0, "WAITING_FOR_BATCH");
    assert_eq!(bench.kinds(runs[1]).last().unwrap().0, "REQUEUED_RATE_LIMIT");
    bench.pass_with_heartbeats(worker, seconds(1));
    assert_eq!(bench.all_rest(&runs), [Running, Queued]);
}

#[test]
fn large_payloads_make_batches_smaller() {
    let mut bench = Bench::new(Quirks::none());
    bench.put(batched(options(10)));
    bench.worker(9);
    let large = json!({ "text": "x".repeat(1_500_000) });
    let runs = bench.trigger_many(&[large.clone(), large.clone(), large]);
    let batches = bench.batches();
    assert_eq!(
        batches.iter().map(|batch| (&*batch.reason, batch.size)).collect::<Vec<_>>(),
        [("batch max memory size reached", 2)]
    );
    assert_eq!(bench.all_rest(&runs), [Running, Running, Queued]);
}

#[test]
fn a_batch_takes_a_default_slot_whatever_its_tasks_request() {
    for quirks in [Quirks::none(), Quirk::ExtraDefaultSlots.into()] {
        let mut bench = Bench::new(quirks);
        let slots = BTreeMap::from([("gpu".to_owned(), 3)]);
        bench.put(TaskDefinition { slots, ..batched(options(1)) });
        let (worker, _) = bench.worker(1);
        let run = bench.trigger();
        assert_eq!((bench.rest(run), bench.free_slots(worker)), (Running, 0));
    }
}

#[test]
fn tasks_of_dags_are_assigned_in_batches() {
    let mut bench = Bench::new(Quirks::none());
    let child = TaskDefinition { batch: Some(options(2)), ..named("b", &["a"]) };
    bench.put_all(vec![named("a", &[]), child], None).unwrap();
    bench.worker(5);
    let runs = bench.trigger_many(&vec![json!({}); 2]);
    for run in &runs {
        let parent = bench.of(*run, "a").id;
        bench.report(parent, ReportKind::Completed, 0, r#"{"x":"<"}"#);
    }
    let batch = bench.batches().pop().unwrap();
    let mut tasks: Vec<_> = runs.iter().map(|run| bench.of(*run, "b").id).collect();
    tasks.sort_unstable();
    assert_eq!(tasks_of(&batch), tasks);
    let payload: Value = serde_json::from_str(&batch.payload).unwrap();
    let item = &payload[bench.of(runs[0], "b").id.to_string()];
    assert_eq!(item["workflow_run_id"], runs[0].to_string());
    assert_eq!(item["payload"]["parents"], json!({"a": {"x": "<"}}));
    assert!(batch.payload.contains(r"\u003c"));
}

#[test]
fn invalid_options_are_rejected() {
    let set = |change: fn(&mut BatchOptions)| {
        let mut options = options(1);
        change(&mut options);
        options
    };
    for (options, problem) in [
        (options(0), "BatchMaxSize': on condition 'required'\n"),
        (options(-1), "BatchMaxSize': on condition 'min' [ 1 ]: got invalid type\n"),
        (options(100_001), "BatchMaxSize': on condition 'max' [ 100000 ]: got invalid type\n"),
        (set(|options| options.max_interval_ms = 0), "BatchMaxInterval': on condition 'min' [ 1 ]: got invalid type\n"),
        (
            set(|options| options.max_interval_ms = 86_400_001),
            "BatchMaxInterval': on condition 'max' [ 86400000 ]: got invalid type\n",
        ),
        (set(|options| options.group_max_runs = 0), "BatchGroupMaxRuns': on condition 'min' [ 1 ]: got invalid type\n"),
    ] {
        let error = Bench::new(Quirks::none()).put_all(vec![batched(options)], None).unwrap_err().message;
        assert!(error.ends_with(&format!("Tasks[0].BatchConfig.{problem}")), "{error}");
    }
    let default = Cel::of_rate_limit("'default'".into()).unwrap();
    assert_eq!(keyed(1, "").group_key, default);
}
