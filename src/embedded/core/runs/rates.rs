//! Rate limits: what tasks consume, and when limits are refilled.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use chrono::{Months, TimeDelta};

use super::expressions::{self, Scope};
use crate::embedded::core::store::{
    At, Core, Hold, TaskEventKind, TaskKey, TaskLimit, Timer, Turn, Units, Window, stored,
};
use crate::embedded::quirks::Quirk;

/// The window of a dynamic limit that has none.
const DEFAULT_WINDOW: Window = Window::Minute;
/// How long the scheduler does not know a new limit.
const UNKNOWN_FOR: Duration = Duration::from_millis(1200);
/// A limit that is refilled later than this takes the tasks that wait for it from their queues.
const HOLD_THRESHOLD: TimeDelta = TimeDelta::seconds(2);
/// How late a limit is refilled, in milliseconds: at least and at most, for windows of a second and for longer ones.
const LATE_SECOND_MS: (u32, u32) = (700, 1900);
const LATE_MS: (u32, u32) = (1000, 6500);

impl Window {
    /// The end of a window that starts at a time.
    pub(crate) fn end(self, start: At) -> At {
        let months = |count| start.checked_add_months(Months::new(count)).unwrap_or(start);
        match self {
            Self::Second => start + TimeDelta::seconds(1),
            Self::Minute => start + TimeDelta::minutes(1),
            Self::Hour => start + TimeDelta::hours(1),
            Self::Day => start + TimeDelta::days(1),
            Self::Week => start + TimeDelta::weeks(1),
            Self::Month => months(1),
            Self::Year => months(12),
        }
    }
}

/// A dynamic limit as evaluated for a task.
struct Dynamic {
    key: String,
    units: i64,
    limit: i64,
    window: Window,
}

/// Evaluates the expressions of a task's dynamic limits, or returns the error of the first that cannot be evaluated.
fn evaluate(core: &Core, key: TaskKey) -> Result<Vec<Dynamic>, String> {
    let Some((run, task)) = core.runs.task(key) else { return Ok(Vec::new()) };
    let limits = run.step(task).map(|step| &*step.definition.rate_limits).unwrap_or_default();
    let mut dynamic = limits.iter().filter(|limit| limit.is_dynamic()).peekable();
    if dynamic.peek().is_none() {
        return Ok(Vec::new());
    }
    let Some(values) = Scope::of(core, key) else { return Ok(Vec::new()) };
    dynamic.map(|limit| evaluate_one(&values, limit)).collect()
}

fn evaluate_one(values: &Scope, limit: &TaskLimit) -> Result<Dynamic, String> {
    Ok(Dynamic {
        key: match &limit.key_expression {
            Some(cel) => values.text(cel, "dynamic rate limit key")?,
            None => limit.key.clone(),
        },
        // Without a size, the size is zero.
        limit: limit
            .limit_expression
            .as_ref()
            .map(|cel| values.number(cel, "dynamic rate limit value"))
            .transpose()?
            .unwrap_or(0),
        units: match (&limit.units_expression, limit.units) {
            (Some(cel), _) => values.number(cel, "dynamic rate limit units")?,
            (None, Some(units)) => units.into(),
            (None, None) => return Err(expressions::failed("", expressions::EMPTY)),
        },
        window: limit.window.unwrap_or(DEFAULT_WINDOW),
    })
}

/// Checks that the dynamic limits of a task can be evaluated.
pub(crate) fn check(core: &Core, key: TaskKey) -> Result<(), String> {
    evaluate(core, key).map(drop)
}

/// Stores what a task consumes when it is assigned. Dynamic limits are created, or get the size that was evaluated for this task.
pub(crate) fn prepare(core: &mut Core, turn: &mut Turn<'_>, key: TaskKey) {
    let Some((run, task)) = core.runs.task(key) else { return };
    let limits = run.step(task).map(|step| &*step.definition.rate_limits).unwrap_or_default();
    if limits.is_empty() {
        return;
    }
    let fixed = limits.iter().filter(|limit| !limit.is_dynamic());
    let mut units: Units = fixed.map(|limit| (limit.key.as_str().into(), limit.units.unwrap_or(1).into())).collect();
    // Limits that cannot be evaluated have failed the task before.
    for Dynamic { key, units: consumed, limit, window } in evaluate(core, key).unwrap_or_default() {
        if limit >= 0 {
            put(core, turn, &key, i32::try_from(limit).unwrap_or(i32::MAX), window);
        }
        units.insert(key.into(), consumed);
    }
    core.rate_limits.units.insert(key, units);
}

/// Creates a limit, or changes it. A larger size has an effect from the next window on.
pub(crate) fn put(core: &mut Core, turn: &mut Turn<'_>, key: &str, limit: i32, window: Window) {
    if let Some(known) = core.rate_limits.get_mut(key) {
        if known.window != window {
            known.next_refill = window.end(known.last_refill);
        }
        (known.limit, known.window, known.left) = (limit, window, known.left.min(limit.into()));
        return;
    }
    let now = stored(turn.now);
    let next_refill = next_refill(core, turn, window);
    core.rate_limits.add(key, limit, window, now, next_refill);
    let waiting = core.rate_limits.missing.remove(key).unwrap_or_default();
    core.rate_limits.changed.extend(waiting);
}

/// When a limit that is refilled now is refilled the next time.
fn next_refill(core: &Core, turn: &mut Turn<'_>, window: Window) -> At {
    let end = window.end(stored(turn.now));
    if !core.has(Quirk::SlowRateLimits) {
        return end;
    }
    let (min, max) = if window == Window::Second { LATE_SECOND_MS } else { LATE_MS };
    end + Duration::from_millis((min + turn.below(max - min)).into())
}

/// Whether a queued task can have its units now. If not, records that, and offers its queue again at the next refill.
pub(crate) fn allow(core: &mut Core, turn: &mut Turn<'_>, key: TaskKey, action: &str) -> bool {
    if is_held(core, turn, key) {
        return false;
    }
    let Some(units) = core.rate_limits.units.get(&key).cloned() else { return true };
    for (name, wanted) in &units {
        let left = available(core, turn, name);
        if left.is_some_and(|left| left >= *wanted) {
            continue;
        }
        let (name_shown, wanted, left) = left.map_or(("", 0, 0), |left| (&**name, *wanted, left));
        let text = format!(
            "Rate limit exceeded for key {name_shown}, attempting to consume {wanted} units, but only had {left} remaining"
        );
        core.record(key, TaskEventKind::RateLimited, turn.now, None, Some(&text));
        hold(core, turn, key, name);
        wait(core, turn, name, action);
        return false;
    }
    true
}

/// Takes a task from its queue until a limit is refilled, if that is far away.
fn hold(core: &mut Core, turn: &Turn<'_>, key: TaskKey, name: &str) {
    if !core.has(Quirk::LateRateLimitTimeouts) {
        return;
    }
    let known = core.rate_limits.get(name).filter(|limit| limit.known_from.is_some_and(|from| from <= turn.now));
    if let Some(until) = known.map(|limit| limit.next_refill).filter(|at| *at > turn.now + HOLD_THRESHOLD) {
        core.rate_limits.held.insert(key, Hold { until, has_timed_out: false });
    }
}

/// Whether a task is not in its queue, or is about to time out because it was not.
fn is_held(core: &mut Core, turn: &Turn<'_>, key: TaskKey) -> bool {
    let Some(hold) = core.rate_limits.held.get(&key).copied() else { return false };
    if hold.until <= turn.now && !hold.has_timed_out {
        core.rate_limits.held.remove(&key);
        return false;
    }
    true
}

/// Postpones the schedule timeout of a task that is not in its queue. Returns until when.
pub(crate) fn postpone_timeout(core: &mut Core, turn: &Turn<'_>, key: TaskKey) -> Option<At> {
    let hold = core.rate_limits.held.get_mut(&key).filter(|hold| hold.until > turn.now)?;
    hold.has_timed_out = true;
    Some(hold.until)
}

/// A task leaves its queue for good.
pub(crate) fn forget(core: &mut Core, key: TaskKey) -> Units {
    core.rate_limits.held.remove(&key);
    core.rate_limits.units.remove(&key).unwrap_or_default()
}

/// The units that are left of a limit, after a refill if one is due. `None` for a limit that the scheduler does not know.
fn available(core: &mut Core, turn: &mut Turn<'_>, name: &str) -> Option<i64> {
    let due = core.rate_limits.get(name).filter(|limit| limit.next_refill <= turn.now).map(|limit| limit.window);
    let next = due.map(|window| next_refill(core, turn, window));
    let unknown_for = if core.has(Quirk::SlowRateLimits) { UNKNOWN_FOR } else { Duration::ZERO };
    let limit = core.rate_limits.get_mut(name)?;
    if let Some(next) = next {
        (limit.left, limit.last_refill, limit.next_refill) = (limit.limit.into(), stored(turn.now), next);
    }
    let known_from = *limit.known_from.get_or_insert(turn.now + unknown_for);
    (known_from <= turn.now).then_some(limit.left)
}

/// Offers a queue again when a limit is refilled, or when the scheduler knows it.
fn wait(core: &mut Core, turn: &Turn<'_>, name: &str, action: &str) {
    let Some(limit) = core.rate_limits.get_mut(name) else {
        core.rate_limits.missing.entry(name.into()).or_default().insert(action.into());
        return;
    };
    limit.waiting.insert(action.into());
    if limit.timer.is_none() {
        let known_from = limit.known_from.filter(|from| *from > turn.now);
        let at = known_from.unwrap_or(limit.next_refill);
        limit.timer = Some(core.timers.set(at, Timer::Refill(limit.number)));
    }
}

/// Takes the units of a task that is assigned.
pub(crate) fn consume(core: &mut Core, key: TaskKey) {
    for (name, units) in forget(core, key) {
        if let Some(limit) = core.rate_limits.get_mut(&name) {
            limit.left = limit.left.saturating_sub(units);
        }
    }
}

/// A limit may be refilled. Returns the actions whose queues are to be offered again.
pub(crate) fn refill(core: &mut Core, number: u32) -> BTreeSet<Arc<str>> {
    let Some(limit) = core.rate_limits.by_number(number) else { return BTreeSet::new() };
    limit.timer = None;
    std::mem::take(&mut limit.waiting)
}
