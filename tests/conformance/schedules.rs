//! C3: schedules and crons.

use std::time::Duration;

use chrono::{TimeDelta, Utc};
use hatchet::model::{CronSpec, RunSummary, Trigger, Window};
use hatchet::{Client, ErrorKind, Priority};
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::tasks::{Doubled, Number, double};
use crate::world::{World, rows};

rows! {
    c3_a_schedule_starts_a_run_at_its_time,
    c3_a_schedule_of_the_past_starts_its_run_soon,
    c3_a_schedule_can_be_moved_deleted_and_listed,
    c3_a_cron_starts_runs_until_it_is_paused_or_deleted,
    c3_a_cron_that_the_server_drops_is_noticed,
    c3_each_cron_of_a_definition_has_its_own_runs,
    c9_schedules_and_crons_have_the_namespace,
    c12_bad_crons_are_refused_before_anything_is_sent,
    w10_a_cron_in_the_definition_starts_runs,
}

/// The time by the engine's clock, from a run that it has just created.
async fn now(world: &World) -> chrono::DateTime<Utc> {
    let task = double(world.name("clock"));
    let worker = world.worker(&task).await;
    let run = world.hatchet.run(&task, &Number { n: 1 }).start().await.unwrap();
    run.result().await.unwrap();
    let now = run.details().await.unwrap().finished_at().unwrap();
    worker.shutdown().await;
    now
}

async fn c3_a_schedule_starts_a_run_at_its_time(world: World) {
    let task = double(world.name("double"));
    let now = now(&world).await;
    let worker = world.worker(&task).await;
    // Further away than the engine looks ahead.
    let at = now + TimeDelta::seconds(7);
    let schedule = world
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
    // By its id alone, as long as it is there.
    let same = world.hatchet.schedule_handle(schedule.id()).typed::<Doubled>();
    assert!(same.run().await.unwrap().is_none());

    let begun = Instant::now();
    let run = loop {
        match schedule.run().await.unwrap() {
            Some(run) => break run,
            None if begun.elapsed() < Duration::from_secs(20) => sleep(Duration::from_millis(200)).await,
            None => panic!("it never started its run"),
        }
    };
    assert_eq!(run.result().await.unwrap(), Doubled { doubled: 8 });
    let details = run.details().await.unwrap();
    let late = details.created_at.unwrap() - at;
    // A loaded engine can miss the time, and the next look five seconds later, too.
    let most = TimeDelta::seconds(if world.engine.is_some() { 2 } else { 15 });
    assert!((TimeDelta::zero()..most).contains(&late), "{late}");
    assert_eq!(details.metadata, [("tenant".to_owned(), json!("acme"))].into());
    let Trigger::Schedule(trigger) = &details.trigger else { panic!("{}", details.trigger) };
    assert_eq!((Some(trigger.key.as_str()), same.key()), (schedule.key(), None));
    // The schedule is gone, and the handle still finds its run.
    let error = schedule.details().await.unwrap_err();
    assert_eq!((error.kind(), error.is_not_found()), (ErrorKind::NotFound, true));
    assert_eq!(schedule.run().await.unwrap().map(|run| run.id()), Some(run.id()));
    assert!(same.run().await.unwrap_err().is_not_found());
    worker.shutdown().await;
}

async fn c3_a_schedule_of_the_past_starts_its_run_soon(world: World) {
    let task = double(world.name("double"));
    let worker = world.worker(&task).await;
    let at = "2026-01-01T00:00:00Z".parse().unwrap();
    let schedule = world.hatchet.schedule(&task, &Number { n: 1 }, at).send().await.unwrap();
    let begun = Instant::now();
    while schedule.run().await.unwrap().is_none() {
        assert!(begun.elapsed() < Duration::from_secs(15), "it never started its run");
        sleep(Duration::from_millis(100)).await;
    }
    worker.shutdown().await;
}

async fn c3_a_schedule_can_be_moved_deleted_and_listed(world: World) {
    let task = double(world.name("double"));
    world.worker(&task).await.shutdown().await;
    let (far, further) = ("2126-01-01T00:00:00Z".parse().unwrap(), "2127-01-01T00:00:00.5Z".parse().unwrap());
    let mut all = Vec::new();
    for (part, at) in [("a", far), ("b", further), ("b", far)] {
        let schedule = world.hatchet.schedule(&task, &Number { n: 1 }, at).metadata("part", part);
        all.push(schedule.send().await.unwrap());
    }
    let list = async |query: hatchet::builder::ScheduleQuery| {
        query.get().await.unwrap().into_iter().map(|schedule| schedule.id).collect::<std::collections::HashSet<_>>()
    };
    let of_task = world.hatchet.schedules().workflow(task.name());
    assert_eq!(list(of_task.clone()).await, all.iter().map(hatchet::handle::ScheduleHandle::id).collect());
    assert_eq!(list(of_task.clone().metadata("part", "b")).await, [all[1].id(), all[2].id()].into());
    assert_eq!(all[0].reschedule(further).await.unwrap().scheduled_at, further);
    assert_eq!(all[0].details().await.unwrap().scheduled_at, further);
    for schedule in &all {
        schedule.delete().await.unwrap();
        schedule.delete().await.unwrap();
    }
    assert!(all[0].details().await.unwrap_err().is_not_found());
    assert!(all[0].reschedule(far).await.unwrap_err().is_not_found());
    assert!(all[0].run().await.unwrap().is_none(), "it was deleted");
    assert!(list(of_task).await.is_empty());
}

/// The runs of a cron, oldest first, when there are so many.
async fn runs(
    hatchet: &Client,
    cron: &hatchet::handle::CronHandle<Doubled>,
    window: Window,
    count: usize,
) -> Vec<RunSummary> {
    let begun = Instant::now();
    loop {
        let mut found = cron.runs(window).await.unwrap().page(100).await.unwrap().items;
        if found.len() >= count {
            found.reverse();
            assert!(hatchet.tenant().is_ok());
            return found;
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "only {} runs", found.len());
        sleep(Duration::from_millis(200)).await;
    }
}

async fn c3_a_cron_starts_runs_until_it_is_paused_or_deleted(world: World) {
    let task = double(world.name("double"));
    let worker = world.worker(&task).await;
    let cron =
        world.hatchet.cron(&task, &Number { n: 3 }, CronSpec::new("often", "*/2 * * * * *")).metadata("tenant", "acme");
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

    let found = runs(&world.hatchet, &cron, world.window(), 2).await;
    let run = world.hatchet.run_handle(found[0].id).typed::<Doubled>();
    assert_eq!(run.result().await.unwrap(), Doubled { doubled: 6 });
    let details = run.details().await.unwrap();
    let Trigger::Cron(trigger) = details.trigger else { panic!("it does not say so") };
    assert_eq!((trigger.name.as_deref(), trigger.expression.as_str()), (Some("often"), "*/2 * * * * *"));
    assert_eq!(trigger.scheduled_at.unwrap().timestamp() % 2, 0);
    assert_eq!(details.metadata, [("tenant".to_owned(), json!("acme"))].into());
    let seconds = found[1].created_at - found[0].created_at;
    // A real engine under load passes over a time now and then.
    let longest = TimeDelta::seconds(if world.engine.is_some() { 5 } else { 30 });
    assert!((TimeDelta::seconds(1)..longest).contains(&seconds), "{seconds}");
    // By its id alone.
    let same = world.hatchet.cron_handle(cron.id()).typed::<Doubled>();
    assert!(runs(&world.hatchet, &same, world.window(), 2).await.iter().any(|run| run.id == found[0].id));

    cron.pause().await.unwrap();
    assert!(!cron.details().await.unwrap().is_enabled);
    sleep(Duration::from_secs(4)).await;
    let paused = runs(&world.hatchet, &cron, world.window(), 0).await.len();
    sleep(Duration::from_secs(5)).await;
    assert_eq!(runs(&world.hatchet, &cron, world.window(), 0).await.len(), paused);
    cron.resume().await.unwrap();
    runs(&world.hatchet, &cron, world.window(), paused + 1).await;

    // The same again is refused, and the same name with another expression is not.
    let again =
        world.hatchet.cron(&task, &Number { n: 3 }, CronSpec::new("often", "*/2 * * * * *")).send().await.unwrap_err();
    assert_eq!((again.kind(), again.has_no_side_effects()), (ErrorKind::AlreadyExists, true));
    let other = world.hatchet.cron(&task, &Number { n: 3 }, CronSpec::new("often", "@yearly")).send().await.unwrap();
    let listed: std::collections::HashSet<_> =
        world.hatchet.crons().workflow(task.name()).get().await.unwrap().iter().map(|cron| cron.id).collect();
    assert_eq!(listed, [cron.id(), other.id()].into());
    let tagged = world.hatchet.crons().workflow(task.name()).metadata("tenant", "acme").get().await.unwrap();
    assert_eq!(tagged.iter().map(|cron| cron.id).collect::<Vec<_>>(), [cron.id()]);
    for cron in [&cron, &other] {
        cron.delete().await.unwrap();
        assert!(cron.delete().await.unwrap_err().is_not_found());
        assert!(cron.details().await.unwrap_err().is_not_found());
        assert!(cron.pause().await.unwrap_err().is_not_found());
    }
    worker.shutdown().await;
}

async fn c3_a_cron_that_the_server_drops_is_noticed(world: World) {
    let task = double(world.name("double"));
    world.worker(&task).await.shutdown().await;
    let error = world
        .hatchet
        .cron(&task, &Number { n: 1 }, CronSpec::new("bad", "TZ=Europe/Atlantis 0 9 * * *"))
        .send()
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Rejected, "{error}");
    assert!(error.to_string().contains("it cannot parse \"TZ=Europe/Atlantis 0 9 * * *\""), "{error}");
    assert!(world.hatchet.crons().workflow(task.name()).get().await.unwrap().is_empty());
}

async fn c9_schedules_and_crons_have_the_namespace(world: World) {
    let spaced = world.client_with(|config| config.namespace("Team"));
    let task = double(world.name("double"));
    spaced.worker(world.name("worker")).register(&task).build().unwrap().start().await.unwrap().shutdown().await;
    let at = "2126-01-01T00:00:00Z".parse().unwrap();
    let schedule = spaced.schedule(&task, &Number { n: 1 }, at).send().await.unwrap();
    assert_eq!(schedule.details().await.unwrap().workflow_name, task.name());
    let cron = spaced.cron(&task, &Number { n: 1 }, CronSpec::new("c", "@yearly")).send().await.unwrap();
    assert_eq!(cron.details().await.unwrap().workflow_name, task.name());
    for error in [
        world.hatchet.schedule(&task, &Number { n: 1 }, at).send().await.unwrap_err(),
        world.hatchet.cron(&task, &Number { n: 1 }, CronSpec::new("c", "@yearly")).send().await.unwrap_err(),
        world.hatchet.schedules().workflow(task.name()).get().await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::WorkflowNotFound);
    }
    schedule.delete().await.unwrap();
    cron.delete().await.unwrap();
}

async fn c12_bad_crons_are_refused_before_anything_is_sent(world: World) {
    let (hatchet, task) = (&world.hatchet, double(world.name("double")));
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
            "event: expected a key without U+0000, got \"\"",
        ),
    ] {
        assert!(error.to_string().contains(text), "{error}");
        assert_eq!((error.kind(), error.has_no_side_effects()), (ErrorKind::InvalidInput, true));
    }
}

async fn c3_each_cron_of_a_definition_has_its_own_runs(world: World) {
    let expressions = ["*/2 * * * * *", "*/3 * * * * *"];
    let task = double(world.name("double")).cron(expressions[0]).cron(expressions[1]).cron_input(&Number { n: 5 });
    let worker = world.worker(&task).await;
    // One that was made by its name is a third, though it has an expression of theirs.
    let named =
        world.hatchet.cron(&task, &Number { n: 6 }, CronSpec::new("named", expressions[0])).send().await.unwrap();
    let crons = world.hatchet.crons().workflow(task.name()).get().await.unwrap();
    assert_eq!(crons.len(), 3);
    for cron in crons {
        let handle = world.hatchet.cron_handle(cron.id).typed::<Doubled>();
        world
            .eventually(async || !handle.runs(world.window()).await.unwrap().page(1).await.unwrap().items.is_empty())
            .await;
        let runs = handle.runs(world.window()).await.unwrap().page(100).await.unwrap().items;
        for run in runs {
            let Trigger::Cron(trigger) = run.trigger() else { panic!("{}", run.trigger()) };
            assert_eq!((trigger.expression, trigger.name), (cron.expression.clone(), cron.name.clone()));
        }
    }
    named.delete().await.unwrap();
    worker.shutdown().await;
}

async fn w10_a_cron_in_the_definition_starts_runs(world: World) {
    let task = double(world.name("double")).cron("*/2 * * * * *").cron_input(&Number { n: 5 });
    let worker = world.worker(&task).await;
    let crons = world.hatchet.crons().workflow(task.name()).get().await.unwrap();
    assert_eq!(crons.len(), 1);
    assert_eq!(
        (crons[0].from_definition, crons[0].expression.as_str(), crons[0].name.as_deref()),
        (true, "*/2 * * * * *", None)
    );
    let cron = world.hatchet.cron_handle(crons[0].id).typed::<Doubled>();
    let found = runs(&world.hatchet, &cron, world.window(), 1).await;
    let run = world.hatchet.run_handle(found[0].id).typed::<Doubled>();
    assert_eq!(run.result().await.unwrap(), Doubled { doubled: 10 });
    // A version without it ends it.
    let plain = double(task.name().to_owned());
    let other = world.worker(&plain).await;
    let begun = Instant::now();
    while !world.hatchet.crons().workflow(task.name()).get().await.unwrap().is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(10), "the cron is still there");
        sleep(Duration::from_millis(100)).await;
    }
    worker.shutdown().await;
    other.shutdown().await;
}
