//! `DATABASE_URL`: which engine, and where.

use std::path::PathBuf;
use std::str::FromStr;

use url::Url;

/// Where the data lies: `sqlite://path` or `postgres://...`. Its `Debug` hides the password.
#[derive(Clone, PartialEq, Eq)]
pub enum DatabaseUrl {
    /// A file; it and its folders are created when missing.
    Sqlite(PathBuf),
    /// A PostgreSQL server, by its URL.
    Postgres(String),
}

impl FromStr for DatabaseUrl {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let form = "must be `sqlite://path/of/file.db` or `postgres://user:password@host/database`";
        if let Some(path) = text.strip_prefix("sqlite://").filter(|path| !path.is_empty()) {
            return Ok(Self::Sqlite(path.into()));
        }
        let url: Url = text.parse().map_err(|_| form)?;
        if matches!(url.scheme(), "postgres" | "postgresql") {
            Ok(Self::Postgres(text.to_owned()))
        } else {
            Err(form)
        }
    }
}

impl std::fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Sqlite(path) => write!(f, "sqlite://{}", path.display()),
            Self::Postgres(_) => f.write_str("postgres://[redacted]"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_url_says_what_it_may_be_and_never_shows_its_password() {
        let url: DatabaseUrl = "postgres://user:canary@host/db".parse().unwrap();
        assert!(!format!("{url:?}").contains("canary"));
        for bad in ["", "sqlite://", "mysql://x", "/tmp/x.db"] {
            assert!(bad.parse::<DatabaseUrl>().is_err(), "{bad}");
        }
    }
}
