//! How attempts start and end.

use crate::embedded::core::tests::*;
use crate::embedded::quirks::Quirk;

#[test]
fn queued_running_completed() {
    let mut bench = Bench::new(Quirks::none());
    let id = bench.started(task());
    assert_eq!((bench.grpc(id), bench.rest(id)), (RestStatus::Queued, RestStatus::Queued));
    assert_eq!(bench.kinds(id), [("QUEUED", 0), ("REQUEUED_NO_WORKER", 0)]);

    let (_, stream) = bench.worker(1);
    let actions = bench.actions();
    assert_eq!(
        actions.iter().map(|(stream, action)| (*stream, action.task, action.cancel)).collect::<Vec<_>>(),
        [(stream, id, false)]
    );
    assert_eq!(bench.grpc(id), RestStatus::Running);

    let (started, ended) = (bench.now + TimeDelta::milliseconds(5), bench.now + TimeDelta::seconds(1));
    for (kind, at, payload) in [(ReportKind::Started, started, ""), (ReportKind::Completed, ended, r#"{"a": 1}"#)] {
        let report = Report { at: Some(at), ..report(id, kind, 0, payload) };
        bench.turn(|core, turn| core.report(turn, report)).unwrap();
    }
    // These two have the worker's timestamps.
    assert_eq!((bench.task(id).started(), bench.task(id).finished()), (Some(started), Some(ended)));
    assert_eq!((bench.grpc(id), bench.rest(id)), (RestStatus::Completed, RestStatus::Completed));
    assert_eq!(bench.task(id).grpc_view(bench.now).output, Some(r#"{"a": 1}"#));
}

#[test]
fn a_failure_has_the_engines_timestamp_and_is_retried() {
    let mut bench = Bench::new(Quirks::none());
    bench.worker(1);
    let id = bench.started(TaskDefinition { retries: 1, ..task() });
    assert_eq!(bench.actions()[0].1.retry_count, 0);
    let lie = Report { at: Some(bench.now - TimeDelta::hours(1)), ..report(id, ReportKind::Failed, 0, "no") };
    bench.turn(|core, turn| core.report(turn, lie)).unwrap();
    assert_eq!(bench.task(id).events.iter().find(|event| event.kind == TaskEventKind::Failed).unwrap().at, bench.now);
    assert_eq!(bench.text(id, TaskEventKind::Retrying), "This is retry number 1.");
    assert_eq!(bench.actions()[0].1.retry_count, 1);

    bench.report(id, ReportKind::Failed, 1, "no again");
    assert_eq!((bench.grpc(id), bench.rest(id)), (RestStatus::Failed, RestStatus::Failed));
    assert!(bench.actions().is_empty());
}

#[test]
fn a_failure_that_must_not_be_retried_is_not() {
    let mut bench = Bench::new(Quirks::none());
    bench.worker(1);
    let id = bench.started(TaskDefinition { retries: 3, ..task() });
    let report = Report { should_not_retry: true, ..report(id, ReportKind::Failed, 0, "no") };
    bench.turn(|core, turn| core.report(turn, report)).unwrap();
    assert_eq!(bench.rest(id), RestStatus::Failed);
}

#[test]
fn a_back_off_is_recorded_and_kept() {
    let mut bench = Bench::new(Quirks::none());
    let (worker, _) = bench.worker(1);
    let id = bench.started(TaskDefinition { retries: 2, backoff_factor: Some(1.5), ..task() });
    bench.actions();
    bench.report(id, ReportKind::Failed, 0, "no");
    assert_eq!(
        bench.text(id, TaskEventKind::Retrying),
        "This is retry number 1. Retrying in 1.5s (2026-01-01T12:00:01Z)."
    );
    assert_eq!(bench.grpc(id), RestStatus::Queued);
    bench.pass_with_heartbeats(worker, Duration::from_millis(1499));
    assert!(bench.actions().is_empty());
    bench.pass(Duration::from_millis(1));
    assert_eq!(bench.actions()[0].1.retry_count, 1);
    bench.report(id, ReportKind::Failed, 1, "no");
    assert!(bench.text(id, TaskEventKind::Retrying).starts_with("This is retry number 2. Retrying in 2.25s ("));
}

#[test]
fn an_execution_timeout_cancels_at_the_worker_and_is_retried() {
    let mut bench = Bench::new(Quirks::none());
    let (worker, _) = bench.worker(1);
    let id = bench.started(TaskDefinition { timeout: "2s".into(), retries: 1, ..task() });
    bench.actions();
    bench.pass_with_heartbeats(worker, seconds(2));
    let sent: Vec<_> = bench.actions().into_iter().map(|(_, action)| (action.cancel, action.retry_count)).collect();
    assert_eq!(sent, [(true, 0), (false, 1)]);
    bench.pass_with_heartbeats(worker, seconds(2));
    assert_eq!(bench.text(id, TaskEventKind::TimedOut), "Task exceeded timeout of 2s");
    assert_eq!(bench.task(id).grpc_view(bench.now).error, Some("Task exceeded timeout of 2s"));
    assert_eq!(bench.rest(id), RestStatus::Failed);
}

#[test]
fn a_schedule_timeout_is_cancelled_in_grpc_and_failed_in_rest() {
    let mut bench = Bench::new(Quirks::none());
    let id = bench.started(TaskDefinition { schedule_timeout: Some("3s".into()), retries: 2, ..task() });
    bench.pass(Duration::from_millis(2999));
    assert_eq!(bench.grpc(id), RestStatus::Queued);
    bench.pass(Duration::from_millis(1));
    assert_eq!((bench.grpc(id), bench.rest(id)), (RestStatus::Cancelled, RestStatus::Failed));
    assert_eq!(bench.kinds(id).last(), Some(&("SCHEDULING_TIMED_OUT", 0)));
}

#[test]
fn a_late_report_is_a_second_final_row_only_as_a_quirk() {
    let cancelled_then_completed = |quirks| {
        let mut bench = Bench::new(quirks);
        let (worker, _) = bench.worker(1);
        let id = bench.started(task());
        bench.turn(|core, turn| core.cancel(turn, &[id]));
        bench.report(id, ReportKind::Completed, 0, r#"{"late": true}"#);
        let at_once = (bench.grpc(id), bench.rest(id), bench.task(id).finals.len());
        bench.pass_with_heartbeats(worker, seconds(300));
        (at_once, bench.grpc(id), bench.rest(id))
    };
    assert_eq!(
        cancelled_then_completed(Quirks::none()),
        ((RestStatus::Cancelled, RestStatus::Cancelled, 1), RestStatus::Cancelled, RestStatus::Cancelled)
    );
    assert_eq!(
        cancelled_then_completed(Quirks::all()),
        ((RestStatus::Cancelled, RestStatus::Completed, 2), RestStatus::Completed, RestStatus::Completed)
    );
}

#[test]
fn of_two_final_rows_rest_shows_the_better() {
    for (first, second, shown) in [
        (ReportKind::Completed, ReportKind::Failed, RestStatus::Completed),
        (ReportKind::Failed, ReportKind::Completed, RestStatus::Completed),
        (ReportKind::Cancelled, ReportKind::Failed, RestStatus::Failed),
        (ReportKind::Failed, ReportKind::Cancelled, RestStatus::Failed),
    ] {
        let mut bench = Bench::new(Quirks::all());
        bench.worker(1);
        let id = bench.started(task());
        bench.report(id, first, 0, "{}");
        bench.report(id, second, 0, "{}");
        assert_eq!(bench.rest(id), shown, "{first:?} {second:?}");
        assert!(matches!(bench.task(id).finals[..], [_, _]));
    }
}

#[test]
fn a_second_output_replaces_the_first() {
    let mut bench = Bench::new(Quirks::all());
    bench.worker(1);
    let id = bench.started(task());
    bench.report(id, ReportKind::Completed, 0, r#"{"n": 1}"#);
    bench.report(id, ReportKind::Completed, 0, r#"{"n": 2}"#);
    let [row] = &bench.task(id).finals[..] else { panic!("one row") };
    assert_eq!(row.end, End::Completed(r#"{"n": 2}"#.into()));
}

#[test]
fn a_late_end_is_announced() {
    let mut bench = Bench::new(Quirks::all());
    let stream = bench.stream();
    bench.turn(|core, _| core.watch_tag(stream, "tag", "x"));
    bench.worker(1);
    let id = bench.started(task());
    bench.turn(|core, turn| core.cancel(turn, &[id]));
    bench.report(id, ReportKind::Completed, 0, "{}");
    let heard: Vec<_> = bench
        .effects()
        .into_iter()
        .filter_map(|effect| match effect {
            Effect::Send(_, Message::Event(RunEvent { resource, kind, hangup, .. })) => {
                Some((resource == Resource::Run, kind, hangup))
            }
            _ => None,
        })
        .collect();
    assert_eq!(
        heard,
        [
            (false, EventKind::Started, false),
            (true, EventKind::Cancelled, false),
            (false, EventKind::Completed, false),
            (true, EventKind::Completed, true)
        ]
    );
}

#[test]
fn timeouts_are_noticed_late_as_a_quirk_and_never_early() {
    let execution = TaskDefinition { timeout: "2s".into(), ..task() };
    let schedule = TaskDefinition { schedule_timeout: Some("3s".into()), ..task() };
    for (definition, before, limit) in [(execution, RestStatus::Running, 2000), (schedule, RestStatus::Queued, 3000)] {
        let mut late = 0;
        for seed in 0..20 {
            let mut bench = Bench::new(Quirks::none().with(Quirk::LateTimeouts));
            if before == RestStatus::Running {
                bench.worker(1);
            }
            // This many random numbers before it.
            for _ in 0..seed {
                bench.turn(|_, turn| (turn.random)());
            }
            let id = bench.started(definition.clone());
            bench.pass(Duration::from_millis(limit - 1));
            assert_eq!(bench.rest(id), before, "never early");
            bench.pass(Duration::from_millis(1));
            late += usize::from(bench.rest(id) == before);
            bench.pass(seconds(1));
            assert_eq!(bench.rest(id), RestStatus::Failed, "at most a second late");
        }
        assert!(late > 10, "{late} {before:?}");
    }
}

#[test]
fn each_cancel_of_a_completed_task_adds_a_final_row() {
    for (quirks, cancelled) in [(Quirks::all(), 2), (Quirks::none(), 0)] {
        let mut bench = Bench::new(quirks);
        bench.worker(1);
        let id = bench.started(task());
        bench.report(id, ReportKind::Completed, 0, r#"{"n": 1}"#);
        for _ in 0..2 {
            bench.turn(|core, turn| core.cancel(turn, &[id]));
        }
        let stream = bench.stream();
        bench.turn(|core, turn| {
            core.open_results(turn, stream);
            core.ask_result(turn, stream, id);
        });
        bench.pass(seconds(1));
        let result = |effect| match effect {
            Effect::Send(_, Message::Result(result)) => Some(result.tasks),
            _ => None,
        };
        let [rows] = bench.effects().into_iter().filter_map(result).collect::<Vec<_>>().try_into().unwrap();
        let (outputs, errors): (Vec<_>, Vec<_>) = rows.into_iter().map(|row| row.end).partition(Result::is_ok);
        assert_eq!(outputs, [Ok(r#"{"n": 1}"#.into())]);
        assert_eq!(errors, vec![Err("".into()); cancelled], "{quirks:?}");
        assert_eq!(bench.rest(id), RestStatus::Completed);
    }
}

#[test]
fn a_task_that_is_assigned_immediately_may_have_a_later_queued_timestamp() {
    for (quirks, fewest, most) in [(Quirks::none(), 0, 0), (Quirks::none().with(Quirk::LateTimestamps), 5, 15)] {
        let mut bench = Bench::new(quirks);
        bench.put(task());
        bench.worker(30);
        let runs: Vec<_> = (0..20).map(|_| bench.trigger()).collect();
        let late = runs.iter().filter(|id| bench.task(**id).has_late_timestamp()).count();
        assert!((fewest..=most).contains(&late), "{late} of 20");
        // A task that was queued for a while has not.
        let mut bench = Bench::new(quirks);
        bench.put(task());
        let runs: Vec<_> = (0..20).map(|_| bench.trigger()).collect();
        bench.pass(seconds(1));
        bench.worker(30);
        assert!(runs.iter().all(|id| bench.rest(*id) == RestStatus::Running && !bench.task(*id).has_late_timestamp()));
    }
}

#[test]
fn which_of_two_ends_grpc_shows_first_is_random() {
    let mut bench = Bench::new(Quirks::none().with(Quirk::TwoFinalRows));
    bench.put(task());
    bench.worker(30);
    let runs: Vec<_> = (0..20).map(|_| bench.trigger()).collect();
    for id in &runs {
        bench.report(*id, ReportKind::Completed, 0, r#"{"n":1}"#);
    }
    bench.pass(seconds(1));
    bench.turn(|core, turn| core.cancel(turn, &runs));
    let shown = |bench: &Bench| runs.iter().map(|id| bench.grpc(*id)).collect::<Vec<_>>();
    let first = shown(&bench);
    let count = first.iter().filter(|status| **status == RestStatus::Cancelled).count();
    assert!((5..=15).contains(&count), "{count} of 20");
    assert!(runs.iter().all(|id| bench.rest(*id) == RestStatus::Completed));
    bench.pass(seconds(300));
    assert!(shown(&bench).iter().zip(&first).all(|(later, earlier)| later != earlier), "it changes its mind");
    assert!(runs.iter().all(|id| bench.rest(*id) == RestStatus::Completed));
}

#[test]
fn a_back_off_ends_with_its_attempt() {
    let mut bench = Bench::new(Quirks::none());
    let (worker, _) = bench.worker(1);
    let id = bench.started(TaskDefinition { retries: 2, backoff_factor: Some(60.0), ..task() });
    bench.report(id, ReportKind::Failed, 0, "no");
    bench.pass_with_heartbeats(worker, seconds(10));
    bench.turn(|core, turn| core.cancel(turn, &[id]));
    bench.pass_with_heartbeats(worker, seconds(10));
    bench.turn(|core, turn| core.replay(turn, &[id]));
    bench.pass_with_heartbeats(worker, seconds(5));
    bench.report(id, ReportKind::Failed, 2, "no");
    bench.effects();
    // The first backoff would end after 60 seconds, the second one ends after 85.
    bench.pass_with_heartbeats(worker, Duration::from_millis(59_999));
    assert!(bench.actions().is_empty());
    bench.heartbeat(worker);
    bench.pass(Duration::from_millis(1));
    assert_eq!(bench.actions()[0].1.retry_count, 3);
}

#[test]
fn as_a_quirk_a_report_about_a_later_attempt_ends_the_task_in_rest_only() {
    for (kind, shown) in [(ReportKind::Completed, RestStatus::Completed), (ReportKind::Failed, RestStatus::Failed)] {
        for quirks in [Quirks::none(), Quirk::EarlyReports.into()] {
            let mut bench = Bench::new(quirks);
            bench.worker(1);
            let id = bench.started(task());
            let next = bench.trigger();
            bench.report(id, kind, 5, "{}");
            let rest = if quirks == Quirks::none() { RestStatus::Running } else { shown };
            assert_eq!((bench.grpc(id), bench.rest(id)), (RestStatus::Running, rest), "{quirks:?}");
            assert_eq!(bench.kinds(id).last().unwrap().1, 5);
            assert_eq!(bench.rest(next), RestStatus::Queued, "the slot is still taken");
            bench.report(id, ReportKind::Completed, 0, "{}");
            assert_eq!((bench.grpc(id), bench.rest(id)), (RestStatus::Completed, RestStatus::Completed));
            assert_eq!(bench.rest(next), RestStatus::Running);
        }
    }
}

#[test]
fn a_late_report_about_a_task_that_was_never_assigned_is_shown_immediately() {
    let mut bench = Bench::new(Quirk::TwoFinalRows.into());
    let id = bench.started(task());
    bench.turn(|core, turn| core.cancel(turn, &[id]));
    bench.report(id, ReportKind::Completed, 0, "{}");
    assert_eq!((bench.grpc(id), bench.rest(id)), (RestStatus::Completed, RestStatus::Completed));
}

#[test]
fn as_a_quirk_rest_shows_a_retry_a_second_late() {
    for quirks in [Quirks::none(), Quirk::SlowHistory.into()] {
        let mut bench = Bench::new(quirks);
        let (worker, _) = bench.worker(1);
        let id = bench.started(TaskDefinition { retries: 1, ..task() });
        bench.report(id, ReportKind::Failed, 0, "no");
        let shown = |bench: &Bench| {
            let attempts = bench.core.rest_events(bench.task(id), bench.now).map(|event| event.retry_count).max();
            (bench.core.rest_status(bench.task(id), bench.now), attempts)
        };
        let early =
            if quirks == Quirks::none() { (RestStatus::Running, Some(1)) } else { (RestStatus::Failed, Some(0)) };
        assert_eq!(shown(&bench), early);
        bench.pass_with_heartbeats(worker, seconds(1));
        assert_eq!(shown(&bench), (RestStatus::Running, Some(1)));
    }
}
