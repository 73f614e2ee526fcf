//! The subscription that has the chunks of a run: by a tag of the run, or by its id.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde_json::Value;
use tokio::time::Instant;

use super::follower::Watched;
use super::lookup::{MAX_LAG, MAX_PAUSE};
use super::outage::Outage;
use crate::error::{Error, ErrorKind, Result};
use crate::feed::{CLIENT_KEY, FAMILY_PREFIX, Membership, Tag, creation_deadline};
use crate::model::metadata;
use crate::observe::if_found;
use crate::transport::Polling;

/// What is known of a run.
struct Fetched {
    tags: BTreeMap<String, Value>,
    created_at: Option<DateTime<Utc>>,
    /// Whether the server could not be reached for some time.
    was_late: bool,
}

/// The subscription that has the chunks of a run.
pub(super) struct Joined {
    pub(super) membership: Membership,
    /// When the run was created, if it was fetched.
    pub(super) created_at: Option<DateTime<Utc>>,
    /// Whether there was an outage before, so that chunks may be missing.
    pub(super) was_late: bool,
}

/// Joins the group of one of the tags of the run, or, if it has none, that of the run.
pub(super) async fn join(watched: &Watched, with_children: bool) -> Result<Joined> {
    let events = &watched.client.feed().events;
    if watched.started_at.is_some() && !with_children {
        let membership = events.join(watched.client.feed().tag());
        return Ok(Joined { membership, created_at: None, was_late: false });
    }
    let Fetched { tags, created_at, was_late } = fetch(watched).await?;
    let (tag, run) = (tag(tags, with_children), watched.run);
    if tag.is_none() && with_children {
        let problem = format!(
            "expected a run with a tag, which its children inherit, got run {run} without one; set one with RunBuilder::metadata"
        );
        return Err(Error::invalid("run", problem));
    }
    Ok(Joined { membership: events.join_for_chunks(tag, run)?, created_at, was_late })
}

/// The tag that fits best: that of the client, which its children have only if this client starts them, or one that they inherit. Of those of
/// the user, the one with the longest value: it is probably an id, which fewer runs have than something like `prod`.
fn tag(tags: BTreeMap<String, Value>, with_children: bool) -> Option<Tag> {
    let (of_user, reserved) = metadata::split(tags);
    let mut of_client = reserved.iter().filter(|(key, _)| *key == CLIENT_KEY);
    let mut of_family = reserved.iter().filter(|(key, _)| key.starts_with(FAMILY_PREFIX));
    let tag = |(key, value): (&String, &Value)| Some((key.clone(), value.as_str()?.to_owned()));
    let longest = || of_user.iter().filter_map(tag).max_by_key(|(_, value)| value.len());
    if with_children {
        of_family.find_map(tag).or_else(longest).or_else(|| of_client.find_map(tag))
    } else {
        of_client.find_map(tag).or_else(longest)
    }
}

/// Fetches the metadata of a run. The chunks that are sent meanwhile are missing, so the first response counts. An outage is waited for.
async fn fetch(watched: &Watched) -> Result<Fetched> {
    let (client, run) = (&watched.client, watched.run);
    let (gate, created_by) = (client.feed().fetcher.gate(), creation_deadline(watched.started_at));
    let (mut outage, mut polling) = (Outage::default(), Polling::backoff(MAX_PAUSE, Instant::now() + MAX_LAG));
    let mut was_late = false;
    loop {
        let permit = gate.pass(1).await;
        let found = if_found(client.rpc().rest.run(run).await);
        drop(permit);
        match found {
            Ok(Some(found)) => {
                let tags = found.run.additional_metadata.unwrap_or_default();
                return Ok(Fetched { tags, created_at: found.run.metadata.created_at, was_late });
            }
            Ok(None) => {}
            Err(error) => {
                outage.pause(client, error).await?;
                was_late = true;
                continue;
            }
        }
        // gRPC has a run before REST.
        let permit = gate.pass(1).await;
        let found = client.rpc().admin.run_details(run).await;
        drop(permit);
        match found {
            Ok(found) => return Ok(Fetched { tags: found.metadata, created_at: None, was_late }),
            Err(error) if error.is_not_found() && Instant::now() >= created_by => {
                return Err(Error::run_not_found(run));
            }
            // It is too large for this call, so REST will have it.
            Err(error) if error.is_not_found() || error.kind() == ErrorKind::TooLarge => {
                if !polling.again().await {
                    return Err(Error::run_not_found(run));
                }
            }
            Err(error) => {
                outage.pause(client, error).await?;
                was_late = true;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;
    use crate::embedded::Engine;
    use crate::model::RunId;
    use crate::scripted::{Scripted, client};

    fn run() -> RunId {
        uuid::Uuid::from_u128(1).into()
    }

    #[test]
    fn the_tag_of_the_client_is_preferred_without_children() {
        let tags = |keys: &[&str]| keys.iter().map(|key| ((*key).to_owned(), json!("value"))).collect();
        let family = format!("{FAMILY_PREFIX}1");
        let key = |keys: &[&str], with_children| tag(tags(keys), with_children).map(|(key, _)| key);
        assert_eq!(key(&["tenant", CLIENT_KEY, &family], false).as_deref(), Some(CLIENT_KEY));
        assert_eq!(key(&["tenant", CLIENT_KEY, &family], true), Some(family.clone()));
        assert_eq!(key(&["tenant", CLIENT_KEY], true).as_deref(), Some("tenant"));
        assert_eq!(key(&[&family], false), None, "only streams with children open its subscription");
        assert_eq!(tag([("count".to_owned(), json!(7))].into(), false), None, "the engine compares text");
    }

    #[tokio::test(start_paused = true)]
    async fn an_outage_is_waited_for() {
        let body = r#"{"run":{"metadata":{"id":"00000000-0000-0000-0000-000000000001"},"status":"RUNNING","additionalMetadata":{"a":"b"}}}"#;
        let (client, calls) = client(move |name, count| match name {
            name if name.starts_with("GET ") && (2..30).contains(&count) => Scripted::Rest(503, String::new()),
            name if name.starts_with("GET ") => Scripted::Rest(200, body.into()),
            _ => Scripted::Hangs,
        });
        let watched = Watched::of(&client.run_handle(run()));
        assert!(!fetch(&watched).await.unwrap().was_late);
        let started = Instant::now();
        let found = fetch(&watched).await.unwrap();
        assert_eq!((found.tags, found.was_late), ([("a".to_owned(), json!("b"))].into(), true));
        assert!(started.elapsed() > Duration::from_secs(20), "{:?}", started.elapsed());
        assert_eq!(calls.count("GetRunDetails"), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_run_that_does_not_exist_is_not_found() {
        let engine = Engine::start().await.unwrap();
        let handle = engine.client().run_handle(run());
        let started = Instant::now();
        let error = handle.chunks().next().await.unwrap().unwrap_err();
        assert_eq!((error.kind(), error.run_id()), (ErrorKind::RunNotFound, Some(run())));
        assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    }
}
