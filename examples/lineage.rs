//! Finds the event, the children and the reruns of a run.
//!
//! ```text
//! cargo run --example lineage
//! ```
//!
//! An event starts a run. The run starts children, and is rerun. Each of them can be found from every other. If
//! `HATCHET_CLIENT_TOKEN` is set, the example runs against a real Hatchet server.
#![expect(clippy::print_stdout, reason = "examples print to the terminal")]

use std::error::Error;

use hatchet::embedded::Engine;
use hatchet::{Client, Context, RunHandle, Task};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Album {
    photos: u32,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let engine = if std::env::var_os("HATCHET_CLIENT_TOKEN").is_none() { Some(Engine::start().await?) } else { None };
    let hatchet = engine.as_ref().map_or_else(Client::from_env, |engine| Ok(engine.client()))?;
    let thumbnail = Task::new("lineage-thumbnail", async |album: Album, _: Context| Ok(album.photos));
    let album = Task::new("lineage-album", {
        let thumbnail = thumbnail.clone();
        move |album: Album, context: Context| {
            let thumbnail = thumbnail.clone();
            async move {
                // Children are linked to their parent; a retry of this task does not start them again.
                let runs =
                    context.run_many(&thumbnail, (0..album.photos).map(|photos| Album { photos })).start().await?;
                for run in runs {
                    run?.result().await?;
                }
                Ok(album.photos)
            }
        }
    })
    .on_event("lineage:uploaded");
    let worker = hatchet.worker("photos").register(&thumbnail).register(&album).build()?.start().await?;

    let event = hatchet.push("lineage:uploaded", &Album { photos: 3 }).send().await?;
    println!("event {}", event.id());
    let started = event.runs().await?.into_iter().next().ok_or("no workflow listens to the event")?;
    let run: RunHandle<u32> = started.typed();
    run.result().await?;
    print(&run, "run").await?;
    let again = run.rerun().start().await?;
    again.result().await?;
    print(&again, "rerun").await?;

    println!("{}", worker.shutdown().await);
    if let Some(engine) = engine {
        engine.shutdown().await;
    }
    Ok(())
}

async fn print(run: &RunHandle<u32>, what: &str) -> Result<(), Box<dyn Error>> {
    let details = run.details().await?;
    println!("{what} {}: started by {}", run.id(), details.trigger);
    if let Some(original) = details.original_run_id() {
        println!("  rerun of {original}");
    }
    for child in run.children().await? {
        println!("  child {} ({}), {}", child.id, child.workflow_name.as_deref().unwrap_or("?"), child.trigger());
    }
    Ok(())
}
