//! B: the build and the first run.

use std::path::Path;
use std::process::Command;

/// Two commands lead from a clone to a finished run. Neither protoc nor Docker is needed, and a C compiler only for TLS. This test needs no
/// engine.
mod rows {
    #[test]
    fn b12_two_commands_from_clone_to_a_finished_run() {
        super::b12();
    }
}

fn b12() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = std::fs::read_to_string(root.join("README.md")).unwrap();
    let commands: Vec<_> = readme.lines().filter(|line| line.starts_with("cargo ")).take(2).collect();
    assert!(commands[0].starts_with("cargo run --example quickstart"), "{commands:?}");
    assert!(commands[1].starts_with("cargo test"), "{commands:?}");
    // Without TLS, only Rust code is compiled, and protoc is not used.
    let tree = cargo(&["tree", "--no-default-features", "--edges", "normal,build", "--prefix", "none", "--offline"]);
    for name in ["cc", "cmake", "protoc", "protobuf-src", "protoc-bin-vendored", "openssl-sys"] {
        assert!(!tree.lines().any(|line| line.split(' ').next() == Some(name)), "{name} is a dependency");
    }
    let output = cargo(&["run", "--quiet", "--example", "quickstart", "--offline", "--", "README.md", "Cargo.toml"]);
    let rows = output.lines().filter(|line| line.starts_with("README.md") || line.starts_with("Cargo.toml"));
    assert_eq!(rows.filter(|row| row.contains("COMPLETED")).count(), 2, "{output}");
}

fn cargo(arguments: &[&str]) -> String {
    let mut cargo = Command::new(env!("CARGO"));
    // What the outer cargo sets for this test. Build scripts that read it would run again, and all that depends on them would be compiled.
    let of_test = std::env::vars_os().map(|(name, _)| name);
    for name in of_test.filter(|name| name.to_str().is_some_and(is_of_test)) {
        cargo.env_remove(name);
    }
    let output = cargo
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env("PROTOC", "/there/is/no/protoc")
        .env_remove("HATCHET_CLIENT_TOKEN")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

fn is_of_test(name: &str) -> bool {
    name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") || name == "OUT_DIR"
}
