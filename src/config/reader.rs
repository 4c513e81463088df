//! Reads settings one by one and collects what is wrong instead of stopping at the first.
//!
//! Guarantees that no problem shows the value of a secret. Whoever reads goes on with nothing in the value's place, so
//! that every problem is found in one go; only [`Reader::finish`] decides.

use std::fmt;
use std::path::Path;

use super::settings::{Setting, Unset};
use super::values::Parsed;

/// Longest value that a problem repeats.
const SHOWN_CHARACTERS: usize = 80;
/// Longest file that is read for a setting.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// One thing that is wrong with the settings, and the mend, on one line. Never shows a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Which setting, with its place where it stands in a file.
    pub setting: String,
    /// What is wrong, and the mend.
    pub message: String,
}

impl Problem {
    /// A problem with `setting`.
    pub fn new(setting: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            setting: setting.into(),
            message: message.into(),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, part) in [self.setting.as_str(), ": ", self.message.as_str()]
            .into_iter()
            .enumerate()
        {
            // What was typed may hold anything; a problem stays on its line.
            for character in part.chars() {
                if character.is_control() && index != 1 {
                    write!(f, "{}", character.escape_default())?;
                } else {
                    write!(f, "{character}")?;
                }
            }
        }
        Ok(())
    }
}

/// Gives the value of a setting by its name; none where it is not set.
pub(super) type Source<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Reads from a source and collects problems.
pub(super) struct Reader<'a> {
    source: Source<'a>,
    /// How a setting is named in a problem.
    label: &'a dyn Fn(&str) -> String,
    problems: Vec<Problem>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(source: Source<'a>) -> Self {
        Self::labelled(source, &|name| name.to_owned())
    }

    pub(super) fn labelled(source: Source<'a>, label: &'a dyn Fn(&str) -> String) -> Self {
        Self {
            source,
            label,
            problems: Vec::new(),
        }
    }

    /// Adds a problem with the setting of that name.
    pub(super) fn problem(&mut self, name: &str, message: impl Into<String>) {
        self.problems.push(Problem::new((self.label)(name), message));
    }

    /// Adds problems that another reader found.
    pub(super) fn add(&mut self, problems: Vec<Problem>) {
        self.problems.extend(problems);
    }

    /// Whether somebody set it, be it to something empty.
    pub(super) fn is_set(&self, setting: Setting) -> bool {
        (self.source)(setting.name).is_some()
            || (setting.secret && (self.source)(&format!("{}_FILE", setting.name)).is_some())
    }

    /// The value of a setting that has a default or is required. None only if there is a problem.
    pub(super) fn value<T>(&mut self, setting: Setting, parse: impl Fn(&str) -> Parsed<T>) -> Option<T> {
        if !self.is_set(setting) && setting.unset == Unset::Required {
            self.problem(setting.name, "is required; set it");
            return None;
        }
        self.optional(setting, parse)
    }

    /// The value of a setting, or of its default. None if there is neither, or if there is a problem.
    pub(super) fn optional<T>(&mut self, setting: Setting, parse: impl Fn(&str) -> Parsed<T>) -> Option<T> {
        let text = match self.text_of(setting) {
            Ok(Some(text)) => text,
            Ok(None) => match setting.unset {
                Unset::Default(default) => default.to_owned(),
                Unset::Required | Unset::Nothing => return None,
            },
            Err(message) => {
                self.problem(setting.name, message);
                return None;
            }
        };
        if text.trim().is_empty() {
            self.problem(setting.name, "is empty; give it a value or remove it");
            return None;
        }
        match parse(&text) {
            Ok(value) => Some(value),
            Err(expected) => {
                let message = if setting.secret {
                    expected
                } else {
                    format!("{expected}, not {}", shown(&text))
                };
                self.problem(setting.name, message);
                None
            }
        }
    }

    /// Like [`Self::optional`], but an empty text turns the setting off.
    pub(super) fn optional_or_off<T>(
        &mut self,
        setting: Setting,
        parse: impl Fn(&str) -> Parsed<T>,
    ) -> Option<T> {
        if (self.source)(setting.name).is_some_and(|text| text.is_empty()) {
            return None;
        }
        self.optional(setting, parse)
    }

    /// A setting's value as it may be shown; of a secret only whether it is set.
    pub(super) fn shown(&self, setting: Setting) -> String {
        match (setting.secret, setting.unset) {
            (true, _) if self.is_set(setting) => "set".to_owned(),
            (true, Unset::Default(default)) => default.to_owned(),
            (true, _) => "not set".to_owned(),
            (false, Unset::Default(default)) => {
                (self.source)(setting.name).unwrap_or_else(|| default.to_owned())
            }
            (false, _) => (self.source)(setting.name).unwrap_or_else(|| "not set".to_owned()),
        }
    }

    /// What was set, directly or by `NAME_FILE`.
    fn text_of(&self, setting: Setting) -> Result<Option<String>, String> {
        let direct = (self.source)(setting.name);
        if !setting.secret {
            return Ok(direct);
        }
        let file_name = format!("{}_FILE", setting.name);
        match (direct, (self.source)(&file_name)) {
            (Some(_), Some(_)) => Err(format!("is set, and so is {file_name}; remove one of them")),
            (Some(text), None) => Ok(Some(text)),
            (None, Some(path)) => read_text(Path::new(&path))
                .map(|text| Some(text.trim_end_matches(['\r', '\n']).to_owned()))
                .map_err(|error| {
                    format!(
                        "{file_name} names {}, which cannot be read: {error}",
                        shown(&path)
                    )
                }),
            (None, None) => Ok(None),
        }
    }

    /// The problems found so far.
    pub(super) fn finish(self) -> Vec<Problem> {
        self.problems
    }
}

/// The text of a file that a setting names.
pub(super) fn read_text(path: &Path) -> Result<String, String> {
    let length = std::fs::metadata(path).map_err(|error| error.to_string())?.len();
    if length > MAX_FILE_BYTES {
        return Err(format!("it has {length} bytes, which is too long"));
    }
    std::fs::read_to_string(path).map_err(|error| error.to_string())
}

/// A value as it may stand in a problem.
pub(super) fn shown(text: &str) -> String {
    let mut shown: String = text.chars().take(SHOWN_CHARACTERS).collect();
    if shown.len() < text.len() {
        shown.push_str("...");
    }
    format!("`{shown}`")
}
