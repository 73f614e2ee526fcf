//! Rules of the public API that no compiler checks: what is at the root, how methods are made, and what the documentation of errors has.

use syn::visit::Visit;
use syn::{Attribute, ImplItem, Item};

use super::language::doc;
use super::public_api::is_pub;
use super::source::{Source, Sources, leaves};

/// The names at the root. All others are in a module by their role.
const ROOT: [&str; 16] = [
    "Client",
    "Config",
    "Context",
    "Error",
    "ErrorKind",
    "Outcome",
    "Priority",
    "Result",
    "RunFilter",
    "RunHandle",
    "RunId",
    "RunStatus",
    "Task",
    "TaskError",
    "Worker",
    "Workflow",
];
/// The modules of the public API.
const MODULES: [&str; 13] = [
    "archive",
    "builder",
    "config",
    "embedded",
    "error",
    "handle",
    "model",
    "raw",
    "stream",
    "telemetry",
    "testing",
    "worker",
    "workflow",
];

fn file<'a>(sources: &'a Sources, module: &[&str]) -> &'a Source {
    sources.files.iter().find(|source| source.module == module).unwrap()
}

fn is_hidden(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("doc")
            && attribute.parse_args::<syn::Ident>().is_ok_and(|argument| argument == "hidden")
    })
}

#[test]
fn the_root_has_the_most_used_names_and_modules_by_role() {
    let sources = Sources::read();
    let (mut names, mut modules) = (Vec::new(), Vec::new());
    for item in &file(&sources, &[]).syntax.items {
        match item {
            Item::Use(used) if is_pub(&used.vis) => names.extend(leaves(&used.tree).into_iter().map(|(name, _)| name)),
            Item::Mod(module) if is_pub(&module.vis) && !is_hidden(&module.attrs) => {
                modules.push(module.ident.to_string());
            }
            Item::Fn(item) if is_pub(&item.vis) => names.push(item.sig.ident.to_string()),
            Item::Struct(item) if is_pub(&item.vis) => names.push(item.ident.to_string()),
            _ => {}
        }
    }
    names.sort();
    modules.sort();
    assert_eq!((names, modules), (ROOT.map(str::to_owned).to_vec(), MODULES.map(str::to_owned).to_vec()));
}

/// The macros whose bodies contain public functions.
struct Macros(Vec<String>);

impl<'ast> Visit<'ast> for Macros {
    fn visit_item_macro(&mut self, item: &'ast syn::ItemMacro) {
        let body = item.mac.tokens.to_string();
        if ["pub fn", "pub async fn", "pub const fn"].iter().any(|start| body.contains(start)) {
            self.0.extend(item.ident.as_ref().map(ToString::to_string));
        }
    }
}

/// Go to definition and the documentation then show the method, and not a macro.
#[test]
fn no_public_method_is_made_by_a_macro() {
    let find = |syntax: &syn::File| {
        let mut macros = Macros(Vec::new());
        macros.visit_file(syntax);
        macros.0
    };
    let example = "macro_rules! a { () => { pub fn b() {} } } macro_rules! c { () => { pub(crate) fn d() {} } }";
    assert_eq!(find(&syn::parse_file(example).unwrap()), ["a"]);
    let sources = Sources::read();
    let found: Vec<_> = sources.files.iter().flat_map(|source| find(&source.syntax)).collect();
    assert!(found.is_empty(), "{found:?}");
}

#[test]
fn each_predicate_of_an_error_says_what_to_do() {
    let sources = Sources::read();
    let mut checked = 0;
    for item in &file(&sources, &["error"]).syntax.items {
        let Item::Impl(methods) = item else { continue };
        for method in &methods.items {
            let ImplItem::Fn(method) = method else { continue };
            let name = method.sig.ident.to_string();
            if is_pub(&method.vis) && ["is_", "has_", "retry_"].iter().any(|start| name.starts_with(start)) {
                assert!(doc(&method.attrs).contains("*What to do:*"), "{name}");
                checked += 1;
            }
        }
    }
    assert!(checked >= 5, "{checked}");
}

#[test]
fn the_guide_explains_each_kind_of_error() {
    let guide = include_str!("../../docs/errors-and-retries.md");
    let cells: Vec<_> = guide.lines().filter_map(|line| line.strip_prefix('|')?.split('|').next()).collect();
    let sources = Sources::read();
    let mut kinds = file(&sources, &["error", "kind"]).syntax.items.iter().filter_map(|item| match item {
        Item::Enum(kinds) if kinds.ident == "ErrorKind" => Some(&kinds.variants),
        _ => None,
    });
    for kind in kinds.next().unwrap() {
        let name = format!("`{}`", kind.ident);
        assert!(cells.iter().any(|cell| cell.contains(&name)), "{name} is not in the table");
    }
}
