//! The types that the public API names: in signatures, fields, aliases, bounds and implementations of traits.

use syn::visit::Visit;
use syn::{FnArg, ImplItem, Item, ReturnType, Signature, TraitItem, Visibility};

use super::source::{Sources, Target, is_test, leaves};

/// The crates that users see: part of the public API, and of its promises.
const PUBLIC: &[&str] = &["std", "core", "alloc", "chrono", "futures_core", "serde", "serde_json", "uuid"];

/// What the public items of the crate name of other crates, if it is not in [`PUBLIC`].
///
/// The lint `unreachable_pub` makes sure that what is `pub` can be reached by users.
pub(crate) fn leaks(sources: &Sources) -> Vec<String> {
    let mut wrong = Vec::new();
    // `raw` exists to show the generated code.
    for source in sources.files.iter().filter(|source| source.module.first().is_none_or(|first| first != "raw")) {
        let mut names = Names::default();
        for item in &source.syntax.items {
            names.item(item);
        }
        for path in names.found {
            if let Target::External(path) = sources.resolve(&source.module, &path)
                && path.len() > 1
                && path[0].starts_with(|c: char| c.is_ascii_lowercase())
                && !PUBLIC.contains(&path[0].as_str())
            {
                wrong.push(format!("{} shows {} to users", source.file.display(), path.join("::")));
            }
        }
    }
    wrong.sort();
    wrong.dedup();
    wrong
}

#[derive(Default)]
struct Names {
    found: Vec<Vec<String>>,
}

fn is_pub(visibility: &Visibility) -> bool {
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

    /// An implementation of a trait is public if its type is; which type is, is not known here. So traits of other crates may
    /// be named, but not with types of other crates as their parameters.
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

/// The types that users can convert errors and values to.
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
