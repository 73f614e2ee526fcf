//! UUIDs of requests.

use uuid::Uuid;

/// The prefix of a UUID that is written as a URN.
const URN: &str = "urn:uuid:";

/// Parses a UUID, or returns Go's error message.
pub(crate) fn go_uuid(text: &str) -> Result<Uuid, String> {
    text.parse().map_err(|_| {
        // The lengths of the formats that Go accepts: 32 digits, with hyphens, in braces, and as a URN.
        match text.len() {
            32 | 36 | 38 => "invalid UUID format".into(),
            45 => match text.get(..URN.len()) {
                Some(prefix) if !prefix.eq_ignore_ascii_case(URN) => format!("invalid urn prefix: {prefix:?}"),
                _ => "invalid UUID format".into(),
            },
            length => format!("invalid UUID length: {length}"),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_problem_depends_on_the_length() {
        let valid = "707d0855-80ab-4e1f-a156-f1c4546cbf52";
        assert_eq!(go_uuid(valid).map(|id| id.to_string()), Ok(valid.to_owned()));
        for (text, problem) in [
            ("", "invalid UUID length: 0"),
            ("zz", "invalid UUID length: 2"),
            ("707d0855-80ab-4e1f-a156-f1c4546cbf5x", "invalid UUID format"),
            ("707d085580ab4e1fa156f1c4546cbf5x", "invalid UUID format"),
            ("urn_uuid:707d0855-80ab-4e1f-a156-f1c4546cbf52", r#"invalid urn prefix: "urn_uuid:""#),
        ] {
            assert_eq!(go_uuid(text), Err(problem.to_owned()), "{text}");
        }
    }
}
