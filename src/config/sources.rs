//! Where settings come from: the process's environment first, then a `.env` file in the working directory.
//!
//! Never changes the process's environment. Unknown names are problems in `.env`, which is ours alone; the environment may
//! hold foreign names.

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::Path;

use super::reader::{Problem, shown};
use super::settings::is_known;

/// The settings as texts, and what was already wrong with them.
pub struct Sources {
    values: HashMap<String, String>,
    problems: Vec<Problem>,
}

impl Sources {
    /// The process's environment and the `.env` file of the working directory, if there is one.
    pub fn of_process() -> Self {
        Self::new(std::env::vars_os(), Path::new(".env"))
    }

    /// `environment`, and under it what stands in `dotenv`, if that file exists.
    pub fn new(environment: impl IntoIterator<Item = (OsString, OsString)>, dotenv: &Path) -> Self {
        let mut sources = Self {
            values: HashMap::new(),
            problems: Vec::new(),
        };
        sources.read_dotenv(dotenv);
        for (name, value) in environment {
            let Ok(name) = name.into_string() else { continue };
            if !is_known(&name) {
                continue;
            }
            match value.into_string() {
                Ok(value) => {
                    sources.values.insert(name, value);
                }
                Err(_) => sources
                    .problems
                    .push(Problem::new(name, "is not UTF-8 text; correct its value")),
            }
        }
        sources
    }

    fn read_dotenv(&mut self, path: &Path) {
        let file = path.display().to_string();
        let lines = match dotenvy::from_path_iter(path) {
            Ok(lines) => lines,
            Err(error) if error.not_found() => return,
            Err(_) => {
                self.problems.push(Problem::new(
                    file,
                    "cannot be read; correct its permissions or remove it",
                ));
                return;
            }
        };
        for line in lines {
            match line {
                Ok((name, value)) if is_known(&name) => {
                    self.values.insert(name, value);
                }
                Ok((name, _)) => {
                    let message = format!("{} is no setting; correct its name or remove it", shown(&name));
                    self.problems.push(Problem::new(&file, message));
                }
                // The error holds the line, which may hold a secret.
                Err(dotenvy::Error::LineParse(_, position)) => {
                    let message = format!(
                        "a line is not `NAME=value` (near its character {position}); quote values that hold spaces, `#`, `$` or quotes"
                    );
                    self.problems.push(Problem::new(&file, message));
                }
                Err(_) => {
                    self.problems.push(Problem::new(
                        &file,
                        "cannot be read to its end; it must be UTF-8 text",
                    ));
                    return;
                }
            }
        }
    }

    /// The text of the setting of that name.
    pub fn get(&self, name: &str) -> Option<String> {
        self.values.get(name).cloned()
    }

    /// What is wrong with the sources themselves.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }
}

impl std::fmt::Debug for Sources {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.values.keys()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources(environment: &[(&str, &str)], dotenv: &str) -> Sources {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(".env");
        std::fs::write(&path, dotenv).unwrap();
        Sources::new(
            environment
                .iter()
                .map(|(name, value)| (name.into(), value.into())),
            &path,
        )
    }

    #[test]
    fn the_environment_wins_over_the_file() {
        let sources = sources(
            &[("RUST_LOG", "debug")],
            "RUST_LOG=info\nLOG_FORMAT=json # comment\n",
        );
        assert_eq!(sources.get("RUST_LOG").as_deref(), Some("debug"));
        assert_eq!(sources.get("LOG_FORMAT").as_deref(), Some("json"));
        assert_eq!(sources.problems(), []);
    }

    #[test]
    fn a_foreign_name_is_a_problem_in_the_file_only() {
        let sources = sources(
            &[("HOME", "/root")],
            "PROXY_TIMEUOT=3s\nENCRYPTION_KEYS_FILE=/run/key\n",
        );
        let problems: Vec<_> = sources.problems().iter().map(ToString::to_string).collect();
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].ends_with(".env: `PROXY_TIMEUOT` is no setting; correct its name or remove it"));
        assert_eq!(sources.get("HOME"), None);
    }

    #[test]
    fn a_broken_line_is_told_without_its_text() {
        let sources = sources(&[], "MERCADOPAGO_CLIENT_SECRET='canary\nLOG_FORMAT=json\n");
        assert_eq!(sources.problems().len(), 1);
        assert!(!sources.problems()[0].to_string().contains("canary"));
    }

    #[test]
    fn no_file_is_no_problem() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Sources::new([], &folder.path().join(".env")).problems(), []);
    }
}
