//! The order inside a room: a type is in one place, and modules use their siblings in one direction.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use super::paths::{paths, without_comments};
use super::{root, sources};

/// Types whose methods still stand in more than two files. To be emptied.
const SCATTERED: [&str; 0] = [];

/// Modules that still use each other in circles, by their parent. To be emptied.
const CIRCLES: [(&str, &[&str]); 0] = [];

/// In files.
const MOST_FILES_OF_A_TYPE: usize = 2;

/// The path of a module, from its room on.
type Module = Vec<String>;

#[test]
fn methods_of_a_type_stand_in_at_most_two_files() {
    let modules = modules();
    let mut definitions: BTreeMap<(&str, &str), Vec<&Module>> = BTreeMap::new();
    for (module, code) in &modules {
        for name in code.lines().filter_map(defined_type) {
            definitions
                .entry((&module[0], name))
                .or_default()
                .push(module);
        }
    }
    let mut files: BTreeMap<(&Module, &str), BTreeSet<&Module>> = BTreeMap::new();
    for (module, code) in &modules {
        for name in implemented_types(code) {
            let Some(defined) = definitions.get(&(module[0].as_str(), name)) else {
                continue;
            };
            let own = defined.iter().find(|one| **one == module);
            let owner = own.unwrap_or(&defined[0]);
            files.entry((owner, name)).or_default().insert(module);
        }
    }
    let mut scattered = BTreeSet::new();
    let mut wrong = Vec::new();
    for ((_, name), files) in files {
        if files.len() > MOST_FILES_OF_A_TYPE {
            scattered.insert(name);
            if !SCATTERED.contains(&name) {
                let files: Vec<_> = files.iter().map(|file| file.join("::")).collect();
                wrong.push(format!("{name}: {}", files.join(", ")));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "methods in more than {MOST_FILES_OF_A_TYPE} files; make parts of the type, each with its \
         own state:\n{}",
        wrong.join("\n")
    );
    let settled: Vec<_> = SCATTERED
        .iter()
        .filter(|name| !scattered.contains(*name))
        .collect();
    assert!(
        settled.is_empty(),
        "take out of SCATTERED in {}: {settled:?}",
        file!()
    );
}

#[test]
fn siblings_use_each_other_in_one_direction() {
    let modules = modules();
    let mut uses: BTreeMap<Module, BTreeMap<&str, BTreeSet<String>>> = BTreeMap::new();
    for (module, code) in &modules {
        for (_, path) in paths(code) {
            let used = resolve(module, &path, &modules);
            let common = module
                .iter()
                .zip(&used)
                .take_while(|(own, other)| own == other)
                .count();
            // The room's order is that of the layers; an item of the parent is no sibling.
            if let (1.., Some(own), Some(other)) = (common, module.get(common), used.get(common)) {
                let siblings = uses.entry(module[..common].to_vec()).or_default();
                siblings.entry(own).or_default().insert(other.clone());
            }
        }
    }
    let mut circles: Vec<(String, Vec<String>)> = Vec::new();
    for (parent, siblings) in &uses {
        for circle in circles_in(siblings) {
            circles.push((parent.join("::"), circle));
        }
    }
    let known = CIRCLES.map(|(parent, circle)| {
        let circle = circle.iter().map(|name| (*name).to_owned()).collect();
        (parent.to_owned(), circle)
    });
    let wrong: Vec<_> = circles.iter().filter(|one| !known.contains(one)).collect();
    assert!(wrong.is_empty(), "modules that use each other: {wrong:#?}");
    let settled: Vec<_> = known.iter().filter(|one| !circles.contains(one)).collect();
    assert!(
        settled.is_empty(),
        "take out of CIRCLES in {}: {settled:?}",
        file!()
    );
}

/// All modules outside tests, with their code: without comments, and without their own tests.
fn modules() -> BTreeMap<Module, String> {
    let mut modules: BTreeMap<Module, String> = sources()
        .iter()
        .map(|file| {
            let text = fs::read_to_string(file).expect("a source file");
            let own = text.split("#[cfg(test)]\nmod tests {").next();
            (path_of(file), without_comments(own.unwrap_or_default()))
        })
        .collect();
    let tests: Vec<Module> = modules
        .iter()
        .flat_map(|(module, code)| {
            let names = code.split("#[cfg(test)]\n").skip(1).filter_map(|behind| {
                let (declared, _) = behind.split_once(';')?;
                declared.rsplit_once("mod ").map(|(_, name)| name)
            });
            names.map(move |name| [module.as_slice(), &[name.to_owned()]].concat())
        })
        .collect();
    modules.retain(|module, _| !tests.iter().any(|test| module.starts_with(test)));
    modules
}

fn path_of(file: &Path) -> Module {
    let inside: PathBuf = file
        .strip_prefix(root())
        .expect("a file under src")
        .with_extension("");
    inside
        .iter()
        .map(|name| name.to_string_lossy().into_owned())
        .collect()
}

/// The module that a path in `module` leads into.
fn resolve(module: &Module, path: &[String], modules: &BTreeMap<Module, String>) -> Module {
    let mut at = match path.first().map(String::as_str) {
        Some("super") => module.clone(),
        _ => Module::new(),
    };
    for name in path {
        match name.as_str() {
            "crate" => {}
            "super" => drop(at.pop()),
            name => {
                at.push(name.to_owned());
                if !modules.contains_key(&at) {
                    at.pop();
                    break;
                }
            }
        }
    }
    at
}

/// The groups of modules each of which leads to itself over the others.
fn circles_in(uses: &BTreeMap<&str, BTreeSet<String>>) -> Vec<Vec<String>> {
    let reached = |from: &str| {
        let mut reached: BTreeSet<&str> = BTreeSet::new();
        let mut open = vec![from];
        while let Some(at) = open.pop() {
            for next in uses.get(at).into_iter().flatten() {
                if reached.insert(next) {
                    open.push(next);
                }
            }
        }
        reached
    };
    let mut circles: Vec<Vec<String>> = Vec::new();
    for name in uses.keys() {
        let circle: Vec<String> = reached(name)
            .into_iter()
            .filter(|other| reached(other).contains(name))
            .map(str::to_owned)
            .collect();
        if !circle.is_empty() && !circles.contains(&circle) {
            circles.push(circle);
        }
    }
    circles
}

/// The type that a line defines.
fn defined_type(line: &str) -> Option<&str> {
    let (before, behind) = ["struct ", "enum "]
        .iter()
        .find_map(|word| line.split_once(word))?;
    let before = before.trim();
    let is_definition = before.is_empty() || before.starts_with("pub") && !before.contains("fn ");
    is_definition.then(|| first_word(behind))
}

/// The types that code has inherent methods of.
fn implemented_types(code: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut before = "";
    for line in code.lines().map(str::trim) {
        if let Some(behind) = line.strip_prefix("impl")
            && behind.starts_with([' ', '<'])
            && before != "#[cfg(test)]"
            && !line.contains(" for ")
        {
            let path = behind_generics(behind).trim_start();
            let end = path.find(['<', ' ', '{']).unwrap_or(path.len());
            found.push(first_word(
                path[..end].rsplit("::").next().unwrap_or_default(),
            ));
        }
        before = line;
    }
    found
}

/// What stands behind `<...>`.
fn behind_generics(code: &str) -> &str {
    let mut depth = 0_usize;
    let mut previous = ' ';
    for (at, char) in code.char_indices() {
        match char {
            '<' => depth += 1,
            '>' if previous != '-' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 {
            return if char == '>' { &code[at + 1..] } else { code };
        }
        previous = char;
    }
    code
}

fn first_word(text: &str) -> &str {
    let end = text.find(|char: char| !char.is_alphanumeric() && char != '_');
    &text[..end.unwrap_or(text.len())]
}

#[test]
fn types_and_their_methods_are_found() {
    let code = "
        pub(super) struct One<'a> {
        enum Two {
        pub fn in_structure() -> u8 {
        impl<'a, F: Fn() -> u8> One<'a> {
        impl super::Two {
        impl Display for Two {
        #[cfg(test)]
        impl Three {
    ";
    let defined: Vec<_> = code.lines().filter_map(defined_type).collect();
    assert_eq!(defined, ["One", "Two"]);
    assert_eq!(implemented_types(code), ["One", "Two"]);
}

#[test]
fn circles_are_found() {
    let uses = BTreeMap::from([
        ("a", BTreeSet::from(["b".to_owned()])),
        ("b", BTreeSet::from(["c".to_owned(), "d".to_owned()])),
        ("c", BTreeSet::from(["a".to_owned()])),
    ]);
    assert_eq!(circles_in(&uses), [["a", "b", "c"]]);
}
