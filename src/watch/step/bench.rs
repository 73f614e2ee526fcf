//! The steps of watches, for `benches/instructions`.

use chrono::DateTime;
use tokio::time::Instant;

use super::{Next, Observation, Progress};
use crate::feed::{Listing, TaskRow};
use crate::model::{Attempt, Completed, Outcome, Payload, RunDetails, RunId, RunStatus, TaskDetails, Trigger};

/// The number of steps of a watch in [`steps`].
pub(crate) const STEPS: usize = 3;

/// Watches short runs: each is announced, listed as running, and fetched after its end. Returns the number of changes.
pub(crate) fn steps(runs: usize) -> usize {
    let run = RunId::from(uuid::Uuid::from_u128(1));
    let (details, now) = (details(run), Instant::now());
    let row = TaskRow {
        run,
        task: run.into(),
        attempt: 1,
        status: RunStatus::Running,
        created_at: details.created_at,
        started_at: details.created_at,
    };
    let listing = Listing::Rows { rows: vec![row], with_queued: true };
    let observations = [
        Observation::Created { task: run.into(), at: details.created_at },
        Observation::Listed(&listing),
        Observation::Details(&details),
    ];
    let mut changes = 0;
    for _ in 0..runs {
        let mut progress = Progress::new(run, 1, None);
        let mut last = Next::List;
        for observation in observations {
            let step = progress.step(now, observation);
            changes += step.changes.len();
            last = step.next;
        }
        assert_eq!(last, Next::End);
    }
    changes
}

fn details(run: RunId) -> RunDetails {
    let at = DateTime::from_timestamp(1_800_000_000, 0);
    let attempt = Attempt {
        number: 1,
        status: RunStatus::Completed,
        queued_at: at,
        started_at: at,
        finished_at: at,
        worker_id: None,
        error: None,
    };
    let task = TaskDetails {
        id: run.into(),
        name: "task".into(),
        status: RunStatus::Completed,
        outcome: None,
        replayed_after: Vec::new(),
        attempts: vec![attempt],
    };
    RunDetails {
        id: run,
        workflow_id: None,
        workflow_name: None,
        trigger: Trigger::Manual,
        logs: Vec::new(),
        workflow_version_id: None,
        status: RunStatus::Completed,
        outcome: Some(Outcome::Completed(Completed { output: Payload::output("{}") })),
        input: Some(Payload::input("{}")),
        metadata: std::collections::BTreeMap::default(),
        engine_metadata: std::collections::BTreeMap::default(),
        created_at: at,
        tasks: vec![task],
        conflicts: Vec::new(),
    }
}
