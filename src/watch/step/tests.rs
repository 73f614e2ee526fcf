use super::*;
use crate::model::{Completed, Outcome, Payload};
use proptest::prelude::*;

const SECOND: Duration = Duration::from_secs(1);

fn progress() -> Progress {
    Progress::new("00000000-0000-4000-8001-000000000001".parse().unwrap(), 1, None)
}

fn update(progress: &mut Progress, details: &RunDetails) -> Vec<Change> {
    progress.step(Instant::now(), Observation::Details(details)).changes
}

fn details(status: RunStatus, attempts: &[(u32, RunStatus, bool)], outcome: Option<Outcome>) -> RunDetails {
    let run: RunId = "00000000-0000-4000-8001-000000000001".parse().unwrap();
    let at: DateTime<Utc> = "2026-11-23T14:00:00Z".parse().unwrap();
    let attempts = attempts.iter().map(|(number, status, started)| Attempt {
        number: *number,
        status: status.clone(),
        queued_at: Some(at),
        started_at: started.then_some(at),
        finished_at: status.is_final().then_some(at),
        worker_id: None,
        error: None,
    });
    RunDetails {
        id: run,
        workflow_id: None,
        workflow_name: None,
        trigger: crate::model::Trigger::Manual,
        logs: Vec::new(),
        workflow_version_id: None,
        status: status.clone(),
        outcome,
        input: Some(Payload::input("{}")),
        metadata: std::collections::BTreeMap::default(),
        engine_metadata: std::collections::BTreeMap::default(),
        created_at: Some(at),
        tasks: vec![TaskDetails {
            id: run.into(),
            name: "work".into(),
            status,
            outcome: None,
            replayed_after: Vec::new(),
            attempts: attempts.collect(),
        }],
        conflicts: Vec::new(),
    }
}

fn done() -> Outcome {
    Outcome::Completed(Completed { output: Payload::output("{}") })
}

/// The texts of the new changes of each of some details.
fn each(progress: &mut Progress, fetched: &[RunDetails]) -> Vec<String> {
    fetched.iter().map(|details| texts(&update(progress, details)).join(", ")).collect()
}

fn texts(changes: &[Change]) -> Vec<String> {
    let task = |change: &Change| change.task_name().map(|task| format!("{task} ")).unwrap_or_default();
    let end = |change: &Change| if change.is_final() { "!" } else { "" };
    changes
        .iter()
        .map(|change| match change.attempt_status() {
            Some(state) => format!("{}{state}{}", task(change), end(change)),
            None => change.to_string(),
        })
        .collect()
}

#[test]
fn a_watch_from_the_end_returns_every_change() {
    let mut progress = progress();
    let end =
        details(RunStatus::Completed, &[(1, RunStatus::Failed, true), (2, RunStatus::Completed, true)], Some(done()));
    let all = [
        "QUEUED (attempt 1)",
        "RUNNING (attempt 1)",
        "FAILED (attempt 1)",
        "QUEUED (attempt 2)",
        "RUNNING (attempt 2)",
        "COMPLETED (attempt 2)!",
    ];
    assert_eq!(texts(&update(&mut progress, &end)), all);
}

#[test]
fn fetches_in_between_return_each_change_once() {
    use RunStatus::{Completed, Failed, Queued, Running};
    let mut progress = progress();
    let fetched = [
        details(Queued, &[], None),
        details(Running, &[], None),
        details(Running, &[(1, Queued, false)], None),
        details(Running, &[(1, Running, true)], None),
        // The failure is there, and the next attempt is not: the failure is returned only when it is known not to be the end.
        details(Running, &[(1, Failed, true)], None),
        details(Queued, &[(1, Failed, true), (2, Queued, false)], None),
        details(Completed, &[(1, Failed, true), (2, Completed, true)], Some(done())),
    ];
    assert_eq!(
        each(&mut progress, &fetched),
        [
            "QUEUED (attempt 1)",
            "RUNNING (attempt 1)",
            "",
            "",
            "",
            "FAILED (attempt 1), QUEUED (attempt 2)",
            "RUNNING (attempt 2), COMPLETED (attempt 2)!",
        ]
    );
    assert_eq!(progress.ignored, 0, "reading the history again is not an update");
}

#[test]
fn a_report_that_is_outdated_is_skipped_and_counted() {
    use RunStatus::{Queued, Running};
    let mut progress = progress();
    assert_eq!(
        texts(&update(&mut progress, &details(Running, &[], None))),
        ["QUEUED (attempt 1)", "RUNNING (attempt 1)"]
    );
    assert!(update(&mut progress, &details(Queued, &[], None)).is_empty());
    assert_eq!(progress.ignored, 1);
}

#[test]
fn a_report_that_is_impossible_is_skipped_and_counted() {
    use RunStatus::{Completed, Failed};
    let mut progress = progress();
    progress.follow_replays();
    update(&mut progress, &details(Completed, &[(1, Completed, true)], Some(done())));
    let other = details(Completed, &[(1, Failed, true), (2, Completed, true)], Some(done()));
    let expected = ["QUEUED (attempt 2)", "RUNNING (attempt 2)", "COMPLETED (attempt 2)!"];
    assert_eq!(texts(&update(&mut progress, &other)), expected);
    assert_eq!(progress.ignored, 1);
}

fn task(number: u32, name: &str, attempts: &[(u32, RunStatus)], replayed_after: &[u32]) -> TaskDetails {
    let one = details(RunStatus::Running, &[], None);
    let attempts = attempts.iter().map(|(number, status)| Attempt {
        number: *number,
        status: status.clone(),
        queued_at: one.created_at,
        started_at: (*status != RunStatus::Queued).then_some(one.created_at).flatten(),
        finished_at: status.is_final().then_some(one.created_at).flatten(),
        worker_id: None,
        error: None,
    });
    TaskDetails {
        id: format!("00000000-0000-4000-8002-{number:012}").parse().unwrap(),
        name: name.into(),
        status: RunStatus::Queued,
        outcome: None,
        attempts: attempts.collect(),
        replayed_after: replayed_after.to_vec(),
    }
}

#[test]
fn a_dag_run_has_changes_of_its_own_and_of_its_tasks() {
    use RunStatus::{Completed, Failed, Queued, Running};
    let mut progress = progress();
    let fetch =
        |status: RunStatus, tasks: Vec<TaskDetails>, outcome| RunDetails { tasks, ..details(status, &[], outcome) };
    let fetched = [
        fetch(Queued, vec![task(1, "a", &[(1, Queued)], &[])], None),
        fetch(Running, vec![task(1, "a", &[(1, Running)], &[])], None),
        // Between two layers the run flickers.
        fetch(Queued, vec![task(1, "a", &[(1, Completed)], &[])], None),
        fetch(
            Running,
            vec![task(1, "a", &[(1, Completed)], &[]), task(2, "b", &[(1, Failed), (2, Running)], &[])],
            None,
        ),
        fetch(
            Completed,
            vec![task(1, "a", &[(1, Completed)], &[]), task(2, "b", &[(1, Failed), (2, Completed)], &[])],
            Some(done()),
        ),
    ];
    assert_eq!(
        each(&mut progress, &fetched),
        [
            "QUEUED (attempt 1), a QUEUED (attempt 1)",
            "RUNNING (attempt 1), a RUNNING (attempt 1)",
            "a COMPLETED (attempt 1)",
            "b QUEUED (attempt 1), b RUNNING (attempt 1), b FAILED (attempt 1), b QUEUED (attempt 2), b RUNNING (attempt 2)",
            "b COMPLETED (attempt 2), COMPLETED (attempt 1)!",
        ]
    );
    assert_eq!(progress.ignored, 1, "the flicker");
}

/// REST shows the end of a task before the events of its last attempt.
#[test]
fn a_task_that_has_ended_without_its_events_is_fetched_again() {
    use RunStatus::{Completed, Running};
    for (status, is_fetched) in [(Running, false), (Completed, true)] {
        let tasks = vec![TaskDetails { status, ..task(1, "a", &[(1, Running)], &[]) }];
        let details = RunDetails { tasks, ..details(Running, &[], None) };
        let next = progress().step(Instant::now(), Observation::Details(&details)).next;
        assert_eq!(matches!(next, Next::FetchAfter(_)), is_fetched, "{next:?}");
    }
}

#[test]
fn a_replay_is_an_attempt_of_the_whole_run() {
    use RunStatus::{Completed, Failed};
    let mut progress = progress();
    let tasks = vec![
        task(1, "a", &[(1, Completed), (2, Completed)], &[1]),
        task(2, "b", &[(1, Failed), (2, Failed), (3, Completed)], &[2]),
    ];
    let end = RunDetails { tasks, ..details(Completed, &[], Some(done())) };
    let runs: Vec<_> = texts(&update(&mut progress, &end))
        .into_iter()
        .filter(|text| text.starts_with(|c: char| c.is_uppercase()))
        .collect();
    assert_eq!(
        runs,
        [
            "QUEUED (attempt 1)",
            "RUNNING (attempt 1)",
            "FAILED (attempt 1)",
            "QUEUED (attempt 2)",
            "RUNNING (attempt 2)",
            "COMPLETED (attempt 2)!",
        ]
    );
}

#[test]
fn later_attempts_wait_for_earlier_ones_whose_events_are_late() {
    use RunStatus::{Completed, Failed, Running};
    let (mut progress, start) = (progress(), Instant::now());
    let mut at = |seconds: u32, details: &RunDetails| {
        let step = progress.step(start + SECOND * seconds, Observation::Details(details));
        (texts(&step.changes).join(", "), step.next)
    };
    let first = [(1, Running, true)];
    assert_eq!(at(0, &details(Running, &first, None)).0, "QUEUED (attempt 1), RUNNING (attempt 1)");
    // The first attempt has failed, and its end is not in the history.
    let second = [(1, Running, true), (2, Running, true)];
    assert_eq!(at(1, &details(Running, &second, None)), (String::new(), Next::FetchAfter(FIRST_REFETCH)));
    assert_eq!(at(2, &details(Running, &second, None)), (String::new(), Next::FetchAfter(2 * FIRST_REFETCH)));
    let complete = [(1, Failed, true), (2, Running, true)];
    let late = at(9, &details(Running, &complete, None));
    assert_eq!(late.0, "FAILED (attempt 1), QUEUED (attempt 2), RUNNING (attempt 2)");
    // The third attempt is never in the history. The run ends with the fourth one.
    let rest = [(1, Failed, true), (2, Failed, true), (4, Completed, true)];
    let end = details(Completed, &rest, Some(done()));
    assert_eq!(at(10, &end).0, "FAILED (attempt 2)");
    assert_eq!(at(19, &end).0, "");
    let last = at(20, &end);
    assert_eq!(
        last.0,
        "status changes of attempt 3 are missing, QUEUED (attempt 4), RUNNING (attempt 4), COMPLETED (attempt 4)!"
    );
    assert_eq!(last.1, Next::End);
}

#[test]
fn an_attempt_of_a_task_of_a_dag_can_be_late_too() {
    use RunStatus::{Completed, Queued, Running};
    let (mut progress, start) = (progress(), Instant::now());
    let fetch = |tasks, outcome| RunDetails { tasks, ..details(Running, &[], outcome) };
    let mut at = |seconds: u32, details: &RunDetails| {
        texts(&progress.step(start + SECOND * seconds, Observation::Details(details)).changes).join(", ")
    };
    let tasks = || vec![task(1, "a", &[(2, Completed)], &[]), task(2, "b", &[(1, Queued)], &[])];
    let run = "QUEUED (attempt 1), RUNNING (attempt 1)";
    assert_eq!(at(0, &fetch(tasks(), None)), format!("{run}, b QUEUED (attempt 1)"));
    let end = || vec![task(1, "a", &[(2, Completed)], &[]), task(2, "b", &[(1, Completed)], &[])];
    assert_eq!(at(1, &fetch(end(), Some(done()))), "b RUNNING (attempt 1), b COMPLETED (attempt 1)");
    assert_eq!(
        at(12, &fetch(end(), Some(done()))),
        "a: status changes of attempt 1 are missing, a QUEUED (attempt 2), a RUNNING (attempt 2), a COMPLETED (attempt 2), \
         COMPLETED (attempt 1)!"
    );
}

fn listed(rows: Vec<TaskRow>, with_queued: bool) -> Listing {
    Listing::Rows { rows, with_queued }
}

fn row(attempt: u32, status: RunStatus) -> TaskRow {
    let run: RunId = "00000000-0000-4000-8001-000000000001".parse().unwrap();
    TaskRow { run, task: run.into(), attempt, status, created_at: None, started_at: None }
}

/// It waits for its retry, or the end is late. Some fetches are for a late end, and those after them are a precaution.
#[test]
fn a_run_without_an_active_task_is_fetched_less_and_less() {
    let (mut progress, mut now) = (progress(), Instant::now());
    let waiting = details(RunStatus::Running, &[(1, RunStatus::Failed, true)], None);
    let mut intervals = Vec::new();
    for _ in 0..8 {
        let next = progress.step(now, Observation::Details(&waiting)).next;
        let (Next::FetchAfter(interval) | Next::Precaution(interval)) = next else { panic!("{next:?}") };
        intervals.push((interval.as_millis(), matches!(next, Next::Precaution(_))));
        now += interval;
    }
    let fetches = [100, 100, 200, 400, 1600, 6400].map(|interval| (interval, false));
    let precautions = [25_600, 30_000].map(|interval| (interval, true));
    assert_eq!(intervals, [&fetches[..], &precautions[..]].concat());
    assert_eq!(progress.missed(), Some(Next::Precaution(Duration::ZERO)), "it may have ended");
    // An event announces a change, which is not in the history yet.
    progress.announced();
    assert_eq!(progress.step(now, Observation::Details(&waiting)).next, Next::FetchAfter(FIRST_REFETCH));
    // A list shows the retry.
    let retry = listed(vec![row(2, RunStatus::Running)], false);
    assert_eq!(progress.step(now, Observation::Listed(&retry)).next, Next::Fetch);
    assert_eq!(progress.missed(), None, "its absence from the next list is a reason to fetch");
}

/// Its end is the only thing that can follow, however long it takes.
#[test]
fn the_end_of_a_run_that_has_completed_is_not_a_precaution() {
    let (mut progress, mut now) = (progress(), Instant::now());
    let ended = details(RunStatus::Running, &[(1, RunStatus::Completed, true)], None);
    for _ in 0..20 {
        let next = progress.step(now, Observation::Details(&ended)).next;
        let Next::FetchAfter(interval) = next else { panic!("{next:?}") };
        assert!(interval <= MAX_REFETCH, "{interval:?}");
        now += interval;
    }
}

/// A run that is queued or running is in a list, or its absence from it is a reason to fetch.
#[test]
fn a_loss_of_events_is_a_reason_to_fetch_if_lists_do_not_show_what_was_missed() {
    let after = |status: RunStatus, outcome: Option<Outcome>, follows_replays: bool| {
        let mut progress = progress();
        if follows_replays {
            progress.follow_replays();
        }
        let started = status != RunStatus::Queued;
        update(&mut progress, &details(status.clone(), &[(1, status, started)], outcome));
        progress.missed()
    };
    let precaution = Some(Next::Precaution(Duration::ZERO));
    assert_eq!(after(RunStatus::Queued, None, false), None);
    assert_eq!(after(RunStatus::Running, None, false), None);
    assert_eq!(after(RunStatus::Failed, None, false), precaution, "it may be retried");
    assert_eq!(after(RunStatus::Completed, Some(done()), true), precaution, "or replayed");
}

#[test]
fn a_list_shows_the_start_of_the_first_attempt() {
    use RunStatus::{Queued, Running};
    let (mut progress, now) = (progress(), Instant::now());
    let mut list = |rows, with_queued| {
        let step = progress.step(now, Observation::Listed(&listed(rows, with_queued)));
        (texts(&step.changes).join(", "), step.next)
    };
    let nothing = String::new;
    assert_eq!(list(vec![row(1, Queued)], true), ("QUEUED (attempt 1)".into(), Next::WaitForStart));
    assert_eq!(list(Vec::new(), false), (nothing(), Next::WaitForStart), "it is still queued");
    assert_eq!(list(vec![row(1, Running)], false), ("RUNNING (attempt 1)".into(), Next::WaitForEnd));
    assert_eq!(list(vec![row(1, Queued)], true), (nothing(), Next::WaitForEnd), "REST is behind");
    assert_eq!(list(vec![row(2, Queued)], true), (nothing(), Next::Fetch), "the end of attempt 1 is in the history");
    assert_eq!(list(Vec::new(), false), (nothing(), Next::Fetch), "it is no longer running");
    assert_eq!(list(Vec::new(), false), (nothing(), Next::WaitForEnd), "not again and again");
    assert_eq!(progress.ignored, 1);
}

/// A run of a single task: what happens, and when REST has it.
struct World {
    rng: fastrand::Rng,
    /// The state, when it is reached, and when its event is in the history.
    events: Vec<(AttemptStatus, Duration, Duration)>,
    ends_at: Duration,
}

impl World {
    /// Events can be late by up to `max_delay`. Of those that may be lost, some are.
    fn new(seed: u64, max_delay: Duration, may_lose: bool) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let (mut now, mut events) = (Duration::ZERO, Vec::new());
        let attempts = rng.u32(1..=4);
        for attempt in 1..=attempts {
            let end = if attempt < attempts { RunStatus::Failed } else { RunStatus::Completed };
            for status in [RunStatus::Queued, RunStatus::Running, end] {
                now += Duration::from_millis(rng.u64(0..800));
                // A start may be missing for good, so a watch waits for it for a shorter time.
                let max = if status == RunStatus::Running { max_delay.min(SECOND) } else { max_delay };
                let delay = max.mul_f64(rng.f64());
                let is_lost = may_lose && rng.u8(..) < 50;
                let visible = if is_lost { Duration::MAX } else { now + delay };
                events.push((AttemptStatus::new(attempt, status), now, visible));
            }
        }
        Self { rng, ends_at: now, events }
    }

    fn truth(&self) -> Vec<AttemptStatus> {
        self.events.iter().map(|(state, ..)| state.clone()).collect()
    }

    /// The state at a time.
    fn current(&self, at: Duration) -> Option<&AttemptStatus> {
        self.events.iter().take_while(|(_, reached, _)| *reached <= at).map(|(state, ..)| state).last()
    }

    fn details(&self, at: Duration) -> RunDetails {
        let mut attempts: BTreeMap<u32, Attempt> = BTreeMap::new();
        let time = DateTime::UNIX_EPOCH;
        for (state, ..) in self.events.iter().filter(|(_, reached, visible)| *reached <= at && *visible <= at) {
            let attempt = attempts.entry(state.attempt).or_insert_with(|| unknown(state.attempt));
            match &state.status {
                RunStatus::Queued => attempt.queued_at = Some(time),
                status => {
                    attempt.worker_id = Some(uuid::Uuid::from_u128(7).into());
                    let has_started = *status == RunStatus::Running;
                    *(if has_started { &mut attempt.started_at } else { &mut attempt.finished_at }) = Some(time);
                    if !attempt.status.is_final() {
                        attempt.status = status.clone();
                    }
                }
            }
        }
        // A fetch waits for the end to be in the history, unless it is lost.
        let shows_end = self.events.last().is_none_or(|(.., visible)| *visible <= at || *visible == Duration::MAX);
        let outcome = (at >= self.ends_at && shows_end).then(done);
        if let (Some(_), Some((last, ..))) = (&outcome, self.events.last()) {
            attempts.entry(last.attempt).or_insert_with(|| unknown(last.attempt)).status = last.status.clone();
        }
        let current = self.current(at).map_or(RunStatus::Queued, |state| state.status.clone());
        let status = if current.is_final() && outcome.is_none() { RunStatus::Queued } else { current };
        let mut details = details(status, &[], outcome);
        details.tasks[0].attempts = attempts.into_values().collect();
        details
    }

    /// The row of a list that may be behind.
    fn listing(&mut self, at: Duration) -> Listing {
        let behind = at.saturating_sub(Duration::from_millis(self.rng.u64(0..700)));
        let with_queued = self.rng.bool();
        let rows = self.current(behind).filter(|state| match state.status {
            RunStatus::Queued => with_queued,
            _ => !state.status.is_final(),
        });
        listed(rows.map(|state| row(state.attempt, state.status.clone())).into_iter().collect(), with_queued)
    }
}

fn unknown(number: u32) -> Attempt {
    let status = RunStatus::Queued;
    Attempt { number, status, queued_at: None, started_at: None, finished_at: None, worker_id: None, error: None }
}

/// Watches a world with random observations, and returns the changes.
fn follow(world: &mut World) -> Vec<Change> {
    let (mut progress, start, mut now) = (progress(), Instant::now(), Duration::ZERO);
    let (mut next, mut changes) = (Next::List, Vec::new());
    let task: TaskId = progress.run.into();
    for _ in 0..10_000 {
        let listing = world.listing(now);
        let details = world.details(now);
        let observation = match (next, world.rng.u8(0..10)) {
            (Next::End, _) => break,
            (Next::Fetch, _) | (_, 0..2) => Observation::Details(&details),
            (_, 2) => Observation::Created { task, at: None },
            (_, 3..6) => Observation::Listed(&listing),
            (Next::FetchAfter(delay), _) => {
                now += delay;
                next = Next::Fetch;
                continue;
            }
            _ => {
                now += Duration::from_millis(world.rng.u64(0..600));
                continue;
            }
        };
        let step = progress.step(start + now, observation);
        changes.extend(step.changes);
        next = step.next;
    }
    assert_eq!(next, Next::End, "a watch ends: {changes:?}");
    changes
}

fn states_of(changes: &[Change]) -> Vec<AttemptStatus> {
    changes.iter().filter_map(Change::attempt_status).cloned().collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2000) })]

    /// Whatever is observed and whenever it arrives, all states are returned in order.
    #[test]
    fn all_states_are_returned_in_order(seed: u64) {
        let mut world = World::new(seed, 8 * SECOND, false);
        let changes = follow(&mut world);
        prop_assert_eq!(states_of(&changes), world.truth());
        prop_assert!(!changes.iter().any(|change| change.kind() == crate::model::ChangeKind::Gap));
    }

    /// What is lost is a gap, and what is returned is in order and ends once.
    #[test]
    fn lost_states_are_gaps(seed: u64) {
        let mut world = World::new(seed, SECOND, true);
        let changes = follow(&mut world);
        let (truth, states) = (world.truth(), states_of(&changes));
        let mut rest = truth.iter();
        prop_assert!(states.iter().all(|state| rest.any(|other| other == state)), "{states:?}");
        prop_assert_eq!(changes.iter().filter(|change| change.is_final()).count(), 1);
        prop_assert!(changes.last().is_some_and(Change::is_final));
        let in_gap = |attempt: u32| changes.iter().any(|change| {
            matches!(change, Change::Gap(gap) if (gap.first_attempt..=gap.last_attempt).contains(&attempt))
        });
        // An attempt that has no end, or nothing at all, is in a gap.
        let missing = truth.iter().filter(|state| state.status.is_final() && !states.contains(state));
        for state in missing {
            prop_assert!(in_gap(state.attempt), "{state} of {changes:?}");
        }
    }
}
