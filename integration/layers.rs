//! The imports of the program: no file imports one that imports it, directly or through others, and
//! no room imports one of a layer above (docs/architecture.md, "Layers").

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};

/// The path of a module below the crate's root: `["netns", "serve"]`.
type Module = Vec<String>;
type Imports = BTreeMap<Module, BTreeSet<Module>>;

#[test]
fn no_file_imports_one_that_imports_it() {
    let imports = imports();
    for module in imports.keys() {
        let mut path = vec![module.clone()];
        assert!(!leads_back(&imports, &mut path, &mut BTreeSet::new()), "{}", shown(&path));
    }
}

#[test]
fn no_room_imports_one_of_a_layer_above() {
    let layers = layers();
    let layer = |module: &Module| layers.get(&module[0]).copied();
    let mut wrong = Vec::new();
    for (module, imported) in imports() {
        let own = layer(&module).unwrap_or_else(|| panic!("{}: in no layer", module[0]));
        for other in imported.iter().filter(|other| layer(other).is_none_or(|layer| layer < own)) {
            wrong.push(shown(&[module.clone(), other.clone()]));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn imports_are_found_wherever_they_stand() {
    let text = "use crate::a::{b, c::{self, D}};\nuse super::e;\nuse child::Thing;\n
        fn f() { crate::g::h(); bail!(\"{}\", super::super::i::j()); }\n
        mod inner { use super::k; use super::super::l; }\n
        #[cfg(test)] mod tests { use crate::m; }";
    let modules: BTreeSet<Module> =
        ["a", "a::b", "a::c", "x::e", "x::y::child", "g", "i", "x::y::k", "x::l", "m", "x", "x::y"]
            .map(module)
            .into();
    let found = imports_of(&module("x::y"), text, &modules);
    let expected = ["a::b", "a::c", "g", "i", "x::e", "x::l", "x::y::child", "x::y::k"];
    assert_eq!(found, expected.map(module).into());
}

fn module(path: &str) -> Module {
    path.split("::").map(str::to_owned).collect()
}

fn shown(path: &[Module]) -> String {
    path.iter().map(|module| module.join("::")).collect::<Vec<_>>().join(" -> ")
}

/// Whether imports lead from the last module of `path` to its first one; `path` is the way then.
fn leads_back(imports: &Imports, path: &mut Vec<Module>, seen: &mut BTreeSet<Module>) -> bool {
    for next in imports.get(&path[path.len() - 1]).into_iter().flatten() {
        if *next == path[0] {
            path.push(next.clone());
            return true;
        }
        if seen.insert(next.clone()) {
            path.push(next.clone());
            if leads_back(imports, path, seen) {
                return true;
            }
            path.pop();
        }
    }
    false
}

/// The rooms of the drawing and the number of the layer of each, from the top.
fn layers() -> BTreeMap<String, usize> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/architecture.md");
    let text = fs::read_to_string(path).unwrap();
    let (_, section) = text.split_once("\n## Layers\n").unwrap();
    let (_, drawing) = section.split_once("```text\n").unwrap();
    let mut layers = BTreeMap::new();
    for (number, line) in drawing.lines().take_while(|line| *line != "```").enumerate() {
        // A layer may have a name.
        let rooms = line.split_once(':').map_or(line, |(_, rooms)| rooms);
        for room in rooms.split_whitespace() {
            assert!(layers.insert(room.to_owned(), number).is_none(), "{room} is there twice");
        }
    }
    layers
}

/// What every file of the program imports; `main.rs`, which only lists the rooms, imports nothing.
fn imports() -> Imports {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = BTreeMap::new();
    find(&top, &mut vec![], &mut files);
    assert!(files.len() > 150, "{} files", files.len());
    let modules: BTreeSet<Module> = files.keys().cloned().collect();
    let found =
        |(module, text): (&Module, &String)| (module.clone(), imports_of(module, text, &modules));
    files.iter().map(found).collect()
}

fn find(directory: &Path, at: &mut Module, files: &mut BTreeMap<Module, String>) {
    for entry in fs::read_dir(directory).unwrap().map(Result::unwrap) {
        let path = entry.path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        at.push(name.clone());
        if path.is_dir() && name != "tests" {
            find(&path, at, files);
        } else if path.extension().is_some_and(|kind| kind == "rs") && name != "tests" {
            files.insert(at.clone(), fs::read_to_string(&path).unwrap());
        }
        at.pop();
    }
}

fn imports_of(module: &Module, text: &str, modules: &BTreeSet<Module>) -> BTreeSet<Module> {
    let file = syn::parse_file(text).unwrap_or_else(|error| panic!("{module:?}: {error}"));
    let mut found = Found { at: module.clone(), modules, imports: BTreeSet::new() };
    found.visit_file(&file);
    found.imports.remove(module);
    found.imports
}

/// Goes through the syntax of a file.
struct Found<'a> {
    /// The module, with those that are written out in the file.
    at: Module,
    modules: &'a BTreeSet<Module>,
    imports: BTreeSet<Module>,
}

impl Found<'_> {
    /// The file in which the item of this path stands.
    fn add(&mut self, path: &[String]) {
        let mut absolute = match path[0].as_str() {
            "crate" => vec![],
            "super" | "self" => self.at.clone(),
            first if self.modules.contains(&child(&self.at, first)) => self.at.clone(),
            _ => return,
        };
        for segment in path {
            match segment.as_str() {
                "crate" | "self" => {}
                "super" => drop(absolute.pop()),
                segment => absolute.push(segment.to_owned()),
            }
        }
        while !absolute.is_empty() && !self.modules.contains(&absolute) {
            absolute.pop();
        }
        if !absolute.is_empty() {
            self.imports.insert(absolute);
        }
    }

    fn add_tree(&mut self, before: &[String], tree: &syn::UseTree) {
        match tree {
            syn::UseTree::Path(path) => {
                self.add_tree(&child(before, &path.ident.to_string()), &path.tree);
            }
            syn::UseTree::Name(name) => self.add(&child(before, &name.ident.to_string())),
            syn::UseTree::Rename(name) => self.add(&child(before, &name.ident.to_string())),
            syn::UseTree::Glob(_) => self.add(before),
            syn::UseTree::Group(group) => {
                group.items.iter().for_each(|tree| self.add_tree(before, tree));
            }
        }
    }

    /// The arguments of macros are no syntax yet.
    fn add_tokens(&mut self, tokens: TokenStream) {
        let mut path: Vec<String> = Vec::new();
        let mut colons = 0;
        for token in tokens {
            match token {
                TokenTree::Ident(name) => {
                    if colons != 2 {
                        self.add_if_any(&mut path);
                    }
                    path.push(name.to_string());
                    colons = 0;
                }
                TokenTree::Punct(mark) if mark.as_char() == ':' => colons += 1,
                TokenTree::Group(group) => {
                    self.add_if_any(&mut path);
                    self.add_tokens(group.stream());
                }
                _ => self.add_if_any(&mut path),
            }
        }
        self.add_if_any(&mut path);
    }

    fn add_if_any(&mut self, path: &mut Vec<String>) {
        if path.len() > 1 {
            self.add(path);
        }
        path.clear();
    }
}

fn child(of: &[String], name: &str) -> Vec<String> {
    of.iter().cloned().chain([name.to_owned()]).collect()
}

/// Whether this is for tests only.
fn is_for_tests(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let syn::Meta::List(list) = &attribute.meta else { return false };
        list.path.is_ident("cfg") && list.tokens.to_string() == "test"
    })
}

impl<'ast> Visit<'ast> for Found<'_> {
    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        if !is_for_tests(&item.attrs) {
            self.add_tree(&[], &item.tree);
        }
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if item.content.is_some() && !is_for_tests(&item.attrs) {
            self.at.push(item.ident.to_string());
            visit::visit_item_mod(self, item);
            self.at.pop();
        }
    }

    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        if !is_for_tests(&item.attrs) {
            visit::visit_item_impl(self, item);
        }
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        if !is_for_tests(&item.attrs) {
            visit::visit_item_fn(self, item);
        }
    }

    /// That of `pub(super)`, or of `pub(in …)`, is no import.
    fn visit_visibility(&mut self, _: &'ast syn::Visibility) {}

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments: Vec<_> = path.segments.iter().map(|part| part.ident.to_string()).collect();
        if segments.len() > 1 {
            self.add(&segments);
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, item: &'ast syn::Macro) {
        self.add_tokens(item.tokens.clone());
    }
}
