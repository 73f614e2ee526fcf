//! Names of workflows, tasks and workers.

/// The description of valid names, for error messages.
pub(crate) const ACCEPTED: &str = "one or more ASCII letters, digits, '.', '-' or '_'";

/// Whether the engine takes it for a name.
pub(crate) fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte))
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
