//! The token: like the real one, claims that say where the engine is and whose it is.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;
use uuid::Uuid;

/// A century from 2026, in seconds since 1970.
const EXPIRES: i64 = 4_922_380_800;

/// The random part of a token: two numbers that nobody can guess, unless there is a seed for the engine's ids, which are known to
/// whoever starts a run.
pub(super) fn random(seed: Option<u64>) -> [u128; 2] {
    match seed {
        Some(seed) => {
            let random = u128::from(seed) << 64 | u128::from(!seed);
            [random, random.rotate_left(64)]
        }
        // From the system's source of randomness.
        None => [Uuid::new_v4().as_u128(), Uuid::new_v4().as_u128()],
    }
}

/// A token for a tenant, with the engine's addresses. Its signature is as good as any: the engine knows its own text.
pub(super) fn issue(tenant: Uuid, grpc: &str, rest: &str, random: [u128; 2]) -> String {
    let part = |value: serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let header = part(json!({"alg": "ES256", "kid": "embedded"}));
    // A token's id may be shown to others, so it says nothing of the signature.
    let [id, signature] = random;
    let token_id = uuid::Builder::from_random_bytes(id.to_be_bytes()).into_uuid().to_string();
    let claims = part(json!({
        "aud": rest,
        "exp": EXPIRES,
        "grpc_broadcast_address": grpc,
        "iat": 1_767_225_600,
        "iss": rest,
        "server_url": rest,
        "sub": tenant.to_string(),
        "token_id": token_id,
    }));
    let signature = URL_SAFE_NO_PAD.encode([signature.to_be_bytes(), (!signature).to_le_bytes()].concat());
    format!("{header}.{claims}.{signature}")
}
