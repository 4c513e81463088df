//! The service as whoever runs it meets it: a process of its own, which can be killed in the middle of what it does.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{Seek as _, SeekFrom};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use url::Url;

use super::http::{Browser, Platform, Target};
use super::{API_KEY, CLIENT_ID, CLIENT_SECRET, ENCRYPTION_KEY};

const READY_WITHIN: Duration = Duration::from_mins(1);
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Waits until `ready` gives something. Only where a process of its own has to be waited for.
pub(crate) async fn until<T>(what: &str, mut ready: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = ready() {
            return found;
        }
        assert!(begun.elapsed() < READY_WITHIN, "{what} did not happen in time");
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// The program: the one that was built with the tests, or the one that `CONNECTOR_BINARY` names (a release build, for figures).
fn binary() -> OsString {
    std::env::var_os("CONNECTOR_BINARY").unwrap_or_else(|| env!("CARGO_BIN_EXE_marketplace-connector").into())
}

/// `serve` with its folder, which outlives the process as a disk does. Dropping it kills the process.
pub(crate) struct Service {
    folder: TempDir,
    /// What the next process is started with.
    pub(crate) settings: BTreeMap<&'static str, String>,
    /// The process, while there is one.
    pub(crate) child: Option<Child>,
    /// Where it listens.
    pub(crate) target: Target,
}

impl Service {
    /// Starts it with a provider at `provider` and nothing else but what it has to be told.
    pub(crate) async fn start(provider: &str) -> Self {
        Self::with(provider, &[]).await
    }

    /// The same with more settings.
    pub(crate) async fn with(provider: &str, more: &[(&'static str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut settings = BTreeMap::from([
            ("LISTEN_ADDR", "127.0.0.1:0".to_owned()),
            ("OPS_LISTEN_ADDR", String::new()),
            (
                "DATABASE_URL",
                format!("sqlite://{}", folder.path().join("connector.db").display()),
            ),
            ("ENCRYPTION_KEYS", ENCRYPTION_KEY.to_owned()),
            ("MERCADOPAGO_CLIENT_ID", CLIENT_ID.to_owned()),
            ("MERCADOPAGO_CLIENT_SECRET", CLIENT_SECRET.to_owned()),
            (
                "MERCADOPAGO_AUTHORIZATION_URL",
                format!("{provider}/authorization"),
            ),
            ("MERCADOPAGO_API_URL", provider.to_owned()),
            ("BOOTSTRAP_API_KEY", API_KEY.to_owned()),
        ]);
        settings.extend(more.iter().map(|(name, value)| (*name, (*value).to_owned())));
        // `PUBLIC_URL` keeps its default, as behind a reverse proxy: nobody listens there.
        let public: Url = "http://127.0.0.1:8080".parse().unwrap();
        let mut service = Self {
            folder,
            settings,
            child: None,
            target: Target::new(public.clone(), public),
        };
        service.start_again().await;
        service
    }

    /// Starts the process on what is in its folder.
    pub(crate) async fn start_again(&mut self) {
        assert!(self.try_start().await, "it ended by itself at its start");
    }

    /// The same, where its start may fail, as it does while the database is away. Whether it runs.
    pub(crate) async fn try_start(&mut self) -> bool {
        assert!(self.child.is_none(), "it runs already");
        let before = std::fs::metadata(self.log_file()).map_or(0, |log| log.len());
        let log = OpenOptions::new()
            .append(true)
            .create(true)
            .open(self.log_file())
            .unwrap();
        let child = self.command().arg("serve").stderr(log).spawn().unwrap();
        let log_file = self.log_file();
        let child = self.child.insert(child);
        let address = until("the start", || {
            let mut log = File::open(&log_file).unwrap();
            log.seek(SeekFrom::Start(before)).unwrap();
            let log = std::io::read_to_string(log).unwrap();
            let listening = log.lines().find_map(|line| {
                let line = line.contains("listening").then_some(line)?;
                line.split_once("addr=")?.1.split_whitespace().next()
            });
            match listening {
                Some(address) => Some(Some(address.to_owned())),
                None => child.try_wait().unwrap().map(|_| None),
            }
        })
        .await;
        let Some(address) = address else {
            self.child = None;
            return false;
        };
        self.target = self.target.moved(format!("http://{address}").parse().unwrap());
        true
    }

    /// The program with this service's settings, for a command beside it.
    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.command()
            .args(arguments)
            .stderr(Stdio::piped())
            .output()
            .unwrap()
    }

    /// The same, to be started in whatever way.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(binary());
        command
            .env_clear()
            .envs(&self.settings)
            .current_dir(self.folder.path())
            .stdin(Stdio::null());
        command
    }

    /// Kills the process as `kill -9` does: nothing of it runs any more when this returns.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Everything that it wrote to its log so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    fn log_file(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Rescue files with a complete answer in them.
    pub(crate) fn rescued_answers(&self) -> Vec<PathBuf> {
        rescued_answers(&self.folder.path().join("data/rescue"))
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.target.address.socket_addrs(|| None).unwrap()[0]
    }

    pub(crate) fn platform(&self) -> Platform {
        Platform::new(self.target.clone(), API_KEY)
    }

    /// Somebody with another key.
    pub(crate) fn platform_with_key(&self, key: &str) -> Platform {
        Platform::new(self.target.clone(), key)
    }

    pub(crate) fn browser(&self) -> Browser {
        Browser::new(self.target.clone())
    }

    /// Everything that it answered so far.
    pub(crate) fn seen(&self) -> Vec<bytes::Bytes> {
        self.target.seen.all()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("the service's log:\n{}", self.log());
        }
    }
}

/// Rescue files with a complete answer in them: after the first line stands the answer's length, zero until it is there.
pub(crate) fn rescued_answers(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Vec::new();
    };
    entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file())
        .filter(|path| has_answer(path))
        .collect()
}

fn has_answer(path: &Path) -> bool {
    // It may go while it is looked at.
    let content = std::fs::read(path).unwrap_or_default();
    let Some(end) = content.iter().position(|byte| *byte == b'\n') else {
        return false;
    };
    content[end + 1..].iter().take(8).any(|byte| *byte != 0)
}
