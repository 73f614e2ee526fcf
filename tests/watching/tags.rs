//! Watches of a tag: which runs they follow, in which order, and how fast they list them.

use std::collections::{HashMap, HashSet};

use futures_util::StreamExt as _;
use hatchet::embedded::Fault;
use hatchet::stream::TagWatch;
use hatchet::{Config, Context, ErrorKind, RunHandle, RunStatus, Task};
use tokio::time::{Instant, sleep};

use super::{CALLS, SECOND, Setup, foreign_runs};

/// Neither those that a list shows nor those that events announce.
#[tokio::test(start_paused = true)]
async fn a_stream_of_a_tag_names_each_run_that_it_does_not_follow() {
    let setup = Setup::new(200).await;
    setup.worker(1).await.shutdown().await;
    let mut runs = foreign_runs(&setup, 4).await;
    let mut watch = setup.hatchet.watch_matching("tenant", "acme").max_runs(3);
    let mut followed = HashSet::new();
    let mut rejected = HashSet::new();
    for count in [4, 6] {
        while followed.len() + rejected.len() < count {
            match watch.next().await.unwrap() {
                Ok(change) => {
                    assert!(change.has_status(&RunStatus::Queued));
                    assert!(followed.insert(change.run_id()));
                }
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::TooLarge, "{error}");
                    assert!(error.to_string().contains("follows 3 runs"), "{error}");
                    assert!(rejected.insert(error.run_id().unwrap()));
                }
            }
        }
        assert_eq!((followed.len(), watch.followed_runs()), (3, 3));
        if count == 4 {
            runs.extend(foreign_runs(&setup, 2).await);
        }
    }
    assert_eq!(followed.union(&rejected).copied().collect::<HashSet<_>>(), runs.iter().map(RunHandle::id).collect());
    // The others are followed to their end. Then there is space for more.
    let worker = setup.worker(10).await;
    let next = async |watch: &mut TagWatch| watch.next().await.unwrap().unwrap();
    for _ in 0..6 {
        assert!(followed.contains(&next(&mut watch).await.run_id()));
    }
    let later = foreign_runs(&setup, 1).await.remove(0).id();
    for _ in 0..3 {
        assert_eq!(next(&mut watch).await.run_id(), later);
    }
    assert!(tokio::time::timeout(60 * SECOND, watch.next()).await.is_err(), "nothing else is returned");
    assert_eq!(watch.followed_runs(), 0);
    worker.shutdown().await;
}

/// Runs that are looked up count, too: events do not say whether they are in the namespace.
#[tokio::test(start_paused = true)]
async fn a_stream_of_a_tag_limits_its_lookups() {
    let setup = Setup::new(200).await;
    let own = setup.engine.client_with(Config::builder().namespace("own")).unwrap();
    // They have not ended when they are listed.
    let long: Task<(), ()> = Task::new("long", async |(): (), _: Context| {
        sleep(2 * SECOND).await;
        Ok(())
    });
    let worker = own.worker("worker").slots(10).register(&long).build().unwrap().start().await.unwrap();
    let mut watch = own.watch_matching("tenant", "acme").max_runs(2);
    assert!(tokio::time::timeout(SECOND, watch.next()).await.is_err());
    setup.engine.faults().inject_for(CALLS[3], Fault::Delay(SECOND), 2 * SECOND).unwrap();
    for _ in 0..3 {
        own.run(&long, &()).metadata("tenant", "acme").start().await.unwrap();
    }
    let items: Vec<_> = (&mut watch).take(7).collect().await;
    let errors: Vec<_> = items.iter().filter_map(|item| item.as_ref().err()).collect();
    let [error] = errors[..] else { panic!("expected one error, got {items:?}") };
    assert_eq!(error.kind(), ErrorKind::TooLarge, "{error}");
    assert!(!items.iter().flatten().any(|change| Some(change.run_id()) == error.run_id()));
    worker.shutdown().await;
}

/// The list of earlier runs is read as fast as they are fetched: with 200 requests per second, 15 seconds for 1000 runs.
#[tokio::test(start_paused = true)]
async fn a_stream_of_a_tag_reads_a_long_list_slowly() {
    const COUNT: usize = 2500;
    let setup = Setup::new(1000).await;
    let since = setup.engine.now() - chrono::TimeDelta::hours(1);
    let worker = setup.worker(2500).await;
    let runs = setup.hatchet.run_many(&setup.short, vec![(); COUNT]).metadata("tenant", "acme").start().await.unwrap();
    sleep(60 * SECOND).await;
    let other = setup.engine.client_with(Config::builder().watch_request_rate(200)).unwrap();
    // The list does not count for the maximum.
    let mut watch = other.watch_matching("tenant", "acme").since(since).max_runs(10);
    let (mut most, start, mut changes) = (0, Instant::now(), HashMap::new());
    for _ in 0..3 * COUNT {
        let change = watch.next().await.unwrap().unwrap();
        *changes.entry(change.run_id()).or_insert(0) += 1;
        most = most.max(watch.followed_runs());
    }
    assert_eq!(changes, runs.iter().map(|run| (run.as_ref().unwrap().id(), 3)).collect());
    assert!((900..=1020).contains(&most), "{most}");
    let elapsed = start.elapsed();
    assert!((35 * SECOND..40 * SECOND).contains(&elapsed), "{elapsed:?}");
    assert!(tokio::time::timeout(60 * SECOND, watch.next()).await.is_err(), "each is returned once");
    worker.shutdown().await;
}

/// The runs of the past are returned first: those that have ended need two seconds at this rate. A run that starts meanwhile follows them.
#[tokio::test(start_paused = true)]
async fn a_stream_of_a_tag_returns_a_new_run_after_a_change_of_each_listed_one() {
    const COUNT: usize = 100;
    let setup = Setup::new(1000).await;
    let since = setup.engine.now() - chrono::TimeDelta::hours(1);
    let worker = setup.worker(200).await;
    let waiting: Task<(), ()> = Task::new("waiting", async |(): (), _: Context| Ok(()));
    setup.hatchet.worker("other").register(&waiting).build().unwrap().start().await.unwrap().shutdown().await;
    let ended = setup.hatchet.run_many(&setup.short, vec![(); COUNT]).metadata("tenant", "acme").start().await.unwrap();
    let queued = setup.hatchet.run(&waiting, &()).metadata("tenant", "acme").start().await.unwrap().id();
    sleep(60 * SECOND).await;
    let other = setup.engine.client_with(Config::builder().watch_request_rate(100)).unwrap();
    let mut watch = other.watch_matching("tenant", "acme").since(since);
    let (mut listed, start) = (HashSet::new(), Instant::now());
    let later = async {
        let mut new = Vec::new();
        // The first ones are in the list, too.
        for pause in [1, 20, 50, 1000] {
            sleep(std::time::Duration::from_millis(pause)).await;
            new.push(setup.hatchet.run(&setup.short, &()).metadata("tenant", "acme").start().await.unwrap().id());
        }
        new
    };
    let changes = async {
        let mut changes = Vec::new();
        while changes.len() < 3 * COUNT + 1 + 3 * 4 {
            changes.push((watch.next().await.unwrap().unwrap(), start.elapsed()));
        }
        changes
    };
    let (changes, new) = tokio::join!(changes, later);
    let first = changes.iter().position(|(change, _)| new.contains(&change.run_id())).unwrap();
    listed.extend(changes[..first].iter().map(|(change, _)| change.run_id()));
    assert_eq!(listed, ended.iter().map(|run| run.as_ref().unwrap().id()).chain([queued]).collect());
    assert!(changes[first].1 > 2 * SECOND, "{:?}", changes[first].1);
    for new in new {
        let of_new = changes.iter().filter(|(change, _)| change.run_id() == new).map(|(change, _)| change.to_string());
        assert_eq!(of_new.collect::<Vec<_>>(), ["QUEUED (attempt 1)", "RUNNING (attempt 1)", "COMPLETED (attempt 1)"]);
    }
    assert!(tokio::time::timeout(60 * SECOND, watch.next()).await.is_err(), "each is returned once");
    worker.shutdown().await;
}
