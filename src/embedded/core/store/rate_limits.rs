//! Rate limits: how many units are left, and which queues wait for more.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::cel::Cel;
use super::ids::TaskKey;
use super::timers::TimerKey;
use super::turn::At;

/// A rate limit that a task of a definition uses.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TaskLimit {
    /// The key of a static limit. Dynamic ones have it, too.
    pub(crate) key: String,
    pub(crate) units: Option<i32>,
    pub(crate) key_expression: Option<Cel>,
    pub(crate) units_expression: Option<Cel>,
    /// The size of the limit.
    pub(crate) limit_expression: Option<Cel>,
    pub(crate) window: Option<Window>,
}

impl TaskLimit {
    /// Whether its key, its units or its size are computed for each task.
    pub(crate) fn is_dynamic(&self) -> bool {
        [&self.key_expression, &self.units_expression, &self.limit_expression].into_iter().any(Option::is_some)
    }
}

/// How often a limit is refilled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Window {
    Second,
    Minute,
    Hour,
    Day,
    Week,
    Month,
    Year,
}

#[derive(Debug)]
pub(crate) struct RateLimit {
    pub(crate) limit: i32,
    /// The units that are left. Negative units of a task add to them.
    pub(crate) left: i64,
    pub(crate) window: Window,
    pub(crate) last_refill: At,
    /// When the engine refills it next.
    pub(crate) next_refill: At,
    /// Since when the scheduler knows it. Before, it gives no units.
    pub(crate) known_from: Option<At>,
    /// The actions whose queues have tasks that need more units, and the timer that offers these again.
    pub(crate) waiting: BTreeSet<Arc<str>>,
    pub(crate) timer: Option<TimerKey>,
    /// Identifies it in a timer.
    pub(crate) number: u32,
}

/// The units of each limit that an attempt consumes when it is assigned.
pub(crate) type Units = BTreeMap<Box<str>, i64>;

#[derive(Debug, Default)]
pub(crate) struct RateLimits {
    all: BTreeMap<Box<str>, RateLimit>,
    by_number: Vec<Box<str>>,
    /// The actions whose queues have tasks that wait for a limit that does not exist.
    pub(crate) missing: BTreeMap<Box<str>, BTreeSet<Arc<str>>>,
    /// The actions whose queues are to be offered again at the end of the turn.
    pub(crate) changed: BTreeSet<Arc<str>>,
    /// What queued tasks consume.
    pub(crate) units: BTreeMap<TaskKey, Units>,
    /// The tasks that have left their queues until a limit is refilled.
    pub(crate) held: BTreeMap<TaskKey, Hold>,
}

/// The wait of a task outside of its queue.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Hold {
    pub(crate) until: At,
    /// Whether its schedule timeout has passed meanwhile.
    pub(crate) has_timed_out: bool,
}

impl RateLimits {
    pub(crate) fn get(&self, key: &str) -> Option<&RateLimit> {
        self.all.get(key)
    }

    pub(crate) fn get_mut(&mut self, key: &str) -> Option<&mut RateLimit> {
        self.all.get_mut(key)
    }

    pub(crate) fn by_number(&mut self, number: u32) -> Option<&mut RateLimit> {
        self.all.get_mut(self.by_number.get(number as usize)?)
    }

    /// Adds a limit with all of its units.
    pub(crate) fn add(&mut self, key: &str, limit: i32, window: Window, now: At, next_refill: At) {
        let number = u32::try_from(self.by_number.len()).unwrap_or(u32::MAX);
        self.by_number.push(key.into());
        let (left, waiting) = (i64::from(limit), BTreeSet::new());
        let added = RateLimit {
            limit,
            left,
            window,
            last_refill: now,
            next_refill,
            known_from: None,
            waiting,
            timer: None,
            number,
        };
        self.all.insert(key.into(), added);
    }

    pub(crate) fn remove(&mut self, key: &str) -> Option<RateLimit> {
        self.all.remove(key)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &RateLimit)> {
        self.all.iter().map(|(key, limit)| (&**key, limit))
    }
}
