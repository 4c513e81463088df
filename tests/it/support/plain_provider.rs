//! A provider that is not our sandbox and shares nothing with it: bytes on a socket. Its token endpoint gives numbered
//! tokens and can be made to wait, everything else answers `{}`.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

/// A request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    /// Method, path and query.
    pub(crate) line: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Received {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map_or("", |(_, value)| value)
    }
}

struct Shared {
    received: Mutex<Vec<Received>>,
    /// Answers of the token endpoint that differ from the usual one, each used once.
    answers: Mutex<VecDeque<(u16, String)>>,
    tokens_given: Mutex<u32>,
    held: watch::Sender<bool>,
}

/// The provider; it ends with this.
pub(crate) struct PlainProvider {
    pub(crate) origin: String,
    shared: Arc<Shared>,
    _stop: DropGuard,
}

/// The access token of the `number`th answer of the token endpoint.
pub(crate) fn access_token(number: u32) -> String {
    format!("APP_USR-canary-access-{number}")
}

/// The refresh token of the `number`th answer of the token endpoint.
pub(crate) fn refresh_token(number: u32) -> String {
    format!("TG-canary-refresh-{number}")
}

impl PlainProvider {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = format!("http://{}", listener.local_addr().unwrap());
        let shared = Arc::new(Shared {
            received: Mutex::default(),
            answers: Mutex::default(),
            tokens_given: Mutex::default(),
            held: watch::Sender::new(false),
        });
        let stop = CancellationToken::new();
        let (world, until) = (Arc::clone(&shared), stop.clone());
        tokio::spawn(until.run_until_cancelled_owned(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let world = Arc::clone(&world);
                // A client that was killed is no failure of the test.
                tokio::spawn(async move { answer(stream, &world).await.ok() });
            }
        }));
        Self {
            origin,
            shared,
            _stop: stop.drop_guard(),
        }
    }

    /// From now on the token endpoint takes requests and does not answer them.
    pub(crate) fn hold_token_answers(&self) {
        self.shared.held.send_replace(true);
    }

    /// Lets the held answers go.
    pub(crate) fn let_token_answers_go(&self) {
        self.shared.held.send_replace(false);
    }

    /// The next answer of the token endpoint.
    pub(crate) fn answer_next_token_request(&self, status: u16, body: &str) {
        self.shared
            .answers
            .lock()
            .unwrap()
            .push_back((status, body.to_owned()));
    }

    /// Everything that came so far.
    pub(crate) fn received(&self) -> Vec<Received> {
        self.shared.received.lock().unwrap().clone()
    }

    /// What came to the token endpoint so far.
    pub(crate) fn token_requests(&self) -> Vec<Received> {
        let mut received = self.received();
        received.retain(|request| request.line.starts_with("POST /oauth/token"));
        received
    }
}

async fn answer(mut stream: TcpStream, world: &Shared) -> std::io::Result<()> {
    let mut reader = BufReader::new(&mut stream);
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).await? == 0 || line == "\r\n" {
            break;
        }
        head.push(line.trim_end().to_owned());
    }
    let headers: Vec<(String, String)> = head
        .iter()
        .skip(1)
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let mut request = Received {
        line: head.first().cloned().unwrap_or_default(),
        headers,
        body: String::new(),
    };
    let mut body = vec![0; request.header("content-length").parse().unwrap_or(0)];
    reader.read_exact(&mut body).await?;
    request.body = String::from_utf8_lossy(&body).into_owned();
    let is_token = request.line.starts_with("POST /oauth/token");
    world.received.lock().unwrap().push(request);
    let (status, body) = if is_token {
        let _ = world.held.subscribe().wait_for(|held| !held).await;
        token_answer(world)
    } else {
        (200, "{}".to_owned())
    };
    let answer = format!(
        "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await
}

fn token_answer(world: &Shared) -> (u16, String) {
    if let Some(answer) = world.answers.lock().unwrap().pop_front() {
        return answer;
    }
    let mut given = world.tokens_given.lock().unwrap();
    *given += 1;
    let (access, refresh) = (access_token(*given), refresh_token(*given));
    let body = format!(
        r#"{{"access_token":"{access}","token_type":"bearer","expires_in":15552000,"scope":"offline_access read write","user_id":4711,"refresh_token":"{refresh}","public_key":"APP_USR-public","live_mode":true}}"#
    );
    (200, body)
}
