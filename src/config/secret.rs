//! Strings that must not be printed.

use std::fmt;

/// A string that must not be logged, such as an API token or a private key.
///
/// `Debug` prints `Secret(hidden)`. `Secret` implements neither `Display` nor `Serialize`. [`expose`](Self::expose) returns the string.
///
/// ```
/// # use hatchet::embedded::Engine;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> hatchet::Result<()> {
/// # let engine = Engine::start().await?;
/// # let client = engine.client();
/// let token = client.config().token();
/// assert_eq!(format!("{token:?}"), "Secret(hidden)");
/// assert!(!token.expose().is_empty());
/// # engine.shutdown().await;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    pub(super) const fn new(text: String) -> Self {
        Self(text)
    }

    /// Returns the secret itself. Do not log it.
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

/// Whether a string may be a secret that was set in the wrong variable.
///
/// Error texts quote values, and users confuse variables: they set a token as the host, or a key instead of the path of its file.
pub(super) fn looks_secret(text: &str) -> bool {
    text.contains("-----BEGIN") || text.split_whitespace().any(looks_like_token) || looks_like_base64_key(text)
}

/// Whether a string is a URL with a user name or a password.
pub(super) fn has_credentials(text: &str) -> bool {
    text.contains("://") && text.contains('@')
}

/// Every token begins with `{"`, which is "eyJ" in base64.
fn looks_like_token(word: &str) -> bool {
    const MIN_HEADER_LEN: usize = 20;
    word.trim_start_matches(['"', '\'']).starts_with("eyJ") && word.len() >= MIN_HEADER_LEN
}

/// A DER key begins with `M` in base64, and a PEM file with `LS0t`. Long host names contain dots or dashes, and base64 does not.
fn looks_like_base64_key(text: &str) -> bool {
    const MIN_KEY_LEN: usize = 48;
    (text.starts_with('M') || text.starts_with("LS0t"))
        && text.len() >= MIN_KEY_LEN
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "+/=".contains(c) || c.is_whitespace())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_hides_the_secret() {
        let secret = Secret::new("hunter2".to_owned());
        assert_eq!(format!("{secret:?} {secret:#?}"), "Secret(hidden) Secret(hidden)");
        assert_eq!(secret.expose(), "hunter2");
    }

    #[test]
    fn secrets_are_detected() {
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
