//! A throw-away PostgreSQL cluster in a temporary folder, reached by its socket alone. It ends with the test process, even
//! when that is killed: a shell that waits at the other end of a pipe then stops the server and removes the folder.
//!
//! Where PostgreSQL is not installed, suites that need it say so loudly and are left out, unless `REQUIRE_ALL_SUITES=1`.
//! PostgreSQL refuses to run as root; then it runs as user `postgres` or `nobody`.

use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

const ANSWERS_WITHIN: Duration = Duration::from_mins(1);
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// Waits for the end of its standard input, then stops the server `$1/data` and removes `$1`.
const WATCHDOG: &str = r#"read -r _; pid=$(head -n 1 "$1/data/postmaster.pid" 2>/dev/null); \
[ -n "$pid" ] && kill -QUIT "$pid" && sleep 1; rm -rf "$1""#;

/// A running cluster.
#[derive(Debug)]
pub(crate) struct Cluster {
    folder: PathBuf,
    binaries: PathBuf,
    user: Option<(u32, u32)>,
    databases: AtomicU32,
    /// Ends with this process or with the cluster.
    watchdog: Child,
}

/// The cluster that the tests of this process share; none where PostgreSQL is not installed.
pub(crate) fn shared() -> Option<&'static Cluster> {
    static SHARED: OnceLock<Option<Cluster>> = OnceLock::new();
    SHARED.get_or_init(Cluster::start).as_ref()
}

impl Cluster {
    /// Starts a cluster of its own; none where PostgreSQL is not installed.
    pub(crate) fn start() -> Option<Self> {
        let Some(binaries) = binaries() else {
            let required = std::env::var("REQUIRE_ALL_SUITES").is_ok_and(|value| value == "1");
            assert!(
                !required,
                "PostgreSQL is not installed, and REQUIRE_ALL_SUITES=1 leaves no suite out"
            );
            // Straight to the stream: the test harness hides what `eprintln!` writes in a test that passes.
            let _ = writeln!(
                std::io::stderr(),
                "\n*** LEFT OUT: tests on PostgreSQL, because it is not installed ***\n"
            );
            return None;
        };
        let folder = tempfile::Builder::new().prefix("pg-").tempdir().unwrap().keep();
        let user = is_root().then(unprivileged_user);
        if let Some((uid, gid)) = user {
            std::os::unix::fs::chown(&folder, Some(uid), Some(gid)).unwrap();
        }
        let watchdog = Command::new("sh")
            .args(["-c", WATCHDOG, "watchdog"])
            .arg(&folder)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let cluster = Self {
            folder,
            binaries,
            user,
            databases: AtomicU32::new(0),
            watchdog,
        };
        let data = cluster.data();
        cluster.run(
            "initdb",
            &[
                "-D",
                text(&data),
                "-U",
                "postgres",
                "-A",
                "trust",
                "-E",
                "UTF8",
                "--locale=C",
                "-N",
            ],
        );
        cluster.resume();
        Some(cluster)
    }

    /// Starts the server, if it is stopped, and waits until it answers.
    pub(crate) fn resume(&self) {
        let settings = format!(
            "-c listen_addresses= -c unix_socket_directories={} -c fsync=off -c full_page_writes=off -c max_connections=300 \
             -c shared_buffers=128MB",
            self.folder.display()
        );
        let (data, log) = (self.data(), self.folder.join("log"));
        let arguments = [
            "-D",
            text(&data),
            "-l",
            text(&log),
            "-o",
            &settings,
            "-w",
            "-t",
            "60",
            "start",
        ];
        self.run("pg_ctl", &arguments);
        let begun = Instant::now();
        while !self.command("pg_isready").arg("-q").status().unwrap().success() {
            assert!(begun.elapsed() < ANSWERS_WITHIN, "PostgreSQL does not answer");
            std::thread::sleep(LOOK_AGAIN);
        }
    }

    /// Stops the server at once, as a crash would: clients lose their connections in the middle of what they do.
    pub(crate) fn stop(&self) {
        let data = self.data();
        self.run("pg_ctl", &["-D", text(&data), "-m", "immediate", "-w", "stop"]);
    }

    /// A new empty database; its URL.
    pub(crate) fn create_database(&self) -> String {
        let name = format!("test_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        self.run("createdb", &[&name]);
        self.url(&name)
    }

    /// URL of a database by its name.
    pub(crate) fn url(&self, database: &str) -> String {
        format!(
            "postgres://postgres@localhost/{database}?host={}",
            self.folder.display()
        )
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.binaries.join(program));
        command
            .current_dir("/")
            .env("PGHOST", &self.folder)
            .env("PGUSER", "postgres")
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        if let Some((uid, gid)) = self.user {
            command.uid(uid).gid(gid);
        }
        command
    }

    fn run(&self, program: &str, arguments: &[&str]) {
        // A file, not a pipe: the server inherits it and would hold the pipe open.
        let said = self.folder.join(format!("{program}.err"));
        let status = self
            .command(program)
            .args(arguments)
            .stderr(std::fs::File::create(&said).unwrap())
            .status()
            .unwrap();
        let said = std::fs::read_to_string(said).unwrap_or_default();
        assert!(status.success(), "{program}: {said}");
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        drop(self.watchdog.stdin.take());
        let _ = self.watchdog.wait();
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Where `initdb` and the others are: the newest of the usual places.
fn binaries() -> Option<PathBuf> {
    let versioned = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    let mut found: Vec<PathBuf> = versioned
        .flatten()
        .map(|version| version.path().join("bin"))
        .collect();
    found.sort();
    found.reverse();
    let path = std::env::var_os("PATH").unwrap_or_default();
    found.extend(std::env::split_paths(&path));
    found.into_iter().find(|folder| folder.join("initdb").is_file())
}

fn is_root() -> bool {
    id(&["-u"]) == Some(0)
}

/// User and group that the server runs as where we are root.
fn unprivileged_user() -> (u32, u32) {
    ["postgres", "nobody"]
        .iter()
        .find_map(|name| Some((id(&["-u", name])?, id(&["-g", name])?)))
        .unwrap()
}

fn id(arguments: &[&str]) -> Option<u32> {
    let output = Command::new("id").args(arguments).output().ok()?;
    std::str::from_utf8(&output.stdout).ok()?.trim().parse().ok()
}
