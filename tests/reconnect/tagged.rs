//! The status changes of all runs with a tag, for an hour and longer: each run once, whatever was lost meanwhile.

use std::collections::HashMap;

use hatchet::RunId;
use hatchet::embedded::{Engine, Fault, Quirk, Quirks};
use hatchet::stream::TagWatch;

use super::faults::{STREAMS, Setup, reject};
use super::*;

const LIST: &str = "GET /api/v1/stable/tenants/{tenant}/workflow-runs";
/// Starts runs of 40 seconds at regular times, so that the engine has no reason to end the subscription.
async fn start_runs(hatchet: &Client, every: Duration, count: usize) -> Vec<RunId> {
    let mut runs = Vec::new();
    for _ in 0..count {
        let input = Input { chunks: 1, millis: 40_000 };
        runs.push(hatchet.run(&talk(), &input).metadata("tag", "a").start().await.unwrap().id());
        sleep(every).await;
    }
    runs
}

/// Reads the changes until there has been none for some time.
async fn read(mut watch: TagWatch, quiet: Duration) -> HashMap<RunId, Vec<String>> {
    let mut states: HashMap<_, Vec<_>> = HashMap::new();
    while let Ok(change) = tokio::time::timeout(quiet, watch.next()).await {
        let change = change.unwrap().unwrap();
        states.entry(change.run_id()).or_default().push(change.to_string());
    }
    states
}

/// Each run was returned once, with all of its changes.
fn check(states: &HashMap<RunId, Vec<String>>, runs: &[RunId]) {
    for run in runs {
        assert_eq!(states.get(run), Some(&completed()));
    }
    assert_eq!(states.len(), runs.len(), "no others");
}

#[tokio::test(start_paused = true)]
async fn runs_of_a_tag_are_not_returned_again_after_an_hour_without_a_loss() {
    let setup = Setup::new().await;
    let watch = setup.hatchet.watch_matching("tag", "a");
    let loss = async {
        sleep(3600 * SECOND).await;
        setup.engine.faults().interrupt(STREAMS[1]).unwrap();
    };
    let (states, runs, ()) =
        tokio::join!(read(watch, 600 * SECOND), start_runs(&setup.hatchet, 30 * SECOND, 125), loss);
    check(&states, &runs);
    setup.worker.shutdown().await;
}

/// Runs that ended before an outage had been forgotten when it was over.
#[tokio::test(start_paused = true)]
async fn runs_of_a_tag_are_returned_once_after_an_outage_of_an_hour() {
    let setup = Setup::new().await;
    let watch = setup.hatchet.watch_matching("tag", "a");
    let outage = async {
        sleep(900 * SECOND).await;
        reject(&setup.engine, 14, 503);
        sleep(3600 * SECOND).await;
        setup.engine.faults().clear();
    };
    // Some begin and end during the outage.
    let (states, runs, ()) =
        tokio::join!(read(watch, 4000 * SECOND), start_runs(&setup.hatchet, 30 * SECOND, 160), outage);
    check(&states, &runs);
    setup.worker.shutdown().await;
}

/// A list that fails is read again from its start. Meanwhile, runs are followed to their end.
#[tokio::test(start_paused = true)]
async fn runs_of_a_tag_are_returned_once_while_lists_fail_for_half_an_hour() {
    let setup = Setup::new().await;
    let watch = setup.hatchet.watch_matching("tag", "a");
    let outage = async {
        sleep(300 * SECOND).await;
        setup.engine.faults().inject_for(LIST, Fault::RejectRest(503), 1800 * SECOND).unwrap();
        setup.engine.faults().interrupt(STREAMS[1]).unwrap();
    };
    let (states, runs, ()) =
        tokio::join!(read(watch, 600 * SECOND), start_runs(&setup.hatchet, 30 * SECOND, 100), outage);
    check(&states, &runs);
    setup.worker.shutdown().await;
}

/// Streams are lost and lists fail at random times, for longer than a run that has ended is remembered.
async fn case(seed: u64) {
    let mut rng = fastrand::Rng::with_seed(seed);
    let quirks = [Quirk::EarlyEnd, Quirk::RestLag, Quirk::LateSubscription];
    let quirks: Quirks = quirks.into_iter().filter(|_| rng.bool()).fold(Quirks::none(), Quirks::with);
    let engine = Engine::builder().quirks(quirks).seed(seed).start().await.unwrap();
    let hatchet = engine.client();
    let worker = support::start_worker(&hatchet, &talk()).await;
    let watch = hatchet.watch_matching("tag", "a").since(engine.now() - chrono::TimeDelta::hours(1));
    let (mut of_runs, mut of_faults) = (rng.fork(), rng.fork());
    let start = async {
        let mut runs = Vec::new();
        for _ in 0..80 {
            let input = Input { chunks: 1, millis: of_runs.u64(0..60_000) };
            runs.push(hatchet.run(&talk(), &input).metadata("tag", "a").start().await.unwrap().id());
            sleep(Duration::from_millis(of_runs.u64(0..60_000))).await;
        }
        runs
    };
    let disturb = async {
        let faults = engine.faults();
        for _ in 0..12 {
            sleep(Duration::from_secs(of_faults.u64(0..360))).await;
            let duration = Duration::from_secs(of_faults.u64(0..900));
            match of_faults.u32(0..4) {
                0 => drop(faults.interrupt(STREAMS[1]).unwrap()),
                1 => drop(faults.end(STREAMS[1]).unwrap()),
                2 => {
                    faults.inject_for(STREAMS[1], Fault::RejectGrpc(14), duration).unwrap();
                    faults.interrupt(STREAMS[1]).unwrap();
                }
                _ => faults.inject_for(LIST, Fault::RejectRest(503), duration).unwrap(),
            }
        }
    };
    // Lists and streams can fail at the same time, one after the other.
    let (states, runs, ()) = tokio::join!(read(watch, 2400 * SECOND), start, disturb);
    check(&states, &runs);
    worker.shutdown().await;
    engine.shutdown().await;
}

#[test]
fn runs_of_a_tag_are_returned_once_whatever_is_lost() {
    random::for_each_seed(2, case);
}
