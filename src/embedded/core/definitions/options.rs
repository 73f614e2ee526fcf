//! The engine's checks of what a definition has beside its tasks.

use std::collections::HashSet;

use crate::embedded::core::format::cron::CronSchedule;
use crate::embedded::core::format::validation::Problems;
use crate::embedded::core::store::{Concurrency, StatusError, WorkflowOptions};

/// The checks of the engine's validator.
pub(crate) fn check(options: &WorkflowOptions, problems: &mut Problems) {
    for (index, text) in options.crons.iter().enumerate() {
        if CronSchedule::of_definition(text).is_none() {
            problems.add(&format!("CronTriggers[{index}]"), "Invalid cron expression");
        }
    }
    check_concurrency("", &options.concurrency, problems);
    let Some(idempotency) = &options.idempotency else { return };
    if idempotency.expression.is_empty() {
        problems.add("Idempotency.Expression", "on condition 'required'");
    } else if idempotency.parsed.is_none() {
        problems.add("Idempotency.Expression", "Invalid CEL expression");
    }
    match idempotency.ttl_ms {
        0 => problems.add("Idempotency.TTLMs", "on condition 'required'"),
        ..0 => problems.add("Idempotency.TTLMs", "on condition 'min' [ 1 ]: got invalid type"),
        _ => {}
    }
    if !(0..=1).contains(&idempotency.method) {
        problems.add("Idempotency.Method", "on condition 'oneof' [ TTL STATUS ]: got invalid type");
    }
}

/// The checks of concurrency limits. `of` is the prefix of their fields.
pub(crate) fn check_concurrency(of: &str, limits: &[Concurrency], problems: &mut Problems) {
    for (index, _) in limits.iter().enumerate().filter(|(_, limit)| limit.parsed.is_none()) {
        problems.add(&format!("{of}Concurrency[{index}].Expression"), "Invalid CEL expression");
    }
}

/// Duplicates, which the engine's validator accepts and its database refuses.
pub(crate) fn check_further(options: &WorkflowOptions) -> Result<(), StatusError> {
    let has_duplicates = |texts: &[String]| {
        let mut known = HashSet::new();
        !texts.iter().all(|text| known.insert(text))
    };
    if has_duplicates(&options.events) || has_duplicates(&options.crons) {
        return Err(StatusError::internal());
    }
    Ok(())
}
