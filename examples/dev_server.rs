//! A Hatchet server for development: one process, no database, any SDK in any language.
//!
//! ```text
//! cargo run --example dev_server                   # gRPC on 7070, REST on 8080
//! cargo run --example dev_server -- 0 0 --quirks   # free ports, and the real engine's defects
//! ```
//!
//! It prints the variables to export, and serves on 127.0.0.1 until Ctrl-C. All data is in memory and is lost when it stops.
//! Clients have 2 seconds to close their connections; a second Ctrl-C ends the program immediately.
#![expect(clippy::print_stdout, reason = "examples print to the terminal")]

use hatchet::embedded::{Engine, Quirks};

const USAGE: &str = "usage: dev_server [GRPC_PORT REST_PORT] [--quirks]";
/// The exit code that shells report for a program that was ended by Ctrl-C.
const INTERRUPTED: i32 = 130;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    run(std::env::args().skip(1)).await
}

pub(crate) async fn run(arguments: impl Iterator<Item = String>) -> Result<(), Box<dyn std::error::Error>> {
    let (flags, ports): (Vec<_>, Vec<_>) = arguments.partition(|argument| argument.starts_with("--"));
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

    let mut signals = Signals::new()?;
    let engine = Engine::builder().grpc_port(grpc).rest_port(rest).quirks(quirks).start().await?;
    for (name, value) in engine.environment() {
        println!("export {name}={value}");
    }
    // Printed as comments, so that a shell can evaluate the output.
    println!("# quirks: {quirks:?}");
    println!("# serving until Ctrl-C");
    signals.next().await?;

    let end = async {
        println!("# discarded {} runs", engine.run_count().await);
        engine.shutdown().await;
    };
    tokio::select! {
        () = end => Ok(()),
        signal = signals.next() => {
            signal?;
            std::process::exit(INTERRUPTED)
        }
    }
}

/// Resolves at Ctrl-C or, on Unix, at `SIGTERM`.
struct Signals {
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
}

impl Signals {
    #[cfg(unix)]
    fn new() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    #[cfg(not(unix))]
    fn new() -> std::io::Result<Self> {
        Ok(Self {})
    }

    #[cfg(unix)]
    async fn next(&mut self) -> std::io::Result<()> {
        tokio::select! {
            _ = self.interrupt.recv() => Ok(()),
            _ = self.terminate.recv() => Ok(()),
        }
    }

    #[cfg(not(unix))]
    async fn next(&mut self) -> std::io::Result<()> {
        tokio::signal::ctrl_c().await
    }
}
