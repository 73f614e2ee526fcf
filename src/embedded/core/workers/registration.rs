//! Registration of workers, and changes of what they have registered.

use std::collections::BTreeMap;
use std::sync::Arc;

use uuid::Uuid;

use super::sessions::find;
use crate::embedded::core::format::validation::Problems;
use crate::embedded::core::store::{Core, Label, Profile, Registration, StatusError, Turn, Worker};
use crate::model::name::is_name;

pub(crate) fn register(core: &mut Core, turn: &mut Turn<'_>, registration: Registration) -> Result<Uuid, StatusError> {
    let mut problems = Problems::default();
    problems.name("Name", &registration.name);
    for (index, action) in registration.actions.iter().enumerate() {
        let parts: Vec<_> = action.split(':').collect();
        if !(2..=3).contains(&parts.len()) || parts.iter().take(2).any(|part| part.is_empty()) {
            let text = "Invalid action ID. Action IDs must be in the format <integrationId>:<verb>";
            problems.add(&format!("Actions[{index}]"), text);
        }
    }
    problems.into_request_result("CreateWorkerOpts")?;
    let id = turn.uuid();
    let profile = Profile {
        name: registration.name,
        actions: registration.actions.iter().map(|action| action.to_lowercase()).collect(),
        slots: registration.slots,
        labels: registration.labels,
        runtime: registration.runtime,
    };
    core.workers.insert(id, Worker::new(turn.now, profile));
    Ok(id)
}

/// Checks the names of services, which have no other effect.
pub(crate) fn check_services(services: &[String]) -> Result<(), StatusError> {
    let mut problems = Problems::default();
    for (index, service) in services.iter().enumerate().filter(|(_, service)| !is_name(service)) {
        problems.name(&format!("Services[{index}]"), service);
    }
    problems.into_request_result("CreateWorkerOpts")
}

pub(crate) fn upsert_labels(core: &mut Core, worker: Uuid, labels: BTreeMap<String, Label>) -> Result<(), StatusError> {
    Arc::make_mut(&mut find(core, worker)?.profile).labels.extend(labels);
    Ok(())
}
