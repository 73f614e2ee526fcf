//! Which event keys a trigger matches. The engine passes its text to the database, so all wildcards of `LIKE` are wildcards
//! here, too: `*` and `%` match any text, `_` any character, and a backslash escapes.

enum Part {
    AnyText,
    AnyChar,
    Char(char),
}

/// Whether a trigger matches a key.
pub(crate) fn matches(trigger: &str, key: &str) -> bool {
    let parts = parts(trigger);
    let key: Vec<char> = key.chars().collect();
    let (mut part, mut at) = (0, 0);
    // Where to continue if what follows the last `AnyText` does not match: with one more character for it.
    let mut retry: Option<(usize, usize)> = None;
    loop {
        match (parts.get(part), key.get(at)) {
            (None, None) => return true,
            (Some(Part::AnyText), _) => {
                retry = Some((part, at));
                part += 1;
                continue;
            }
            (Some(Part::AnyChar), Some(_)) => {
                (part, at) = (part + 1, at + 1);
                continue;
            }
            (Some(Part::Char(wanted)), Some(found)) if wanted == found => {
                (part, at) = (part + 1, at + 1);
                continue;
            }
            _ => {}
        }
        match retry {
            Some((any, taken)) if taken < key.len() => {
                retry = Some((any, taken + 1));
                (part, at) = (any + 1, taken + 1);
            }
            _ => return false,
        }
    }
}

fn parts(trigger: &str) -> Vec<Part> {
    let mut chars = trigger.chars();
    let mut parts = Vec::new();
    while let Some(char) = chars.next() {
        parts.push(match char {
            '*' | '%' => Part::AnyText,
            '_' => Part::AnyChar,
            '\\' => Part::Char(chars.next().unwrap_or('\\')),
            other => Part::Char(other),
        });
    }
    parts
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn it_matches_as_the_real_engine() {
        for (trigger, on, not_on) in [
            ("K:a:*", &["K:a:1", "K:a:", "K:a:1:end"][..], &["K:a"][..]),
            ("K:*:end", &["K:zz:end", "K:a:1:end", "K::end"], &["K:end", "K:a:ende"]),
            ("K:x_y", &["K:x_y", "K:xay"], &["K:xabY", "K:xy"]),
            ("K:p%q", &["K:p%q", "K:pq", "K:pzzzq"], &["K:p"]),
            ("K:plain", &["K:plain"], &["K:PLAIN", "K:plain "]),
            ("K:q?", &["K:q?"], &["K:qa"]),
            ("", &[""], &["K"]),
            ("*", &["", "K", "é"], &[]),
        ] {
            assert!(on.iter().all(|key| matches(trigger, key)), "{trigger}");
            assert!(!not_on.iter().any(|key| matches(trigger, key)), "{trigger}");
        }
    }

    /// The same by brute force.
    fn slowly(trigger: &[char], key: &[char]) -> bool {
        match (trigger.split_first(), key.split_first()) {
            (None, None) => true,
            (Some(('*' | '%', rest)), _) => (0..=key.len()).any(|taken| slowly(rest, &key[taken..])),
            (Some(('_', rest)), Some((_, tail))) => slowly(rest, tail),
            (Some((wanted, rest)), Some((found, tail))) => wanted == found && slowly(rest, tail),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn it_matches_as_by_brute_force(trigger in "[ab*_%]{0,7}", key in "[ab]{0,9}") {
            let chars = |text: &str| text.chars().collect::<Vec<_>>();
            prop_assert_eq!(matches(&trigger, &key), slowly(&chars(&trigger), &chars(&key)));
        }
    }
}
