//! What expressions may use, by the place in which they are written.

use super::signatures::{self, Signature};
use super::types::Type;

/// The names and functions that an expression may use, besides the standard ones.
#[derive(Debug)]
pub(crate) struct Environment {
    variables: &'static [&'static str],
    /// cel-go's extension for strings.
    has_strings: bool,
    checksum: Checksum,
}

#[derive(Debug, PartialEq, Eq)]
enum Checksum {
    Undeclared,
    /// A call is valid, but its evaluation fails.
    Declared,
    Implemented,
}

impl Environment {
    /// Of event filters, and of the evaluation for debugging.
    pub(crate) const FILTER: Self = Self {
        variables: &["input", "additional_metadata", "payload", "event_id", "event_key"],
        has_strings: true,
        checksum: Checksum::Declared,
    };
    /// Of idempotency keys and of concurrency limits.
    pub(crate) const KEY: Self = Self {
        variables: &["input", "additional_metadata", "workflow_run_id"],
        has_strings: true,
        checksum: Checksum::Implemented,
    };
    /// Of rate limits and batches. `parents` is accepted, but has no value.
    pub(crate) const LIMIT: Self = Self {
        variables: &["input", "additional_metadata", "workflow_run_id", "parents"],
        has_strings: true,
        checksum: Checksum::Implemented,
    };
    /// Of conditions. Both variables mean the output or the payload that the condition is about.
    pub(crate) const CONDITION: Self =
        Self { variables: &["input", "output"], has_strings: false, checksum: Checksum::Undeclared };

    /// The declared type of a variable.
    pub(super) fn variable(&self, name: &str) -> Option<Type> {
        self.variables.contains(&name).then(|| match name {
            "event_id" | "event_key" | "workflow_run_id" => Type::String,
            "parents" => Type::map(Type::String, Type::map(Type::String, Type::Dyn)),
            _ => Type::map(Type::String, Type::Dyn),
        })
    }

    /// The signatures of an operator or a function.
    pub(super) fn function(&self, name: &str) -> Option<&'static [Signature]> {
        match name {
            "checksum" if self.checksum == Checksum::Undeclared => None,
            "checksum" => Some(signatures::checksum(self.has_checksum())),
            _ => {
                signatures::standard(name).or_else(|| self.has_strings.then(|| signatures::of_strings(name)).flatten())
            }
        }
    }

    /// Whether `checksum` can be evaluated.
    pub(super) fn has_checksum(&self) -> bool {
        self.checksum == Checksum::Implemented
    }
}
