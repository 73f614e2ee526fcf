//! The parsed sources of the crate, and the resolution of the paths in them.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use syn::visit::Visit;
use syn::{Item, ItemMod, UseTree, Visibility};

use super::files;

/// The segments of a path in the crate, without `crate`.
pub(crate) type CratePath = Vec<String>;

/// The item that a name in a module refers to.
#[derive(Debug, Clone)]
pub(crate) enum Target {
    /// A path in this crate.
    Crate(CratePath),
    /// A path in another crate, which is its first segment.
    External(Vec<String>),
}

pub(crate) struct Source {
    pub(crate) module: CratePath,
    pub(crate) file: PathBuf,
    pub(crate) syntax: syn::File,
}

/// All modules of the crate.
pub(crate) struct Sources {
    pub(crate) files: Vec<Source>,
    modules: BTreeSet<CratePath>,
    /// The names that the `use` declarations of each module import.
    imports: HashMap<CratePath, HashMap<String, Target>>,
}

/// A path that a module uses, and whether it does so in a test.
pub(crate) struct Used {
    pub(crate) target: Target,
    pub(crate) in_test: bool,
}

impl Sources {
    pub(crate) fn read() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let files: Vec<_> = files::in_directory("src").iter().map(|path| read(&root, path)).collect();
        let mut sources = Self {
            modules: files.iter().map(|source| source.module.clone()).collect(),
            imports: HashMap::new(),
            files,
        };
        for source in &sources.files {
            let mut imports = HashMap::new();
            for item in &source.syntax.items {
                if let Item::Use(declared) = item {
                    for (name, path) in leaves(&declared.tree) {
                        imports.insert(name, sources.locate(&source.module, &path));
                    }
                }
            }
            sources.imports.insert(source.module.clone(), imports);
        }
        sources
    }

    /// Resolves a path in a module, without following re-exports.
    fn locate(&self, module: &[String], path: &[String]) -> Target {
        let (first, rest) = path.split_first().unwrap();
        let mut base = module.to_vec();
        match first.as_str() {
            "crate" => Target::Crate(rest.to_vec()),
            "self" => {
                base.extend_from_slice(rest);
                Target::Crate(base)
            }
            "super" => {
                base.pop();
                if rest.first().is_some_and(|next| next == "super") {
                    return self.locate(&base, rest);
                }
                base.extend_from_slice(rest);
                Target::Crate(base)
            }
            name => {
                base.push(name.to_owned());
                if self.modules.contains(&base) {
                    base.extend_from_slice(rest);
                    return Target::Crate(base);
                }
                Target::External(path.to_vec())
            }
        }
    }

    /// Resolves a path in a module to its definition, through imports and re-exports.
    pub(crate) fn resolve(&self, module: &[String], path: &[String]) -> Target {
        let imported = |module: &[String], name: &String| self.imports.get(module)?.get(name).cloned();
        let mut target = match imported(module, &path[0]) {
            Some(Target::Crate(mut start)) => {
                start.extend_from_slice(&path[1..]);
                Target::Crate(start)
            }
            Some(Target::External(mut start)) => {
                start.extend_from_slice(&path[1..]);
                Target::External(start)
            }
            None => self.locate(module, path),
        };
        // Chains of re-exports are short.
        for _ in 0..8 {
            let Target::Crate(path) = &target else { break };
            let Some((module, name, rest)) = self.split(path) else { break };
            match imported(&module, &name) {
                Some(Target::Crate(mut start)) => {
                    start.extend_from_slice(&rest);
                    target = Target::Crate(start);
                }
                Some(Target::External(mut start)) => {
                    start.extend_from_slice(&rest);
                    target = Target::External(start);
                }
                None => break,
            }
        }
        target
    }

    /// The longest module at the start of a path, the name after it, and the rest.
    fn split(&self, path: &[String]) -> Option<(CratePath, String, CratePath)> {
        let at = (0..path.len()).rev().find(|at| self.modules.contains(&path[..*at]))?;
        Some((path[..at].to_vec(), path[at].clone(), path[at + 1..].to_vec()))
    }

    /// All paths that a source uses: in `use` declarations, in code, in macros.
    pub(crate) fn used(&self, source: &Source) -> Vec<Used> {
        // A file `tests.rs` and a directory `tests` are declared with `#[cfg(test)]`.
        let in_test =
            source.file.ends_with("tests.rs") || source.file.components().any(|part| part.as_os_str() == "tests");
        let mut visitor = Paths { found: Vec::new(), depth: 0, in_test };
        visitor.visit_file(&source.syntax);
        let resolve = |(path, depth, in_test): (Vec<String>, usize, bool)| {
            // A module within a file is one level deeper than the file's.
            let mut module = source.module.clone();
            module.extend((0..depth).map(|_| String::from("(inline)")));
            let target = match self.resolve(&module, &path) {
                Target::External(path) if depth > 0 => self.resolve(&source.module, &path),
                target => target,
            };
            Used { target, in_test }
        };
        visitor.found.into_iter().map(resolve).collect()
    }
}

/// The names that a `use` declares, each with its whole path.
pub(crate) fn leaves(tree: &UseTree) -> Vec<(String, Vec<String>)> {
    fn walk(tree: &UseTree, before: &mut Vec<String>, found: &mut Vec<(String, Vec<String>)>) {
        match tree {
            UseTree::Path(path) => {
                before.push(path.ident.to_string());
                walk(&path.tree, before, found);
                before.pop();
            }
            UseTree::Name(name) if name.ident == "self" => {
                found.push((before.last().unwrap().clone(), before.clone()));
            }
            UseTree::Name(name) => {
                found.push((name.ident.to_string(), [before.clone(), vec![name.ident.to_string()]].concat()));
            }
            UseTree::Rename(rename) => {
                found.push((rename.rename.to_string(), [before.clone(), vec![rename.ident.to_string()]].concat()));
            }
            UseTree::Glob(_) => found.push(("*".into(), before.clone())),
            UseTree::Group(group) => group.items.iter().for_each(|tree| walk(tree, before, found)),
        }
    }
    let mut found = Vec::new();
    walk(tree, &mut Vec::new(), &mut found);
    found
}

struct Paths {
    found: Vec<(Vec<String>, usize, bool)>,
    /// The nesting depth of the visited module within the file.
    depth: usize,
    in_test: bool,
}

impl<'ast> Visit<'ast> for Paths {
    fn visit_item_use(&mut self, declared: &'ast syn::ItemUse) {
        if !documents_only(&declared.attrs) {
            let in_test = self.in_test || is_test(&declared.attrs);
            self.found.extend(leaves(&declared.tree).into_iter().map(|(_, path)| (path, self.depth, in_test)));
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        self.found.push((segments, self.depth, self.in_test));
        syn::visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, invoked: &'ast syn::Macro) {
        let text = invoked.tokens.to_string();
        for (at, start) in text.match_indices("crate :: ") {
            let names = text[at + start.len()..]
                .split(" :: ")
                .map(|name| name.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap());
            let path = ["crate"].into_iter().chain(names.take(2)).map(ToOwned::to_owned).collect();
            self.found.push((path, self.depth, self.in_test));
        }
        syn::visit::visit_macro(self, invoked);
    }

    fn visit_item_mod(&mut self, module: &'ast ItemMod) {
        let outer_in_test = self.in_test;
        self.in_test |= is_test(&module.attrs);
        self.depth += 1;
        syn::visit::visit_item_mod(self, module);
        self.depth -= 1;
        self.in_test = outer_in_test;
    }

    fn visit_visibility(&mut self, _: &'ast Visibility) {}
}

fn cfg_is(attributes: &[syn::Attribute], name: &str) -> bool {
    let is = |attribute: &syn::Attribute| {
        attribute.path().is_ident("cfg") && attribute.parse_args::<syn::Path>().is_ok_and(|path| path.is_ident(name))
    };
    attributes.iter().any(is)
}

/// Whether an item is only for tests.
pub(crate) fn is_test(attributes: &[syn::Attribute]) -> bool {
    cfg_is(attributes, "test")
}

/// Whether an item is only for links in the documentation.
fn documents_only(attributes: &[syn::Attribute]) -> bool {
    cfg_is(attributes, "doc")
}

fn read(root: &Path, path: &Path) -> Source {
    let file = path.strip_prefix(root).unwrap().to_owned();
    let mut module: CratePath = file.with_extension("").iter().map(|part| part.to_str().unwrap().to_owned()).collect();
    if module.last().is_some_and(|last| last == "mod" || last == "lib") {
        module.pop();
    }
    let text = fs::read_to_string(path).unwrap();
    let syntax = syn::parse_file(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    Source { module, file, syntax }
}
