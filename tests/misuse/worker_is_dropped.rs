//! The worker stops as soon as it is dropped.

#![deny(unused_must_use)]

use hatchet::Worker;

async fn start(worker: Worker) -> hatchet::Result<()> {
    worker.start().await?;
    Ok(())
}

fn main() {}
