//! Attempts run on any thread.

use std::rc::Rc;

use hatchet::{Context, Task};

fn main() {
    let _ = Task::new("count", async |(): (), context: Context| {
        let shared = Rc::new(7);
        context.cancelled().await;
        Ok(*shared)
    });
}
