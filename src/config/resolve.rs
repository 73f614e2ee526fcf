//! Resolves all settings to a [`Config`], or to an error with all problems.

use uuid::Uuid;

use super::address::{HostPort, Reason};
use super::env::{Env, ProcessEnv};
use super::layers::{Layers, Lookup, Reported, Sourced};
use super::resolved::Values;
use super::setting::{self, Setting};
use super::token::Claims;
use super::{Config, ConfigBuilder, ConfigError, Secret, Source, TlsStrategy, address, namespace, tls_layers, tuning};
use crate::value::TenantId;

/// The default gRPC port of an engine without TLS.
const PLAIN_PORT: u16 = 7070;
/// The default port of a proxy that terminates TLS.
const TLS_PORT: u16 = 443;

impl Config {
    /// Reads the configuration from the environment variables `HATCHET_CLIENT_*`. Only `HATCHET_CLIENT_TOKEN` is always required.
    ///
    /// # Errors
    ///
    /// [`ConfigError`], which lists all missing and invalid values.
    pub fn from_env() -> Result<Self, ConfigError> {
        ConfigBuilder::from_env().build()
    }
}

impl ConfigBuilder {
    /// Validates all values, and returns the configuration.
    ///
    /// This reads the claims of the token, the PEM files and, if [`from_env`](Self::from_env) was used, the environment, but does not
    /// connect.
    ///
    /// # Errors
    ///
    /// [`ConfigError`], which lists all missing and invalid values.
    pub fn build(self) -> Result<Config, ConfigError> {
        resolve(&self, &ProcessEnv)
    }

    /// The configuration of a client of the embedded engine: host `embedded`, no TLS, and the given tenant and token. Of the
    /// builder, only the namespace, timeouts, message sizes and compression are used.
    #[cfg(any(test, feature = "embedded"))]
    pub(crate) fn embedded(self, tenant: TenantId, token: impl Into<String>) -> Result<Config, ConfigError> {
        embedded(&self, tenant, token.into(), &ProcessEnv)
    }
}

/// Takes each value from the first source that has it.
pub(super) fn resolve(builder: &ConfigBuilder, env: &dyn Env) -> Result<Config, ConfigError> {
    let mut layers = Layers::new(env, builder.use_env);
    let credential = credential(&mut layers, builder);
    // If the token is invalid, values that may be in its claims are not reported as missing.
    let claims = credential.as_ref().ok().map(|(_, claims)| claims);

    let tenant_id = tenant_id(&mut layers, builder, claims);
    let given = layers.string(&setting::HOST_PORT, builder.host_port.as_deref());
    let given = given.and_then(|found| parse(&mut layers, &setting::HOST_PORT, found, HostPort::parse));
    let server_url = server_url(&mut layers, builder, claims);
    let https = server_url.as_ref().is_ok_and(|url| tls_layers::is_https(&url.value));
    let strategy = tls_layers::strategy(&mut layers, builder, given.as_ref().ok().and_then(Option::as_ref), https);
    if let Ok(server_url) = &server_url
        && !layers.is_reported(&setting::TLS_STRATEGY)
    {
        tls_layers::check_server_url(&mut layers, &strategy, server_url);
    }
    let host_port =
        or_claim(&mut layers, &setting::HOST_PORT, given, claims, "grpc_broadcast_address", HostPort::parse)
            .map(|found| found.map(|address| with_port(address, strategy.value)));
    if let Ok(Sourced { value: (host, port), source }) = &host_port {
        layers.add_entry("host_port", address::authority(host, *port), *source);
    }
    if let Ok(Sourced { value, source }) = &server_url {
        layers.add_entry("server_url", value.as_str(), *source);
    }
    let namespace = namespace(&mut layers, builder);
    let host = host_port.as_ref().ok().map(|found| found.value.0.as_str());
    let url = server_url.as_ref().ok().map(|found| found.value.as_str());
    let tls = tls_layers::resolve(&mut layers, builder, &strategy, host, url);
    let tuning = tuning::resolve(&mut layers, builder);

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
        // All errors have been recorded, so `finish` has returned them.
        _ => Err(ConfigError::new(Vec::new())),
    }
}

/// The configuration of a client of the embedded engine, which has its own address, tenant and token. The other values are from the
/// builder, and from the environment if the builder reads it.
#[cfg(any(test, feature = "embedded"))]
fn embedded(builder: &ConfigBuilder, tenant: TenantId, token: String, env: &dyn Env) -> Result<Config, ConfigError> {
    const HOST: &str = "embedded";
    let mut layers = Layers::new(env, builder.use_env);
    let authority = address::authority(HOST, PLAIN_PORT);
    let server_url = format!("http://{HOST}");
    layers.add_entry("token", "(hidden)", Source::Embedded);
    layers.add_entry("tenant_id", tenant.to_string(), Source::Embedded);
    layers.add_entry("host_port", authority.as_str(), Source::Embedded);
    layers.add_entry("server_url", server_url.as_str(), Source::Embedded);
    let namespace = namespace(&mut layers, builder);
    layers.add_entry("tls_strategy", TlsStrategy::None.as_str(), Source::Embedded);
    let tuning = tuning::resolve(&mut layers, builder);
    let entries = layers.finish()?;
    Ok(Config::new(Values {
        token: Secret::new(token),
        token_expires_at: None,
        tenant_id: tenant,
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

fn credential(layers: &mut Layers<'_>, builder: &ConfigBuilder) -> Result<(Secret, Claims), Reported> {
    let Some(Sourced { value, source }) = layers.string(&setting::TOKEN, builder.token.as_ref().map(Secret::expose))?
    else {
        return Err(layers.report_missing(&setting::TOKEN, "no value"));
    };
    let token = Secret::new(value);
    layers.hide(&token);
    let claims = Claims::parse(token.expose()).map_err(|got| layers.report(&setting::TOKEN, source, &got))?;
    layers.add_entry("token", "(hidden)", source);
    let expiry = claims.expires_at().map_or_else(|| "(unknown)".to_owned(), |at| at.to_rfc3339());
    layers.add_entry("token_expires_at", expiry, Source::Claim("exp"));
    Ok((token, claims))
}

fn tenant_id(layers: &mut Layers<'_>, builder: &ConfigBuilder, claims: Option<&Claims>) -> Result<TenantId, Reported> {
    let read = |text: &str| text.parse::<Uuid>().map(TenantId::from).map_err(|_| "invalid tenant id");
    let given = layers
        .string(&setting::TENANT_ID, builder.tenant_id.map(|tenant| tenant.to_string()).as_deref())
        .and_then(|found| parse(layers, &setting::TENANT_ID, found, read));
    if let (Ok(Some(given)), Some(sub)) = (&given, claims.and_then(|claims| claims.string("sub")))
        && read(sub) != Ok(given.value)
    {
        let got =
            format!("{}, but the token's tenant is {}", layers.quote(&given.value.to_string()), layers.quote(sub));
        return Err(layers.report(&setting::TENANT_ID, given.source, &got));
    }
    let Sourced { value, source } = or_claim(layers, &setting::TENANT_ID, given, claims, "sub", read)?;
    layers.add_entry("tenant_id", value.to_string(), source);
    Ok(value)
}

fn server_url(
    layers: &mut Layers<'_>,
    builder: &ConfigBuilder,
    claims: Option<&Claims>,
) -> Result<Sourced<String>, Reported> {
    let given = layers.string(&setting::SERVER_URL, builder.server_url.as_deref());
    let given = given.and_then(|found| parse(layers, &setting::SERVER_URL, found, address::base_url));
    or_claim(layers, &setting::SERVER_URL, given, claims, "server_url", address::base_url)
}

fn namespace(layers: &mut Layers<'_>, builder: &ConfigBuilder) -> Result<Option<String>, Reported> {
    let found = layers.string(&setting::NAMESPACE, builder.namespace.as_deref())?;
    let Sourced { value, source } = found.unwrap_or(Sourced::new(String::new(), Source::Default));
    let Ok(namespace) = namespace::normalize(&value) else {
        let got = layers.quote(&value);
        return Err(layers.report(&setting::NAMESPACE, source, &got));
    };
    layers.add_entry("namespace", namespace.as_deref().unwrap_or("(none)"), source);
    Ok(namespace)
}

/// The given value, or the claim. A missing value is recorded as a problem.
fn or_claim<T>(
    layers: &mut Layers<'_>,
    setting: &Setting,
    given: Lookup<T>,
    claims: Option<&Claims>,
    claim: &'static str,
    read: impl Fn(&str) -> Result<T, Reason>,
) -> Result<Sourced<T>, Reported> {
    if let Some(given) = given? {
        return Ok(given);
    }
    let claims = claims.ok_or(Reported)?;
    let found = claims.string(claim).map(|text| Sourced::new(text.to_owned(), Source::Claim(claim)));
    match parse(layers, setting, found, read)? {
        Some(found) => Ok(found),
        None => Err(layers.report_missing(setting, &format!("no value, and the token has no claim {claim}"))),
    }
}

fn parse<T>(
    layers: &mut Layers<'_>,
    setting: &Setting,
    found: Option<Sourced<String>>,
    read: impl Fn(&str) -> Result<T, Reason>,
) -> Lookup<T> {
    let Some(Sourced { value, source }) = found else { return Ok(None) };
    match read(&value) {
        Ok(value) => Ok(Some(Sourced::new(value, source))),
        Err(reason) => {
            // An address with `@` may contain a password.
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
    use super::super::fixtures::{FakeEnv, TENANT, claims, jwt};
    use super::*;
    use serde_json::json;

    fn from(env: &FakeEnv) -> Result<Config, ConfigError> {
        resolve(&ConfigBuilder::from_env(), env)
    }

    fn id(tenant: &str) -> TenantId {
        tenant.parse::<Uuid>().unwrap().into()
    }

    fn problems(env: &FakeEnv) -> String {
        from(env).unwrap_err().to_string()
    }

    fn source(config: &Config, name: &str) -> Source {
        config.explain().get(name).map(super::super::Entry::source).unwrap()
    }

    #[test]
    fn the_builder_precedes_the_environment_which_precedes_the_claims() {
        let tenant = TENANT.to_ascii_uppercase();
        let token = FakeEnv::with_token();
        let environment = FakeEnv::with_token()
            .var("HOST_PORT", "env:1")
            .var("SERVER_URL", "http://env")
            .var("TENANT_ID", &tenant)
            .var("NAMESPACE", "env");
        let builder = || {
            ConfigBuilder::from_env()
                .host_port("code:2")
                .server_url("http://code/")
                .tenant_id(id(TENANT))
                .namespace("Code")
        };
        let names = ["host_port", "server_url", "tenant_id", "namespace"];
        let values = |config: &Config| {
            let namespace = config.namespace().map(str::to_owned);
            let sources = names.map(|name| source(config, name));
            (config.authority().to_owned(), config.server_url().to_owned(), namespace, sources)
        };

        let claim = Source::Claim;
        assert_eq!(
            values(&from(&token).unwrap()),
            (
                "localhost:7077".to_owned(),
                "https://localhost:8080".to_owned(),
                None,
                [claim("grpc_broadcast_address"), claim("server_url"), claim("sub"), Source::Default]
            )
        );
        assert_eq!(
            values(&from(&environment).unwrap()),
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
        for env in [&environment, &token] {
            assert_eq!(
                values(&resolve(&builder(), env).unwrap()),
                ("code:2".to_owned(), "http://code".to_owned(), Some("code_".to_owned()), [Source::Builder; 4])
            );
        }
        // The builder has the token and does not read the environment.
        let alone = resolve(&Config::builder().token(jwt(&claims())), &environment).unwrap();
        assert_eq!(values(&alone), values(&from(&token).unwrap()));
        assert_eq!(source(&alone, "token"), Source::Builder);
        assert_eq!(from(&environment).unwrap().tenant_id(), id(TENANT), "parsed in upper case");
    }

    #[test]
    fn invalid_variables_are_ignored_if_the_builder_has_a_value() {
        let env = FakeEnv::default().var("TOKEN", "junk").var("HOST_PORT", "junk:junk").var("NAMESPACE", "ns");
        let builder = ConfigBuilder::from_env().token(format!(" {}\n", jwt(&claims()))).host_port("a:1").namespace("");
        let config = resolve(&builder, &env).unwrap();
        assert_eq!((config.authority(), config.namespace()), ("a:1", None));
        assert_eq!(source(&config, "namespace"), Source::Builder);
        assert_eq!(config.token().expose(), jwt(&claims()));
    }

    #[test]
    fn all_problems_are_reported() {
        let env = FakeEnv::with_token()
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
            .var("SOMETHING_ELSE", "ignored");
        let found = from(&env).unwrap_err();
        assert_eq!(
            found.to_string(),
            format!(
                "\
10 problems in the configuration
  HATCHET_CLIENT_TENANT_ID: expected the tenant of the token (a UUID), or no value, got \"00000000-0000-4000-8000-000000000000\", but the token's tenant is \"{TENANT}\"
  HATCHET_CLIENT_HOST_PORT: expected host:port, optionally after http://, https://, grpc:// or grpcs://, with an IPv6 host in brackets, got \"local host\" (invalid character in the host name)
  HATCHET_CLIENT_SERVER_URL: expected http:// or https://, a host, and optionally a port and a path, got \"localhost\" (missing http:// or https://)
  HATCHET_CLIENT_TLS_STRATEGY: expected none, tls, mtls, got \"tsl\"
  HATCHET_CLIENT_NAMESPACE: expected letters, digits, '.', '-' and '_', got \"two words\"
  HATCHET_CLIENT_TLS_SERVER_NAME: expected a host name or an IP address, without a port, got \"a:1\"
  HATCHET_CLIENT_TLS_MIN_VERSION: expected 1.2, 1.3, got \"1.1\"
  HATCHET_CLIENT_GRPC_MAX_SEND_MESSAGE_LENGTH: expected an integer from 1 to 4294967295 (bytes), got \"4MB\"
  HATCHET_CLIENT_GRPC_MAX_RECV_MESSAGE_LENGTH: expected an integer from 1 to 4294967295 (bytes), got \"0\"
  HATCHET_CLIENT_GRPC_COMPRESSION: expected none, gzip, got \"zstd\""
            )
        );
    }

    #[test]
    fn an_invalid_token_is_the_only_problem() {
        let expected_token = "an API token (a JWT: three base64url parts joined by dots)";
        for (env, found) in [
            (FakeEnv::default(), "no value"),
            (FakeEnv::default().var("TOKEN", " \n"), "no value"),
            (FakeEnv::default().var("TOKEN", "hello"), "a value without dots"),
        ] {
            let expected = format!(
                "1 problem in the configuration\n  HATCHET_CLIENT_TOKEN: expected {expected_token}, got {found}"
            );
            assert_eq!(problems(&env), expected);
        }
        let built = resolve(&Config::builder().token(""), &FakeEnv::with_token()).unwrap_err();
        assert_eq!(
            built.to_string(),
            format!("1 problem in the configuration\n  token: expected {expected_token}, got an empty value")
        );
    }

    #[test]
    fn values_that_are_not_in_the_token_are_required() {
        let bare = || FakeEnv::default().var("TOKEN", jwt(&json!({"exp": 1})));
        let found = from(&bare()).unwrap_err();
        let lines: Vec<_> = found.problems().iter().map(|p| format!("{}: {}", p.name(), p.got())).collect();
        assert_eq!(
            lines,
            [
                "HATCHET_CLIENT_TENANT_ID: no value, and the token has no claim sub",
                "HATCHET_CLIENT_SERVER_URL: no value, and the token has no claim server_url",
                "HATCHET_CLIENT_HOST_PORT: no value, and the token has no claim grpc_broadcast_address",
            ]
        );
        let env = bare().var("TENANT_ID", TENANT).var("SERVER_URL", "http://a").var("HOST_PORT", "a");
        let config = from(&env).unwrap();
        assert_eq!((config.tenant_id(), config.authority()), (id(TENANT), "a:443"));
        assert_eq!(config.token_expires_at().map(|at| at.timestamp()), Some(1), "an expired token is accepted");
    }

    #[test]
    fn problems_name_invalid_claims() {
        let mut bad = claims();
        bad["sub"] = "../other".into();
        bad["server_url"] = "localhost:8080".into();
        bad["grpc_broadcast_address"] = "localhost:http".into();
        let found = from(&FakeEnv::default().var("TOKEN", jwt(&bad))).unwrap_err();
        let names: Vec<_> = found.problems().iter().map(super::super::Problem::name).collect();
        assert_eq!(names, ["token claim sub", "token claim server_url", "token claim grpc_broadcast_address"]);
    }

    #[test]
    fn the_tenant_is_a_uuid() {
        let env = FakeEnv::with_token().var("TENANT_ID", "acme");
        let text = "expected the tenant of the token (a UUID), or no value, got \"acme\" (invalid tenant id)";
        assert!(problems(&env).contains(text), "{}", problems(&env));
        let other = ConfigBuilder::from_env().tenant_id(Uuid::nil().into());
        let error = resolve(&other, &FakeEnv::with_token()).unwrap_err().to_string();
        assert!(error.contains("but the token's tenant is"), "{error}");
    }

    #[test]
    fn the_default_port_depends_on_the_strategy() {
        for (host_port, strategy, authority) in [
            ("a", "", "a:443"),
            ("a", "none", "a:7070"),
            ("http://a/", "", "a:7070"),
            ("grpcs://a", "", "a:443"),
            ("[::1]", "none", "[::1]:7070"),
            ("a:1", "", "a:1"),
        ] {
            let config =
                from(&FakeEnv::with_token().var("HOST_PORT", host_port).var("TLS_STRATEGY", strategy)).unwrap();
            assert_eq!(config.authority(), authority);
            assert_eq!(config.authority(), address::authority(config.host(), config.port()));
        }
    }

    #[test]
    fn both_variables_of_the_server_url_are_read() {
        for (official, other, expected) in [
            ("http://a", "", Ok("http://a")),
            ("", "http://b/", Ok("http://b")),
            ("http://a", "http://a/", Ok("http://a")),
            ("http://a", "http://b", Err(())),
        ] {
            let config = from(&FakeEnv::with_token().var("SERVER_URL", official).var("API_URL", other));
            assert_eq!(config.as_ref().map(Config::server_url).map_err(|_| ()), expected);
        }
        assert_eq!(
            problems(&FakeEnv::with_token().var("SERVER_URL", "http://a").var("API_URL", "http://b")),
            "1 problem in the configuration\n  HATCHET_CLIENT_API_URL: expected the value of HATCHET_CLIENT_SERVER_URL, or only one of the two variables, got \"http://b\", which differs from \"http://a\""
        );
    }

    #[test]
    fn clients_of_the_embedded_engine_use_its_address() {
        let env = FakeEnv::with_token().var("NAMESPACE", "env");
        let builder = Config::builder().namespace("Code").host_port("junk:junk").tls_strategy(TlsStrategy::Mtls);
        let config = embedded(&builder, id(TENANT), "any token".to_owned(), &env).unwrap();
        assert_eq!((config.host(), config.tenant_id(), config.namespace()), ("embedded", id(TENANT), Some("code_")));
        assert_eq!((config.token().expose(), config.server_url()), ("any token", "http://embedded"));
        assert!(!config.tls().is_enabled());
        assert_eq!(source(&config, "host_port"), Source::Embedded);
        assert!(!format!("{config:?}{}", config.explain()).contains("any token"));
        assert!(Config::builder().namespace("two words").embedded(id(TENANT), "token").is_err());
        assert_eq!(Config::builder().embedded(id(TENANT), "token").unwrap().namespace(), None);
    }

    #[cfg(unix)]
    #[test]
    fn variables_that_are_not_utf_8_are_rejected() {
        use std::os::unix::ffi::OsStringExt;
        let env = FakeEnv::with_token().var("HOST_PORT", std::ffi::OsString::from_vec(vec![b'a', 0xff]));
        assert!(problems(&env).contains("got bytes that are not UTF-8"));
    }

    #[cfg(unix)]
    proptest::proptest! {
        #[test]
        fn no_variable_panics(
            token in proptest::prelude::any::<Vec<u8>>(),
            name in proptest::sample::select(super::super::setting::ALL.iter().flat_map(|s| s.variables).collect::<Vec<_>>()),
            value in proptest::prelude::any::<Vec<u8>>(),
        ) {
            use std::ffi::OsString;
            use std::os::unix::ffi::OsStringExt;
            let name = name.trim_start_matches("HATCHET_CLIENT_");
            let envs = [
                FakeEnv::default().var("TOKEN", OsString::from_vec(token)),
                FakeEnv::with_token().var(name, OsString::from_vec(value)),
            ];
            for env in envs {
                let _ = from(&env).map(|config| config.explain().to_string()).map_err(|error| error.to_string());
            }
        }
    }
}
