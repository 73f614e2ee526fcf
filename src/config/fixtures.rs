//! Environment variables, files and tokens for tests.

use std::collections::HashMap;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use super::env::Env;

pub(super) const TENANT: &str = "707d0855-80ab-4e1f-a156-f1c4546cbf52";
pub(super) const CERT: &str = "-----BEGIN CERTIFICATE-----\nQ0VSVA==\n-----END CERTIFICATE-----\n";
pub(super) const KEY_BODY: &str = "S0VZLU1BVEVSSUFM";
pub(super) const KEY: &str = "-----BEGIN PRIVATE KEY-----\nS0VZLU1BVEVSSUFM\n-----END PRIVATE KEY-----\n";

/// The claims of a token of a local engine behind TLS.
pub(super) fn claims() -> Value {
    json!({
        "aud": "http://localhost:8080", "exp": 1_900_000_000, "grpc_broadcast_address": "localhost:7077",
        "iat": 1_700_000_000, "iss": "http://localhost:8080", "server_url": "https://localhost:8080",
        "sub": TENANT, "token_id": "0a0a0a0a-0000-4000-8000-000000000001",
    })
}

/// A token with these claims and an invalid signature.
pub(super) fn jwt(claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.c2lnbmF0dXJl", part(&json!({"alg": "ES256", "kid": "1"})), part(claims))
}

/// Variables, named without `HATCHET_CLIENT_`, and files.
#[derive(Default)]
pub(super) struct FakeEnv {
    vars: HashMap<String, OsString>,
    files: HashMap<PathBuf, Vec<u8>>,
}

impl FakeEnv {
    /// An environment with a valid token and nothing else.
    pub(super) fn with_token() -> Self {
        Self::default().var("TOKEN", jwt(&claims()))
    }

    pub(super) fn var(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.vars.insert(format!("HATCHET_CLIENT_{name}"), value.into());
        self
    }

    pub(super) fn file(mut self, path: &str, content: impl Into<Vec<u8>>) -> Self {
        self.files.insert(path.into(), content.into());
        self
    }
}

impl Env for FakeEnv {
    fn var(&self, name: &str) -> Option<OsString> {
        self.vars.get(name).cloned()
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.files.get(path).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}
