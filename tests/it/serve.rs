//! `serve` as an operator runs it: a real process, settings by environment alone, told to stop by a signal.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

/// Log lines that are read at most until `listening` must have come.
const MOST_LINES: usize = 50;

/// A running service.
struct Served {
    child: Child,
    address: String,
    log: BufReader<std::process::ChildStderr>,
}

impl Served {
    fn start(folder: &Path, more: &[(&str, &str)]) -> Self {
        Self::start_with(folder, &[], more)
    }

    /// With more arguments too.
    fn start_with(folder: &Path, arguments: &[&str], more: &[(&str, &str)]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_marketplace-connector"))
            .arg("serve")
            .args(arguments)
            .env_clear()
            .envs([
                ("LISTEN_ADDR", "127.0.0.1:0"),
                ("OPS_LISTEN_ADDR", ""),
                ("DATABASE_URL", "sqlite://deep/data/connector.db"),
                (
                    "ENCRYPTION_KEYS",
                    "k1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
                ),
                ("MERCADOPAGO_CLIENT_ID", "1234567890123456"),
                ("MERCADOPAGO_CLIENT_SECRET", "canary-client-secret"),
                (
                    "MERCADOPAGO_AUTHORIZATION_URL",
                    "http://127.0.0.1:9/authorization",
                ),
                ("MERCADOPAGO_API_URL", "http://127.0.0.1:9"),
                ("BOOTSTRAP_API_KEY", "mck_canary0123456789012345678901234567890"),
                ("LOG_FORMAT", "json"),
            ])
            .envs(more.iter().copied())
            .current_dir(folder)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = BufReader::new(child.stderr.take().unwrap());
        let mut served = Self {
            child,
            address: String::new(),
            log,
        };
        served.address = served.listens_at();
        served
    }

    /// The address of the next listener that the log tells of.
    fn listens_at(&mut self) -> String {
        let address = (0..MOST_LINES).find_map(|_| {
            let mut line = String::new();
            self.log.read_line(&mut line).unwrap();
            let line: serde_json::Value = serde_json::from_str(&line).unwrap();
            (line["message"] == "listening").then(|| line["addr"].as_str().unwrap().to_owned())
        });
        address.expect("the log says `listening`")
    }

    /// Sends a request on a connection of its own and gives the whole answer.
    fn ask(&self, head: &str) -> String {
        ask(&self.address, head, "")
    }

    fn send(&self, head: &str, body: &str) -> String {
        ask(&self.address, head, body)
    }

    /// Sends a signal, and gives exit code and the rest of the log.
    fn stop(&mut self, signal: &str) -> (Option<i32>, String) {
        let id = self.child.id().to_string();
        assert!(
            Command::new("kill")
                .args([signal, &id])
                .status()
                .unwrap()
                .success()
        );
        let mut rest = String::new();
        self.log.read_to_string(&mut rest).unwrap();
        (self.child.wait().unwrap().code(), rest)
    }
}

fn ask(address: &str, head: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    write!(
        stream,
        "{head}\r\nhost: connector\r\nconnection: close\r\n\r\n{body}"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

impl Drop for Served {
    fn drop(&mut self) {
        // Ended already, unless a test failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const KEY: &str = "authorization: Bearer mck_canary0123456789012345678901234567890";

#[test]
fn settings_alone_are_enough_and_a_signal_ends_it_cleanly() {
    let folder = tempfile::tempdir().unwrap();
    let mut served = Served::start(folder.path(), &[]);
    assert!(served.ask("GET /healthz HTTP/1.1").starts_with("HTTP/1.1 200"));
    assert!(served.ask("GET /readyz HTTP/1.1").starts_with("HTTP/1.1 200"));
    let listed = served.ask(&format!("GET /v1/connections HTTP/1.1\r\n{KEY}"));
    assert!(
        listed.starts_with("HTTP/1.1 200") && listed.ends_with(r#"{"data":[],"next_cursor":null}"#),
        "{listed}"
    );
    let proxied = served.ask(&format!("GET /proxy/nobody/users/me HTTP/1.1\r\n{KEY}"));
    assert!(
        proxied.starts_with("HTTP/1.1 404") && proxied.contains("connection_not_found"),
        "{proxied}"
    );
    assert!(served.ask("GET /metrics HTTP/1.1").starts_with("HTTP/1.1 404"));
    assert!(folder.path().join("deep/data/connector.db").exists());

    let (code, rest) = served.stop("-TERM");
    assert_eq!(code, Some(0), "{rest}");
    assert!(rest.contains(r#""message":"stopped""#), "{rest}");
    assert!(!rest.contains("canary"), "{rest}");

    // The second start finds what the first one left.
    let mut served = Served::start(folder.path(), &[]);
    assert!(
        served
            .ask(&format!("GET /v1/connections HTTP/1.1\r\n{KEY}"))
            .starts_with("HTTP/1.1 200")
    );
    assert_eq!(served.stop("-INT").0, Some(0));
}

#[test]
fn while_it_drains_it_is_not_ready_but_still_answers() {
    let folder = tempfile::tempdir().unwrap();
    let mut served = Served::start(folder.path(), &[("SHUTDOWN_DELAY", "2s")]);
    let id = served.child.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-TERM", &id])
            .status()
            .unwrap()
            .success()
    );
    let mut line = String::new();
    while !line.contains("stopping") {
        line.clear();
        assert_ne!(
            served.log.read_line(&mut line).unwrap(),
            0,
            "the log says `stopping`"
        );
    }
    let not_ready = served.ask("GET /readyz HTTP/1.1");
    assert!(
        not_ready.starts_with("HTTP/1.1 503") && not_ready.contains("shutting_down"),
        "{not_ready}"
    );
    assert!(served.ask("GET /healthz HTTP/1.1").starts_with("HTTP/1.1 200"));
    assert!(
        served
            .ask(&format!("GET /v1/connections HTTP/1.1\r\n{KEY}"))
            .starts_with("HTTP/1.1 200")
    );
    // A second signal ends it without waiting.
    assert_eq!(served.stop("-TERM").0, Some(1));
}

/// A provider on a thread of its own that answers one call when it is told to. Gives its origin, what says that the call
/// is there, and what lets it be answered.
fn patient_provider() -> (String, Receiver<()>, Sender<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    let (arrived, has_arrived) = channel();
    let (may_answer, answers) = channel();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut head = BufReader::new(stream.try_clone().unwrap());
        let mut line = String::new();
        while line != "\r\n" {
            line.clear();
            assert_ne!(head.read_line(&mut line).unwrap(), 0);
        }
        arrived.send(()).unwrap();
        answers.recv().unwrap();
        stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{\"id\":71}")
            .unwrap();
    });
    (origin, has_arrived, may_answer)
}

#[test]
fn a_call_under_way_is_finished_when_it_is_told_to_stop() {
    let (origin, has_arrived, may_answer) = patient_provider();
    let folder = tempfile::tempdir().unwrap();
    let mut served = Served::start(folder.path(), &[("MERCADOPAGO_API_URL", &origin)]);
    let seller =
        r#"{"seller_id":"s1","user_id":71,"access_token":"APP_USR-canary","expires_in":600,"verify":false}"#;
    let length = seller.len();
    let head = format!(
        "POST /v1/connections HTTP/1.1\r\n{KEY}\r\ncontent-type: application/json\r\ncontent-length: {length}"
    );
    assert!(served.send(&head, seller).starts_with("HTTP/1.1 201"));

    let address = served.address.clone();
    let call =
        std::thread::spawn(move || ask(&address, &format!("GET /proxy/s1/users/me HTTP/1.1\r\n{KEY}"), ""));
    has_arrived.recv_timeout(Duration::from_secs(10)).unwrap();
    let id = served.child.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-TERM", &id])
            .status()
            .unwrap()
            .success()
    );
    let mut line = String::new();
    while !line.contains("stopping") {
        line.clear();
        assert_ne!(
            served.log.read_line(&mut line).unwrap(),
            0,
            "the log says `stopping`"
        );
    }
    may_answer.send(()).unwrap();
    let answer = call.join().unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.ends_with(r#"{"id":71}"#),
        "{answer}"
    );
    let mut rest = String::new();
    served.log.read_to_string(&mut rest).unwrap();
    assert_eq!(served.child.wait().unwrap().code(), Some(0), "{rest}");
    assert!(TcpStream::connect(&served.address).is_err());
}

#[test]
fn an_admin_listener_takes_the_platform_off_the_public_one() {
    let folder = tempfile::tempdir().unwrap();
    let mut served = Served::start(folder.path(), &[("ADMIN_LISTEN_ADDR", "127.0.0.1:0")]);
    let ask_all = |served: &Served| {
        [
            "/v1/connections",
            "/proxy/nobody/users/me",
            "/console",
            "/connect/x",
        ]
        .map(|path| served.ask(&format!("GET {path} HTTP/1.1\r\n{KEY}"))[9..12].to_owned())
    };
    let internal_address = served.listens_at();
    assert_eq!(ask_all(&served), ["404", "404", "404", "404"]);
    served.address = internal_address;
    let internal = ask_all(&served);
    assert_eq!(internal[0], "200");
    assert!(
        served
            .ask(&format!("GET /proxy/nobody/users/me HTTP/1.1\r\n{KEY}"))
            .contains("connection_not_found")
    );
    assert!(served.ask("GET /connect/x HTTP/1.1").starts_with("HTTP/1.1 404"));
    assert_eq!(served.stop("-TERM").0, Some(0));
}

#[test]
fn a_taken_address_is_named_with_its_setting() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = Command::new(env!("CARGO_BIN_EXE_marketplace-connector"))
        .arg("serve")
        .env_clear()
        .envs([
            ("LISTEN_ADDR", address.as_str()),
            (
                "ENCRYPTION_KEYS",
                "k1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
            ),
            ("MERCADOPAGO_CLIENT_ID", "1"),
            ("MERCADOPAGO_CLIENT_SECRET", "s"),
        ])
        .current_dir(folder.path())
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        told.contains(&format!("LISTEN_ADDR: cannot listen on {address}")),
        "{told}"
    );
}

#[test]
fn after_a_restore_access_tokens_are_tried_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let mut before = Served::start(folder.path(), &[]);
    let seller =
        r#"{"seller_id":"s1","user_id":71,"access_token":"APP_USR-canary","expires_in":600,"verify":false}"#;
    let length = seller.len();
    let head = format!(
        "POST /v1/connections HTTP/1.1\r\n{KEY}\r\ncontent-type: application/json\r\ncontent-length: {length}"
    );
    assert!(before.send(&head, seller).starts_with("HTTP/1.1 201"));
    assert_eq!(before.stop("-TERM").0, Some(0));

    let (origin, has_arrived, may_answer) = patient_provider();
    let settings = [("MERCADOPAGO_API_URL", origin.as_str())];
    let mut served = Served::start_with(folder.path(), &["--after-restore"], &settings);
    has_arrived.recv_timeout(Duration::from_secs(10)).unwrap();
    may_answer.send(()).unwrap();
    let told = (0..MOST_LINES).find_map(|_| {
        let mut line = String::new();
        served.log.read_line(&mut line).unwrap();
        line.contains("the restored connections were looked through")
            .then_some(line)
    });
    let told: serde_json::Value = serde_json::from_str(&told.unwrap()).unwrap();
    assert_eq!((&told["alive"], &told["lost"]), (&1.into(), &0.into()), "{told}");
    assert_eq!(served.stop("-TERM").0, Some(0));
}
