//! The types in the public API: in signatures, fields, aliases, bounds and trait implementations.

use syn::visit::Visit;
use syn::{FnArg, ImplItem, Item, ReturnType, Signature, TraitItem, Visibility};

use super::source::{Sources, Target, is_test, leaves};

/// The crates whose types may be in the public API.
const PUBLIC_CRATES: &[&str] =
    &["std", "core", "alloc", "chrono", "futures_core", "schemars", "serde", "serde_json", "uuid"];

/// The types of other crates in public items, except for those of [`PUBLIC_CRATES`].
///
/// The lint `unreachable_pub` ensures that all `pub` items are public.
pub(crate) fn leaks(sources: &Sources) -> Vec<String> {
    let mut leaks = Vec::new();
    // `raw` exports the generated code.
    for source in sources.files.iter().filter(|source| source.module.first().is_none_or(|first| first != "raw")) {
        let mut names = Names::default();
        for item in &source.syntax.items {
            names.item(item);
        }
        for path in names.found {
            if let Target::External(path) = sources.resolve(&source.module, &path)
                && path.len() > 1
                && path[0].starts_with(|c: char| c.is_ascii_lowercase())
                && !PUBLIC_CRATES.contains(&path[0].as_str())
            {
                leaks.push(format!("{} has {} in the public API", source.file.display(), path.join("::")));
            }
        }
    }
    leaks.sort();
    leaks.dedup();
    leaks
}

#[derive(Default)]
struct Names {
    found: Vec<Vec<String>>,
}

pub(crate) fn is_pub(visibility: &Visibility) -> bool {
    matches!(visibility, Visibility::Public(_))
}

impl Names {
    fn item(&mut self, item: &Item) {
        match item {
            Item::Fn(item) if is_pub(&item.vis) => self.signature(&item.sig),
            Item::Struct(item) if is_pub(&item.vis) => {
                self.visit_generics(&item.generics);
                item.fields.iter().filter(|field| is_pub(&field.vis)).for_each(|field| self.visit_type(&field.ty));
            }
            Item::Enum(item) if is_pub(&item.vis) => {
                self.visit_generics(&item.generics);
                item.variants.iter().flat_map(|variant| &variant.fields).for_each(|field| self.visit_type(&field.ty));
            }
            Item::Type(item) if is_pub(&item.vis) => self.visit_type(&item.ty),
            Item::Const(item) if is_pub(&item.vis) => self.visit_type(&item.ty),
            Item::Static(item) if is_pub(&item.vis) => self.visit_type(&item.ty),
            Item::Trait(item) if is_pub(&item.vis) => {
                self.visit_generics(&item.generics);
                item.supertraits.iter().for_each(|bound| self.visit_type_param_bound(bound));
                for member in &item.items {
                    match member {
                        TraitItem::Fn(function) => self.signature(&function.sig),
                        TraitItem::Type(kind) => {
                            kind.bounds.iter().for_each(|bound| self.visit_type_param_bound(bound));
                        }
                        _ => {}
                    }
                }
            }
            Item::Use(item) if is_pub(&item.vis) => {
                self.found.extend(leaves(&item.tree).into_iter().map(|(_, path)| path));
            }
            Item::Impl(item) if !is_test(&item.attrs) => self.implementation(item),
            _ => {}
        }
    }

    /// The implementation of a trait is public if its type is public, which is not known here. So traits of other crates are allowed, but
    /// not with types of other crates as parameters.
    fn implementation(&mut self, item: &syn::ItemImpl) {
        if let Some((_, path, _)) = &item.trait_ {
            for segment in path.segments.iter().filter(|segment| segment.ident == "From" || segment.ident == "TryFrom")
            {
                let private = item.items.is_empty();
                if !private && is_public_type(&item.self_ty) {
                    self.visit_path_arguments(&segment.arguments);
                }
            }
            return;
        }
        for member in &item.items {
            match member {
                ImplItem::Fn(function) if is_pub(&function.vis) => {
                    self.visit_generics(&item.generics);
                    self.signature(&function.sig);
                }
                ImplItem::Const(constant) if is_pub(&constant.vis) => self.visit_type(&constant.ty),
                _ => {}
            }
        }
    }

    fn signature(&mut self, signature: &Signature) {
        self.visit_generics(&signature.generics);
        for input in &signature.inputs {
            if let FnArg::Typed(input) = input {
                self.visit_type(&input.ty);
            }
        }
        if let ReturnType::Type(_, kind) = &signature.output {
            self.visit_type(kind);
        }
    }
}

/// The types to which users convert errors and values.
fn is_public_type(kind: &syn::Type) -> bool {
    let syn::Type::Path(path) = kind else { return false };
    path.path
        .segments
        .last()
        .is_some_and(|last| last.ident == "Error" || last.ident == "TaskError" || last.ident == "Payload")
}

impl<'ast> Visit<'ast> for Names {
    fn visit_path(&mut self, path: &'ast syn::Path) {
        self.found.push(path.segments.iter().map(|segment| segment.ident.to_string()).collect());
        syn::visit::visit_path(self, path);
    }
}
