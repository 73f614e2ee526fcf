//! Compiles the `.proto` files, without `protoc`.

use std::path::{Path, PathBuf};
use std::{env, error::Error, fs};

use prost::Message as _;

const ROOT: &str = "proto";
const PROTO_FILES: &[&str] = &[
    "dispatcher/dispatcher.proto",
    "events/events.proto",
    "v1/dispatcher.proto",
    "v1/workflows.proto",
    "workflows/workflows.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={ROOT}");
    for file in PROTO_FILES {
        if !Path::new(ROOT).join(file).is_file() {
            return Err(format!("expected the file {ROOT}/{file}, got an incomplete source tree").into());
        }
    }
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let descriptors = protox::compile(PROTO_FILES, [ROOT])?;
    // `tests/contracts.rs` compares this with `tests/data/wire.tsv`.
    fs::write(out.join("hatchet.fds"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        .bytes(".v1.GetRunDetailsResponse.input")
        .build_server(env::var_os("CARGO_FEATURE_EMBEDDED").is_some())
        .compile_fds(descriptors)?;
    Ok(())
}
