//! From a builder and a world to a [`Config`]: each setting in its turn, then all problems at once.

use super::address::{HostPort, Malformed};
use super::env::World;
use super::layers::{Found, Layers, Lookup, Reported};
use super::resolved::Values;
use super::setting::{self, Setting};
use super::token::Claims;
use super::{Config, ConfigBuilder, ConfigError, Secret, Source, TlsStrategy, address, namespace, tls_layers, tuning};

/// The port of the engine's own default, without TLS.
const PLAIN_PORT: u16 = 7070;
/// Where a proxy that ends TLS listens.
const TLS_PORT: u16 = 443;

/// Reads all layers.
pub(super) fn resolve(built: &ConfigBuilder, world: &dyn World) -> Result<Config, ConfigError> {
    let mut layers = Layers::new(world, built.environment);
    let credential = credential(&mut layers, built);
    // Without claims nothing is "missing": it may well be in the token, once that is put right.
    let claims = credential.as_ref().ok().map(|(_, claims)| claims);

    let tenant_id = tenant_id(&mut layers, built, claims);
    let given = layers.text(&setting::HOST_PORT, built.host_port.as_deref());
    let given = given.and_then(|found| parse(&mut layers, &setting::HOST_PORT, found, HostPort::parse));
    let server_url = server_url(&mut layers, built, claims);
    let https = server_url.as_ref().is_ok_and(|url| tls_layers::is_https(&url.value));
    let strategy = tls_layers::strategy(&mut layers, built, given.as_ref().ok().and_then(Option::as_ref), https);
    if let Ok(server_url) = &server_url
        && !layers.is_reported(&setting::TLS_STRATEGY)
    {
        tls_layers::check_server_url(&mut layers, &strategy, server_url);
    }
    let host_port =
        or_claim(&mut layers, &setting::HOST_PORT, given, claims, "grpc_broadcast_address", HostPort::parse)
            .map(|found| found.map(|address| with_port(address, strategy.value)));
    if let Ok(Found { value: (host, port), source }) = &host_port {
        layers.note("host_port", address::authority(host, *port), *source);
    }
    if let Ok(Found { value, source }) = &server_url {
        layers.note("server_url", value.as_str(), *source);
    }
    let namespace = namespace(&mut layers, built);
    let host = host_port.as_ref().ok().map(|found| found.value.0.as_str());
    let url = server_url.as_ref().ok().map(|found| found.value.as_str());
    let tls = tls_layers::resolve(&mut layers, built, &strategy, host, url);
    let tuning = tuning::resolve(&mut layers, built);

    let entries = layers.finish()?;
    match (credential, tenant_id, host_port, server_url, namespace) {
        (Ok((token, claims)), Ok(tenant_id), Ok(host_port), Ok(server_url), Ok(namespace)) => {
            let (host, port) = host_port.value;
            Ok(Config::new(Values {
                token,
                token_expires_at: claims.expires_at(),
                tenant_id,
                authority: address::authority(&host, port),
                host,
                port,
                server_url: server_url.value,
                namespace,
                tls,
                tuning,
                entries,
            }))
        }
        // Each of these was reported, so `finish` has returned already.
        _ => Err(ConfigError::new(Vec::new())),
    }
}

/// The configuration of a client of the embedded engine: its own address, tenant and token, the
/// rest from the builder (and the environment, if the builder has it).
#[cfg(any(test, feature = "embedded"))]
pub(super) fn embedded(
    built: &ConfigBuilder,
    tenant: &str,
    token: String,
    world: &dyn World,
) -> Result<Config, ConfigError> {
    const HOST: &str = "embedded";
    let mut layers = Layers::new(world, built.environment);
    let authority = address::authority(HOST, PLAIN_PORT);
    let server_url = format!("http://{HOST}");
    layers.note("token", "(hidden)", Source::Embedded);
    layers.note("tenant_id", tenant, Source::Embedded);
    layers.note("host_port", authority.as_str(), Source::Embedded);
    layers.note("server_url", server_url.as_str(), Source::Embedded);
    let namespace = namespace(&mut layers, built);
    layers.note("tls_strategy", TlsStrategy::None.as_str(), Source::Embedded);
    let tuning = tuning::resolve(&mut layers, built);
    let entries = layers.finish()?;
    Ok(Config::new(Values {
        token: Secret::new(token),
        token_expires_at: None,
        tenant_id: tenant.to_owned(),
        host: HOST.to_owned(),
        port: PLAIN_PORT,
        authority,
        server_url,
        namespace: namespace.unwrap_or_default(),
        tls: super::Tls::plain(),
        tuning,
        entries,
    }))
}

fn credential(layers: &mut Layers<'_>, built: &ConfigBuilder) -> Result<(Secret, Claims), Reported> {
    let Some(Found { value, source }) = layers.text(&setting::TOKEN, built.token.as_ref().map(Secret::expose))? else {
        return Err(layers.missing(&setting::TOKEN, "nothing"));
    };
    let token = Secret::new(value);
    layers.guard(&token);
    let claims = Claims::of(token.expose()).map_err(|found| layers.report(&setting::TOKEN, source, &found))?;
    layers.note("token", "(hidden)", source);
    let expiry = claims.expires_at().map_or_else(|| "(unknown)".to_owned(), |at| at.to_rfc3339());
    layers.note("token_expires_at", expiry, Source::Claim("exp"));
    Ok((token, claims))
}

fn tenant_id(layers: &mut Layers<'_>, built: &ConfigBuilder, claims: Option<&Claims>) -> Result<String, Reported> {
    // It becomes part of paths in REST calls.
    let check = |text: &str| {
        let safe = text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'));
        if safe && !text.is_empty() { Ok(text.to_owned()) } else { Err("not a tenant id") }
    };
    let given = layers
        .text(&setting::TENANT_ID, built.tenant_id.as_deref())
        .and_then(|found| parse(layers, &setting::TENANT_ID, found, check));
    if let (Ok(Some(given)), Some(sub)) = (&given, claims.and_then(|claims| claims.text("sub")))
        && !given.value.eq_ignore_ascii_case(sub)
    {
        let found = format!("{}, while the token's tenant is {}", layers.quote(&given.value), layers.quote(sub));
        return Err(layers.report(&setting::TENANT_ID, given.source, &found));
    }
    let Found { value, source } = or_claim(layers, &setting::TENANT_ID, given, claims, "sub", check)?;
    layers.note("tenant_id", value.as_str(), source);
    Ok(value)
}

fn server_url(
    layers: &mut Layers<'_>,
    built: &ConfigBuilder,
    claims: Option<&Claims>,
) -> Result<Found<String>, Reported> {
    let given = layers.text(&setting::SERVER_URL, built.server_url.as_deref());
    let given = given.and_then(|found| parse(layers, &setting::SERVER_URL, found, address::base_url));
    or_claim(layers, &setting::SERVER_URL, given, claims, "server_url", address::base_url)
}

fn namespace(layers: &mut Layers<'_>, built: &ConfigBuilder) -> Result<Option<String>, Reported> {
    let found = layers.text(&setting::NAMESPACE, built.namespace.as_deref())?;
    let Found { value, source } = found.unwrap_or(Found::new(String::new(), Source::Default));
    let Ok(namespace) = namespace::normalise(&value) else {
        let found = layers.quote(&value);
        return Err(layers.report(&setting::NAMESPACE, source, &found));
    };
    layers.note("namespace", namespace.as_deref().unwrap_or("(none)"), source);
    Ok(namespace)
}

/// What was given, else the claim, else a problem.
fn or_claim<T>(
    layers: &mut Layers<'_>,
    setting: &Setting,
    given: Lookup<T>,
    claims: Option<&Claims>,
    claim: &'static str,
    read: impl Fn(&str) -> Result<T, Malformed>,
) -> Result<Found<T>, Reported> {
    if let Some(given) = given? {
        return Ok(given);
    }
    let claims = claims.ok_or(Reported)?;
    let found = claims.text(claim).map(|text| Found::new(text.to_owned(), Source::Claim(claim)));
    match parse(layers, setting, found, read)? {
        Some(found) => Ok(found),
        None => Err(layers.missing(setting, &format!("nothing, and the token doesn't say it in its claim {claim}"))),
    }
}

fn parse<T>(
    layers: &mut Layers<'_>,
    setting: &Setting,
    found: Option<Found<String>>,
    read: impl Fn(&str) -> Result<T, Malformed>,
) -> Lookup<T> {
    let Some(Found { value, source }) = found else { return Ok(None) };
    match read(&value) {
        Ok(value) => Ok(Some(Found::new(value, source))),
        Err(reason) => {
            // Addresses may have a password in them.
            let shown = if value.contains('@') { "(hidden)".to_owned() } else { layers.quote(&value) };
            Err(layers.report(setting, source, &format!("{shown} ({reason})")))
        }
    }
}

fn with_port(address: HostPort, strategy: TlsStrategy) -> (String, u16) {
    let default = if strategy == TlsStrategy::None { PLAIN_PORT } else { TLS_PORT };
    (address.host, address.port.unwrap_or(default))
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{Fake, TENANT, claims, jwt};
    use super::*;
    use serde_json::json;

    fn from(world: &Fake) -> Result<Config, ConfigError> {
        resolve(&ConfigBuilder::from_env(), world)
    }

    fn problems(world: &Fake) -> String {
        from(world).unwrap_err().to_string()
    }

    fn source(config: &Config, name: &str) -> Source {
        config.explain().get(name).map(super::super::Entry::source).unwrap()
    }

    /// Builder over environment over claims over defaults, for everything that has all of them.
    #[test]
    fn precedence() {
        let tenant = TENANT.to_ascii_uppercase();
        let token = Fake::with_token();
        let environment = Fake::with_token()
            .var("HOST_PORT", "env:1")
            .var("SERVER_URL", "http://env")
            .var("TENANT_ID", &tenant)
            .var("NAMESPACE", "env");
        let builder = || {
            ConfigBuilder::from_env().host_port("code:2").server_url("http://code/").tenant_id(TENANT).namespace("Code")
        };
        let names = ["host_port", "server_url", "tenant_id", "namespace"];
        let seen = |config: &Config| {
            let namespace = config.namespace().map(str::to_owned);
            let sources = names.map(|name| source(config, name));
            (config.authority().to_owned(), config.server_url().to_owned(), namespace, sources)
        };

        let claim = Source::Claim;
        assert_eq!(
            seen(&from(&token).unwrap()),
            (
                "localhost:7077".to_owned(),
                "https://localhost:8080".to_owned(),
                None,
                [claim("grpc_broadcast_address"), claim("server_url"), claim("sub"), Source::Default]
            )
        );
        assert_eq!(
            seen(&from(&environment).unwrap()),
            (
                "env:1".to_owned(),
                "http://env".to_owned(),
                Some("env_".to_owned()),
                [
                    Source::Environment("HATCHET_CLIENT_HOST_PORT"),
                    Source::Environment("HATCHET_CLIENT_SERVER_URL"),
                    Source::Environment("HATCHET_CLIENT_TENANT_ID"),
                    Source::Environment("HATCHET_CLIENT_NAMESPACE"),
                ]
            )
        );
        for world in [&environment, &token] {
            assert_eq!(
                seen(&resolve(&builder(), world).unwrap()),
                ("code:2".to_owned(), "http://code".to_owned(), Some("code_".to_owned()), [Source::Builder; 4])
            );
        }
        // The same token in code, with an environment that must not be looked at.
        let alone = resolve(&Config::builder().token(jwt(&claims())), &environment).unwrap();
        assert_eq!(seen(&alone), seen(&from(&token).unwrap()));
        assert_eq!(source(&alone, "token"), Source::Builder);
        assert_eq!(from(&environment).unwrap().tenant_id(), tenant);
    }

    #[test]
    fn the_builder_hides_bad_variables_and_can_unset_a_namespace() {
        let world = Fake::default().var("TOKEN", "junk").var("HOST_PORT", "junk:junk").var("NAMESPACE", "ns");
        let builder = ConfigBuilder::from_env().token(format!(" {}\n", jwt(&claims()))).host_port("a:1").namespace("");
        let config = resolve(&builder, &world).unwrap();
        assert_eq!((config.authority(), config.namespace()), ("a:1", None));
        assert_eq!(source(&config, "namespace"), Source::Builder);
        assert_eq!(config.token().expose(), jwt(&claims()));
    }

    #[test]
    fn all_problems_at_once() {
        let world = Fake::with_token()
            .var("TENANT_ID", "00000000-0000-4000-8000-000000000000")
            .var("HOST_PORT", "local host")
            .var("SERVER_URL", "localhost")
            .var("NAMESPACE", "two words")
            .var("TLS_STRATEGY", "tsl")
            .var("TLS_SERVER_NAME", "a:1")
            .var("TLS_MIN_VERSION", "1.1")
            .var("GRPC_MAX_SEND_MESSAGE_LENGTH", "4MB")
            .var("GRPC_MAX_RECV_MESSAGE_LENGTH", "0")
            .var("GRPC_COMPRESSION", "zstd")
            .var("SOMETHING_ELSE", "of another SDK");
        let found = from(&world).unwrap_err();
        assert_eq!(
            found.to_string(),
            format!(
                "\
10 problems in the configuration
  HATCHET_CLIENT_TENANT_ID: expected the tenant of the token (letters, digits, '-', '_'), or nothing, got \"00000000-0000-4000-8000-000000000000\", while the token's tenant is \"{TENANT}\"
  HATCHET_CLIENT_HOST_PORT: expected host:port, plain or after http://, https://, grpc:// or grpcs://, an IPv6 host in brackets, got \"local host\" (a host with a character that no host name has)
  HATCHET_CLIENT_SERVER_URL: expected http:// or https://, a host, and if need be a port and a path, got \"localhost\" (no http:// or https://)
  HATCHET_CLIENT_TLS_STRATEGY: expected none, tls, mtls, got \"tsl\"
  HATCHET_CLIENT_NAMESPACE: expected letters, digits, '.', '-' and '_', got \"two words\"
  HATCHET_CLIENT_TLS_SERVER_NAME: expected a host name or an IP address, without a port, got \"a:1\"
  HATCHET_CLIENT_TLS_MIN_VERSION: expected 1.2, 1.3, got \"1.1\"
  HATCHET_CLIENT_GRPC_MAX_SEND_MESSAGE_LENGTH: expected a whole number of bytes, 1 to 4294967295, got \"4MB\"
  HATCHET_CLIENT_GRPC_MAX_RECV_MESSAGE_LENGTH: expected a whole number of bytes, 1 to 4294967295, got \"0\"
  HATCHET_CLIENT_GRPC_COMPRESSION: expected none, gzip, got \"zstd\""
            )
        );
    }

    #[test]
    fn a_bad_token_is_the_only_problem() {
        let expected_token = "an API token (a JWT: three base64url parts joined by dots)";
        for (world, found) in [
            (Fake::default(), "nothing"),
            (Fake::default().var("TOKEN", " \n"), "nothing"),
            (Fake::default().var("TOKEN", "hello"), "a value without dots"),
        ] {
            let expected = format!(
                "1 problem in the configuration\n  HATCHET_CLIENT_TOKEN: expected {expected_token}, got {found}"
            );
            assert_eq!(problems(&world), expected);
        }
        let built = resolve(&Config::builder().token(""), &Fake::with_token()).unwrap_err();
        assert_eq!(
            built.to_string(),
            format!("1 problem in the configuration\n  token: expected {expected_token}, got an empty value")
        );
    }

    #[test]
    fn what_the_token_does_not_say_has_to_be_said() {
        let bare = || Fake::default().var("TOKEN", jwt(&json!({"exp": 1})));
        let found = from(&bare()).unwrap_err();
        let lines: Vec<_> = found.problems().iter().map(|p| format!("{}: {}", p.name(), p.got())).collect();
        assert_eq!(
            lines,
            [
                "HATCHET_CLIENT_TENANT_ID: nothing, and the token doesn't say it in its claim sub",
                "HATCHET_CLIENT_SERVER_URL: nothing, and the token doesn't say it in its claim server_url",
                "HATCHET_CLIENT_HOST_PORT: nothing, and the token doesn't say it in its claim grpc_broadcast_address",
            ]
        );
        let world = bare().var("TENANT_ID", "t-1").var("SERVER_URL", "http://a").var("HOST_PORT", "a");
        let config = from(&world).unwrap();
        assert_eq!((config.tenant_id(), config.authority()), ("t-1", "a:443"));
        assert_eq!(config.token_expires_at().map(|at| at.timestamp()), Some(1), "expired, and no error");
    }

    #[test]
    fn bad_claims_are_named() {
        let mut bad = claims();
        bad["sub"] = "../other".into();
        bad["server_url"] = "localhost:8080".into();
        bad["grpc_broadcast_address"] = "localhost:http".into();
        let found = from(&Fake::default().var("TOKEN", jwt(&bad))).unwrap_err();
        let names: Vec<_> = found.problems().iter().map(super::super::Problem::name).collect();
        assert_eq!(names, ["token claim sub", "token claim server_url", "token claim grpc_broadcast_address"]);
    }

    #[test]
    fn ports_by_strategy() {
        for (host_port, strategy, authority) in [
            ("a", "", "a:443"),
            ("a", "none", "a:7070"),
            ("http://a/", "", "a:7070"),
            ("grpcs://a", "", "a:443"),
            ("[::1]", "none", "[::1]:7070"),
            ("a:1", "", "a:1"),
        ] {
            let config = from(&Fake::with_token().var("HOST_PORT", host_port).var("TLS_STRATEGY", strategy)).unwrap();
            assert_eq!(config.authority(), authority);
            assert_eq!(config.authority(), address::authority(config.host(), config.port()));
        }
    }

    #[test]
    fn both_spellings_of_the_server_url() {
        for (official, other, expected) in [
            ("http://a", "", Ok("http://a")),
            ("", "http://b/", Ok("http://b")),
            ("http://a", "http://a/", Ok("http://a")),
            ("http://a", "http://b", Err(())),
        ] {
            let config = from(&Fake::with_token().var("SERVER_URL", official).var("API_URL", other));
            assert_eq!(config.as_ref().map(Config::server_url).map_err(|_| ()), expected);
        }
        assert_eq!(
            problems(&Fake::with_token().var("SERVER_URL", "http://a").var("API_URL", "http://b")),
            "1 problem in the configuration\n  HATCHET_CLIENT_API_URL: expected the same as in HATCHET_CLIENT_SERVER_URL, or only one of the two, got \"http://b\", beside \"http://a\""
        );
    }

    #[test]
    fn the_embedded_engine() {
        let world = Fake::with_token().var("NAMESPACE", "env");
        let builder = Config::builder().namespace("Code").host_port("junk:junk").tls_strategy(TlsStrategy::Mtls);
        let config = embedded(&builder, "tenant", "any text".to_owned(), &world).unwrap();
        assert_eq!((config.host(), config.tenant_id(), config.namespace()), ("embedded", "tenant", Some("code_")));
        assert_eq!((config.token().expose(), config.server_url()), ("any text", "http://embedded"));
        assert!(!config.tls().is_enabled());
        assert_eq!(source(&config, "host_port"), Source::Embedded);
        assert!(!format!("{config:?}{}", config.explain()).contains("any text"));
        assert!(Config::builder().namespace("two words").embedded("t", "token").is_err());
        assert_eq!(Config::builder().embedded("t", "token").unwrap().namespace(), None);
    }

    #[cfg(unix)]
    #[test]
    fn bytes_that_are_no_text() {
        use std::os::unix::ffi::OsStringExt;
        let world = Fake::with_token().var("HOST_PORT", std::ffi::OsString::from_vec(vec![b'a', 0xff]));
        assert!(problems(&world).contains("got bytes that are not UTF-8"));
    }

    #[cfg(unix)]
    proptest::proptest! {
        #[test]
        fn no_variable_can_make_it_panic(
            token in proptest::prelude::any::<Vec<u8>>(),
            name in proptest::sample::select(super::super::setting::ALL.iter().flat_map(|s| s.variables).collect::<Vec<_>>()),
            value in proptest::prelude::any::<Vec<u8>>(),
        ) {
            use std::ffi::OsString;
            use std::os::unix::ffi::OsStringExt;
            let name = name.trim_start_matches("HATCHET_CLIENT_");
            let worlds = [
                Fake::default().var("TOKEN", OsString::from_vec(token)),
                Fake::with_token().var(name, OsString::from_vec(value)),
            ];
            for world in worlds {
                let _ = from(&world).map(|config| config.explain().to_string()).map_err(|error| error.to_string());
            }
        }
    }
}
