//! Prints all status changes of the runs with a tag as they happen, whichever client starts them. Here, the tag is a tenant.
//!
//! ```text
//! cargo run --example tenant_feed
//! ```
//!
//! If `HATCHET_CLIENT_TOKEN` is set, the example runs against a real Hatchet server. It ends after a few runs.

#![expect(clippy::print_stdout, reason = "examples print to the terminal")]

use std::error::Error;
use std::time::Duration;

use hatchet::embedded::Engine;
use hatchet::model::ChangeKind;
use hatchet::{Client, Context, Task, TaskError};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let engine = if std::env::var_os("HATCHET_CLIENT_TOKEN").is_none() { Some(Engine::start().await?) } else { None };
    let hatchet = engine.as_ref().map_or_else(Client::from_env, |engine| Ok(engine.client()))?;

    let invoice = Task::new("example-invoice", async |(): (), context: Context| {
        tokio::time::sleep(Duration::from_millis(300)).await;
        if context.attempt() == 1 { Err(TaskError::new("the printer is busy")) } else { Ok(()) }
    })
    .retries(1);
    let worker = hatchet.worker("invoices").slots(2).register(&invoice).build()?.start().await?;

    // Elsewhere, some runs are started, with two different tags.
    let (client, task) = (hatchet.clone(), invoice.clone());
    let started = tokio::spawn(async move {
        for number in 0..6 {
            let tenant = if number % 2 == 0 { "acme" } else { "other" };
            client.run(&task, &()).metadata("tenant", tenant).start().await?;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok::<(), hatchet::Error>(())
    });

    // `.since(time)` also includes runs that have ended, if they were created at or after `time`.
    let mut feed = hatchet.watch_matching("tenant", "acme").only(ChangeKind::Run);
    let mut ended = 0;
    while let Some(change) = feed.next().await.transpose()? {
        println!("{} {change} {}", change.run_id(), change.error().unwrap_or_default());
        ended += u32::from(change.is_final());
        if ended == 3 {
            break;
        }
    }
    started.await??;
    worker.shutdown().await;
    if let Some(engine) = engine {
        engine.shutdown().await;
    }
    Ok(())
}
