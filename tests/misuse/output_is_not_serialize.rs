//! The output of a task has to be written as JSON.

use hatchet::{Context, Task};

struct Receipt;

fn main() {
    let _ = Task::new("charge", async |(): (), _: Context| Ok(Receipt));
}
