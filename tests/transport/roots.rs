//! The root certificates of the machine are read at the first connection, and not by [`Client::new`].

use std::process::Command;

use hatchet::config::TlsStrategy;
use hatchet::model::Window;
use hatchet::{Client, ErrorKind};

use crate::servers::{Plain, chain, setup, tls_server};

/// Set in the process without certificates.
const CHILD_ENV: &str = "HATCHET_TEST_WITHOUT_ROOTS";

#[tokio::test]
async fn missing_root_certificates_fail_the_first_call() {
    if std::env::var_os(CHILD_ENV).is_none() {
        let name = "roots::missing_root_certificates_fail_the_first_call";
        let child = Command::new(std::env::current_exe().unwrap())
            .args([name, "--exact"])
            .env(CHILD_ENV, "1")
            .env("SSL_CERT_FILE", "/nonexistent")
            .env("SSL_CERT_DIR", "/nonexistent")
            .output()
            .unwrap();
        assert!(child.status.success(), "{child:?}");
        assert!(String::from_utf8_lossy(&child.stdout).contains("1 passed"), "{child:?}");
        return;
    }
    let setup = setup().await;
    let (address, _) = tls_server(Plain::Alert).await;
    let config = setup.config.clone().host_port(address.to_string()).tls_strategy(TlsStrategy::Tls);
    let config = config.server_url(format!("https://{address}"));
    let hatchet = Client::new(config.build().unwrap()).unwrap();
    let unknown = "00000000-0000-4000-8001-000000000001".parse().unwrap();
    for error in [
        hatchet.runs(Window::all()).count().await.unwrap_err(),
        hatchet.run_handle(unknown).details().await.unwrap_err(),
    ] {
        assert_eq!((error.kind(), error.has_no_side_effects()), (ErrorKind::Config, true), "{error:?}");
        assert!(chain(&error).contains("cannot use the root certificates of this machine"), "{error:?}");
    }
}
