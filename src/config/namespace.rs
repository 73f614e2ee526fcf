//! The prefix that keeps the names of one deployment apart from another's.

/// The canonical form of a namespace: lower case, with `_` at the end; `None` when it is empty.
///
/// Other SDKs write it so, and a worker of theirs must find the workflows of ours.
/// An error when a letter is not accepted by the engine.
pub(super) fn normalise(text: &str) -> Result<Option<String>, ()> {
    if !text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_')) {
        return Err(());
    }
    if text.is_empty() {
        return Ok(None);
    }
    let mut namespace = text.to_ascii_lowercase();
    if !namespace.ends_with('_') {
        namespace.push('_');
    }
    Ok(Some(namespace))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lower_case_with_an_underscore_at_the_end() {
        for (text, expected) in [
            ("", Ok(None)),
            ("Blue", Ok(Some("blue_"))),
            ("blue_", Ok(Some("blue_"))),
            ("a.B-c_1", Ok(Some("a.b-c_1_"))),
            ("two words", Err(())),
            ("grün", Err(())),
            ("a/b", Err(())),
        ] {
            assert_eq!(normalise(text), expected.map(|n: Option<&str>| n.map(str::to_owned)), "{text}");
        }
    }
}
