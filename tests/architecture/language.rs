//! The wording of doc comments, comments and guides.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use syn::visit::Visit;
use syn::{Attribute, Expr, ImplItemFn, ItemEnum, ItemFn, ItemImpl, ItemStruct, ItemTrait, Lit, Meta, TraitItem};

use super::files;
use super::public_api::is_pub;
use super::source::{Sources, is_test};

/// Words that say nothing beside the name of an item.
const EMPTY_WORDS: &str = "a action add adds all an and any are as at attempt author be by create creates current each engine for from get \
     gets have has in is it its no of on one or remove removes return returns run set sets task that the this to was whether which \
     with";

/// Words that documentation, comments, names and texts avoid, and the term that they use.
const AVOIDED: &[(&str, &str)] = &[
    ("verdict", "resolution"),
    ("judge", "resolve"),
    ("settled", "resolved"),
    ("patience", "timeout"),
    ("stamp", "timestamp"),
    ("beat", "heartbeat"),
    ("anew", "again"),
    ("tell", "report"),
    ("told", "reported"),
    ("circle", "cycle"),
    ("surface", "API view"),
    ("goodbye", "shutdown"),
    ("as above", "a link"),
    ("see above", "a link"),
    ("of one piece", "consistent"),
    ("gone quiet", "idle"),
    ("folder", "directory"),
    ("folders", "directories"),
    ("behaviour", "behavior"),
    ("refusal", "rejection"),
    ("look at", "check"),
    ("looks at", "checks"),
    ("looked at", "checked"),
    ("white space", "whitespace"),
    ("so many", "this number of"),
    ("about to be sent", "a builder"),
    ("room", "space, layer"),
    ("the house", "API view"),
    ("phantom", "a run that the server never creates"),
    ("telling", "reporting"),
    ("hint", "advice, notification"),
    ("hints", "advice, notifications"),
    ("beats", "heartbeats"),
    ("a text", "a string"),
    ("settle", "resolve"),
    ("settles", "resolves"),
    ("begun anew", "restarted"),
    ("counted home", "confirmed"),
    ("give up", "mark lost"),
    ("renew", "reopen"),
    ("renews", "reopens"),
    ("unseen", "its number and its unit"),
    ("unheard", "its number and its unit"),
    ("left tasks", "unfinished tasks"),
    ("in a circle", "a cycle"),
    ("verdicts", "resolutions"),
    ("circles", "cycles"),
    ("judged", "resolved"),
    ("judges", "resolves"),
    ("settling", "resolving"),
    ("stamps", "timestamps"),
    ("tells", "reports"),
    ("surfaces", "API views"),
    ("refusals", "rejections"),
    ("renewed", "reopened"),
    ("see below", "a link"),
    ("looking at", "checking"),
    ("phantoms", "runs that the server never creates"),
    ("how grave", "severity"),
    ("grave", "severe"),
];

/// Names of other crates and of the standard library that contain avoided words.
const FOREIGN_NAMES: [&str; 4] = ["PhantomData", "SizeHint", "size_hint", "std::hint"];

/// The directories whose text is checked: comments, names, and texts of errors and events.
const DIRECTORIES: [&str; 8] = ["src", "docs", "examples", "benches", "proto", "tests", "fuzz/fuzz_targets", ".github"];

/// The files outside of these directories whose text is checked.
const FILES: [&str; 13] = [
    "README.md",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "SECURITY.md",
    "RELEASING.md",
    "Cargo.toml",
    "build.rs",
    "clippy.toml",
    "deny.toml",
    "rustfmt.toml",
    "fuzz/Cargo.toml",
    ".ci/run",
];

/// The public items whose documentation has no word that is not in their names.
pub(crate) fn docs_that_repeat_names(sources: &Sources) -> Vec<String> {
    let mut docs = Docs::default();
    for source in &sources.files {
        docs.visit_file(&source.syntax);
    }
    docs.repeated
}

/// The lines with avoided words.
pub(crate) fn avoided_words() -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files: Vec<PathBuf> = FILES.iter().map(|name| root.join(name)).collect();
    assert!(files.iter().all(|path| path.exists()), "{files:?}");
    // Recordings of the engine and the output of the compiler have their own words.
    let is_checked = |path: &PathBuf| {
        let is_text =
            path.extension().is_some_and(|kind| ["rs", "md", "proto", "yml"].iter().any(|known| kind == *known));
        is_text && !path.ends_with(file!())
    };
    files.extend(DIRECTORIES.into_iter().flat_map(files::in_directory).filter(is_checked));
    let mut found = Vec::new();
    for path in files {
        let Ok(text) = fs::read_to_string(&path) else { continue };
        for (at, line) in text.lines().enumerate() {
            for (word, term) in avoided(line) {
                found.push(format!("{}:{}: {word:?}, expected {term:?}", path.display(), at + 1));
            }
        }
    }
    found
}

fn avoided(prose: &str) -> Vec<(&'static str, &'static str)> {
    let own = FOREIGN_NAMES.iter().fold(prose.to_owned(), |prose, name| prose.replace(name, "|"));
    let line = format!(" {} ", spaced(&own).split_whitespace().collect::<Vec<_>>().join(" "));
    AVOIDED.iter().filter(|(word, _)| line.contains(&format!(" {word} "))).copied().collect()
}

#[derive(Default)]
struct Docs {
    /// The type whose items are visited.
    owner: String,
    repeated: Vec<String>,
}

impl Docs {
    /// Visits a type or a trait, and then its items.
    fn own(&mut self, name: &syn::Ident, attributes: &[Attribute]) {
        self.owner.clear();
        self.check(&name.to_string(), attributes);
        self.owner = name.to_string();
    }

    fn check(&mut self, name: &str, attributes: &[Attribute]) {
        let text = prose(&doc(attributes));
        let mut said = words(&text);
        for known in [name, &self.owner, EMPTY_WORDS].into_iter().flat_map(words) {
            said.remove(&known);
        }
        if !text.is_empty() && said.is_empty() {
            self.repeated.push(format!("{} {name}:{text}", self.owner));
        }
    }
}

/// A doc comment without its examples, and without references to other items, which say nothing themselves.
fn prose(doc: &str) -> String {
    let text: String = doc.split("```").step_by(2).collect();
    let mut parts = text.split("see [");
    let first = parts.next().unwrap_or_default().to_owned();
    let rest = parts.map(|part| part.find([' ', '\n']).map_or("", |end| &part[end..]));
    first + &rest.collect::<String>()
}

pub(crate) fn doc(attributes: &[Attribute]) -> String {
    let lines = attributes.iter().filter_map(|attribute| match &attribute.meta {
        Meta::NameValue(value) if value.path.is_ident("doc") => match &value.value {
            Expr::Lit(literal) => match &literal.lit {
                Lit::Str(text) => Some(text.value()),
                _ => None,
            },
            _ => None,
        },
        _ => None,
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// The words of prose or of an identifier in lower case, with spaces between them. Punctuation is a word, which no phrase contains.
fn spaced(text: &str) -> String {
    let mut spaced = String::new();
    let mut was_lower = false;
    for letter in text.chars() {
        if was_lower && letter.is_uppercase() {
            spaced.push(' ');
        }
        was_lower = letter.is_lowercase();
        match letter {
            '_' | '-' => spaced.push(' '),
            letter if letter.is_alphanumeric() || letter.is_whitespace() => spaced.extend(letter.to_lowercase()),
            _ => spaced.push_str(" | "),
        }
    }
    spaced
}

/// The words of prose or of an identifier, in lower case and without the `s` of a plural.
fn words(text: &str) -> BTreeSet<String> {
    let spaced = spaced(text);
    let words = spaced.split_whitespace().filter(|word| *word != "|");
    words.map(|word| word.strip_suffix('s').unwrap_or(word).to_owned()).collect()
}

impl<'ast> Visit<'ast> for Docs {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if !is_test(&item.attrs) {
            syn::visit::visit_item_mod(self, item);
        }
    }

    fn visit_item_struct(&mut self, item: &'ast ItemStruct) {
        if is_pub(&item.vis) {
            self.own(&item.ident, &item.attrs);
            for field in item.fields.iter().filter(|field| is_pub(&field.vis)) {
                let name = field.ident.as_ref().map(ToString::to_string).unwrap_or_default();
                self.check(&name, &field.attrs);
            }
        }
    }

    fn visit_item_enum(&mut self, item: &'ast ItemEnum) {
        if is_pub(&item.vis) {
            self.own(&item.ident, &item.attrs);
            for variant in &item.variants {
                self.check(&variant.ident.to_string(), &variant.attrs);
            }
        }
    }

    fn visit_item_trait(&mut self, item: &'ast ItemTrait) {
        if is_pub(&item.vis) {
            self.own(&item.ident, &item.attrs);
            for function in &item.items {
                if let TraitItem::Fn(function) = function {
                    self.check(&function.sig.ident.to_string(), &function.attrs);
                }
            }
        }
    }

    fn visit_item_impl(&mut self, item: &'ast ItemImpl) {
        if let syn::Type::Path(path) = &*item.self_ty {
            self.owner = path.path.segments.last().map(|last| last.ident.to_string()).unwrap_or_default();
        }
        syn::visit::visit_item_impl(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast ImplItemFn) {
        if is_pub(&item.vis) {
            self.check(&item.sig.ident.to_string(), &item.attrs);
        }
    }

    fn visit_item_fn(&mut self, item: &'ast ItemFn) {
        if is_pub(&item.vis) {
            self.owner.clear();
            self.check(&item.sig.ident.to_string(), &item.attrs);
        }
    }
}

#[test]
fn words_of_identifiers_and_texts_are_compared() {
    let expected: BTreeSet<_> = ["run", "id", "workflow"].map(str::to_owned).into();
    assert_eq!(words("WorkflowRuns ids"), expected);
    assert_eq!(words("workflow_run_id"), expected);
    assert_eq!(prose(" A run; see [`Client::run`]. More.\n```\ncode\n```"), " A run;  More.\n");
    assert_eq!(
        avoided("As above: the verdict of a run's timestamp."),
        [("verdict", "resolution"), ("as above", "a link")]
    );
    assert_eq!(avoided("fn size_hint(PhantomData, a: text) -> RetryHint"), [("hint", "advice, notification")]);
}
