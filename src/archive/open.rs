//! Opens the object store of a URL, with the options of the environment and of the caller.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::prefix::PrefixStore;
use url::Url;

use crate::error::{Error, ErrorKind, Result};

const EXPECTED: &str =
    "expected the path of a directory, or a URL that begins with file://, memory://, s3://, gs:// or az://";

/// A kind of store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Directory,
    Memory,
    S3,
    Gcs,
    Azure,
}

/// A store that was opened.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) objects: Arc<dyn ObjectStore>,
    /// What to do if the store rejects requests, in the text of errors.
    pub(super) advice: Option<&'static str>,
    /// The local directory of the objects.
    pub(super) directory: Option<PathBuf>,
}

impl Kind {
    /// The store of a scheme, as the crate `object_store` names it.
    fn of(scheme: &str) -> Option<Self> {
        Some(match scheme {
            "file" => Self::Directory,
            "memory" => Self::Memory,
            "s3" | "s3a" => Self::S3,
            "gs" => Self::Gcs,
            "az" | "adl" | "azure" | "abfs" | "abfss" => Self::Azure,
            _ => return None,
        })
    }

    /// The feature that the store needs, unless it is enabled.
    fn missing_feature(self) -> Option<&'static str> {
        match self {
            Self::S3 => (!cfg!(feature = "archive-s3")).then_some("archive-s3"),
            Self::Gcs => (!cfg!(feature = "archive-gcs")).then_some("archive-gcs"),
            Self::Azure => (!cfg!(feature = "archive-azure")).then_some("archive-azure"),
            Self::Directory | Self::Memory => None,
        }
    }

    /// Whether an environment variable is an option of the store. Others, such as `TOKEN` and `ENDPOINT`, belong to other programs.
    fn reads_variable(self, name: &str) -> bool {
        match self {
            Self::S3 => name.starts_with("AWS_"),
            Self::Gcs => name.starts_with("GOOGLE_") || name == "SERVICE_ACCOUNT",
            Self::Azure => name.starts_with("AZURE_") || name == "IDENTITY_ENDPOINT",
            Self::Directory | Self::Memory => false,
        }
    }

    /// Whether the store has an option of this name, in lower case.
    fn has_option(self, name: &str) -> bool {
        #[cfg(feature = "archive-s3")]
        if self == Self::S3 {
            return name.parse::<object_store::aws::AmazonS3ConfigKey>().is_ok();
        }
        #[cfg(feature = "archive-gcs")]
        if self == Self::Gcs {
            return name.parse::<object_store::gcp::GoogleConfigKey>().is_ok();
        }
        #[cfg(feature = "archive-azure")]
        if self == Self::Azure {
            return name.parse::<object_store::azure::AzureConfigKey>().is_ok();
        }
        let _ = (self, name);
        false
    }

    /// What to do if the store rejects requests.
    fn advice(self) -> Option<&'static str> {
        match self {
            Self::S3 => Some(
                "check that the bucket exists, and its options: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY unless the machine has a role, AWS_REGION, \
                 and for a store without TLS AWS_ALLOW_HTTP",
            ),
            Self::Gcs => Some(
                "check that the bucket exists, and its options: GOOGLE_SERVICE_ACCOUNT or GOOGLE_APPLICATION_CREDENTIALS unless the machine has an \
                 account",
            ),
            Self::Azure => Some(
                "check that the container exists, and its options: AZURE_STORAGE_ACCOUNT_NAME, AZURE_STORAGE_ACCOUNT_KEY unless the machine has an \
                 identity, and for a store without TLS AZURE_ALLOW_HTTP",
            ),
            Self::Directory | Self::Memory => None,
        }
    }
}

/// Opens a directory, or the store of a URL. The options are added to those of the environment.
pub(super) fn open(url: &str, options: Vec<(String, String)>) -> Result<Opened> {
    let (kind, parsed) = parse(url)?;
    // The text of an error has the URL.
    if parsed.as_ref().is_some_and(|url| url.password().is_some() || url.query().is_some()) {
        return Err(invalid(
            "expected a URL without a password or a query, got one: pass credentials as options of the store",
        ));
    }
    if let Some(feature) = kind.missing_feature() {
        let problem = format_args!("{url:?} needs the feature `{feature}` of hatchet-rs, which is not enabled");
        return Err(invalid(problem));
    }
    let options = options.into_iter().map(|(name, value)| {
        let name = name.to_ascii_lowercase();
        if kind.has_option(&name) {
            return Ok((name, value));
        }
        let expected =
            if kind.advice().is_some() { "the name of an option of the store" } else { "no options for this store" };
        // The value may be a secret.
        Err(Error::invalid("archive option", format_args!("expected {expected}, got {name:?}")))
    });
    let options = options.collect::<Result<Vec<_>>>()?;
    let path = match (kind, &parsed) {
        (Kind::Directory, None) => Some(PathBuf::from(url)),
        (Kind::Directory, Some(parsed)) => {
            let expected = "expected the absolute path of a directory after file://";
            Some(parsed.to_file_path().map_err(|()| invalid(format_args!("{expected}, got {url:?}")))?)
        }
        _ => None,
    };
    if let Some(path) = path {
        let (objects, path) = directory(&path)?;
        return Ok(Opened { objects, advice: None, directory: Some(path) });
    }
    let objects: Arc<dyn ObjectStore> = match (kind, parsed) {
        (Kind::Memory, _) => Arc::new(InMemory::new()),
        (_, None) => return Err(invalid(format_args!("{EXPECTED}, got {url:?}"))),
        (_, Some(parsed)) => {
            let variables = std::env::vars_os()
                .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
                .filter(|(name, _)| kind.reads_variable(name))
                .map(|(name, value)| (name.to_ascii_lowercase(), value));
            let (store, prefix) = object_store::parse_url_opts(&parsed, variables.chain(options)).map_err(|error| {
                let advice = kind.advice().unwrap_or_default();
                Error::new(ErrorKind::InvalidInput, format!("cannot open the archive {url:?}: {error}; {advice}"))
                    .without_side_effects()
                    .with_source(error)
            })?;
            Arc::new(PrefixStore::new(store, prefix))
        }
    };
    Ok(Opened { objects, advice: kind.advice(), directory: None })
}

/// The store of a path or a URL, which is parsed.
fn parse(url: &str) -> Result<(Kind, Option<Url>)> {
    let unexpected = || invalid(format_args!("{EXPECTED}, got {url:?}"));
    if url.is_empty() {
        return Err(unexpected());
    }
    let Some((scheme, rest)) = url.split_once(':') else { return Ok((Kind::Directory, None)) };
    let kind = Kind::of(&scheme.to_ascii_lowercase());
    if !rest.starts_with("//") {
        // Without the slashes, it would be a directory of this name.
        return match kind {
            Some(_) => Err(invalid(format_args!("expected \"//\" after \"{scheme}:\", got {url:?}"))),
            None => Ok((Kind::Directory, None)),
        };
    }
    let kind = kind.ok_or_else(unexpected)?;
    let parsed = Url::parse(url).map_err(|error| {
        invalid(format_args!("expected a URL such as {scheme}://bucket/path, got {url:?}")).with_source(error)
    })?;
    if matches!(kind, Kind::S3 | Kind::Gcs | Kind::Azure) && parsed.host_str().is_none_or(str::is_empty) {
        let problem = format_args!("expected the name of a bucket or container after {scheme}://, got {url:?}");
        return Err(invalid(problem));
    }
    Ok((kind, Some(parsed)))
}

fn invalid(problem: impl fmt::Display) -> Error {
    Error::invalid("archive URL", problem)
}

/// Opens a directory, and returns its absolute path: the process may change its working directory.
fn directory(path: &Path) -> Result<(Arc<dyn ObjectStore>, PathBuf)> {
    let failed = || Error::new(ErrorKind::Storage, format!("failed to open the archive directory {}", path.display()));
    std::fs::create_dir_all(path).map_err(|error| failed().with_source(error))?;
    let path = path.canonicalize().map_err(|error| failed().with_source(error))?;
    let store = LocalFileSystem::new_with_prefix(&path).map_err(|error| failed().with_source(error))?;
    Ok((Arc::new(store.with_fsync(true)), path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(url: &str, options: &[(&str, &str)]) -> String {
        let options = options.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let error = open(url, options).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        error.to_string()
    }

    #[test]
    fn an_invalid_url_is_an_error_that_says_what_is_expected() {
        for (url, expected) in [
            ("", EXPECTED),
            ("nope://bucket", EXPECTED),
            ("https://bucket.example/path", EXPECTED),
            ("s3:/bucket/path", "expected \"//\" after \"s3:\""),
            ("file:relative", "expected \"//\" after \"file:\""),
            ("file://host/path", "expected the absolute path of a directory after file://"),
        ] {
            assert_eq!(error(url, &[]), format!("invalid archive URL: {expected}, got {url:?}"));
        }
        for url in ["s3://", "s3:///path", "gs:///", "az:///container"] {
            let error = error(url, &[]);
            assert!(error.starts_with("invalid archive URL: expected"), "{error}");
        }
    }

    #[test]
    fn a_store_whose_feature_is_not_enabled_is_an_error_that_names_the_feature() {
        for (url, feature) in
            [("s3://bucket/path", "archive-s3"), ("gs://bucket", "archive-gcs"), ("abfs://container", "archive-azure")]
        {
            if Kind::of(url.split(':').next().unwrap()).unwrap().missing_feature().is_some() {
                let expected = format!(
                    "invalid archive URL: {url:?} needs the feature `{feature}` of hatchet-rs, which is not enabled"
                );
                assert_eq!(error(url, &[]), expected);
            }
        }
    }

    #[test]
    fn options_are_checked_and_their_values_are_not_shown() {
        let text = error("s3://key:secret@bucket/path", &[]);
        assert!(text.contains("expected a URL without a password") && !text.contains("secret"), "{text}");
        let text = error("memory://", &[("aws_region", "secret")]);
        assert_eq!(text, "invalid archive option: expected no options for this store, got \"aws_region\"");
        if cfg!(feature = "archive-s3") {
            let text = error("s3://bucket/path", &[("AWS_REGOIN", "secret")]);
            let expected = "invalid archive option: expected the name of an option of the store, got \"aws_regoin\"";
            assert_eq!(text, expected);
            let options = vec![("AWS_REGION".to_owned(), "us-east-1".to_owned())];
            assert!(open("s3://bucket/path", options).unwrap().advice.is_some());
        }
        if cfg!(feature = "archive-azure") {
            let text = error("az://container/path", &[]);
            assert!(
                text.contains("Account must be specified") && text.contains("AZURE_STORAGE_ACCOUNT_NAME"),
                "{text}"
            );
        }
        if cfg!(feature = "archive-gcs") {
            let text = error("gs://bucket/path", &[("google_service_account", "/does/not/exist.json")]);
            assert!(text.contains("/does/not/exist.json") && text.contains("GOOGLE_SERVICE_ACCOUNT"), "{text}");
        }
    }

    #[test]
    fn only_the_variables_of_the_store_are_read() {
        assert!(Kind::S3.reads_variable("AWS_ENDPOINT_URL") && !Kind::S3.reads_variable("ENDPOINT"));
        assert!(Kind::Gcs.reads_variable("GOOGLE_SERVICE_ACCOUNT") && !Kind::Gcs.reads_variable("BUCKET"));
        assert!(Kind::Azure.reads_variable("AZURE_STORAGE_TOKEN") && !Kind::Azure.reads_variable("TOKEN"));
    }

    #[test]
    fn the_path_of_a_directory_is_resolved_when_it_is_opened() {
        let parent = std::env::temp_dir().canonicalize().unwrap().join(format!("hatchet-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir_all(parent.join("other")).unwrap();
        let opened = open(parent.join("other/../archive").to_str().unwrap(), Vec::new()).unwrap();
        assert_eq!(opened.directory, Some(parent.join("archive")));
        std::fs::remove_dir_all(parent).unwrap();
    }

    #[test]
    fn paths_are_directories() {
        for path in ["archive", "/tmp/a:b", "./s3", "C:\\archive"] {
            assert_eq!(parse(path).unwrap(), (Kind::Directory, None), "{path}");
        }
    }
}
