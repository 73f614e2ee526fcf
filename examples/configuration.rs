//! Prints the configuration, and the source of each value.
//!
//! ```text
//! cargo run --example configuration
//! HATCHET_CLIENT_TOKEN=… HATCHET_CLIENT_NAMESPACE=staging cargo run --example configuration
//! ```
//!
//! Without `HATCHET_CLIENT_TOKEN`, it prints the configuration of a client of the embedded engine.
#![expect(clippy::print_stdout, reason = "examples print to the terminal")]

use std::time::Duration;

use hatchet::config::ConfigBuilder;
use hatchet::embedded::Engine;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let builder = ConfigBuilder::from_env().rpc_timeout(Duration::from_secs(10));
    if std::env::var_os("HATCHET_CLIENT_TOKEN").is_some() {
        match builder.build() {
            Ok(config) => println!("{}", config.explain()),
            Err(error) => println!("{error}"), // all problems
        }
        return Ok(());
    }
    let engine = Engine::builder().client_config(builder).start().await?;
    println!("{}", engine.client().config().explain());
    engine.shutdown().await;
    Ok(())
}
