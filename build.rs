//! Compiles the contracts in `proto/` without `protoc`.

use std::path::{Path, PathBuf};
use std::{env, error::Error, fs};

use prost::Message as _;

const ROOT: &str = "proto";
const CONTRACTS: &[&str] = &[
    "dispatcher/dispatcher.proto",
    "events/events.proto",
    "v1/dispatcher.proto",
    "v1/workflows.proto",
    "workflows/workflows.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={ROOT}");
    for contract in CONTRACTS {
        if !Path::new(ROOT).join(contract).is_file() {
            return Err(format!("{ROOT}/{contract} is missing: the crate's sources are not complete").into());
        }
    }
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let contracts = protox::compile(CONTRACTS, [ROOT])?;
    // The tests compare this with the recorded facts about the contract.
    fs::write(out.join("hatchet.fds"), contracts.encode_to_vec())?;
    tonic_prost_build::configure()
        .bytes(".v1.GetRunDetailsResponse.input")
        .build_server(env::var_os("CARGO_FEATURE_EMBEDDED").is_some())
        .compile_fds(contracts)?;
    Ok(())
}
