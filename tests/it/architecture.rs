//! The structure is a promise too: data flows one way, each library has its one place, and what is sent out is finished.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Modules by level (DESIGN.md section 17). A module may use those of lower levels and of its own.
const LEVELS: &[&[&str]] = &[
    &["domain"],
    &["mercadopago", "vault"],
    &["config"],
    &["storage", "rescue"],
    &["replica"],
    &["access", "connect", "refresh", "proxy", "events"],
    &["telemetry"],
    &["http"],
    &["app"],
    &["demo"],
    &["cli"],
];

/// Which libraries are used where.
const HOMES: &[(&str, &[&str])] = &[
    ("sqlx", &["storage"]),
    ("oauth2", &["mercadopago/token_endpoint"]),
    ("aes_gcm", &["vault"]),
    ("axum", &["http", "sandbox", "app"]),
];

/// No file has more lines than this, its tests not counted: each is still one thing.
const LONGEST_FILE: usize = 700;
/// Files that are tests as a whole.
const TEST_FILES: &[&str] = &["tests.rs", "scenarios.rs", "peer.rs", "testing.rs"];

struct Source {
    /// Path below `src`, with `/`.
    path: String,
    text: String,
}

fn sources() -> Vec<Source> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    collect(&root, &root, &mut found);
    assert!(found.len() > 50, "the sources were not found");
    found
}

fn collect(root: &Path, folder: &Path, found: &mut Vec<Source>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(root, &path, found);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            let relative = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            found.push(Source {
                path: relative,
                text: std::fs::read_to_string(&path).unwrap(),
            });
        }
    }
}

impl Source {
    fn is_test(&self) -> bool {
        self.path
            .rsplit('/')
            .next()
            .is_some_and(|name| TEST_FILES.contains(&name))
    }

    /// The file without the tests at its end.
    fn production(&self) -> &str {
        let end = self
            .text
            .find("#[cfg(test)]\nmod tests {")
            .or_else(|| self.text.find("#[cfg(test)]\npub(crate) mod tests {"));
        &self.text[..end.unwrap_or(self.text.len())]
    }
}

/// The top-level module that a file belongs to; none for `lib.rs` and `main.rs`.
fn module(path: &str) -> Option<&str> {
    match path.split_once('/') {
        Some((folder, _)) => Some(folder),
        None => path
            .strip_suffix(".rs")
            .filter(|name| !matches!(*name, "lib" | "main")),
    }
}

/// Lines of code: comments left out.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .enumerate()
        .map(|(index, line)| (index + 1, line))
        .filter(|(_, line)| !line.trim_start().starts_with("//"))
}

/// The modules of this crate that a line of code names.
fn named(line: &str) -> impl Iterator<Item = &str> {
    line.split("crate::").skip(1).map(|rest| {
        let end = rest
            .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .unwrap_or(rest.len());
        &rest[..end]
    })
}

#[test]
fn imports_follow_the_direction() {
    let levels: BTreeMap<&str, usize> = LEVELS
        .iter()
        .enumerate()
        .flat_map(|(level, names)| names.iter().map(move |name| (*name, level)))
        .collect();
    let mut wrong = Vec::new();
    // Tests may use what they need.
    for source in sources().into_iter().filter(|source| !source.is_test()) {
        let Some(user) = module(&source.path).filter(|user| *user != "sandbox") else {
            continue;
        };
        let level = levels
            .get(user)
            .unwrap_or_else(|| panic!("src/{user} has no level: name it in LEVELS"));
        for (line, text) in code(&source.text) {
            for used in named(text) {
                let allowed = match levels.get(used) {
                    Some(other) => other <= level,
                    None => used == "sandbox" && matches!(user, "cli" | "demo"),
                };
                if !allowed {
                    wrong.push(format!("src/{}:{line} uses {used}", source.path));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_sandbox_shares_nothing_but_clock_and_randomness() {
    let mut seen = 0;
    for source in sources()
        .iter()
        .filter(|source| module(&source.path) == Some("sandbox"))
    {
        for (line, text) in code(&source.text) {
            for used in text.split("crate::").skip(1) {
                seen += 1;
                let allowed = ["domain::clock", "domain::random", "sandbox"];
                assert!(
                    allowed.iter().any(|allowed| used.starts_with(allowed)),
                    "src/{}:{line} uses {used}",
                    source.path
                );
            }
        }
    }
    assert!(seen > 0, "the sandbox was not found");
}

#[test]
fn each_library_has_its_place() {
    for (library, homes) in HOMES {
        let mut users = 0;
        for source in sources().iter().filter(|source| !source.is_test()) {
            for (line, text) in code(source.production()) {
                if text.contains(&format!("{library}::")) {
                    users += 1;
                    let at_home = homes.iter().any(|home| source.path.starts_with(home));
                    assert!(
                        at_home,
                        "src/{}:{line} uses {library}, which belongs to {homes:?}",
                        source.path
                    );
                }
            }
        }
        assert!(users > 0, "{library} is used nowhere");
    }
}

#[test]
fn every_file_says_why_it_is_there_and_is_finished() {
    // Put together, so that this file does not find itself.
    let unfinished = [
        "todo".to_owned() + "!(",
        "unimplemented".to_owned() + "!(",
        "dbg".to_owned() + "!(",
        "#[all".to_owned() + "ow(",
    ];
    for source in sources() {
        assert!(
            source.text.starts_with("//!"),
            "src/{} does not open with why it is there",
            source.path
        );
        let lines = source.production().lines().count();
        assert!(
            source.is_test() || lines <= LONGEST_FILE,
            "src/{} has {lines} lines: is it still one thing?",
            source.path
        );
        for (line, text) in code(&source.text) {
            for word in &unfinished {
                assert!(!text.contains(word), "src/{}:{line} has {word}", source.path);
            }
        }
    }
}

#[test]
fn no_test_is_left_out() {
    let ignored = "#[ign".to_owned() + "ore";
    for folder in ["src", "tests"] {
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(folder);
        let mut found = Vec::new();
        collect(&root, &root, &mut found);
        for source in found {
            assert!(
                !source.text.contains(&ignored),
                "{folder}/{} leaves a test out",
                source.path
            );
        }
    }
}
