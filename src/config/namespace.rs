//! The prefix that separates the names of several deployments in one tenant.

/// The canonical form of a namespace: lower case, with `_` at the end. `None` if it is empty.
///
/// The other SDKs use the same form, so that workers in all languages share workflows. An error if the engine does not accept a
/// character.
pub(super) fn normalize(text: &str) -> Result<Option<String>, ()> {
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
    fn namespaces_are_lower_case_and_end_with_an_underscore() {
        for (text, expected) in [
            ("", Ok(None)),
            ("Blue", Ok(Some("blue_"))),
            ("blue_", Ok(Some("blue_"))),
            ("a.B-c_1", Ok(Some("a.b-c_1_"))),
            ("two words", Err(())),
            ("grün", Err(())),
            ("a/b", Err(())),
        ] {
            assert_eq!(normalize(text), expected.map(|n: Option<&str>| n.map(str::to_owned)), "{text}");
        }
    }
}
