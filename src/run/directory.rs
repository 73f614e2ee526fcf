//! Which workflows the server has, by name.
//!
//! A trigger with a name that the server does not know is answered with the id of a run that never exists. So a name is
//! looked up before it is first used, and remembered; what this client registers itself is known without asking.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use crate::client::Client;
use crate::error::{Error, ErrorKind, Result};
use crate::model::{WorkflowId, convert};

/// Rows that one question brings. The server finds names by a part of them, so there may be more than the one.
const PAGE: usize = 200;

#[derive(Debug, Default)]
pub(crate) struct Directory(RwLock<HashMap<String, WorkflowId>>);

impl Directory {
    pub(crate) fn of(client: &Client) -> Arc<Self> {
        client.shared(Self::default)
    }

    /// Remembers a workflow that is known to be there, by its name on the server.
    pub(crate) fn learn(&self, name: String, id: WorkflowId) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(name, id);
    }

    fn known(&self, name: &str) -> Option<WorkflowId> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(name).copied()
    }

    /// The id of a workflow, by the name that the user knows.
    pub(crate) async fn find(client: &Client, name: &str) -> Result<WorkflowId> {
        match Self::of(client).known(&client.prefixed(name)) {
            Some(id) => Ok(id),
            // Boxed, because it is seldom under way and large.
            None => Box::pin(ask(client, name)).await,
        }
    }
}

async fn ask(client: &Client, name: &str) -> Result<WorkflowId> {
    let full = client.prefixed(name);
    let mut offset = 0;
    loop {
        // A question does nothing, whatever it is asked for.
        let rows = client.rpc().rest.workflows(&full, offset, PAGE).await.map_err(Error::unsent)?;
        if let Some(row) = rows.iter().find(|row| row.name == full) {
            let id = convert::id(&row.metadata.id).map_err(Error::unsent)?;
            Directory::of(client).learn(full, id);
            return Ok(id);
        }
        if rows.len() < PAGE {
            let text = format!("the server has no workflow {name:?}");
            return Err(Error::new(ErrorKind::WorkflowNotFound, text).unsent());
        }
        offset += PAGE;
    }
}
