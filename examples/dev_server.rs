//! A Hatchet server for development: one process, no database, any SDK in any language.
//!
//! ```text
//! cargo run --example dev_server                   # gRPC on 7070, REST on 8080
//! cargo run --example dev_server -- 0 0 --quirks   # free ports, and the real engine's defects
//! ```
//!
//! It prints what to export, and serves on 127.0.0.1 until Ctrl-C. Everything is in memory: what it knew is gone with it.
#![expect(clippy::print_stdout, reason = "a program for the terminal")]

use hatchet::embedded::{Engine, Quirks};

const USAGE: &str = "usage: dev_server [GRPC_PORT REST_PORT] [--quirks]";

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (flags, ports): (Vec<_>, Vec<_>) = std::env::args().skip(1).partition(|argument| argument.starts_with("--"));
    let ports = ports.iter().map(|port| port.parse()).collect::<Result<Vec<u16>, _>>().map_err(|_| USAGE)?;
    let (grpc, rest) = match ports.as_slice() {
        [] => (7070, 8080),
        [grpc, rest] => (*grpc, *rest),
        _ => return Err(USAGE.into()),
    };
    let quirks = match flags.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [] => Quirks::none(),
        ["--quirks"] => Quirks::all(),
        _ => return Err(USAGE.into()),
    };

    let engine = Engine::builder().listen(grpc, rest).quirks(quirks).start().await?;
    for (name, value) in engine.environment() {
        println!("export {name}={value}");
    }
    // Comments, so that the output as a whole can be read by a shell.
    println!("# {quirks:?}");
    println!("# serving until Ctrl-C");
    tokio::signal::ctrl_c().await?;
    println!("# {} runs, all forgotten now", engine.run_count().await);
    engine.shutdown().await;
    Ok(())
}
