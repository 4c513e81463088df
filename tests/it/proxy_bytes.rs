//! Random calls, each made twice: straight to a provider, and through the service. What the provider got and what the caller
//! got are compared byte for byte; they may differ only as section 8 of DESIGN.md says (SECURITY.md D25, D27 to D29, D32).
//!
//! The lists of headers are written out once more here, from the contract and not from the code.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use http::Method;
use marketplace_connector::mercadopago::routes::{ROUTES, Replay, Route};
use rand::rngs::ChaCha20Rng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, RngExt as _, SeedableRng as _};
use serde_json::json;
use tokio::io::{AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

use crate::support::API_KEY;
use crate::support::app::TestApp;
use crate::support::wire::{Framing, Message, Reading};

/// How many calls are compared, unless `CALLS_COMPARED` says otherwise.
const CALLS: usize = 10_000;
/// Every call is made of this and its number.
const SEED: u64 = 20_261_121;
const AT_A_TIME: usize = 8;
const TOKEN: &str = "APP_USR-token-of-the-seller";
/// A call that goes straight to the provider.
const STRAIGHT: &str = "Bearer straight";
/// Up to this size a request's body is held before it is sent.
const HELD: usize = 64 * 1024;

/// Request headers that go on.
const LISTED: &[&str] = &[
    "accept",
    "accept-language",
    "content-type",
    "user-agent",
    "x-idempotency-key",
    "x-meli-session-id",
    "x-product-id",
    "x-tracking-id",
    "x-platform-id",
    "x-integrator-id",
    "x-corporation-id",
    "x-expand-responde-nodes",
    "x-card-validation",
    "x-render-in-process-refunds",
    "x-test-token",
    "traceparent",
];

/// Request headers that stay here, beside any that is not listed.
const UNLISTED: &[&str] = &[
    "cookie",
    "proxy-authorization",
    "x-forwarded-for",
    "x-forwarded-host",
    "forwarded",
    "via",
    "origin",
    "referer",
    "accept-encoding",
    "x-request-id",
    "x-http-method-override",
    "connector-allow-duplicate",
    "tracestate",
    "x-unheard-of",
];

/// Answer headers that come back.
const KEPT: &[&str] = &[
    "content-type",
    "content-encoding",
    "content-language",
    "cache-control",
    "date",
    "etag",
    "last-modified",
    "link",
    "retry-after",
    "vary",
    "warning",
    "www-authenticate",
    "x-ratelimit-remaining",
    "x-unheard-of",
];

/// Answer headers that stay with the provider.
const LEFT_BEHIND: &[&str] = &[
    "access-control-allow-origin",
    "access-control-expose-headers",
    "alt-svc",
    "connector-attempts",
    "connector-decline",
    "connector-error",
    "connector-provider-request-id",
    "content-security-policy",
    "keep-alive",
    "proxy-authenticate",
    "server",
    "set-cookie",
    "strict-transport-security",
    "via",
];

/// What frames a message belongs to its connection.
const FRAMING: &[&str] = &["connection", "content-length", "transfer-encoding"];

const STATUSES: &[u16] = &[
    200, 200, 200, 201, 201, 202, 204, 206, 301, 302, 303, 304, 307, 400, 401, 402, 403, 404, 405, 409, 410,
    415, 418, 422, 423, 424, 429, 500, 501, 502, 503, 504, 599,
];

/// Random bytes that bodies are cut out of.
struct Pool(Vec<u8>);

impl Pool {
    fn new() -> Self {
        let mut bytes = vec![0; 4 << 20];
        ChaCha20Rng::seed_from_u64(SEED).fill_bytes(&mut bytes);
        Self(bytes)
    }

    fn body(&self, random: &mut ChaCha20Rng) -> Vec<u8> {
        let size = match random.random_range(0..200) {
            0..30 => 0,
            30..50 => 1,
            50..160 => random.random_range(2..3_000),
            160..168 => HELD - 1,
            168..176 => HELD,
            176..184 => HELD + 1,
            184..198 => random.random_range(HELD..3 * HELD),
            _ => (1 << 20) + random.random_range(0..10),
        };
        let begin = random.random_range(0..self.0.len() - size);
        self.0[begin..begin + size].to_vec()
    }
}

fn random_of(purpose: u64, number: usize) -> ChaCha20Rng {
    ChaCha20Rng::seed_from_u64(SEED ^ (purpose << 32) ^ number as u64)
}

/// What the provider answers to call `number`.
fn answer(number: usize, pool: &Pool) -> (Message, Framing) {
    let random = &mut random_of(2, number);
    let status = *STATUSES.choose(random).unwrap();
    let mut fields = fields(random, KEPT, 0..6);
    fields.extend(self::fields(random, LEFT_BEHIND, 0..6));
    // A throttled or failed call is sent again if it may be and if the wait is short: mostly not, here.
    fields.retain(|(name, _)| name != "retry-after");
    if matches!(status, 429 | 502..=504) && random.random_ratio(9, 10) {
        fields.push(("retry-after".to_owned(), b"86400".to_vec()));
    }
    if random.random_ratio(1, 3) {
        fields.push(("x-request-id".to_owned(), value(random)));
    }
    if random.random_ratio(1, 6) {
        let location = [
            "https://www.mercadopago.com.ar/x?y=1",
            "/v1/payments/1",
            "http://10.0.0.7/inside",
        ];
        fields.push((
            "location".to_owned(),
            location.choose(random).unwrap().as_bytes().to_vec(),
        ));
    }
    if random.random_ratio(1, 6) {
        fields.push(("Connection".to_owned(), b"keep-alive, X-Hop".to_vec()));
        fields.push(("x-hop".to_owned(), value(random)));
    }
    let mut body = pool.body(random);
    let framing = match random.random_range(0..10) {
        _ if matches!(status, 204 | 304) => {
            body.clear();
            Framing::Nothing
        }
        0..6 => Framing::Length,
        6..9 => chunks(random),
        _ => Framing::Close,
    };
    let line = format!("HTTP/1.1 {status} Whatever");
    (Message { line, fields, body }, framing)
}

fn chunks(random: &mut ChaCha20Rng) -> Framing {
    let count = random.random_range(1..4);
    Framing::Chunks((0..count).map(|_| random.random_range(1..20_000)).collect())
}

/// Some headers of these names, now and then one of them more than once.
fn fields(random: &mut ChaCha20Rng, names: &[&str], count: std::ops::Range<usize>) -> Vec<(String, Vec<u8>)> {
    let count = random.random_range(count);
    let mut fields: Vec<_> = (0..count)
        .map(|_| {
            let name = names.choose(random).unwrap();
            (spelled(random, name), value(random))
        })
        .collect();
    // At most one of those that are read here too, and it must be right.
    let mut keys = 0;
    fields.retain(|(name, _)| {
        keys += usize::from(name.eq_ignore_ascii_case("x-idempotency-key"));
        !name.eq_ignore_ascii_case("x-idempotency-key") || keys == 1
    });
    for (name, value) in &mut fields {
        if name.eq_ignore_ascii_case("x-idempotency-key") {
            value.retain(u8::is_ascii_graphic);
            value.push(b'k');
        }
    }
    fields
}

/// A name with some of its letters in upper case.
fn spelled(random: &mut ChaCha20Rng, name: &str) -> String {
    let upper = random.random_ratio(1, 3);
    name.chars()
        .map(|letter| {
            if upper && random.random() {
                letter.to_ascii_uppercase()
            } else {
                letter
            }
        })
        .collect()
}

/// Any bytes that a header may hold: visible ones, space and tab inside, and those above ASCII.
fn value(random: &mut ChaCha20Rng) -> Vec<u8> {
    let size = random.random_range(0..60);
    let mut value: Vec<u8> = (0..size)
        .map(|_| match random.random_range(0..30) {
            0 => b' ',
            1 => b'\t',
            2 => random.random_range(0x80..=0xff),
            _ => random.random_range(0x21..=0x7e),
        })
        .collect();
    value = value.trim_ascii().to_vec();
    value
}

/// One call: what is the same both ways.
struct Call {
    route: &'static Route,
    /// Path and query at the provider.
    target: String,
    fields: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
    framing: Framing,
    /// How the seller is named.
    prefix: (&'static str, String),
}

impl Call {
    fn new(number: usize, pool: &Pool) -> Self {
        let random = &mut random_of(1, number);
        let route = ROUTES.choose(random).unwrap();
        let mut target = String::new();
        for segment in route.template.split('/').skip(1) {
            target.push('/');
            match segment {
                "{id}" => target.push_str(&id(random)),
                literal => target.push_str(literal),
            }
        }
        if random.random_ratio(1, 20) {
            target.push('/');
        }
        if random.random_ratio(3, 5) {
            target.push('?');
            target.push_str(&query(random));
        }
        let mut fields = fields(random, LISTED, 0..10);
        fields.retain(|(name, _)| !name.eq_ignore_ascii_case("x-tracking-id"));
        fields.extend(self::fields(random, UNLISTED, 0..8));
        if random.random_ratio(1, 6) {
            fields.push((
                "connection".to_owned(),
                b"keep-alive, X-Hop,x-test-token".to_vec(),
            ));
            fields.push(("x-hop".to_owned(), value(random)));
        }
        // By this the provider knows which call it is.
        fields.push(("x-tracking-id".to_owned(), format!("call-{number}").into_bytes()));
        let has_body = route.method != Method::GET || random.random_ratio(1, 20);
        let body = if has_body { pool.body(random) } else { Vec::new() };
        let framing = match random.random_range(0..10) {
            _ if !has_body => Framing::Nothing,
            0 if body.is_empty() => Framing::Nothing,
            0..7 => Framing::Length,
            _ => chunks(random),
        };
        let prefix = if random.random() {
            ("/proxy/seller:1", API_KEY.to_owned())
        } else {
            ("/proxy/~", format!("{API_KEY}~seller:1"))
        };
        Self {
            route,
            target,
            fields,
            body,
            framing,
            prefix,
        }
    }

    /// The request as its caller sends it.
    fn request(&self, prefix: &str, authorization: &str) -> Vec<u8> {
        let mut fields = vec![
            ("Host".to_owned(), b"somewhere.example".to_vec()),
            ("Authorization".to_owned(), authorization.as_bytes().to_vec()),
        ];
        fields.extend(self.fields.iter().cloned());
        let message = Message {
            line: format!("{} {prefix}{} HTTP/1.1", self.route.method, self.target),
            fields,
            body: self.body.clone(),
        };
        message.bytes(&self.framing)
    }
}

/// Says which call it was, if its comparison fails.
struct Named(usize);

impl Drop for Named {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("in call {}", self.0);
        }
    }
}

/// Something that may stand in a path for an id.
fn id(random: &mut ChaCha20Rng) -> String {
    let size = random.random_range(1..20);
    let mut id = String::from("7");
    for _ in 0..size {
        match random.random_range(0..10) {
            0 => id.push_str(["%20", "%3A", "%3c", "%22", "%7B"].choose(random).unwrap()),
            1 => id.push(
                *['-', '.', '_', '~', ':', ',', '=', '+', '!', '$']
                    .choose(random)
                    .unwrap(),
            ),
            _ => id.push(char::from(*b"abcXYZ0123456789".choose(random).unwrap())),
        }
    }
    id
}

/// Anything that may stand in a query, and what clients send there although it may not.
fn query(random: &mut ChaCha20Rng) -> String {
    const ODD: &[u8] = b"-._~!$&'()*+,;=:@/?&=&=[]{}|^`\\";
    let size = random.random_range(0..80);
    let mut query = String::new();
    for _ in 0..size {
        match random.random_range(0..10) {
            0 => query.extend(format!("%{:02X}", random.random::<u8>()).chars()),
            1..4 => query.push(char::from(*ODD.choose(random).unwrap())),
            _ => query.push(char::from(*b"abcxyzABCXYZ0189".choose(random).unwrap())),
        }
    }
    query
}

/// A provider that gives each call its answer and keeps what came.
struct Provider {
    address: String,
    /// By the number of the call, and whether it came straight.
    received: Mutex<HashMap<(usize, bool), Vec<Message>>>,
    pool: Pool,
}

impl Provider {
    async fn start() -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let provider = Arc::new(Self {
            address: listener.local_addr().unwrap().to_string(),
            received: Mutex::default(),
            pool: Pool::new(),
        });
        let world = Arc::clone(&provider);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let world = Arc::clone(&world);
                // A connection that its client is done with is no failure of the test.
                tokio::spawn(async move { world.serve(stream).await.ok() });
            }
        });
        provider
    }

    async fn serve(&self, stream: TcpStream) -> std::io::Result<()> {
        let mut stream = BufReader::new(stream);
        while let Some(request) = Message::read(&mut stream, Reading::Request).await? {
            let tracking = request.value("x-tracking-id").unwrap_or_default();
            let Some(number) = tracking.strip_prefix("call-").map(|text| text.parse().unwrap()) else {
                // The question whether a token is alive, after a 401 of business.
                assert!(request.line.starts_with("GET /users/me "), "{request:?}");
                stream
                    .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\n{\"id\":1}")
                    .await?;
                continue;
            };
            let is_straight = request.values("authorization") == [STRAIGHT.as_bytes()];
            self.note(number, is_straight, request.clone());
            let (mut answer, framing) = answer(number, &self.pool);
            if request.line.starts_with("GET /users/me") && answer.status() == 401 {
                // There a 401 means what it says, and the token would be renewed.
                answer.line = answer.line.replace("401", "403");
            }
            stream.write_all(&answer.bytes(&framing)).await?;
            if framing == Framing::Close {
                return stream.shutdown().await;
            }
        }
        Ok(())
    }

    fn note(&self, number: usize, straight: bool, request: Message) {
        let mut received = self.received.lock().unwrap();
        received.entry((number, straight)).or_default().push(request);
    }

    /// What came of a call, told once.
    fn received(&self, number: usize, straight: bool) -> Vec<Message> {
        let found = self.received.lock().unwrap().remove(&(number, straight));
        found.unwrap_or_default()
    }
}

/// A caller with one connection, which it uses as long as it lasts.
struct Caller {
    address: String,
    stream: Option<BufReader<TcpStream>>,
}

impl Caller {
    fn of(address: &str) -> Self {
        let address = address.to_owned();
        Self {
            address,
            stream: None,
        }
    }

    async fn call(&mut self, request: &[u8]) -> Message {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => BufReader::new(TcpStream::connect(&self.address).await.unwrap()),
        };
        stream.write_all(request).await.unwrap();
        let answer = Message::read(&mut stream, Reading::Answer).await;
        let answer = answer.unwrap().expect("an answer");
        let is_framed = answer.has("content-length")
            || answer.has("transfer-encoding")
            || matches!(answer.status(), 204 | 304);
        if is_framed
            && answer
                .value("connection")
                .is_none_or(|value| !value.contains("close"))
        {
            self.stream = Some(stream);
        }
        answer
    }
}

type Grouped = BTreeMap<String, Vec<Vec<u8>>>;

/// Headers by name, their values in their order.
fn grouped(message: &Message, passes: impl Fn(&str) -> bool) -> Grouped {
    let mut grouped = Grouped::new();
    for (name, value) in &message.fields {
        if passes(name) {
            grouped.entry(name.clone()).or_default().push(value.clone());
        }
    }
    grouped
}

/// The names that a message's `Connection` lists.
fn hops(message: &Message) -> Vec<String> {
    let listed = message.values("connection").concat();
    let listed = String::from_utf8(listed).unwrap().to_ascii_lowercase();
    listed.split(',').map(|name| name.trim().to_owned()).collect()
}

/// What the provider got: the same bytes, with other headers only where section 8 says so.
fn compare_requests(call: &Call, straight: &Message, through: &Message, provider: &str) {
    assert_eq!(through.line, straight.line);
    let sizes = [&call.body, &straight.body, &through.body].map(Vec::len);
    assert!(
        through.body == straight.body && straight.body == call.body,
        "another body: {sizes:?} {:?}",
        through.fields
    );
    let hops = hops(straight);
    let mut expected = grouped(straight, |name| {
        LISTED.contains(&name) && !hops.iter().any(|hop| hop == name)
    });
    expected.insert("host".to_owned(), vec![provider.as_bytes().to_vec()]);
    expected.insert(
        "authorization".to_owned(),
        vec![format!("Bearer {TOKEN}").into_bytes()],
    );
    let mut arrived = grouped(through, |name| !FRAMING.contains(&name));
    if matches!(call.route.method, Method::POST | Method::PUT) && !straight.has("x-idempotency-key") {
        let made = arrived.remove("x-idempotency-key").expect("a key");
        let made = String::from_utf8(made.concat()).unwrap();
        assert_eq!(made.parse::<uuid::Uuid>().unwrap().get_version_num(), 4);
    }
    assert_eq!(arrived, expected);
    assert!(!through.has("connection"), "{through:?}");
}

/// What the caller got.
fn compare_answers(call: &Call, sent: &Message, straight: &Message, through: &Message) {
    assert_eq!(through.status(), straight.status());
    assert!(through.body == straight.body, "another body");
    let hops = hops(straight);
    let mut expected = grouped(straight, |name| {
        let is_ours = LEFT_BEHIND.contains(&name) || FRAMING.contains(&name);
        !is_ours && !hops.iter().any(|hop| hop == name)
    });
    if let Some(id) = expected.remove("x-request-id") {
        expected.insert("connector-provider-request-id".to_owned(), id);
    }
    if straight.values("location") == [b"http://10.0.0.7/inside"] {
        expected.remove("location");
    }
    let mut got = grouped(through, |name| !FRAMING.contains(&name));
    let mut one = |name: &str| {
        let values = got.remove(name).unwrap_or_default();
        assert!(values.len() < 2, "{name}: {values:?}");
        values
            .first()
            .map(|value| String::from_utf8(value.clone()).unwrap())
    };
    assert_eq!(one("x-content-type-options").as_deref(), Some("nosniff"));
    assert!(one("x-request-id").is_some_and(|id| !id.is_empty()));
    assert!(one("server-timing").is_some_and(|timing| timing.starts_with("provider;dur=")));
    assert_eq!(one("x-idempotency-key"), sent.value("x-idempotency-key"));
    let attempts = one("connector-attempts").unwrap();
    let repeatable = call.route.replay != Replay::Never && matches!(straight.status(), 502..=504);
    assert!(attempts == "1" || repeatable, "{attempts}");
    if !straight.has("date") {
        // RFC 9110 section 6.6.1: whoever passes an answer on may add it.
        one("date");
    }
    assert_eq!(got, expected);
    if straight.has("content-length") {
        assert_eq!(through.value("content-length"), straight.value("content-length"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_and_answers_are_the_same_bytes_with_and_without_the_connector() {
    let calls = std::env::var("CALLS_COMPARED")
        .ok()
        .map_or(CALLS, |text| text.parse().unwrap());
    let provider = Provider::start().await;
    let origin = format!("http://{}", provider.address);
    let app = TestApp::with(|settings| {
        settings.insert("MERCADOPAGO_API_URL", origin);
    })
    .await;
    let seller = json!({
        "seller_id": "seller:1", "user_id": 1, "access_token": TOKEN, "refresh_token": "TG-1",
        "expires_in": 15_552_000, "verify": false,
    });
    app.platform().post("/v1/connections", seller).await.expect(201);
    let connector = app.address().authority().to_owned();
    let next = Arc::new(AtomicUsize::new(0));
    let sent = Arc::new(AtomicUsize::new(0));
    let pairs: Vec<_> = (0..AT_A_TIME)
        .map(|_| {
            let (next, sent, provider) = (Arc::clone(&next), Arc::clone(&sent), Arc::clone(&provider));
            let mut straight = Caller::of(&provider.address);
            let mut through = Caller::of(&connector);
            tokio::spawn(async move {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= calls {
                        return;
                    }
                    let call = Call::new(number, &provider.pool);
                    let (prefix, key) = &call.prefix;
                    let _named = Named(number);
                    let answers = (
                        straight.call(&call.request("", STRAIGHT)).await,
                        through
                            .call(&call.request(prefix, &format!("Bearer {key}")))
                            .await,
                    );
                    let arrived = provider.received(number, true).remove(0);
                    let passed_on = provider.received(number, false);
                    assert!(
                        !passed_on.is_empty(),
                        "call {number} did not get through: {:?}",
                        answers.1
                    );
                    for one in &passed_on {
                        compare_requests(&call, &arrived, one, &provider.address);
                    }
                    compare_answers(&call, &passed_on[0], &answers.0, &answers.1);
                    assert_eq!(
                        answers.1.value("connector-attempts"),
                        Some(passed_on.len().to_string())
                    );
                    sent.fetch_add(call.body.len() + answers.1.body.len(), Ordering::Relaxed);
                }
            })
        })
        .collect();
    for pair in pairs {
        pair.await.unwrap();
    }
    let mebibytes = sent.load(Ordering::Relaxed) >> 20;
    eprintln!("{calls} calls and {mebibytes} MiB of bodies were the same with and without the connector");
}
