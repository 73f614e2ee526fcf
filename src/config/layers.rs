//! Takes each value from the first source that has it, and collects problems and the entries of the explanation.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::PathBuf;

use super::env::Env;
use super::secret::{has_credentials, looks_secret};
use super::setting::{Setting, TOKEN};
use super::{ConfigError, Entry, Problem, Secret, Source, pem};

/// A value with its source.
#[derive(Clone, Debug)]
pub(super) struct Sourced<T> {
    pub(super) value: T,
    pub(super) source: Source,
}

impl<T> Sourced<T> {
    pub(super) const fn new(value: T, source: Source) -> Self {
        Self { value, source }
    }

    pub(super) fn map<U>(self, change: impl FnOnce(T) -> U) -> Sourced<U> {
        Sourced { value: change(self.value), source: self.source }
    }
}

/// The value is missing or invalid, and the problem has been recorded.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reported;

/// A value, `None` if no source has one, or an error if it is invalid.
pub(super) type Lookup<T> = Result<Option<Sourced<T>>, Reported>;

/// The value, or the default. An invalid value is also replaced by the default, so that the settings that depend on it can be
/// checked. The configuration fails in any case, because the problem has been recorded.
pub(super) fn or_default<T>(lookup: Lookup<T>, default: T) -> Sourced<T> {
    lookup.ok().flatten().unwrap_or(Sourced::new(default, Source::Default))
}

/// PEM that was set in the builder or in the environment.
#[derive(Clone)]
pub(super) enum Pem {
    Inline(Secret),
    File(PathBuf),
}

/// Hides the path as well, because a user may pass the key itself as the path by mistake.
impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pem(hidden)")
    }
}

/// The sources of values, in order, and the results of the lookups so far.
pub(super) struct Layers<'a> {
    env: &'a dyn Env,
    use_env: bool,
    /// The token, once it is known. Problems and entries must not contain it.
    token: Option<Secret>,
    problems: Vec<Problem>,
    entries: Vec<Entry>,
}

impl<'a> Layers<'a> {
    pub(super) const fn new(env: &'a dyn Env, use_env: bool) -> Self {
        Self { env, use_env, token: None, problems: Vec::new(), entries: Vec::new() }
    }

    /// Hides the token in all later problems and entries.
    pub(super) fn hide(&mut self, token: &Secret) {
        self.token = Some(token.clone());
    }

    /// The value of a setting as a string. An empty value counts as not set in the environment, but as set in the builder.
    pub(super) fn string(&mut self, setting: &Setting, from_builder: Option<&str>) -> Lookup<String> {
        let found = match from_builder {
            Some(text) => Some(Sourced::new(text.trim().to_owned(), Source::Builder)),
            None => self.string_from_env(setting)?,
        };
        match found {
            // A secret can be a valid namespace, for example, and would then appear in logs.
            Some(found) if setting.builder_method != TOKEN.builder_method && self.is_secret(&found.value) => {
                Err(self.report(setting, found.source, "a value that looks like a secret (hidden)"))
            }
            other => Ok(other),
        }
    }

    /// The value of a setting that the builder takes as a type, and the environment as a name.
    pub(super) fn choice<T>(
        &mut self,
        setting: &Setting,
        from_builder: Option<T>,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Lookup<T> {
        if let Some(value) = from_builder {
            return Ok(Some(Sourced::new(value, Source::Builder)));
        }
        let Some(Sourced { value, source }) = self.string(setting, None)? else { return Ok(None) };
        match parse(&value) {
            Some(value) => Ok(Some(Sourced::new(value, source))),
            None => Err(self.report(setting, source, &self.quote(&value))),
        }
    }

    /// PEM from the builder, or from one of two variables. `extract` returns the required blocks.
    pub(super) fn pem(
        &mut self,
        [inline, file]: [&Setting; 2],
        from_builder: Option<&Pem>,
        extract: fn(&str) -> Result<String, pem::Reason>,
    ) -> Lookup<LoadedPem> {
        let Some(given) = self.given_pem([inline, file], from_builder)? else { return Ok(None) };
        let (setting, text, path) = match given.value {
            Pem::Inline(text) => (inline, text, None),
            Pem::File(path) => {
                let shown = self.quote(&path.to_string_lossy());
                let text = match self.env.read(&path).map(String::from_utf8) {
                    Ok(Ok(text)) => Secret::new(text),
                    Ok(Err(_)) => {
                        return Err(self.report(
                            file,
                            given.source,
                            &format!("{shown} (not UTF-8; DER must be converted to PEM)"),
                        ));
                    }
                    Err(error) => return Err(self.report(file, given.source, &format!("{shown} ({error})"))),
                };
                (file, text, Some(shown))
            }
        };
        match (extract(text.expose()), path) {
            (Ok(pem), path) => {
                let origin = path.unwrap_or_else(|| "(inline)".to_owned());
                Ok(Some(Sourced::new(LoadedPem { pem, origin }, given.source)))
            }
            (Err(reason), None) => Err(self.report(setting, given.source, reason)),
            (Err(reason), Some(path)) => Err(self.report(setting, given.source, &format!("{path} ({reason})"))),
        }
    }

    /// Whether a variable of these settings is set, valid or not.
    pub(super) fn any_variable(&self, settings: &[&Setting]) -> bool {
        settings.iter().flat_map(|setting| setting.variables).any(|name| self.env_var(name).is_some())
    }

    /// Records an invalid value. `got` describes it for the user, and must not contain a secret.
    pub(super) fn report(&mut self, setting: &Setting, source: Source, got: &str) -> Reported {
        self.report_expecting(setting, source, got, setting.expected)
    }

    /// Records an invalid value of a setting whose expected values depend on other settings.
    pub(super) fn report_expecting(
        &mut self,
        setting: &Setting,
        source: Source,
        got: &str,
        expected: &str,
    ) -> Reported {
        let name = match source {
            Source::Environment(name) => name.to_owned(),
            Source::Claim(_) => source.to_string(),
            _ => setting.builder_method.to_owned(),
        };
        self.problems.push(Problem::new(name, got.to_owned(), expected.to_owned()));
        Reported
    }

    /// Records that a required value is missing, under the name that the user can set.
    pub(super) fn report_missing(&mut self, setting: &Setting, got: &str) -> Reported {
        let source = match setting.variables.first() {
            Some(name) if self.use_env => Source::Environment(name),
            _ => Source::Builder,
        };
        self.report(setting, source, got)
    }

    /// The name for a setting in error messages: the environment variable if the environment is read, otherwise the builder's method.
    pub(super) fn name_to_set(&self, setting: &Setting) -> &'static str {
        if self.use_env { setting.primary_name() } else { setting.builder_method }
    }

    /// Whether an invalid value of this setting has been reported.
    pub(super) fn is_reported(&self, setting: &Setting) -> bool {
        let is_of = |name: &str| name == setting.builder_method || setting.variables.contains(&name);
        self.problems.iter().any(|problem| is_of(problem.name()))
    }

    /// Adds an entry to the explanation.
    pub(super) fn add_entry(&mut self, name: &'static str, value: impl Into<String>, source: Source) {
        self.entries.push(Entry::new(name, value.into(), source));
    }

    /// A value for an error message: in quotes, truncated, and hidden if it may be a secret.
    pub(super) fn quote(&self, text: &str) -> String {
        const MAX_CHARS: usize = 100;
        if self.is_secret(text) || has_credentials(text) {
            return "a value that looks like a secret (hidden)".to_owned();
        }
        match text.char_indices().nth(MAX_CHARS) {
            Some((end, _)) => format!("{:?}…", text.get(..end).unwrap_or_default()),
            None => format!("{text:?}"),
        }
    }

    /// The entries of the explanation, or the error with all problems.
    pub(super) fn finish(self) -> Result<Vec<Entry>, ConfigError> {
        if self.problems.is_empty() { Ok(self.entries) } else { Err(ConfigError::new(self.problems)) }
    }

    fn is_secret(&self, text: &str) -> bool {
        // A shorter string is not a token, and would match parts of other values.
        const MIN_TOKEN_LEN: usize = 16;
        let token = self.token.as_ref().map(Secret::expose).filter(|token| token.len() >= MIN_TOKEN_LEN);
        looks_secret(text) || token.is_some_and(|token| text.contains(token))
    }

    /// The value of a variable, if it is not only whitespace.
    fn env_var(&self, name: &str) -> Option<OsString> {
        let blank = |value: &OsStr| value.to_str().is_some_and(|text| text.trim().is_empty());
        self.use_env.then(|| self.env.var(name)).flatten().filter(|value| !blank(value))
    }

    /// The value of a setting from its variables. Two variables of one setting must have the same value.
    fn string_from_env(&mut self, setting: &Setting) -> Lookup<String> {
        let mut first: Option<Sourced<String>> = None;
        for &name in setting.variables {
            let Some(value) = self.env_var(name) else { continue };
            let source = Source::Environment(name);
            let Some(text) = value.to_str().map(str::trim) else {
                return Err(self.report(setting, source, "bytes that are not UTF-8"));
            };
            match &first {
                None => first = Some(Sourced::new(text.to_owned(), source)),
                Some(other) if other.value.trim_end_matches('/') == text.trim_end_matches('/') => {}
                Some(other) => {
                    let expected = format!("the value of {}, or only one of the two variables", setting.primary_name());
                    let got = format!("{}, which differs from {}", self.quote(text), self.quote(&other.value));
                    return Err(self.report_expecting(setting, source, &got, &expected));
                }
            }
        }
        Ok(first)
    }

    fn given_pem(&mut self, [inline, file]: [&Setting; 2], from_builder: Option<&Pem>) -> Lookup<Pem> {
        if let Some(pem) = from_builder {
            return Ok(Some(Sourced::new(pem.clone(), Source::Builder)));
        }
        let trimmed = |path: OsString| path.to_str().map(|path| path.trim().into()).unwrap_or(path);
        let path = file.variables.first().and_then(|&name| Some((name, trimmed(self.env_var(name)?))));
        let text = self.string_from_env(inline)?;
        match (text, path) {
            (Some(_), Some((name, path))) => {
                let expected = format!("no value, because {} is set", inline.primary_name());
                let got = self.quote(&path.to_string_lossy());
                Err(self.report_expecting(file, Source::Environment(name), &got, &expected))
            }
            (Some(text), None) => Ok(Some(text.map(|text| Pem::Inline(Secret::new(text))))),
            (None, Some((name, path))) => Ok(Some(Sourced::new(Pem::File(path.into()), Source::Environment(name)))),
            (None, None) => Ok(None),
        }
    }
}

/// PEM that was read, and a description of where it was read from.
#[derive(Clone)]
pub(super) struct LoadedPem {
    pub(super) pem: String,
    pub(super) origin: String,
}
