//! The code of a task runs many times, so a captured value has to be cloned for each call.

use hatchet::{Context, Task};

struct Connection;

impl Connection {
    async fn close(self) {}
}

fn main() {
    let connection = Connection;
    let _ = Task::new("close", move |(): (), _: Context| async move {
        connection.close().await;
        Ok(())
    });
}
