//! Taking a value from the first layer that has it, and noting what is wrong with it.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::PathBuf;

use super::env::World;
use super::secret::{has_credentials, looks_secret};
use super::setting::{Setting, TOKEN};
use super::{ConfigError, Entry, Problem, Secret, Source, pem};

/// A value and the layer that it came from.
#[derive(Clone, Debug)]
pub(super) struct Found<T> {
    pub(super) value: T,
    pub(super) source: Source,
}

impl<T> Found<T> {
    pub(super) const fn new(value: T, source: Source) -> Self {
        Self { value, source }
    }

    pub(super) fn map<U>(self, change: impl FnOnce(T) -> U) -> Found<U> {
        Found { value: change(self.value), source: self.source }
    }
}

/// Something was wrong and has been noted; the search for other problems goes on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reported;

/// A value, or none in any layer, or one that was bad.
pub(super) type Lookup<T> = Result<Option<Found<T>>, Reported>;

/// The value, or the default in its place. A bad value gives the default as well, so that what
/// depends on it can be checked: the configuration fails anyway, because the problem is noted.
pub(super) fn or_default<T>(lookup: Lookup<T>, default: T) -> Found<T> {
    lookup.ok().flatten().unwrap_or(Found::new(default, Source::Default))
}

/// PEM as it was given to the builder.
#[derive(Clone)]
pub(super) enum Pem {
    Text(Secret),
    File(PathBuf),
}

/// Hides the path as well: who takes one setter for the other passes the key itself as a path.
impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pem(hidden)")
    }
}

/// One pass over the layers: answers look-ups, gathers problems and the lines of the explanation.
pub(super) struct Layers<'a> {
    world: &'a dyn World,
    environment: bool,
    token: Option<Secret>,
    problems: Vec<Problem>,
    entries: Vec<Entry>,
}

impl<'a> Layers<'a> {
    pub(super) const fn new(world: &'a dyn World, environment: bool) -> Self {
        Self { world, environment, token: None, problems: Vec::new(), entries: Vec::new() }
    }

    /// From here on this text is not let into any value or message.
    pub(super) fn guard(&mut self, token: &Secret) {
        self.token = Some(token.clone());
    }

    /// The text of a setting. An empty one counts as not set in the environment, but as said in
    /// the builder.
    pub(super) fn text(&mut self, setting: &Setting, built: Option<&str>) -> Lookup<String> {
        let found = match built {
            Some(text) => Some(Found::new(text.trim().to_owned(), Source::Builder)),
            None => self.variable(setting)?,
        };
        match found {
            // A secret may well pass as a namespace, and would then be in every log.
            Some(found) if setting.field != TOKEN.field && self.is_secret(&found.value) => {
                Err(self.report(setting, found.source, "what looks like a secret (hidden)"))
            }
            other => Ok(other),
        }
    }

    /// A setting with a typed setter, and a name for each value in the environment.
    pub(super) fn choice<T>(
        &mut self,
        setting: &Setting,
        built: Option<T>,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Lookup<T> {
        if let Some(value) = built {
            return Ok(Some(Found::new(value, Source::Builder)));
        }
        let Some(Found { value, source }) = self.text(setting, None)? else { return Ok(None) };
        match parse(&value) {
            Some(value) => Ok(Some(Found::new(value, source))),
            None => Err(self.report(setting, source, &self.quote(&value))),
        }
    }

    /// PEM from the builder, else from one of two variables. `pick` keeps the blocks that matter.
    pub(super) fn pem(
        &mut self,
        [inline, file]: [&Setting; 2],
        built: Option<&Pem>,
        pick: fn(&str) -> Result<String, pem::Malformed>,
    ) -> Lookup<Loaded> {
        let Some(given) = self.given_pem([inline, file], built)? else { return Ok(None) };
        let (setting, text, path) = match given.value {
            Pem::Text(text) => (inline, text, None),
            Pem::File(path) => {
                let shown = self.quote(&path.to_string_lossy());
                let text = match self.world.read(&path).map(String::from_utf8) {
                    Ok(Ok(text)) => Secret::new(text),
                    Ok(Err(_)) => {
                        return Err(self.report(
                            file,
                            given.source,
                            &format!("{shown} (not text; DER has to be made PEM)"),
                        ));
                    }
                    Err(error) => return Err(self.report(file, given.source, &format!("{shown} ({error})"))),
                };
                (file, text, Some(shown))
            }
        };
        match (pick(text.expose()), path) {
            (Ok(pem), path) => {
                let origin = path.unwrap_or_else(|| "(given as text)".to_owned());
                Ok(Some(Found::new(Loaded { pem, origin }, given.source)))
            }
            (Err(reason), None) => Err(self.report(setting, given.source, reason)),
            (Err(reason), Some(path)) => Err(self.report(setting, given.source, &format!("{path} ({reason})"))),
        }
    }

    /// Whether any layer has one of these; says nothing about whether it is any good.
    pub(super) fn any_variable(&self, settings: &[&Setting]) -> bool {
        settings.iter().flat_map(|setting| setting.variables).any(|name| self.raw(name).is_some())
    }

    /// Notes a bad value; `found` is for the user and must not have a secret in it.
    pub(super) fn report(&mut self, setting: &Setting, source: Source, found: &str) -> Reported {
        self.report_as(setting, source, found, setting.accepted)
    }

    /// The same, when what is accepted depends on other settings.
    pub(super) fn report_as(&mut self, setting: &Setting, source: Source, found: &str, accepted: &str) -> Reported {
        let name = match source {
            Source::Environment(name) => name.to_owned(),
            Source::Claim(_) => source.to_string(),
            _ => setting.field.to_owned(),
        };
        self.problems.push(Problem::new(name, found.to_owned(), accepted.to_owned()));
        Reported
    }

    /// Notes that a value is needed and no layer has it, by the name that this user would set.
    pub(super) fn missing(&mut self, setting: &Setting, found: &str) -> Reported {
        let source = match setting.variables.first() {
            Some(name) if self.environment => Source::Environment(name),
            _ => Source::Builder,
        };
        self.report(setting, source, found)
    }

    /// The name for a setting in error texts: the environment variable if the environment is read, otherwise the builder's method.
    pub(super) fn name_to_set(&self, setting: &Setting) -> &'static str {
        if self.environment { setting.official() } else { setting.field }
    }

    /// Whether an invalid value of this setting has been reported.
    pub(super) fn is_reported(&self, setting: &Setting) -> bool {
        let is_of = |name: &str| name == setting.field || setting.variables.contains(&name);
        self.problems.iter().any(|problem| is_of(problem.name()))
    }

    /// Adds a line to the explanation.
    pub(super) fn note(&mut self, name: &'static str, value: impl Into<String>, source: Source) {
        self.entries.push(Entry::new(name, value.into(), source));
    }

    /// A value for a message: quoted, shortened, and hidden when it may be a secret.
    pub(super) fn quote(&self, text: &str) -> String {
        const LONGEST: usize = 100;
        if self.is_secret(text) || has_credentials(text) {
            return "what looks like a secret (hidden)".to_owned();
        }
        match text.char_indices().nth(LONGEST) {
            Some((end, _)) => format!("{:?}…", text.get(..end).unwrap_or_default()),
            None => format!("{text:?}"),
        }
    }

    /// The lines of the explanation if nothing was wrong, else everything that was.
    pub(super) fn finish(self) -> Result<Vec<Entry>, ConfigError> {
        if self.problems.is_empty() { Ok(self.entries) } else { Err(ConfigError::new(self.problems)) }
    }

    fn is_secret(&self, text: &str) -> bool {
        // A "token" of a few letters is none, and would be found in everything.
        const SHORTEST: usize = 16;
        let token = self.token.as_ref().map(Secret::expose).filter(|token| token.len() >= SHORTEST);
        looks_secret(text) || token.is_some_and(|token| text.contains(token))
    }

    /// A variable that is set to more than white space.
    fn raw(&self, name: &str) -> Option<OsString> {
        let blank = |value: &OsStr| value.to_str().is_some_and(|text| text.trim().is_empty());
        self.environment.then(|| self.world.var(name)).flatten().filter(|value| !blank(value))
    }

    /// A setting with two spellings may be given in both, if they say the same.
    fn variable(&mut self, setting: &Setting) -> Lookup<String> {
        let mut first: Option<Found<String>> = None;
        for &name in setting.variables {
            let Some(value) = self.raw(name) else { continue };
            let source = Source::Environment(name);
            let Some(text) = value.to_str().map(str::trim) else {
                return Err(self.report(setting, source, "bytes that are not UTF-8"));
            };
            match &first {
                None => first = Some(Found::new(text.to_owned(), source)),
                Some(other) if other.value.trim_end_matches('/') == text.trim_end_matches('/') => {}
                Some(other) => {
                    let accepted = format!("the same as in {}, or only one of the two", setting.official());
                    let found = format!("{}, beside {}", self.quote(text), self.quote(&other.value));
                    return Err(self.report_as(setting, source, &found, &accepted));
                }
            }
        }
        Ok(first)
    }

    fn given_pem(&mut self, [inline, file]: [&Setting; 2], built: Option<&Pem>) -> Lookup<Pem> {
        if let Some(pem) = built {
            return Ok(Some(Found::new(pem.clone(), Source::Builder)));
        }
        let trimmed = |path: OsString| path.to_str().map(|path| path.trim().into()).unwrap_or(path);
        let path = file.variables.first().and_then(|&name| Some((name, trimmed(self.raw(name)?))));
        let text = self.variable(inline)?;
        match (text, path) {
            (Some(_), Some((name, path))) => {
                let found = format!("{}, beside {}", self.quote(&path.to_string_lossy()), inline.official());
                Err(self.report_as(file, Source::Environment(name), &found, "only one of the two"))
            }
            (Some(text), None) => Ok(Some(text.map(|text| Pem::Text(Secret::new(text))))),
            (None, Some((name, path))) => Ok(Some(Found::new(Pem::File(path.into()), Source::Environment(name)))),
            (None, None) => Ok(None),
        }
    }
}

/// PEM that was read, and where it was read from, in words for the explanation.
#[derive(Clone)]
pub(super) struct Loaded {
    pub(super) pem: String,
    pub(super) origin: String,
}
