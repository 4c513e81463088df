//! The `sandbox` command as a process of its own: what a seed repeats, what a state file keeps, what a fault does.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

/// A running sandbox.
struct Sandbox {
    child: Child,
    origin: String,
    client: reqwest::Client,
}

impl Sandbox {
    fn start(arguments: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_marketplace-connector"))
            .args(["sandbox", "--listen", "127.0.0.1:0"])
            .args(arguments)
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let address = BufReader::new(child.stderr.take().unwrap())
            .lines()
            .map_while(Result::ok)
            .find_map(|line| Some(line.split_once("listening addr=")?.1.trim().to_owned()))
            .expect("it says where it listens");
        Self {
            child,
            origin: format!("http://{address}"),
            client: reqwest::Client::builder().no_proxy().build().unwrap(),
        }
    }

    async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let request = self.client.post(format!("{}{path}", self.origin)).json(body);
        let answer = request.send().await.unwrap();
        (
            answer.status().as_u16(),
            answer.json().await.unwrap_or(Value::Null),
        )
    }

    /// A token of the application's own account.
    async fn token(&self) -> (u16, Value) {
        let body = json!({
            "client_id": "1234567890123456", "client_secret": "sandbox-client-secret",
            "grant_type": "client_credentials",
        });
        self.post("/oauth/token", &body).await
    }

    async fn me(&self, tokens: &Value) -> u16 {
        let request = self.client.get(format!("{}/users/me", self.origin));
        let request = request.bearer_auth(tokens["access_token"].as_str().unwrap());
        request.send().await.unwrap().status().as_u16()
    }

    /// Asks it to end, and waits until it has.
    fn stop(mut self) {
        let asked = Command::new("kill").arg(self.child.id().to_string()).status();
        assert!(asked.unwrap().success());
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn a_seed_makes_public_keys_and_ids_repeat() {
    let keys = async || {
        let sandbox = Sandbox::start(&["--seed", "7"]);
        let answer = sandbox.client.get(format!("{}/_sandbox/sellers", sandbox.origin));
        answer.send().await.unwrap().json::<Value>().await.unwrap()
    };
    assert_eq!(keys().await, keys().await);
}

#[tokio::test]
async fn a_state_file_keeps_tokens_and_the_moved_clock_over_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("sandbox.json");
    let arguments = ["--state-file", file.to_str().unwrap()];
    let first = Sandbox::start(&arguments);
    let (_, tokens) = first.token().await;
    first.post("/_sandbox/clock", &json!({ "advance": "5h" })).await;
    first.stop();
    let second = Sandbox::start(&arguments);
    assert_eq!(second.me(&tokens).await, 200);
    // Beyond the 6 hours only together with the 5 from before the restart.
    second.post("/_sandbox/clock", &json!({ "advance": "61m" })).await;
    assert_eq!(second.me(&tokens).await, 401);
}

#[tokio::test]
async fn a_fault_of_the_command_line_strikes_from_the_start() {
    let sandbox = Sandbox::start(&["--fault", "token=503*1"]);
    assert_eq!(sandbox.token().await.0, 503);
    assert_eq!(sandbox.token().await.0, 200);
}
