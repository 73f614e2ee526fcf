//! Starts a run and prints its output: `cargo run --example hello`.
#![expect(clippy::print_stdout, reason = "examples print to the terminal")]

#[derive(serde::Serialize, serde::Deserialize)]
struct Person {
    name: String,
}

#[tokio::main]
async fn main() -> hatchet::Result<()> {
    let engine = hatchet::embedded::Engine::start().await?; // with a server: `let hatchet = hatchet::Client::from_env()?;`
    let hatchet = engine.client();
    let greet = hatchet::Task::new("greet", async |person: Person, _| Ok(format!("Hello, {}!", person.name)));
    let worker = hatchet.worker("greeter").register(&greet).build()?.start().await?;
    println!("{}", hatchet.run(&greet, &Person { name: "Ada".into() }).result().await?);
    worker.shutdown().await;
    Ok(())
}
