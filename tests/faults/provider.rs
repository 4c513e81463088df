//! The provider: our sandbox, strictly rotating, behind a wire that loses answers. The wire writes down every refresh token
//! that it saw, what the sandbox did with it, and whether the answer was sent: this ledger knows nothing of the connector,
//! and the sellers' fate is judged by it.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use marketplace_connector::domain::clock::{Clock as _, SystemClock};
use marketplace_connector::domain::random::Random;
use marketplace_connector::sandbox::{Client, OldAccessToken, Sandbox, SandboxOptions};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::{CancellationToken, DropGuard};
use tower::ServiceExt as _;

use crate::support::{CLIENT_ID, CLIENT_SECRET};

const REDIRECT_URI: &str = "http://127.0.0.1:8080/oauth/callback";

/// What the wire does to token requests for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Weather {
    /// Answers arrive, some of them late.
    Calm,
    /// 500, 503, 429 or a dropped connection; nothing is carried out.
    Failing,
    /// Nothing comes back; of some the request was carried out.
    Hanging,
    /// Some are carried out and the answer is cut off.
    Lossy,
}

/// What came of a presented refresh token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Not carried out. Whether whoever asked was told so.
    NotCarriedOut { told: bool },
    /// The sandbox refused it.
    Refused,
    /// The sandbox gave new tokens for it. Whether the answer was sent.
    Granted { sent: bool },
}

/// A refresh token as it was presented once.
#[derive(Debug, Clone)]
pub(crate) struct Spend {
    pub(crate) token: String,
    /// By position among the sellers.
    pub(crate) seller: usize,
    pub(crate) replica: usize,
    pub(crate) asked_at: Instant,
    /// When it was answered, or whoever asked went away.
    pub(crate) ended_at: Option<Instant>,
    pub(crate) fate: Fate,
    /// When the sandbox gave new tokens for it.
    pub(crate) granted_at: Option<Instant>,
}

/// A seller with the tokens of the consent.
#[derive(Debug, Clone)]
pub(crate) struct Granted {
    pub(crate) user_id: u64,
    pub(crate) at: Instant,
    pub(crate) expires_at: DateTime<Utc>,
    pub(crate) access_token: String,
    pub(crate) refresh_token: String,
}

struct World {
    routes: Router,
    random: Random,
    weather: Mutex<Weather>,
    ledger: Mutex<Vec<Spend>>,
    /// Whose a refresh token is.
    owners: Mutex<HashMap<String, usize>>,
    /// So many answers may still be lost on the wire.
    losses_left: Mutex<usize>,
}

/// The sandbox with one door per replica; all end with it.
pub(crate) struct Provider {
    pub(crate) sellers: Vec<Granted>,
    pub(crate) life: Duration,
    pub(crate) old_access_token: OldAccessToken,
    origins: Vec<String>,
    world: Arc<World>,
    _stop: DropGuard,
}

impl Provider {
    /// With so many sellers, who have all consented just now.
    pub(crate) async fn start(
        sellers: usize,
        doors: usize,
        life: Duration,
        old_access_token: OldAccessToken,
        most_losses: usize,
        random: Random,
    ) -> Self {
        let sandbox = Sandbox::new(SandboxOptions {
            clients: vec![Client {
                client_id: CLIENT_ID.to_owned(),
                client_secret: CLIENT_SECRET.to_owned(),
                redirect_uris: vec![REDIRECT_URI.to_owned()],
                webhook: None,
            }],
            token_lifetime: chrono::Duration::from_std(life).unwrap(),
            old_access_token,
            ..SandboxOptions::new(Arc::new(SystemClock), Random::system())
        });
        let routes = sandbox.router();
        let added = json!({ "site_id": "MLA", "count": sellers });
        let (status, accounts) = post(&routes, "/_sandbox/sellers", &added).await;
        assert_eq!(status, StatusCode::CREATED, "{accounts}");
        let mut granted = Vec::with_capacity(sellers);
        for account in accounts.as_array().unwrap() {
            granted.push(consent(&sandbox, &routes, account["user_id"].as_u64().unwrap()).await);
        }
        let owners = granted.iter().enumerate();
        let owners = owners.map(|(seller, tokens)| (tokens.refresh_token.clone(), seller));
        let world = Arc::new(World {
            routes,
            random,
            weather: Mutex::new(Weather::Calm),
            ledger: Mutex::default(),
            owners: Mutex::new(owners.collect()),
            losses_left: Mutex::new(most_losses),
        });
        let stop = CancellationToken::new();
        let mut origins = Vec::new();
        for door in 0..doors {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            origins.push(format!("http://{}", listener.local_addr().unwrap()));
            let (world, stop) = (Arc::clone(&world), stop.clone());
            tokio::spawn(async move {
                loop {
                    let accepted = tokio::select! {
                        () = stop.cancelled() => return,
                        accepted = listener.accept() => accepted,
                    };
                    if let Ok((stream, _)) = accepted {
                        tokio::spawn(stop.clone().run_until_cancelled_owned(serve(
                            Arc::clone(&world),
                            door,
                            stream,
                        )));
                    }
                }
            });
        }
        Self {
            sellers: granted,
            life,
            old_access_token,
            origins,
            world,
            _stop: stop.drop_guard(),
        }
    }

    /// Where a replica finds it.
    pub(crate) fn origin(&self, door: usize) -> &str {
        &self.origins[door]
    }

    pub(crate) fn set_weather(&self, weather: Weather) {
        *self.world.weather.lock().unwrap() = weather;
    }

    /// Every refresh token that was presented so far, oldest first.
    pub(crate) fn ledger(&self) -> Vec<Spend> {
        self.world.ledger.lock().unwrap().clone()
    }
}

async fn post(routes: &Router, path: &str, body: &Value) -> (StatusCode, Value) {
    let request = Request::post(path)
        .header(header::CONTENT_TYPE, "application/json")
        .body(Body::from(body.to_string()))
        .unwrap();
    let response = routes.clone().oneshot(request).await.unwrap();
    let status = response.status();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&bytes).unwrap())
}

/// What the seller's consent brings.
async fn consent(sandbox: &Sandbox, routes: &Router, user_id: u64) -> Granted {
    let authorization = format!(
        "http://provider/authorization?client_id={CLIENT_ID}&response_type=code&platform_id=mp&state=s&redirect_uri={REDIRECT_URI}"
    );
    let callback = sandbox
        .consent(&authorization, &user_id.to_string(), true)
        .unwrap();
    let exchange = json!({
        "client_id": CLIENT_ID,
        "client_secret": CLIENT_SECRET,
        "grant_type": "authorization_code",
        "code": crate::support::http::parameter(&callback, "code"),
        "redirect_uri": REDIRECT_URI,
    });
    let at = Instant::now();
    let (status, answer) = post(routes, "/oauth/token", &exchange).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    let expires_in = TimeDelta::seconds(answer["expires_in"].as_i64().unwrap());
    let token = |name: &str| answer[name].as_str().unwrap().to_owned();
    Granted {
        user_id,
        at,
        expires_at: SystemClock.now() + expires_in,
        access_token: token("access_token"),
        refresh_token: token("refresh_token"),
    }
}

/// One connection of a replica; an error of the service drops it.
async fn serve(world: Arc<World>, door: usize, stream: TcpStream) {
    let service = service_fn(move |request: Request<Incoming>| {
        let world = Arc::clone(&world);
        async move { world.answer(door, request).await }
    });
    let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    // Whoever is killed in the middle of a request ends its connection with an error.
    let _ = connection.await;
}

fn cut<T>() -> io::Result<T> {
    Err(io::ErrorKind::ConnectionReset.into())
}

impl World {
    async fn answer(&self, door: usize, request: Request<Incoming>) -> io::Result<Response<Full<Bytes>>> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
        let presented = (parts.uri.path() == "/oauth/token")
            .then(|| serde_json::from_slice::<Value>(&body).ok())
            .flatten()
            .and_then(|body| body["refresh_token"].as_str().map(str::to_owned));
        let request = Request::from_parts(parts, Body::from(body));
        match presented {
            None => self.carry_out(request).await,
            Some(token) => self.refresh(door, token, request).await,
        }
    }

    async fn carry_out(&self, request: Request<Body>) -> io::Result<Response<Full<Bytes>>> {
        let response = self.routes.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
        Ok(Response::from_parts(parts, Full::new(body)))
    }

    async fn refresh(
        &self,
        replica: usize,
        token: String,
        request: Request<Body>,
    ) -> io::Result<Response<Full<Bytes>>> {
        let entry = self.note(replica, token);
        let chance = self.random.unit();
        // A little later or a lot, so that whatever is killed is killed in all stages.
        let late = if chance < 0.1 { 800 } else { 40 };
        tokio::time::sleep(Duration::from_secs_f64(
            self.random.unit() * f64::from(late) / 1000.0,
        ))
        .await;
        let weather = *self.weather.lock().unwrap();
        match weather {
            Weather::Failing => {
                if chance < 0.2 {
                    return cut();
                }
                entry.is(Fate::NotCarriedOut { told: true });
                let status = [500, 503, 429][usize::from(chance > 0.5) + usize::from(chance > 0.8)];
                let mut response = Response::new(Full::new(Bytes::from_static(b"{}")));
                *response.status_mut() = StatusCode::from_u16(status).unwrap();
                return Ok(response);
            }
            Weather::Hanging if chance > 0.15 || !self.may_lose() => std::future::pending().await,
            _ => {}
        }
        let response = self.carry_out(request).await?;
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.map_err(io::Error::other)?.to_bytes();
        let new_token = serde_json::from_slice::<Value>(&bytes)
            .ok()
            .filter(|_| parts.status == StatusCode::OK)
            .and_then(|answer| answer["refresh_token"].as_str().map(str::to_owned));
        let Some(new_token) = new_token else {
            entry.is(Fate::Refused);
            return Ok(Response::from_parts(parts, Full::new(bytes)));
        };
        let lost =
            weather == Weather::Hanging || (weather == Weather::Lossy && chance > 0.4 && self.may_lose());
        entry.granted(new_token, !lost);
        match weather {
            Weather::Hanging => std::future::pending().await,
            Weather::Lossy if lost => cut(),
            _ => Ok(Response::from_parts(parts, Full::new(bytes))),
        }
    }

    /// Whether this answer may be lost: the run's number of losses is bounded, so that most sellers stay to be played with.
    fn may_lose(&self) -> bool {
        let mut left = self.losses_left.lock().unwrap();
        let may = *left > 0;
        *left = left.saturating_sub(1);
        may
    }

    /// Writes down that a token was presented.
    fn note(&self, replica: usize, token: String) -> Entry<'_> {
        let seller = self.owners.lock().unwrap().get(&token).copied();
        let mut ledger = self.ledger.lock().unwrap();
        ledger.push(Spend {
            seller: seller.expect("a refresh token that was never given is presented"),
            token,
            replica,
            asked_at: Instant::now(),
            ended_at: None,
            fate: Fate::NotCarriedOut { told: false },
            granted_at: None,
        });
        Entry {
            world: self,
            index: ledger.len() - 1,
        }
    }
}

/// A row of the ledger that is being written; it ends when it is dropped, which happens too when whoever asked goes away.
struct Entry<'a> {
    world: &'a World,
    index: usize,
}

impl Entry<'_> {
    fn is(&self, fate: Fate) {
        self.world.ledger.lock().unwrap()[self.index].fate = fate;
    }

    fn granted(&self, token: String, sent: bool) {
        let mut ledger = self.world.ledger.lock().unwrap();
        let row = &mut ledger[self.index];
        row.fate = Fate::Granted { sent };
        row.granted_at = Some(Instant::now());
        let seller = row.seller;
        drop(ledger);
        self.world.owners.lock().unwrap().insert(token, seller);
    }
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        self.world.ledger.lock().unwrap()[self.index].ended_at = Some(Instant::now());
    }
}
