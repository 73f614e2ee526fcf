//! A definition: checked as a whole, and in the contract's words.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::handler::Handler;
use super::triggers::Triggers;
use crate::client::Client;
use crate::model::Priority;
use crate::model::name::{ACCEPTED, is_name};
use crate::rpc::grpc_types::{NewTask, NewWorkflow};
use crate::time::duration_text;

/// Beyond this the engine's arithmetic ends.
const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

#[derive(Clone)]
pub(crate) struct Definition {
    pub(crate) name: String,
    pub(crate) description: String,
    pub(crate) retries: u32,
    pub(crate) timeout: Duration,
    pub(crate) schedule_timeout: Duration,
    pub(crate) backoff: Option<(f32, Duration)>,
    pub(crate) default_priority: Option<Priority>,
    pub(crate) triggers: Triggers,
    pub(crate) handler: Arc<dyn Handler>,
}

impl Definition {
    pub(super) fn new(name: String, handler: Arc<dyn Handler>) -> Self {
        Self {
            name,
            description: String::new(),
            retries: 0,
            timeout: Duration::from_secs(60),
            schedule_timeout: Duration::from_secs(300),
            backoff: None,
            default_priority: None,
            triggers: Triggers::default(),
            handler,
        }
    }

    /// Everything that the server would refuse, or answer with an internal error.
    pub(crate) fn problems(&self) -> Vec<String> {
        let name = &self.name;
        let mut problems = Vec::new();
        let mut check = |ok: bool, problem: String| {
            if !ok {
                problems.push(format!("task {name:?}: {problem}"));
            }
        };
        check(is_name(name), format!("its name must be {ACCEPTED}"));
        check(
            i32::try_from(self.retries).is_ok(),
            format!("retries: found {}, accepted: at most {}", self.retries, i32::MAX),
        );
        for (field, length) in [("timeout", self.timeout), ("schedule timeout", self.schedule_timeout)] {
            check(
                !length.is_zero() && length <= LONGEST,
                format!("{field}: found {length:?}, accepted: over 0 and at most ten years"),
            );
        }
        if let Some((factor, longest)) = self.backoff {
            check((1.0..=1000.0).contains(&factor), format!("back-off factor: found {factor}, accepted: 1 to 1000"));
            let seconds = longest.as_secs();
            check(
                (1..=86400).contains(&seconds),
                format!("longest back-off: found {longest:?}, accepted: 1 s to 86400 s"),
            );
        }
        for problem in self.triggers.problems() {
            check(false, problem);
        }
        problems
    }

    /// The name by which workers are found for it. The server lowers it, and chokes on some capitals.
    pub(crate) fn action(&self, client: &Client) -> String {
        format!("{}:{}", client.prefixed(&self.name), self.name).to_lowercase()
    }

    pub(crate) fn to_server(&self, client: &Client) -> NewWorkflow {
        let (factor, longest) = self.backoff.unzip();
        let workflow = NewWorkflow {
            name: client.prefixed(&self.name),
            description: self.description.clone(),
            default_priority: self.default_priority.map(Priority::number),
            tasks: vec![NewTask {
                name: self.name.clone(),
                action: self.action(client),
                timeout: duration_text(self.timeout),
                schedule_timeout: duration_text(self.schedule_timeout),
                retries: i32::try_from(self.retries).unwrap_or(i32::MAX),
                backoff_factor: factor,
                backoff_max_seconds: longest.map(|longest| i32::try_from(longest.as_secs()).unwrap_or(i32::MAX)),
                labels: self.triggers.labels(),
                ..Default::default()
            }],
            ..Default::default()
        };
        self.triggers.apply(client, workflow)
    }
}

impl fmt::Debug for Definition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Definition").field("name", &self.name).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Context, Task};
    use super::*;

    fn task() -> Task<(), ()> {
        Task::new("work", async |(): (), _: Context| Ok(()))
    }

    #[test]
    fn all_problems_are_told_at_once() {
        assert!(task().definition().problems().is_empty());
        let bad = Task::new("a b", async |(): (), _: Context| Ok(()))
            .retries(u32::MAX)
            .timeout(Duration::ZERO)
            .schedule_timeout(Duration::MAX)
            .backoff(0.5, Duration::from_millis(10));
        let problems = bad.definition().problems();
        assert_eq!(problems.len(), 6, "{problems:#?}");
        assert!(problems.iter().all(|problem| problem.starts_with("task \"a b\": ")));
    }
}
