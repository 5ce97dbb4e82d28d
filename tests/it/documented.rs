//! Every public item of a library crate and every file of a library crate has documentation.
//!
//! `missing_docs` asks the same of struct fields and enum variants, whose names mostly suffice;
//! those are left to the author.

use std::fs;
use std::path::{Path, PathBuf};
use syn::{Attribute, ImplItem, Item, TraitItem, Visibility};

/// Sources of the library crates. `crates/cli` is a program.
const SOURCES: &[&str] = &[
    "src",
    "export/src",
    "crates/drivers/src",
    "crates/evaluation/src",
    "crates/files/src",
    "crates/page/src",
    "crates/profile/src",
    "crates/recording/src",
    "crates/scene/src",
    "crates/testkit/src",
    "crates/timing/src",
    "crates/world/src",
    "crates/xml/src",
];

#[test]
fn public_items_are_documented() {
    let root = Path::new(tandem_testkit::ROOT);
    let mut missing = Vec::new();
    let mut read = 0;
    for source in SOURCES {
        for path in rust_files(&root.join(source)) {
            let text = fs::read_to_string(&path).unwrap();
            let place = path.strip_prefix(root).unwrap().display().to_string();
            missing.extend(undocumented(&text).into_iter().map(|item| format!("{place}: {item}")));
            read += 1;
        }
    }
    assert!(read > 300, "only {read} files were found");
    assert!(missing.is_empty(), "items without documentation:\n{}", missing.join("\n"));
}

#[test]
fn each_kind_of_missing_documentation_is_found() {
    let text = "
        pub struct A { pub field: u32 }
        pub enum B { Variant { field: u32 } }
        impl A { pub fn method(&self) {} fn private(&self) {} }
        pub trait C { fn required(); const D: u32; }
        pub fn function() {}
        pub const E: u32 = 1;
        pub mod inline { pub type F = u32; }
        pub(crate) struct NotPublic;
        #[cfg(test)] mod tests { pub fn helper() {} }
        /// Documented.
        pub fn documented() {}
        impl Clone for A { fn clone(&self) -> Self { A { field: self.field } } }
    ";
    let found = undocumented(text);
    let expected = [
        "the file",
        "A",
        "B",
        "A::method",
        "C",
        "C::required",
        "C::D",
        "function",
        "E",
        "inline",
        "F",
    ];
    assert_eq!(found, expected);
    assert_eq!(undocumented("//! A module.\n/// A function.\npub fn f() {}"), Vec::<String>::new());
}

/// Returns the files of Rust code in a folder and below, in order.
pub(crate) fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut entries: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            found.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

/// Returns the names of the public items of a file that have no documentation, in order.
fn undocumented(text: &str) -> Vec<String> {
    let file = syn::parse_file(text).unwrap();
    let mut missing = Vec::new();
    require(&file.attrs, "the file", &mut missing);
    visit(&file.items, &mut missing);
    missing
}

/// Collects undocumented public items among `items`.
fn visit(items: &[Item], missing: &mut Vec<String>) {
    for item in items {
        match item {
            Item::Const(item) => public(&item.vis, &item.attrs, &item.ident, missing),
            Item::Enum(item) => public(&item.vis, &item.attrs, &item.ident, missing),
            Item::Fn(item) => public(&item.vis, &item.attrs, &item.sig.ident, missing),
            Item::Static(item) => public(&item.vis, &item.attrs, &item.ident, missing),
            Item::Struct(item) => public(&item.vis, &item.attrs, &item.ident, missing),
            Item::Type(item) => public(&item.vis, &item.attrs, &item.ident, missing),
            Item::Union(item) => public(&item.vis, &item.attrs, &item.ident, missing),
            Item::Macro(item) if is_exported(&item.attrs) => {
                let name = item.ident.as_ref().map(ToString::to_string).unwrap_or_default();
                require(&item.attrs, &name, missing);
            }
            Item::Mod(item) if is_test(&item.attrs) => {}
            // The documentation of a module in a file of its own is in that file.
            Item::Mod(item) => {
                if let Some((_, items)) = &item.content {
                    public(&item.vis, &item.attrs, &item.ident, missing);
                    visit(items, missing);
                }
            }
            Item::Trait(item) => {
                public(&item.vis, &item.attrs, &item.ident, missing);
                if matches!(item.vis, Visibility::Public(_)) {
                    for part in &item.items {
                        let (attributes, name) = match part {
                            TraitItem::Fn(part) => (&part.attrs, &part.sig.ident),
                            TraitItem::Const(part) => (&part.attrs, &part.ident),
                            TraitItem::Type(part) => (&part.attrs, &part.ident),
                            _ => continue,
                        };
                        require(attributes, &format!("{}::{name}", item.ident), missing);
                    }
                }
            }
            Item::Impl(item) if item.trait_.is_none() => {
                let of = match &*item.self_ty {
                    syn::Type::Path(path) => {
                        path.path.segments.last().map(|last| last.ident.to_string())
                    }
                    _ => None,
                };
                for part in &item.items {
                    let (visibility, attributes, name) = match part {
                        ImplItem::Fn(part) => (&part.vis, &part.attrs, &part.sig.ident),
                        ImplItem::Const(part) => (&part.vis, &part.attrs, &part.ident),
                        _ => continue,
                    };
                    if matches!(visibility, Visibility::Public(_)) {
                        let of = of.as_deref().unwrap_or("?");
                        require(attributes, &format!("{of}::{name}"), missing);
                    }
                }
            }
            _ => {}
        }
    }
}

/// Adds `name` to `missing` if the item is public and has no documentation.
fn public(
    visibility: &Visibility,
    attributes: &[Attribute],
    name: &syn::Ident,
    missing: &mut Vec<String>,
) {
    if matches!(visibility, Visibility::Public(_)) {
        require(attributes, &name.to_string(), missing);
    }
}

/// Adds `name` to `missing` if there is no documentation among `attributes`.
fn require(attributes: &[Attribute], name: &str, missing: &mut Vec<String>) {
    if !attributes.iter().any(|attribute| attribute.path().is_ident("doc")) {
        missing.push(name.to_owned());
    }
}

/// Returns true if an item is compiled for tests only.
fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute.parse_args::<syn::Path>().is_ok_and(|condition| condition.is_ident("test"))
    })
}

/// Returns true if a macro is exported from its crate.
fn is_exported(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| attribute.path().is_ident("macro_export"))
}
