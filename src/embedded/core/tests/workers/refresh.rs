//! `RefreshTimeout`.

use crate::embedded::core::store::Code;
use crate::embedded::core::tests::*;
use crate::embedded::quirks::Quirk;

fn refresh(bench: &mut Bench, task: Uuid, by: &str) -> Result<At, StatusError> {
    bench.turn(|core, turn| core.refresh_timeout(turn, task, by))
}

#[test]
fn each_refresh_extends_the_timeout() {
    let mut bench = Bench::new(Quirks::none());
    let (worker, _) = bench.worker(1);
    let id = bench.started(TaskDefinition { timeout: "4s".into(), ..task() });
    let start = bench.now;
    bench.pass_with_heartbeats(worker, seconds(1));
    let ends: Vec<_> = ["3s", "1s", "0s", "1.5s"].map(|by| refresh(&mut bench, id, by).unwrap() - start).into();
    assert_eq!(ends, [7000, 8000, 8000, 9500].map(TimeDelta::milliseconds));
    // Only the first is recorded.
    assert_eq!(bench.text(id, TaskEventKind::TimeoutRefreshed), "Timeout refreshed by 3s");
    assert_eq!(bench.kinds(id).iter().filter(|(kind, _)| *kind == "TIMEOUT_REFRESHED").count(), 1);
    assert_eq!(bench.rest(id), RestStatus::Running);

    bench.pass_with_heartbeats(worker, Duration::from_millis(8499));
    assert_eq!(bench.rest(id), RestStatus::Running);
    bench.pass(Duration::from_millis(1));
    assert_eq!((bench.rest(id), bench.grpc(id)), (RestStatus::Failed, RestStatus::Failed));
    assert_eq!(bench.text(id, TaskEventKind::TimedOut), "Task exceeded timeout of 4s");
}

#[test]
fn the_next_attempt_has_the_timeout_of_its_definition() {
    let mut bench = Bench::new(Quirks::none());
    let (worker, _) = bench.worker(1);
    let id = bench.started(TaskDefinition { timeout: "4s".into(), retries: 1, ..task() });
    refresh(&mut bench, id, "1h").unwrap();
    bench.report(id, ReportKind::Failed, 0, "no");
    assert_eq!(refresh(&mut bench, id, "1s").unwrap() - bench.now, TimeDelta::seconds(5));
    bench.pass_with_heartbeats(worker, seconds(5));
    assert_eq!(bench.rest(id), RestStatus::Failed);
}

#[test]
fn the_returned_end_is_exact_even_if_timeouts_are_noticed_late() {
    for number in 0..20 {
        let mut bench = Bench::new(Quirk::LateTimeouts.into());
        bench.numbers = number;
        let (worker, _) = bench.worker(1);
        let id = bench.started(TaskDefinition { timeout: "4s".into(), ..task() });
        assert_eq!(refresh(&mut bench, id, "2s").unwrap() - bench.now, TimeDelta::seconds(6));
        bench.pass_with_heartbeats(worker, Duration::from_millis(5999));
        assert_eq!(bench.rest(id), RestStatus::Running);
        bench.pass_with_heartbeats(worker, Duration::from_millis(1001));
        assert_eq!(bench.rest(id), RestStatus::Failed);
    }
}

#[test]
fn a_task_that_does_not_run_is_not_found() {
    let mut bench = Bench::new(Quirks::none());
    let id = bench.started(task());
    let missing = |id: Uuid| StatusError::not_found(format!("task run not found: {id}"));
    assert_eq!(refresh(&mut bench, id, "1s"), Err(missing(id)), "it is queued");
    bench.worker(1);
    assert!(refresh(&mut bench, id, "1s").is_ok());
    bench.report(id, ReportKind::Completed, 0, "{}");
    assert_eq!(refresh(&mut bench, id, "1s"), Err(missing(id)), "it has ended");
    let unknown = Uuid::from_u128(7);
    assert_eq!(refresh(&mut bench, unknown, "1s"), Err(missing(unknown)));
}

#[test]
fn a_malformed_increment_is_rejected_before_the_lookup() {
    let mut bench = Bench::new(Quirks::none());
    let start = "Invalid request: Validation failed with the following errors:\n0: validation failed on field 'RefreshTimeoutBy.IncrementTimeoutBy': ";
    let rejection = |text: &str| Err(StatusError::invalid(format!("{start}{text}\n")));
    assert_eq!(refresh(&mut bench, Uuid::nil(), ""), rejection("on condition 'required'"));
    for by in ["abc", "-1s", "1d", "5"] {
        assert_eq!(
            refresh(&mut bench, Uuid::nil(), by),
            rejection(crate::embedded::core::format::duration::REJECTION),
            "{by}"
        );
    }
}

#[test]
fn an_end_that_cannot_be_represented_is_rejected() {
    let mut bench = Bench::new(Quirks::none());
    let (worker, _) = bench.worker(1);
    let id = bench.started(TaskDefinition { timeout: "4s".into(), ..task() });
    let rejected = (0..100).find_map(|_| refresh(&mut bench, id, "2000000h").err()).unwrap();
    assert_eq!(rejected.code, Code::Internal);
    bench.pass_with_heartbeats(worker, seconds(10));
    assert_eq!(bench.rest(id), RestStatus::Running);
}
