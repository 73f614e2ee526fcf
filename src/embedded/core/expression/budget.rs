//! The limits of an evaluation. Expressions and inputs are untrusted.

use super::error::{EvalError, TOO_LARGE};

/// The maximum size in bytes of a value that an expression produces: the maximum size of a message.
const MAX_VALUE_BYTES: usize = 4 << 20;
/// The maximum size in bytes of all values that an evaluation produces.
const MAX_BYTES: usize = 64 << 20;
/// The maximum number of steps of an evaluation. A node that is evaluated is one step, and so are 256 bytes that are read.
const MAX_STEPS: usize = 1_000_000;
const BYTES_PER_STEP: usize = 256;

/// What an evaluation may still use.
pub(super) struct Budget {
    steps: usize,
    bytes: usize,
}

impl Budget {
    pub(super) const fn new() -> Self {
        Self { steps: MAX_STEPS, bytes: MAX_BYTES }
    }

    pub(super) fn step(&mut self) -> Result<(), EvalError> {
        self.steps = self.steps.checked_sub(1).ok_or(TOO_LARGE)?;
        Ok(())
    }

    /// Counts the work on a value of this size in bytes.
    pub(super) fn read(&mut self, bytes: usize) -> Result<(), EvalError> {
        self.steps = self.steps.checked_sub(1 + bytes / BYTES_PER_STEP).ok_or(TOO_LARGE)?;
        Ok(())
    }

    /// Counts a value of this size in bytes, before it is made.
    pub(super) fn make(&mut self, bytes: usize) -> Result<(), EvalError> {
        self.read(bytes)?;
        self.bytes = self.bytes.checked_sub(bytes).ok_or(TOO_LARGE)?;
        fits(bytes)
    }
}

/// Whether a value may have this size in bytes.
pub(super) fn fits(bytes: usize) -> Result<(), EvalError> {
    if bytes > MAX_VALUE_BYTES { Err(TOO_LARGE) } else { Ok(()) }
}
