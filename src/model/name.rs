//! Names of workflows, tasks and workers, and the names of values.

use std::fmt::Display;

use crate::error::{Error, Result};

/// The description of valid names, for error messages.
pub(crate) const ACCEPTED: &str = "one or more ASCII letters, digits, '.', '-' or '_'";

/// Whether the engine takes it for a name.
pub(crate) fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte))
}

/// Finds a value by the name that `Display` writes.
pub(crate) fn parse_name<T: Copy + Display>(field: &str, values: &[T], name: &str) -> Result<T> {
    values.iter().copied().find(|value| value.to_string() == name).ok_or_else(|| {
        let names: Vec<_> = values.iter().map(ToString::to_string).collect();
        Error::invalid(field, format_args!("expected one of {}, got {name:?}", names.join(", ")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_letters_digits_and_three_marks() {
        assert!(is_name("Greet-2.a_b"));
        for text in ["", "a b", "a/b", "a:b", "ü"] {
            assert!(!is_name(text), "{text:?}");
        }
    }
}
