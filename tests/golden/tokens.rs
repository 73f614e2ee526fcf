//! Finds the parts of strings that differ between recordings: ids, trace contexts and times.

use chrono::{DateTime, Utc};

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Token {
    /// An id or a trace context, which is different in each run.
    Name(String),
    Time(DateTime<Utc>),
}

/// Splits a string into its fixed parts, with a placeholder for each token, and the tokens.
pub(crate) fn split(text: &str) -> (String, Vec<Token>) {
    let (mut fixed, mut tokens, mut at) = (String::new(), Vec::new(), 0);
    while let Some(char) = text[at..].chars().next() {
        let (token, length) = match token(text, at) {
            Some((token, length)) => (Some(token), length),
            None => (None, char.len_utf8()),
        };
        match token {
            Some(token) => {
                fixed.push(if matches!(token, Token::Name(_)) { '#' } else { '@' });
                tokens.push(token);
            }
            None => fixed.push(char),
        }
        at += length;
    }
    (fixed, tokens)
}

/// Replaces each token of a string.
pub(crate) fn replace(text: &str, mut with: impl FnMut(&Token) -> String) -> String {
    let (mut whole, mut at) = (String::new(), 0);
    while let Some(char) = text[at..].chars().next() {
        if let Some((token, length)) = token(text, at) {
            whole.push_str(&with(&token));
            at += length;
        } else {
            whole.push(char);
            at += char.len_utf8();
        }
    }
    whole
}

fn token(text: &str, at: usize) -> Option<(Token, usize)> {
    let rest = &text[at..];
    if text[..at].ends_with(|char: char| char.is_ascii_alphanumeric()) {
        return None;
    }
    for pattern in ["00-hhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhh-hhhhhhhhhhhhhhhh-01", "hhhhhhhh-hhhh-hhhh-hhhh-hhhhhhhhhhhh"] {
        if fits(rest, pattern) {
            return Some((Token::Name(rest[..pattern.len()].to_owned()), pattern.len()));
        }
    }
    if fits(rest, "dddd-dd-ddTdd:dd:dd") {
        let length = rest.find('Z')? + 1;
        let time = DateTime::parse_from_rfc3339(&rest[..length]).ok()?;
        return Some((Token::Time(time.to_utc()), length));
    }
    // The milliseconds at the end of a display name.
    if text[..at].ends_with('-')
        && fits(rest, "ddddddddddddd")
        && !rest[13..].starts_with(|char: char| char.is_ascii_digit())
    {
        return Some((Token::Time(DateTime::from_timestamp_millis(rest[..13].parse().ok()?)?), 13));
    }
    None
}

fn fits(text: &str, pattern: &str) -> bool {
    text.len() >= pattern.len()
        && text.bytes().zip(pattern.bytes()).all(|(byte, kind)| match kind {
            b'h' => byte.is_ascii_hexdigit(),
            b'd' => byte.is_ascii_digit(),
            other => byte == other,
        })
}

#[test]
fn tokens_are_found_within_strings() {
    let text = "work-1795442533927 00000000-0000-4000-8001-000000000001 (2026-11-23T14:02:53Z)";
    let (fixed, tokens) = split(text);
    assert_eq!(fixed, "work-@ # (@)");
    assert_eq!(tokens.len(), 3);
    assert_eq!(replace(text, |_| "x".into()), "work-x x (x)");
    assert_eq!(split("{\"n\": 7, \"čaj\": \"1-2\"}").0, "{\"n\": 7, \"čaj\": \"1-2\"}");
}
