//! The sections in the documentation of methods that wait: their errors, and what happens if their futures are dropped.

use std::collections::BTreeSet;

use syn::visit::Visit;
use syn::{Attribute, ImplItemFn, ItemImpl, ReturnType, Signature, Type};

use super::language::doc;
use super::public_api::is_pub;
use super::source::{Sources, is_test};

const ERRORS: &str = "# Errors";
const CANCEL_SAFETY: &str = "# Cancel safety";

/// The public methods without a section that they need.
fn without_sections(sources: &Sources) -> (usize, Vec<String>) {
    let mut awaited = Awaited::default();
    for source in &sources.files {
        awaited.visit_file(&source.syntax);
    }
    let mut methods = Methods { awaited: awaited.0, ..Methods::default() };
    for source in &sources.files {
        methods.visit_file(&source.syntax);
    }
    (methods.count, methods.missing)
}

/// The types that are awaited, such as builders of reads.
#[derive(Default)]
struct Awaited(BTreeSet<String>);

impl<'ast> Visit<'ast> for Awaited {
    fn visit_item_impl(&mut self, item: &'ast ItemImpl) {
        let is_awaited =
            |(_, path, _): &(_, syn::Path, _)| path.segments.last().is_some_and(|last| last.ident == "IntoFuture");
        if item.trait_.as_ref().is_some_and(is_awaited) {
            self.0.extend(name_of(&item.self_ty));
        }
    }
}

#[derive(Default)]
struct Methods {
    awaited: BTreeSet<String>,
    /// The type whose methods are visited.
    owner: String,
    count: usize,
    missing: Vec<String>,
}

impl Methods {
    fn check(&mut self, signature: &Signature, attributes: &[Attribute]) {
        let ReturnType::Type(_, kind) = &signature.output else {
            if signature.asyncness.is_some() {
                self.require(signature, attributes, &[CANCEL_SAFETY]);
            }
            return;
        };
        // The methods of a builder return it.
        let is_request = name_of(kind).is_some_and(|name| self.awaited.contains(&name) && name != self.owner);
        let mut names = Names::default();
        names.visit_type(kind);
        if is_request {
            self.require(signature, attributes, &[ERRORS, CANCEL_SAFETY]);
        } else if signature.asyncness.is_some() || names.0.contains("Future") {
            let sections: &[&str] =
                if names.0.contains("Result") { &[ERRORS, CANCEL_SAFETY] } else { &[CANCEL_SAFETY] };
            self.require(signature, attributes, sections);
        }
    }

    fn require(&mut self, signature: &Signature, attributes: &[Attribute], sections: &[&str]) {
        self.count += 1;
        let text = doc(attributes);
        for section in sections.iter().filter(|section| !text.contains(**section)) {
            self.missing.push(format!("{}::{}: {section}", self.owner, signature.ident));
        }
    }
}

/// The names in a type.
#[derive(Default)]
struct Names(BTreeSet<String>);

impl<'ast> Visit<'ast> for Names {
    fn visit_ident(&mut self, name: &'ast syn::Ident) {
        self.0.insert(name.to_string());
    }
}

fn name_of(kind: &Type) -> Option<String> {
    match kind {
        Type::Path(path) => path.path.segments.last().map(|last| last.ident.to_string()),
        _ => None,
    }
}

impl<'ast> Visit<'ast> for Methods {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if !is_test(&item.attrs) {
            syn::visit::visit_item_mod(self, item);
        }
    }

    fn visit_item_impl(&mut self, item: &'ast ItemImpl) {
        self.owner = name_of(&item.self_ty).unwrap_or_default();
        syn::visit::visit_item_impl(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast ImplItemFn) {
        if is_pub(&item.vis) {
            self.check(&item.sig, &item.attrs);
        }
    }
}

#[test]
fn methods_that_wait_document_their_errors_and_cancel_safety() {
    let (count, missing) = without_sections(&Sources::read());
    assert!(count > 90, "{count}");
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}

#[test]
fn a_method_without_its_sections_is_found() {
    let code = "impl Items { /** Next. */ pub async fn next(&mut self) -> Option<Result<u8>> {} pub fn read(&self) -> Request {} }\n\
                impl IntoFuture for Request {} impl Request { pub fn logs(self) -> Request {} }";
    let syntax = syn::parse_file(code).unwrap();
    let mut awaited = Awaited::default();
    awaited.visit_file(&syntax);
    let mut methods = Methods { awaited: awaited.0, ..Methods::default() };
    methods.visit_file(&syntax);
    assert_eq!(
        methods.missing,
        [
            "Items::next: # Errors",
            "Items::next: # Cancel safety",
            "Items::read: # Errors",
            "Items::read: # Cancel safety"
        ]
    );
}
