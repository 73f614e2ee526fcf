//! The columns of an archive's files, and rows as their values.
//!
//! Version 1 is described in the [module documentation](super). A file of a newer version may have more columns, which are ignored, and a
//! file of an older one fewer, which are null: columns are never removed and never change their meaning.

use std::fmt::Write as _;
use std::sync::Arc;

use parquet::schema::parser::parse_message_type;
use parquet::schema::types::Type;

use crate::error::{Error, ErrorKind, Result};

/// The version of the schema, in the metadata of each file.
pub(super) const VERSION: u32 = 1;
/// The key of the version in the metadata of a file.
pub(super) const VERSION_KEY: &str = "hatchet.schema_version";

/// The type of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Json,
    Int,
    /// Microseconds since 1970 in UTC.
    Time,
    /// Text by text.
    Map,
}

/// The value of a column in a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Cell {
    Null,
    Text(String),
    Int(i64),
    Map(Vec<(String, String)>),
}

macro_rules! columns {
    ($($variant:ident $name:literal $kind:ident $required:literal;)*) => {
        /// A column.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub(super) enum Column { $($variant),* }

        impl Column {
            /// All columns, in the order of the files.
            pub(super) const ALL: &[Self] = &[$(Self::$variant),*];

            pub(super) fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),* }
            }

            pub(super) fn kind(self) -> Kind {
                match self { $(Self::$variant => Kind::$kind),* }
            }

            /// Whether each row has a value.
            pub(super) fn is_required(self) -> bool {
                match self { $(Self::$variant => $required),* }
            }
        }
    };
}

columns! {
    RunId "run_id" Text true;
    CreatedAt "created_at" Time true;
    WorkflowName "workflow_name" Text true;
    WorkflowId "workflow_id" Text true;
    WorkflowVersionId "workflow_version_id" Text false;
    Status "status" Text true;
    Attempt "attempt" Int true;
    StartedAt "started_at" Time false;
    FinishedAt "finished_at" Time false;
    QueuedMs "queued_ms" Int false;
    RanMs "ran_ms" Int false;
    ElapsedMs "elapsed_ms" Int false;
    RetryCount "retry_count" Int false;
    Error "error" Text false;
    CancelReason "cancel_reason" Text false;
    CancelledBy "cancelled_by" Text false;
    Trigger "trigger" Json true;
    EventId "event_id" Text false;
    ParentRunId "parent_run_id" Text false;
    ParentTaskId "parent_task_id" Text false;
    OriginalRunId "original_run_id" Text false;
    Metadata "metadata" Map true;
    NonStringMetadata "non_string_metadata" Json false;
    EngineMetadata "engine_metadata" Json false;
    Input "input" Json false;
    Output "output" Json false;
    Outcome "outcome" Json false;
    Tasks "tasks" Json false;
    Logs "logs" Json false;
    Conflicts "conflicts" Json false;
    ArchivedAt "archived_at" Time true;
}

/// A run, as one value for each column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row(Vec<Cell>);

impl Default for Row {
    fn default() -> Self {
        Self(vec![Cell::Null; Column::ALL.len()])
    }
}

impl Row {
    pub(super) fn set(&mut self, column: Column, value: impl Into<Cell>) {
        if let Some(cell) = self.0.get_mut(column as usize) {
            *cell = value.into();
        }
    }

    pub(super) fn cell(&self, column: Column) -> &Cell {
        self.0.get(column as usize).unwrap_or(&Cell::Null)
    }

    pub(super) fn text(&self, column: Column) -> Option<&str> {
        match self.cell(column) {
            Cell::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn int(&self, column: Column) -> Option<i64> {
        match self.cell(column) {
            Cell::Int(number) => Some(*number),
            _ => None,
        }
    }

    pub(super) fn map(&self, column: Column) -> &[(String, String)] {
        match self.cell(column) {
            Cell::Map(entries) => entries,
            _ => &[],
        }
    }

    /// About how much memory the values take.
    pub(super) fn size(&self) -> usize {
        let size = |cell: &Cell| match cell {
            Cell::Null | Cell::Int(_) => 8,
            Cell::Text(text) => text.len() + 24,
            Cell::Map(entries) => entries.iter().map(|(key, value)| key.len() + value.len() + 48).sum(),
        };
        self.0.iter().map(size).sum()
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<i64> for Cell {
    fn from(number: i64) -> Self {
        Self::Int(number)
    }
}

impl From<Vec<(String, String)>> for Cell {
    fn from(entries: Vec<(String, String)>) -> Self {
        Self::Map(entries)
    }
}

impl<T: Into<Cell>> From<Option<T>> for Cell {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

/// The schema of these columns.
pub(super) fn schema(columns: &[Column]) -> Result<Arc<Type>> {
    let mut text = "message run {\n".to_owned();
    for column in columns {
        let (name, presence) = (column.name(), if column.is_required() { "REQUIRED" } else { "OPTIONAL" });
        let written = match column.kind() {
            Kind::Text => writeln!(text, "{presence} BYTE_ARRAY {name} (STRING);"),
            Kind::Json => writeln!(text, "{presence} BYTE_ARRAY {name} (JSON);"),
            Kind::Int => writeln!(text, "{presence} INT64 {name};"),
            Kind::Time => writeln!(text, "{presence} INT64 {name} (TIMESTAMP(MICROS,true));"),
            Kind::Map => writeln!(
                text,
                "{presence} GROUP {name} (MAP) {{ REPEATED GROUP key_value {{ \
                 REQUIRED BYTE_ARRAY key (STRING); REQUIRED BYTE_ARRAY value (STRING); }} }}"
            ),
        };
        debug_assert!(written.is_ok(), "strings can be written to");
    }
    text.push('}');
    parse_message_type(&text)
        .map(Arc::new)
        .map_err(|error| Error::new(ErrorKind::Encode, "invalid schema of the archive").with_source(error))
}
