//! Lists of runs and tasks.

use axum::response::Response;
use serde_json::{Value, json};
use uuid::Uuid;

use super::json::attempt_of;
use super::query::{self, Query};
use super::response::Rejection;
use super::rows::RowPage;
use super::{run, task};
use crate::embedded::Quirk;
use crate::embedded::core::store::{At, Run, RunIx, Task};
use crate::embedded::core::{Core, MetadataFilter, RestStatus};

/// The maximum total: the server counts no further.
const MAX_COUNTED: usize = 20_000;
const LEVELS: [&str; 4] = ["DEBUG", "INFO", "WARN", "ERROR"];

/// A row of a list: a run, or one of its tasks.
struct Row {
    run: RunIx,
    task: Option<u16>,
}

/// A page of rows. They are rendered outside of the core's task, so that it can serve other requests.
pub(super) struct Page {
    found: RowPage<Option<u16>>,
    /// The run of each row, in order.
    core: Core,
    payloads: bool,
}

impl Page {
    pub(super) fn render(self) -> Response {
        let Self { found, core, payloads } = self;
        let mut rows = 0..found.rows.len();
        found.render(move |task| {
            let Some(run) = rows.next().and_then(|row| core.runs().at(row)) else { return Value::Null };
            match task.and_then(|index| run.tasks.get(usize::from(index))) {
                Some(task) => task::row(&core, run, task, payloads),
                None => run::row(&core, run, payloads),
            }
        })
    }
}

/// The query of a list of runs.
pub(super) struct Runs {
    since: Option<At>,
    until: Option<At>,
    statuses: Vec<RestStatus>,
    workflows: Vec<Uuid>,
    parents: Vec<Uuid>,
    metadata: MetadataFilter,
    tasks: bool,
    payloads: bool,
    /// The event that started the runs, the workers that had one of their tasks, and their idempotency keys.
    event: Option<Uuid>,
    workers: Vec<Uuid>,
    keys: Vec<String>,
    limit: usize,
    offset: usize,
}

impl Runs {
    /// Parses the parameters of a list. The parameter that selects runs or tasks is required.
    pub(super) fn parse_list(query: &Query) -> Result<Self, Rejection> {
        let tasks = query
            .flag("only_tasks")?
            .ok_or_else(|| query::bad("only_tasks", "query parameter 'only_tasks' is required"))?;
        let mut list = Self { tasks, ..Self::parse(query)? };
        if tasks {
            // A list of tasks ignores it.
            list.parents.clear();
        }
        Ok(list)
    }

    pub(super) fn parse(query: &Query) -> Result<Self, Rejection> {
        let limit = query.limit()?.unwrap_or(50);
        if limit == 0 {
            return Err(Rejection::INTERNAL);
        }
        let metadata = MetadataFilter::lenient(query.all("additional_metadata"));
        let match_all = query.first("additional_metadata_operator") == Some("AND") || metadata.len() <= 1;
        Ok(Self {
            // Without a start, the server returns no rows.
            since: query.time("since")?,
            until: query.time("until")?,
            // The server ignores unknown statuses.
            statuses: query
                .all("statuses")
                .filter_map(|name| RestStatus::ALL.into_iter().find(|status| status.name() == name))
                .collect(),
            workflows: query.ids("workflow_ids")?,
            parents: query.ids("parent_task_external_id")?,
            metadata: if match_all { metadata } else { metadata.match_any() },
            tasks: false,
            payloads: query.flag("include_payloads")?.unwrap_or(false),
            event: query.ids("triggering_event_external_id")?.first().copied(),
            workers: query.ids("worker_id")?,
            keys: query.all("idempotency_keys").map(str::to_owned).collect(),
            limit,
            offset: query.number("offset")?.unwrap_or(0),
        })
    }

    pub(super) fn find(&self, core: &Core, now: At) -> Page {
        if self.tasks {
            let tasks = self.matching(core, now).flat_map(|run| {
                run.newest_first()
                    .into_iter()
                    .filter(move |task| {
                        self.has_status(|| task.rest_status())
                            && self.ran_on_worker(core, task)
                            && self.has_key(run.key_of(task))
                    })
                    .map(|task| Row { run: run.ix, task: Some(task.step) })
            });
            self.page(core, tasks)
        } else {
            let runs =
                self.matching(core, now).filter(|run| self.has_status(|| run.rest_status()) && self.has_key(run.key()));
            self.page(core, runs.map(|run| Row { run: run.ix, task: None }))
        }
    }

    fn page(&self, core: &Core, found: impl Iterator<Item = Row>) -> Page {
        let mut rows = Vec::new();
        let mut total: usize = 0;
        for row in found {
            if total >= self.offset && rows.len() < self.limit {
                rows.push(row);
            }
            total = total.saturating_add(1);
            if total >= MAX_COUNTED && rows.len() >= self.limit {
                break;
            }
        }
        let page = self.offset.checked_div(self.limit).unwrap_or_default().saturating_add(1);
        let pages = total.min(MAX_COUNTED).div_ceil(self.limit);
        Page {
            core: core.snapshot(rows.iter().map(|row| row.run)),
            found: RowPage {
                pagination: json!({"current_page": page, "next_page": page.saturating_add(1), "num_pages": pages}),
                rows: rows.into_iter().map(|row| row.task).collect(),
            },
            payloads: self.payloads,
        }
    }

    /// Whether the status matches. It is computed only if the query asks for one.
    fn has_status(&self, status: impl FnOnce() -> RestStatus) -> bool {
        self.statuses.is_empty() || self.statuses.contains(&status())
    }

    /// The number of runs by status, always with all five statuses.
    pub(super) fn count(&self, core: &Core, now: At) -> Value {
        let mut counts = [0_u64; RestStatus::ALL.len()];
        for status in self.matching(core, now).map(Run::rest_status).filter(|status| self.has_status(|| *status)) {
            for (count, _) in counts.iter_mut().zip(RestStatus::ALL).filter(|(_, other)| *other == status) {
                *count = count.saturating_add(1);
            }
        }
        let rows = counts.iter().zip(RestStatus::ALL).map(|(count, status)| match status {
            RestStatus::Running => {
                json!({"count": count, "runningDetailCount": {"evicted": 0, "onWorker": count}, "status": status.name()})
            }
            _ => json!({"count": count, "status": status.name()}),
        });
        rows.collect()
    }

    fn matching<'a>(&'a self, core: &'a Core, now: At) -> impl Iterator<Item = &'a Run> {
        core.runs()
            .newest_first(self.until)
            .take_while(move |run| self.since.is_some_and(|since| run.created >= since))
            .filter(move |run| core.is_visible(run, now))
            .filter(|run| self.workflows.is_empty() || self.workflows.contains(&run.version.workflow))
            .filter(|run| self.is_of_event(run))
            .filter(|run| self.metadata.matches_run(run))
            .flat_map(|run| std::iter::repeat_n(run, self.count_of(core, run)))
    }

    /// How often a run is in the list. A child that was started twice is listed twice.
    fn count_of(&self, core: &Core, run: &Run) -> usize {
        match run.parent() {
            _ if self.parents.is_empty() => 1,
            Some(parent) if self.parents.contains(&parent.task) => {
                core.children(parent.task).filter(|child| child.id == run.id).count()
            }
            _ => 0,
        }
    }

    /// Tasks of a DAG are not found by its event.
    fn is_of_event(&self, run: &Run) -> bool {
        let own = || run.options.as_ref()?.event.as_ref().map(|event| event.id);
        self.event.is_none() || own() == self.event && !(self.tasks && run.dag.is_some())
    }

    /// Applies only to a list of tasks, and to the last worker of each.
    fn ran_on_worker(&self, core: &Core, task: &Task) -> bool {
        let is_known = || !core.has(Quirk::UnorderedRows) || task.kept_its_worker();
        self.workers.is_empty() || is_known() && task.last_worker().is_some_and(|last| self.workers.contains(&last))
    }

    fn has_key(&self, key: Option<&str>) -> bool {
        self.keys.is_empty() || key.is_some_and(|key| self.keys.iter().any(|other| other == key))
    }
}

/// The query of a task's log.
pub(super) struct Logs {
    limit: usize,
    since: Option<At>,
    until: Option<At>,
    search: Option<String>,
    levels: Vec<String>,
    newest_first: bool,
    attempt: Option<usize>,
}

impl Logs {
    pub(super) fn parse(query: &Query) -> Result<Self, Rejection> {
        let limit = query.number("limit")?.unwrap_or(50);
        let levels: Vec<_> = query.all("levels").map(str::to_owned).collect();
        if !(1..=10_000).contains(&limit) || levels.iter().any(|level| !LEVELS.contains(&level.as_str())) {
            return Err(Rejection::INTERNAL);
        }
        Ok(Self {
            limit,
            levels,
            since: query.time("since")?,
            until: query.time("until")?,
            search: query.first("search").map(str::to_lowercase),
            newest_first: query.first("order_by_direction") == Some("DESC"),
            attempt: query.number("attempt")?,
        })
    }

    pub(super) fn respond(&self, core: &Core, (run, task): (&Run, &Task)) -> Option<Value> {
        let mut lines: Vec<_> = core
            .logs(task.id)?
            .iter()
            // The window excludes both of its ends.
            .filter(|line| {
                self.since.is_none_or(|since| line.at > since) && self.until.is_none_or(|until| line.at < until)
            })
            .filter(|line| self.search.as_deref().is_none_or(|text| line.message.to_lowercase().contains(text)))
            .filter(|line| self.levels.is_empty() || self.levels.iter().any(|level| level == line.level))
            .filter(|line| {
                self.attempt.is_none_or(|attempt| usize::try_from(attempt_of(line.retry_count)) == Ok(attempt))
            })
            .collect();
        if self.newest_first {
            lines.reverse();
        }
        let rows: Vec<_> = lines.into_iter().take(self.limit).map(|line| task::log_line(run, task, line)).collect();
        Some(json!({"pagination": {"current_page": 0, "next_page": 0, "num_pages": 0}, "rows": rows}))
    }
}
