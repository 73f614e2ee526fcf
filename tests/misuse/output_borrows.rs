//! An output is read back by whoever waits for it, so it cannot borrow.

use hatchet::{Client, Task};

async fn start(hatchet: Client, greet: Task<(), &'static str>) {
    let _ = hatchet.run(&greet, &()).start().await;
}

fn main() {}
