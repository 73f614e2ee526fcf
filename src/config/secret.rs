//! A text that must not be printed.

use std::fmt;

/// A text that must not reach a log: an API token, a private key.
///
/// `Debug` shows `Secret(hidden)`; there is no `Display` and no serialization. The text is had by
/// asking for it, with [`expose`](Self::expose), which is easy to find in a review.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    pub(super) const fn new(text: String) -> Self {
        Self(text)
    }

    /// The text itself. Keep it out of logs and error messages.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(hidden)")
    }
}

/// Whether a text may be a secret that was put into the wrong place.
///
/// Messages quote what was found, and the classic mistake is a value in the wrong variable: a token
/// as the host, a key where the path of its file belongs. Some of those would even be accepted.
pub(super) fn looks_secret(text: &str) -> bool {
    text.contains("-----BEGIN") || text.split_whitespace().any(looks_like_token) || looks_like_base64_key(text)
}

/// Whether a text is a URL with a name or password in it.
pub(super) fn has_credentials(text: &str) -> bool {
    text.contains("://") && text.contains('@')
}

/// "eyJ" is how base64 writes the `{"` that every token begins with.
fn looks_like_token(word: &str) -> bool {
    const SHORTEST_HEADER: usize = 20;
    word.trim_start_matches(['"', '\'']).starts_with("eyJ") && word.len() >= SHORTEST_HEADER
}

/// Base64 of a DER key begins with `M`, base64 of a PEM file with `LS0t`; neither has the dots and
/// dashes of a long host name, and a long path begins otherwise.
fn looks_like_base64_key(text: &str) -> bool {
    const SHORTEST_KEY: usize = 48;
    (text.starts_with('M') || text.starts_with("LS0t"))
        && text.len() >= SHORTEST_KEY
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "+/=".contains(c) || c.is_whitespace())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_hides_the_text() {
        let secret = Secret::new("hunter2".to_owned());
        assert_eq!(format!("{secret:?} {secret:#?}"), "Secret(hidden) Secret(hidden)");
        assert_eq!(secret.expose(), "hunter2");
    }

    #[test]
    fn secrets_in_the_wrong_place_are_recognised() {
        let der = format!("MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0w{}", "a".repeat(40));
        for secret in ["Bearer eyJhbGciOiJFUzI1NiJ9", "-----BEGIN PRIVATE KEY-----", &der] {
            assert!(looks_secret(secret), "{secret}");
        }
        assert!(has_credentials("https://me:word@example.com"));
        let path = "/var/run/secrets/kubernetes/io/serviceaccount/tls/key";
        for harmless in ["localhost:7070", path, "My/certs/client.pem", "MINIMAL", "monkeyJungle.example.com", "eyJ"] {
            assert!(!looks_secret(harmless) && !has_credentials(harmless), "{harmless}");
        }
    }
}
