//! Without `start`, nothing is started.

#![deny(unused_must_use)]

use hatchet::{Client, Task};

async fn start(hatchet: Client, greet: Task<(), String>) {
    hatchet.run(&greet, &());
}

fn main() {}
