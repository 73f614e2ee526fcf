//! The token, which has the same claims as a real one: the engine's addresses and its tenant.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;
use uuid::Uuid;

/// The year 2126, in seconds since 1970.
const EXPIRES_AT: i64 = 4_922_380_800;

/// The random part of a token: two unpredictable numbers, unless the engine has a seed. With a seed, they can be computed from any
/// of its ids.
pub(super) fn random(seed: Option<u64>) -> [u128; 2] {
    match seed {
        Some(seed) => {
            let random = u128::from(seed) << 64 | u128::from(!seed);
            [random, random.rotate_left(64)]
        }
        // From the random number generator of the operating system.
        None => [Uuid::new_v4().as_u128(), Uuid::new_v4().as_u128()],
    }
}

/// A token for a tenant, with the engine's addresses. The signature is random, because the engine compares the whole token.
pub(super) fn issue(tenant: Uuid, grpc: &str, rest: &str, random: [u128; 2]) -> String {
    let part = |value: serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let header = part(json!({"alg": "ES256", "kid": "embedded"}));
    // A token's id may be public, so it must not reveal the signature.
    let [id, signature] = random;
    let token_id = uuid::Builder::from_random_bytes(id.to_be_bytes()).into_uuid().to_string();
    let claims = part(json!({
        "aud": rest,
        "exp": EXPIRES_AT,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::embedded::Engine;
    use crate::embedded::actor::seeds_of;
    use crate::{Context, Task};

    const GRPC: &str = "embedded:7070";
    const REST: &str = "http://embedded";

    async fn token_and_id(engine: &Engine) -> (String, Uuid) {
        let hatchet = engine.client();
        let task: Task<(), ()> = Task::new("task", async |(): (), _: Context| Ok(()));
        let worker = hatchet.worker("worker").register(&task).build().unwrap().start().await.unwrap();
        let run = hatchet.run(&task, &()).start().await.unwrap().id();
        worker.shutdown().await;
        (hatchet.config().token().expose().to_owned(), run.to_string().parse().unwrap())
    }

    /// All tokens of the seeds that can have produced an id.
    fn guesses(tenant: Uuid, id: Uuid) -> impl Iterator<Item = String> {
        seeds_of(id.as_u128(), 1000).map(move |seed| issue(tenant, GRPC, REST, random(Some(seed))))
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_cannot_be_computed_from_the_id_of_a_run() {
        let engine = Engine::builder().seed(7).start().await.unwrap();
        let tenant = engine.tenant_id().to_string().parse().unwrap();
        let (token, id) = token_and_id(&engine).await;
        assert!(guesses(tenant, id).any(|guess| guess == token), "with a seed, the token can be computed");

        let engine = Engine::start().await.unwrap();
        let (token, id) = token_and_id(&engine).await;
        assert!(seeds_of(id.as_u128(), 1000).next().is_some(), "the seed can be computed from an id");
        assert!(guesses(tenant, id).all(|guess| guess != token));
    }

    #[tokio::test(start_paused = true)]
    async fn only_seeded_tokens_are_reproducible() {
        let token = async |seed: Option<u64>| {
            let builder = Engine::builder();
            let engine = seed.map_or(builder.clone(), |seed| builder.seed(seed)).start().await.unwrap();
            engine.client().config().token().expose().to_owned()
        };
        assert_eq!(token(Some(1)).await, token(Some(1)).await);
        assert_ne!(token(Some(1)).await, token(Some(2)).await);
        assert_ne!(token(None).await, token(None).await);
    }
}
