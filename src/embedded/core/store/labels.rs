//! Labels of workers, and what tasks and runs require of them.

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Label {
    Text(String),
    Number(i32),
    Nothing,
}

/// A requirement or a preference for one label of a worker.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct DesiredLabel {
    pub(crate) value: Label,
    pub(crate) required: bool,
    pub(crate) comparator: Comparator,
    pub(crate) weight: i32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Comparator {
    Equal,
    NotEqual,
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
}
