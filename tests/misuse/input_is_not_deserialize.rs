//! The input of a task has to be read from JSON.

use hatchet::{Context, Task};

#[derive(serde::Serialize)]
struct Order {
    id: String,
}

fn main() {
    let _ = Task::new("ship", async |order: Order, _: Context| Ok(order.id));
}
