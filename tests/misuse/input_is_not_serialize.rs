//! A worker only reads the input of a task. Whoever starts a run writes it.

use hatchet::{Client, Task};

#[derive(serde::Deserialize)]
struct Order {
    id: String,
}

async fn start(hatchet: Client, ship: Task<Order, ()>) {
    let _ = hatchet.run(&ship, &Order { id: "1".into() }).start().await;
}

fn main() {}
