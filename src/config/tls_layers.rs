//! Resolves the TLS settings.

use super::address::{HostPort, Scheme};
use super::layers::{Layers, LoadedPem, Lookup, Sourced, or_default};
use super::setting::Setting;
use super::{ConfigBuilder, Identity, Secret, Source, Tls, TlsStrategy, TlsVersion, address, pem, setting};

/// The strategy: the given one, or that of the scheme of the given address, or TLS.
///
/// `given` is an address from the builder or the environment. The scheme of an address in the token is ignored, so that the issuer of
/// a token cannot disable encryption.
pub(super) fn strategy(
    layers: &mut Layers<'_>,
    builder: &ConfigBuilder,
    given: Option<&Sourced<HostPort>>,
    rest_is_https: bool,
) -> Sourced<TlsStrategy> {
    let lookup = layers.choice(&setting::TLS_STRATEGY, builder.tls_strategy, TlsStrategy::from_name);
    let scheme = given.and_then(|found| found.value.scheme);
    match (lookup, scheme, given) {
        (Ok(None), Some(Scheme::Secure), _) => Sourced::new(TlsStrategy::Tls, Source::Derived("host_port")),
        (Ok(None), Some(Scheme::Plain), Some(address)) => {
            if !rest_is_https && has_certificates_or_keys(layers, builder) {
                layers.report_expecting(
                    &setting::HOST_PORT,
                    address.source,
                    "a scheme without TLS, although certificates or keys are set",
                    "https:// or grpcs://, no scheme, or an explicit TLS strategy",
                );
            }
            Sourced::new(TlsStrategy::None, Source::Derived("host_port"))
        }
        (lookup, ..) => or_default(lookup, TlsStrategy::default()),
    }
}

fn has_certificates_or_keys(layers: &Layers<'_>, builder: &ConfigBuilder) -> bool {
    use setting::{TLS_CERT, TLS_CERT_FILE, TLS_KEY, TLS_KEY_FILE, TLS_ROOT_CA, TLS_ROOT_CA_FILE};
    builder.tls_root_ca.is_some()
        || builder.tls_cert.is_some()
        || builder.tls_key.is_some()
        || layers.any_variable(&[&TLS_ROOT_CA, &TLS_ROOT_CA_FILE, &TLS_CERT, &TLS_CERT_FILE, &TLS_KEY, &TLS_KEY_FILE])
}

/// Resolves the other TLS settings, for a strategy and a host.
pub(super) fn resolve(
    layers: &mut Layers<'_>,
    builder: &ConfigBuilder,
    strategy: &Sourced<TlsStrategy>,
    host: Option<&str>,
    server_url: Option<&str>,
) -> Tls {
    let rest_is_https = server_url.is_some_and(is_https);
    let encrypted = strategy.value != TlsStrategy::None;
    let mut tls = Tls { strategy: strategy.value, ..Tls::plain() };
    layers.add_entry("tls_strategy", strategy.value.as_str(), strategy.source);

    let given = server_name(layers, &setting::TLS_SERVER_NAME, builder.tls_server_name.as_deref());
    let rest_given = server_name(layers, &setting::TLS_REST_SERVER_NAME, builder.tls_rest_server_name.as_deref());
    let (given, rest_given) = (given.ok().flatten(), rest_given.ok().flatten());
    if encrypted {
        let name = given.clone();
        let name = name.or_else(|| Some(Sourced::new(host?.to_owned(), Source::Derived("host_port"))));
        if let Some(Sourced { value, source }) = name {
            layers.add_entry("tls_server_name", value.as_str(), source);
            tls.server_name = Some(value);
        }
    } else {
        not_used(layers, &["tls_server_name"]);
    }
    if rest_is_https {
        if let Some(Sourced { value, source }) = rest_given.or_else(|| rest_server_name(given, host, server_url)) {
            layers.add_entry("tls_rest_server_name", value.as_str(), source);
            tls.rest_server_name = Some(value);
        }
    } else {
        layers.add_entry("tls_rest_server_name", "(not used)", Source::Derived("server_url"));
    }

    let min_version = layers.choice(&setting::TLS_MIN_VERSION, builder.tls_min_version, TlsVersion::from_name);
    if encrypted || rest_is_https {
        let Sourced { value, source } = or_default(min_version, TlsVersion::default());
        layers.add_entry("tls_min_version", value.as_str(), source);
        tls.min_version = value;
        tls.root_ca = root_ca(layers, builder);
        tls.identity = identity(layers, builder, strategy.value);
    } else {
        not_used(layers, &["tls_min_version", "tls_root_ca", "tls_cert", "tls_key"]);
    }
    tls
}

fn not_used(layers: &mut Layers<'_>, names: &[&'static str]) {
    for name in names {
        layers.add_entry(name, "(not used)", Source::Derived("tls_strategy"));
    }
}

/// The server name for REST if it is not set explicitly.
fn rest_server_name(
    given: Option<Sourced<String>>,
    grpc_host: Option<&str>,
    server_url: Option<&str>,
) -> Option<Sourced<String>> {
    let host = address::url_host(server_url?)?;
    let is_same = grpc_host.is_some_and(|grpc_host| grpc_host.eq_ignore_ascii_case(host));
    let given = given.filter(|_| is_same).map(|name| Sourced::new(name.value, Source::Derived("tls_server_name")));
    Some(given.unwrap_or_else(|| Sourced::new(host.to_owned(), Source::Derived("server_url"))))
}

/// Rejects a server URL without TLS that comes only from the token while gRPC uses TLS: the token would be sent in clear text
/// without an explicit setting.
pub(super) fn check_server_url(layers: &mut Layers<'_>, strategy: &Sourced<TlsStrategy>, server_url: &Sourced<String>) {
    let is_claim = matches!(server_url.source, Source::Claim(_));
    if strategy.value == TlsStrategy::None || !is_claim || is_https(&server_url.value) {
        return;
    }
    let got = format!(
        "{} (without TLS, but the TLS strategy of gRPC is {})",
        layers.quote(&server_url.value),
        strategy.value
    );
    let name = layers.name_to_set(&setting::SERVER_URL);
    let expected = format!("https://, or to send the token without TLS, set {name} to this URL");
    layers.report_expecting(&setting::SERVER_URL, server_url.source, &got, &expected);
}

pub(super) fn is_https(url: &str) -> bool {
    url.starts_with("https:")
}

fn server_name(layers: &mut Layers<'_>, setting: &Setting, from_builder: Option<&str>) -> Lookup<String> {
    match layers.string(setting, from_builder)? {
        Some(name) if !address::is_host(&name.value) => {
            let got = layers.quote(&name.value);
            Err(layers.report(setting, name.source, &got))
        }
        other => Ok(other),
    }
}

fn root_ca(layers: &mut Layers<'_>, builder: &ConfigBuilder) -> Option<String> {
    let settings = [&setting::TLS_ROOT_CA, &setting::TLS_ROOT_CA_FILE];
    let loaded = layers.pem(settings, builder.tls_root_ca.as_ref(), pem::certificates).ok()?;
    let (origin, source) = loaded
        .as_ref()
        .map_or(("(system roots)", Source::Default), |found| (found.value.origin.as_str(), found.source));
    layers.add_entry("tls_root_ca", origin, source);
    loaded.map(|found| found.value.pem)
}

fn identity(layers: &mut Layers<'_>, builder: &ConfigBuilder, strategy: TlsStrategy) -> Option<Identity> {
    let cert_settings = [&setting::TLS_CERT, &setting::TLS_CERT_FILE];
    let cert = layers.pem(cert_settings, builder.tls_cert.as_ref(), pem::certificates);
    let key = layers.pem([&setting::TLS_KEY, &setting::TLS_KEY_FILE], builder.tls_key.as_ref(), pem::private_key);

    // An invalid certificate or key has been recorded already. Only one that is not set is missing.
    let is_missing = |half: &Lookup<LoadedPem>| matches!(half, Ok(None));
    if is_missing(&cert) && is_missing(&key) && strategy != TlsStrategy::Mtls {
        layers.add_entry("tls_cert", "(none)", Source::Default);
        layers.add_entry("tls_key", "(none)", Source::Default);
        return None;
    }
    let got = |other: &Lookup<LoadedPem>, name: &str| {
        if is_missing(other) {
            "no value, although the TLS strategy is mtls".to_owned()
        } else {
            format!("no value, although a {name} is set")
        }
    };
    if is_missing(&cert) {
        layers.report_missing(&setting::TLS_CERT, &got(&key, "key"));
    }
    if is_missing(&key) {
        layers.report_missing(&setting::TLS_KEY, &got(&cert, "certificate"));
    }
    let (cert, key) = (cert.ok()??, key.ok()??);
    layers.add_entry("tls_cert", cert.value.origin, cert.source);
    layers.add_entry("tls_key", "(hidden)", key.source);
    Some(Identity { cert: cert.value.pem, key: Secret::new(key.value.pem) })
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{CERT, FakeEnv, KEY, claims, jwt};
    use super::super::resolve::resolve;
    use super::super::{Config, ConfigError};
    use super::*;

    fn from(env: &FakeEnv) -> Result<Config, ConfigError> {
        resolve(&ConfigBuilder::from_env(), env)
    }

    fn tls(env: &FakeEnv) -> Tls {
        from(env).unwrap().tls().clone()
    }

    fn problems(env: &FakeEnv) -> String {
        from(env).unwrap_err().to_string()
    }

    /// An environment with an `https` server, so that all TLS settings are used.
    fn secure() -> FakeEnv {
        FakeEnv::with_token().var("SERVER_URL", "https://api.example.com")
    }

    #[test]
    fn the_strategy_is_explicit_or_from_the_scheme_or_the_default() {
        use TlsStrategy::{Mtls, None, Tls};
        let mtls = || FakeEnv::with_token().var("TLS_CERT", CERT).var("TLS_KEY", KEY);
        for (env, strategy, source) in [
            (FakeEnv::with_token(), Tls, Source::Default),
            (
                FakeEnv::with_token().var("TLS_STRATEGY", "none"),
                None,
                Source::Environment("HATCHET_CLIENT_TLS_STRATEGY"),
            ),
            (
                FakeEnv::with_token().var("TLS_STRATEGY", " TLS\n"),
                Tls,
                Source::Environment("HATCHET_CLIENT_TLS_STRATEGY"),
            ),
            (mtls().var("TLS_STRATEGY", "mtls"), Mtls, Source::Environment("HATCHET_CLIENT_TLS_STRATEGY")),
            (FakeEnv::with_token().var("HOST_PORT", "http://a:1"), None, Source::Derived("host_port")),
            (FakeEnv::with_token().var("HOST_PORT", "grpc://a:1"), None, Source::Derived("host_port")),
            (FakeEnv::with_token().var("HOST_PORT", "https://a:1"), Tls, Source::Derived("host_port")),
            (FakeEnv::with_token().var("HOST_PORT", "grpcs://a:1"), Tls, Source::Derived("host_port")),
            (
                FakeEnv::with_token().var("HOST_PORT", "http://a:1").var("TLS_STRATEGY", "tls"),
                Tls,
                Source::Environment("HATCHET_CLIENT_TLS_STRATEGY"),
            ),
            (
                FakeEnv::with_token().var("HOST_PORT", "https://a:1").var("TLS_STRATEGY", "none"),
                None,
                Source::Environment("HATCHET_CLIENT_TLS_STRATEGY"),
            ),
        ] {
            let config = from(&env).unwrap();
            assert_eq!(config.tls().strategy(), strategy);
            assert_eq!(config.tls().is_enabled(), strategy != None);
            let entry = config.explain().get("tls_strategy").cloned().unwrap();
            assert_eq!((entry.value(), entry.source()), (strategy.as_str(), source));
        }
    }

    #[test]
    fn schemes_in_the_token_do_not_disable_tls() {
        let mut claims = claims();
        claims["grpc_broadcast_address"] = "http://localhost:7077".into();
        let config = from(&FakeEnv::default().var("TOKEN", jwt(&claims))).unwrap();
        assert_eq!((config.tls().strategy(), config.authority()), (TlsStrategy::Tls, "localhost:7077"));
    }

    #[test]
    fn the_server_name_is_explicit_or_the_host() {
        for (name, host, expected) in [
            ("", "engine.example.com:443", "engine.example.com"),
            ("", "[::1]:443", "::1"),
            ("other.example.com", "engine.example.com:443", "other.example.com"),
            ("::1", "engine.example.com:443", "::1"),
        ] {
            let env = FakeEnv::with_token().var("TLS_SERVER_NAME", name).var("HOST_PORT", host);
            assert_eq!(tls(&env).server_name(), Some(expected));
        }
        let env = FakeEnv::with_token().var("TLS_SERVER_NAME", "a.example.com").var("TLS_STRATEGY", "none");
        assert_eq!(tls(&env).server_name(), None);
        for bad in ["https://a", "a:443", "a b"] {
            let problems = problems(&FakeEnv::with_token().var("TLS_SERVER_NAME", bad));
            assert_eq!(
                problems,
                format!(
                    "1 problem in the configuration\n  HATCHET_CLIENT_TLS_SERVER_NAME: expected a host name or an IP address, without a port, got {bad:?}"
                )
            );
        }
    }

    #[test]
    fn the_rest_server_name_is_explicit_or_that_of_grpc_or_from_the_url() {
        let names = |name: &str, rest_name: &str, url: &str, strategy: &str| {
            let env = FakeEnv::with_token()
                .var("HOST_PORT", "Engine.example.com:443")
                .var("TLS_SERVER_NAME", name)
                .var("TLS_REST_SERVER_NAME", rest_name)
                .var("SERVER_URL", url)
                .var("TLS_STRATEGY", strategy);
            let config = from(&env).unwrap();
            let entry = config.explain().get("tls_rest_server_name").cloned().unwrap();
            (config.tls().rest_server_name().map(str::to_owned), entry.source())
        };
        let own = Source::Environment("HATCHET_CLIENT_TLS_REST_SERVER_NAME");
        let (same, other) = ("https://engine.example.com:8443/hatchet", "https://api.example.com");
        for (name, rest_name, url, expected, source) in [
            ("", "", same, "engine.example.com", Source::Derived("server_url")),
            ("inner", "", same, "inner", Source::Derived("tls_server_name")),
            ("inner", "", other, "api.example.com", Source::Derived("server_url")),
            ("inner", "api", same, "api", own),
            ("", "api", other, "api", own),
            ("inner", "", "https://[::1]:1", "::1", Source::Derived("server_url")),
        ] {
            let expected = (Some(expected.to_owned()), source);
            assert_eq!(names(name, rest_name, url, "tls"), expected, "{name:?} {rest_name:?} {url}");
        }
        // REST can use TLS even if gRPC does not.
        assert_eq!(names("", "api", other, "none"), (Some("api".to_owned()), own));
        assert_eq!(names("", "api", "http://a", "none"), (None, Source::Derived("server_url")));
        let problems = problems(&FakeEnv::with_token().var("TLS_REST_SERVER_NAME", "api:443"));
        assert!(problems.contains("got \"api:443\""), "{problems}");
        let built = ConfigBuilder::from_env().tls_rest_server_name("code");
        let config = resolve(&built, &secure().var("TLS_REST_SERVER_NAME", "env")).unwrap();
        assert_eq!(config.tls().rest_server_name(), Some("code"));
    }

    #[test]
    fn server_urls_without_tls_in_the_token_are_rejected() {
        let mut claims = claims();
        claims["server_url"] = "http://api.example.com".into();
        let env = || FakeEnv::default().var("TOKEN", jwt(&claims));
        let rejected = |strategy: &str| {
            format!(
                "1 problem in the configuration\n  token claim server_url: expected https://, or to send the token without TLS, set HATCHET_CLIENT_SERVER_URL to this URL, got \"http://api.example.com\" (without TLS, but the TLS strategy of gRPC is {strategy})"
            )
        };
        assert_eq!(problems(&env()), rejected("tls"));
        assert_eq!(problems(&env().var("HOST_PORT", "https://a")), rejected("tls"));
        let mtls = env().var("TLS_STRATEGY", "mtls").var("TLS_CERT", CERT).var("TLS_KEY", KEY);
        assert_eq!(problems(&mtls), rejected("mtls"));
        // Without the environment, the error names the builder's method.
        let built = resolve(&Config::builder().token(jwt(&claims)), &FakeEnv::default()).unwrap_err();
        assert!(built.to_string().contains("set server_url to this URL, got"), "{built}");
        // An explicit setting is accepted. If gRPC has no TLS, REST needs none.
        for env in [
            env().var("SERVER_URL", "http://api.example.com"),
            env().var("TLS_STRATEGY", "none"),
            env().var("HOST_PORT", "http://a"),
        ] {
            assert_eq!(from(&env).unwrap().server_url(), "http://api.example.com");
        }
        // Only the invalid strategy is reported, because the check depends on it.
        assert!(problems(&env().var("TLS_STRATEGY", "nonne")).starts_with("1 problem"));
    }

    #[test]
    fn the_minimum_version_is_explicit_or_the_default() {
        for (text, version) in [("", TlsVersion::Tls13), ("1.2", TlsVersion::Tls12), ("1.3", TlsVersion::Tls13)] {
            assert_eq!(tls(&FakeEnv::with_token().var("TLS_MIN_VERSION", text)).min_version(), version);
        }
        let problems = problems(&FakeEnv::with_token().var("TLS_MIN_VERSION", "1.1"));
        assert!(problems.ends_with("HATCHET_CLIENT_TLS_MIN_VERSION: expected 1.2, 1.3, got \"1.1\""), "{problems}");
    }

    #[test]
    fn certificates_and_keys_are_read_from_variables_or_files() {
        let text = secure().var("TLS_ROOT_CA", CERT.repeat(2)).var("TLS_CERT", CERT).var("TLS_KEY", KEY);
        let files = secure()
            .var("TLS_ROOT_CA_FILE", "ca.pem")
            .var("TLS_CERT_FILE", " cert.pem\n")
            .var("TLS_KEY_FILE", "key.pem")
            .file("ca.pem", CERT.repeat(2))
            .file("cert.pem", CERT)
            .file("key.pem", KEY);
        for env in [&text, &files] {
            let tls = tls(env);
            assert_eq!(tls.root_ca_pem(), Some(CERT.repeat(2).as_bytes()));
            let identity = tls.identity().unwrap();
            assert_eq!((identity.cert_pem(), identity.key_pem()), (CERT.as_bytes(), KEY.as_bytes()));
        }
        let config = from(&files).unwrap();
        let entry = |name| config.explain().get(name).map(|entry| entry.value().to_owned());
        assert_eq!(entry("tls_root_ca").as_deref(), Some("\"ca.pem\""));
        assert_eq!(entry("tls_cert").as_deref(), Some("\"cert.pem\""));
        assert_eq!(entry("tls_key").as_deref(), Some("(hidden)"));
    }

    #[test]
    fn invalid_certificates_and_keys_are_rejected() {
        let env = secure()
            .var("TLS_STRATEGY", "mtls")
            .var("TLS_ROOT_CA_FILE", "der.pem")
            .file("der.pem", [0x30, 0x82, 0xff])
            .var("TLS_CERT_FILE", "missing.pem")
            .var("TLS_KEY", CERT);
        assert_eq!(
            problems(&env),
            "3 problems in the configuration\n  \
             HATCHET_CLIENT_TLS_ROOT_CA_FILE: expected a readable file with one or more PEM certificates, got \"der.pem\" (not UTF-8; DER must be converted to PEM)\n  \
             HATCHET_CLIENT_TLS_CERT_FILE: expected a readable file with a PEM certificate and its chain, got \"missing.pem\" (entity not found)\n  \
             HATCHET_CLIENT_TLS_KEY: expected a PEM private key without a passphrase, got PEM without a private key"
        );
        let both = secure().var("TLS_ROOT_CA", CERT).var("TLS_ROOT_CA_FILE", "ca.pem");
        assert_eq!(
            problems(&both),
            "1 problem in the configuration\n  HATCHET_CLIENT_TLS_ROOT_CA_FILE: expected no value, because HATCHET_CLIENT_TLS_ROOT_CA is set, got \"ca.pem\""
        );
    }

    #[test]
    fn certificate_and_key_need_each_other() {
        let missing = |env: FakeEnv| {
            let error = from(&env).unwrap_err();
            error.problems().iter().map(|p| (p.name().to_owned(), p.got().to_owned())).collect::<Vec<_>>()
        };
        let (cert, key) = ("HATCHET_CLIENT_TLS_CERT".to_owned(), "HATCHET_CLIENT_TLS_KEY".to_owned());
        let mtls = || FakeEnv::with_token().var("TLS_STRATEGY", "mtls");
        let none = "no value, although the TLS strategy is mtls".to_owned();
        assert_eq!(missing(mtls()), [(cert.clone(), none.clone()), (key.clone(), none)]);
        for env in [FakeEnv::with_token(), mtls()] {
            assert_eq!(
                missing(env.var("TLS_CERT", CERT)),
                [(key.clone(), "no value, although a certificate is set".to_owned())]
            );
        }
        for env in [FakeEnv::with_token(), mtls()] {
            assert_eq!(
                missing(env.var("TLS_KEY", KEY)),
                [(cert.clone(), "no value, although a key is set".to_owned())]
            );
        }
    }

    #[test]
    fn certificates_without_tls_are_ignored_or_rejected() {
        let unread = || FakeEnv::with_token().var("TLS_ROOT_CA_FILE", "missing.pem").var("SERVER_URL", "http://a");
        let plain = from(&unread().var("TLS_STRATEGY", "none")).unwrap();
        assert_eq!(plain.tls().root_ca_pem(), None);
        assert_eq!(plain.explain().get("tls_root_ca").map(super::super::Entry::value), Some("(not used)"));

        let rejected = problems(&unread().var("HOST_PORT", "http://a:1"));
        assert!(rejected.contains("got a scheme without TLS, although certificates"), "{rejected}");

        // REST may use TLS even if gRPC does not.
        let rest = secure().var("TLS_ROOT_CA", CERT).var("HOST_PORT", "http://a:1");
        assert_eq!(tls(&rest).root_ca_pem(), Some(CERT.as_bytes()));
        assert_eq!(tls(&rest).server_name(), None);
    }

    #[test]
    fn certificate_and_key_in_the_builder_override_the_environment() {
        let env = secure().var("TLS_CERT", "junk").var("TLS_KEY", "junk").file("c", CERT).file("k", KEY);
        for builder in [
            ConfigBuilder::from_env().tls_cert(CERT).tls_key(KEY).tls_root_ca(CERT),
            ConfigBuilder::from_env().tls_cert_file("c").tls_key_file("k").tls_root_ca_file("c"),
        ] {
            let config = resolve(&builder.tls_strategy(TlsStrategy::Mtls), &env).unwrap();
            assert_eq!(config.tls().identity().map(Identity::key_pem), Some(KEY.as_bytes()));
            assert_eq!(config.tls().root_ca_pem(), Some(CERT.as_bytes()));
        }
        let swapped = resolve(&ConfigBuilder::from_env().tls_cert(KEY).tls_key(CERT), &env).unwrap_err();
        let names: Vec<_> = swapped.problems().iter().map(super::super::Problem::name).collect();
        assert_eq!(names, ["tls_cert", "tls_key"]);
    }
}
