//! C3: schedules and crons.

use std::time::Duration;

use chrono::{TimeDelta, Utc};
use hatchet::model::{CronSpec, RunSummary, Trigger, Window};
use hatchet::{ErrorKind, Priority};
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::setup::{Setup, rows};
use crate::tasks::{Doubled, Number, double};

rows! {
    c3_a_schedule_starts_a_run_at_its_time,
    c3_schedules_in_the_past_start_their_run,
    c3_schedules_can_be_moved_deleted_and_listed,
    c3_a_cron_starts_runs_until_it_is_paused_or_deleted,
    c3_dropped_crons_are_detected,
    c3_each_cron_of_a_definition_has_its_own_runs,
    c9_schedules_and_crons_have_the_namespace,
    c12_invalid_crons_are_rejected_without_a_request,
    w10_a_cron_in_the_definition_starts_runs,
}

/// The time of the engine's clock, from a new run.
async fn now(setup: &Setup) -> chrono::DateTime<Utc> {
    let task = double(setup.name("clock"));
    let worker = setup.worker(&task).await;
    let run = setup.hatchet.run(&task, &Number { n: 1 }).start().await.unwrap();
    run.result().await.unwrap();
    let now = run.details().await.unwrap().finished_at().unwrap();
    worker.shutdown().await;
    now
}

async fn c3_a_schedule_starts_a_run_at_its_time(setup: Setup) {
    let task = double(setup.name("double"));
    let now = now(&setup).await;
    let worker = setup.worker(&task).await;
    // Beyond the next check of the engine.
    let at = now + TimeDelta::seconds(7);
    let schedule = setup
        .hatchet
        .schedule(&task, &Number { n: 4 }, at)
        .metadata("tenant", "acme")
        .priority(Priority::Medium)
        .send()
        .await
        .unwrap();
    let details = schedule.details().await.unwrap();
    assert_eq!((details.id, details.workflow_name.as_str()), (schedule.id(), task.name()));
    assert!((details.scheduled_at - at).abs() <= TimeDelta::milliseconds(1), "{} {at}", details.scheduled_at);
    assert_eq!((details.input.parse().unwrap(), details.priority), (Number { n: 4 }, Some(Priority::Medium)));
    assert_eq!(details.metadata, [("tenant".to_owned(), json!("acme"))].into());
    assert!(schedule.run().await.unwrap().is_none());
    // A schedule is also found by its id alone, until it has started its run.
    let same = setup.hatchet.schedule_handle(schedule.id()).typed::<Doubled>();
    assert!(same.run().await.unwrap().is_none());

    let start = Instant::now();
    let run = loop {
        match schedule.run().await.unwrap() {
            Some(run) => break run,
            None if start.elapsed() < Duration::from_secs(20) => sleep(Duration::from_millis(200)).await,
            None => panic!("the schedule did not start its run"),
        }
    };
    assert_eq!(run.result().await.unwrap(), Doubled { doubled: 8 });
    let details = run.details().await.unwrap();
    let late = details.created_at.unwrap() - at;
    // A loaded engine may miss the time, and also its next check after five seconds.
    let max = TimeDelta::seconds(if setup.engine.is_some() { 2 } else { 15 });
    assert!((TimeDelta::zero()..max).contains(&late), "{late}");
    assert_eq!(details.metadata, [("tenant".to_owned(), json!("acme"))].into());
    let Trigger::Schedule(trigger) = &details.trigger else { panic!("{}", details.trigger) };
    assert_eq!((Some(trigger.key.as_str()), same.key()), (schedule.key(), None));
    // The schedule no longer exists, and the handle still finds its run.
    let error = schedule.details().await.unwrap_err();
    assert_eq!((error.kind(), error.is_not_found()), (ErrorKind::NotFound, true));
    assert_eq!(schedule.run().await.unwrap().map(|run| run.id()), Some(run.id()));
    assert!(same.run().await.unwrap_err().is_not_found());
    worker.shutdown().await;
}

async fn c3_schedules_in_the_past_start_their_run(setup: Setup) {
    let task = double(setup.name("double"));
    let worker = setup.worker(&task).await;
    let at = "2026-01-01T00:00:00Z".parse().unwrap();
    let schedule = setup.hatchet.schedule(&task, &Number { n: 1 }, at).send().await.unwrap();
    let start = Instant::now();
    while schedule.run().await.unwrap().is_none() {
        assert!(start.elapsed() < Duration::from_secs(15), "the schedule did not start its run");
        sleep(Duration::from_millis(100)).await;
    }
    worker.shutdown().await;
}

async fn c3_schedules_can_be_moved_deleted_and_listed(setup: Setup) {
    let task = double(setup.name("double"));
    setup.worker(&task).await.shutdown().await;
    let (far, further) = ("2126-01-01T00:00:00Z".parse().unwrap(), "2127-01-01T00:00:00.5Z".parse().unwrap());
    let mut all = Vec::new();
    for (part, at) in [("a", far), ("b", further), ("b", far)] {
        let schedule = setup.hatchet.schedule(&task, &Number { n: 1 }, at).metadata("part", part);
        all.push(schedule.send().await.unwrap());
    }
    let list = async |query: hatchet::builder::ScheduleQuery| {
        query.get().await.unwrap().into_iter().map(|schedule| schedule.id).collect::<std::collections::HashSet<_>>()
    };
    let of_task = setup.hatchet.schedules().workflow(task.name());
    assert_eq!(list(of_task.clone()).await, all.iter().map(hatchet::handle::ScheduleHandle::id).collect());
    assert_eq!(list(of_task.clone().metadata("part", "b")).await, [all[1].id(), all[2].id()].into());
    assert_eq!(all[0].reschedule(further).send().await.unwrap().scheduled_at, further);
    assert_eq!(all[0].details().await.unwrap().scheduled_at, further);
    for schedule in &all {
        schedule.delete().send().await.unwrap();
        schedule.delete().send().await.unwrap();
    }
    assert!(all[0].details().await.unwrap_err().is_not_found());
    assert!(all[0].reschedule(far).send().await.unwrap_err().is_not_found());
    assert!(all[0].run().await.unwrap().is_none(), "a deleted schedule has no run");
    assert!(list(of_task).await.is_empty());
}

/// Waits until a cron has at least `count` runs, and returns them, oldest first.
async fn runs(cron: &hatchet::handle::CronHandle<Doubled>, window: Window, count: usize) -> Vec<RunSummary> {
    let start = Instant::now();
    loop {
        let mut found = cron.runs(window).page(100).await.unwrap().items;
        if found.len() >= count {
            found.reverse();
            return found;
        }
        assert!(start.elapsed() < Duration::from_secs(30), "got only {} runs", found.len());
        sleep(Duration::from_millis(200)).await;
    }
}

async fn c3_a_cron_starts_runs_until_it_is_paused_or_deleted(setup: Setup) {
    let task = double(setup.name("double"));
    let worker = setup.worker(&task).await;
    let cron =
        setup.hatchet.cron(&task, &Number { n: 3 }, CronSpec::new("often", "*/2 * * * * *")).metadata("tenant", "acme");
    let cron = cron.send().await.unwrap();
    let details = cron.details().await.unwrap();
    assert_eq!(
        (details.id, details.name.as_deref(), details.expression.as_str()),
        (cron.id(), Some("often"), "*/2 * * * * *")
    );
    assert_eq!(
        (details.is_enabled, details.from_definition, details.workflow_name.as_str()),
        (true, false, task.name())
    );
    assert_eq!(details.input.parse::<Number>().unwrap(), Number { n: 3 });
    assert_eq!(details.metadata, [("tenant".to_owned(), json!("acme"))].into());

    let found = runs(&cron, setup.window(), 2).await;
    let run = setup.hatchet.run_handle(found[0].id).typed::<Doubled>();
    assert_eq!(run.result().await.unwrap(), Doubled { doubled: 6 });
    let mut times = Vec::new();
    for found in &found[..2] {
        let details = setup.hatchet.run_handle(found.id).details().await.unwrap();
        let Trigger::Cron(trigger) = details.trigger else { panic!("expected a cron as the trigger") };
        assert_eq!((trigger.name.as_deref(), trigger.expression.as_str()), (Some("often"), "*/2 * * * * *"));
        assert_eq!(details.metadata, [("tenant".to_owned(), json!("acme"))].into());
        times.push(trigger.scheduled_at.unwrap().timestamp());
    }
    // A loaded real engine may skip a time.
    let interval = (times[1] - times[0]).abs();
    let max = if setup.engine.is_some() { 4 } else { 30 };
    assert!(times.iter().all(|time| time % 2 == 0) && (2..=max).contains(&interval), "{times:?}");
    // A cron is also found by its id alone.
    let same = setup.hatchet.cron_handle(cron.id()).typed::<Doubled>();
    assert!(runs(&same, setup.window(), 2).await.iter().any(|run| run.id == found[0].id));

    cron.pause().send().await.unwrap();
    assert!(!cron.details().await.unwrap().is_enabled);
    sleep(Duration::from_secs(4)).await;
    let paused = runs(&cron, setup.window(), 0).await.len();
    sleep(Duration::from_secs(5)).await;
    assert_eq!(runs(&cron, setup.window(), 0).await.len(), paused);
    cron.resume().send().await.unwrap();
    runs(&cron, setup.window(), paused + 1).await;

    // A cron with the same name and expression is rejected. Another expression is accepted.
    let error =
        setup.hatchet.cron(&task, &Number { n: 3 }, CronSpec::new("often", "*/2 * * * * *")).send().await.unwrap_err();
    assert_eq!((error.kind(), error.has_no_side_effects()), (ErrorKind::AlreadyExists, true));
    let other = setup.hatchet.cron(&task, &Number { n: 3 }, CronSpec::new("often", "@yearly")).send().await.unwrap();
    let listed: std::collections::HashSet<_> =
        setup.hatchet.crons().workflow(task.name()).get().await.unwrap().iter().map(|cron| cron.id).collect();
    assert_eq!(listed, [cron.id(), other.id()].into());
    let tagged = setup.hatchet.crons().workflow(task.name()).metadata("tenant", "acme").get().await.unwrap();
    assert_eq!(tagged.iter().map(|cron| cron.id).collect::<Vec<_>>(), [cron.id()]);
    for cron in [&cron, &other] {
        cron.delete().send().await.unwrap();
        assert!(cron.delete().send().await.unwrap_err().is_not_found());
        assert!(cron.details().await.unwrap_err().is_not_found());
        assert!(cron.pause().send().await.unwrap_err().is_not_found());
    }
    worker.shutdown().await;
}

async fn c3_dropped_crons_are_detected(setup: Setup) {
    let task = double(setup.name("double"));
    setup.worker(&task).await.shutdown().await;
    let error = setup
        .hatchet
        .cron(&task, &Number { n: 1 }, CronSpec::new("bad", "TZ=Europe/Atlantis 0 9 * * *"))
        .send()
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Rejected, "{error}");
    assert!(error.to_string().contains("it cannot parse the expression \"TZ=Europe/Atlantis 0 9 * * *\""), "{error}");
    assert!(setup.hatchet.crons().workflow(task.name()).get().await.unwrap().is_empty());
}

async fn c9_schedules_and_crons_have_the_namespace(setup: Setup) {
    let namespaced = setup.client_with(|config| config.namespace("Team"));
    let task = double(setup.name("double"));
    namespaced.worker(setup.name("worker")).register(&task).build().unwrap().start().await.unwrap().shutdown().await;
    let at = "2126-01-01T00:00:00Z".parse().unwrap();
    let schedule = namespaced.schedule(&task, &Number { n: 1 }, at).send().await.unwrap();
    assert_eq!(schedule.details().await.unwrap().workflow_name, task.name());
    let cron = namespaced.cron(&task, &Number { n: 1 }, CronSpec::new("c", "@yearly")).send().await.unwrap();
    assert_eq!(cron.details().await.unwrap().workflow_name, task.name());
    for error in [
        setup.hatchet.schedule(&task, &Number { n: 1 }, at).send().await.unwrap_err(),
        setup.hatchet.cron(&task, &Number { n: 1 }, CronSpec::new("c", "@yearly")).send().await.unwrap_err(),
        setup.hatchet.schedules().workflow(task.name()).get().await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::WorkflowNotFound);
    }
    schedule.delete().send().await.unwrap();
    cron.delete().send().await.unwrap();
}

async fn c12_invalid_crons_are_rejected_without_a_request(setup: Setup) {
    let (hatchet, task) = (&setup.hatchet, double(setup.name("double")));
    let input = Number { n: 1 };
    for (error, text) in [
        (hatchet.cron(&task, &input, CronSpec::new("", "* * * * *")).send().await.unwrap_err(), "invalid cron name"),
        (
            hatchet.cron(&task, &input, CronSpec::new("c", "not a cron")).send().await.unwrap_err(),
            "expected 5 fields, or 6 with seconds first, got 3 (in \"not a cron\")",
        ),
        (
            hatchet.cron(&task, &input, CronSpec::new("c", "* * * * *")).metadata("", "x").send().await.unwrap_err(),
            "invalid metadata",
        ),
        (
            hatchet.worker("w").register(&task.clone().cron("0 9 * * 7")).build().unwrap_err(),
            "as the weekday, got \"7\"",
        ),
        (
            hatchet.worker("w").register(&task.clone().on_event("")).build().unwrap_err(),
            "event: expected a non-empty key without U+0000, got \"\"",
        ),
    ] {
        assert!(error.to_string().contains(text), "{error}");
        assert_eq!((error.kind(), error.has_no_side_effects()), (ErrorKind::InvalidInput, true));
    }
}

async fn c3_each_cron_of_a_definition_has_its_own_runs(setup: Setup) {
    let expressions = ["*/2 * * * * *", "*/3 * * * * *"];
    let task = double(setup.name("double")).cron(expressions[0]).cron(expressions[1]).cron_input(&Number { n: 5 });
    let worker = setup.worker(&task).await;
    // A cron with a name is a third one, although it has the same expression.
    let named =
        setup.hatchet.cron(&task, &Number { n: 6 }, CronSpec::new("named", expressions[0])).send().await.unwrap();
    let crons = setup.hatchet.crons().workflow(task.name()).get().await.unwrap();
    assert_eq!(crons.len(), 3);
    for cron in crons {
        let handle = setup.hatchet.cron_handle(cron.id).typed::<Doubled>();
        setup.eventually(async || !handle.runs(setup.window()).page(1).await.unwrap().items.is_empty()).await;
        let runs = handle.runs(setup.window()).page(100).await.unwrap().items;
        for run in runs {
            let Trigger::Cron(trigger) = run.trigger() else { panic!("{}", run.trigger()) };
            assert_eq!((trigger.expression, trigger.name), (cron.expression.clone(), cron.name.clone()));
        }
    }
    named.delete().send().await.unwrap();
    worker.shutdown().await;
}

async fn w10_a_cron_in_the_definition_starts_runs(setup: Setup) {
    let task = double(setup.name("double")).cron("*/2 * * * * *").cron_input(&Number { n: 5 });
    let worker = setup.worker(&task).await;
    let crons = setup.hatchet.crons().workflow(task.name()).get().await.unwrap();
    assert_eq!(crons.len(), 1);
    assert_eq!(
        (crons[0].from_definition, crons[0].expression.as_str(), crons[0].name.as_deref()),
        (true, "*/2 * * * * *", None)
    );
    let cron = setup.hatchet.cron_handle(crons[0].id).typed::<Doubled>();
    let found = runs(&cron, setup.window(), 1).await;
    // Its runs are selected by two tags, of which the server would count those with either.
    let error = cron.runs(setup.window()).counts_by_status().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    let run = setup.hatchet.run_handle(found[0].id).typed::<Doubled>();
    assert_eq!(run.result().await.unwrap(), Doubled { doubled: 10 });
    // A new version without the cron deletes it.
    let plain = double(task.name().to_owned());
    let other = setup.worker(&plain).await;
    let start = Instant::now();
    while !setup.hatchet.crons().workflow(task.name()).get().await.unwrap().is_empty() {
        assert!(start.elapsed() < Duration::from_secs(10), "the cron still exists");
        sleep(Duration::from_millis(100)).await;
    }
    worker.shutdown().await;
    other.shutdown().await;
}
