//! The proxied call (DESIGN.md section 8): the platform's request goes to Mercado Pago with the right seller's token, and
//! the answer comes back, byte for byte.
//!
//! Guarantees: what is not in the table of routes is refused; no credential of the caller goes out and none of the seller
//! comes back; a request is sent again only where that is harmless; when the outcome is unknown, the answer says so. A call
//! whose seller is remembered costs no statement. Does not know of axum: it takes and gives plain HTTP messages, so that it
//! may stand before the router.

mod body;
mod cache;
mod duplicates;
mod exchange;
mod finish;
mod freshness;
mod headers;
mod idle;
mod keys;
mod metrics;
mod own_account;
mod path;
mod problem;
mod record;
mod retry;
#[cfg(test)]
mod scenarios;
mod sellers;
mod unauthorized;
mod upload;
mod upstream;
mod usage;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use http::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use http::request::Parts;
use http::{Method, Request, Response};
use http_body::Body;
use tokio_util::task::TaskTracker;

use crate::config::ProxySettings;
use crate::domain::clock::Clock;
use crate::domain::connection::Status;
use crate::domain::ids::{ApplicationId, SellerId};
use crate::domain::problem::ProblemCode;
use crate::domain::random::Random;
use crate::mercadopago::api::ProviderApi;
use crate::mercadopago::application::{Application, Applications};
use crate::mercadopago::http_client;
use crate::mercadopago::routes::{Match, Route, match_route};
use crate::mercadopago::token_endpoint::TokenEndpoint;
use crate::refresh::Refresher;
use crate::storage::{Store, StoreError};

pub use body::{BodyError, ProxyBody};
pub use upload::BoxError;
pub use upstream::NotAnOrigin;

use exchange::Call;
use finish::Finish;
use freshness::Patience;
use keys::{Keys, KnownKey};
use metrics::Metrics;
use own_account::{OwnAccounts, OwnToken};
use path::{Selector, Target};
use problem::{Outcome, ProxyProblem};
use record::Record;
use sellers::{Known, Sellers, reconnect_required, revoked};
use upload::{Bounds, Upload, UploadError};
use upstream::Upstream;
use usage::{Meter, Usage};

/// Where proxied calls live: everything below this path.
pub const PREFIX: &str = path::PREFIX;

/// What the server knows of a request beside the request.
#[derive(Debug, Clone)]
pub struct CallContext {
    /// `X-Request-Id` of the answer.
    pub request_id: HeaderValue,
}

/// What a [`Proxy`] is made of.
#[derive(Debug)]
pub struct ProxyParts {
    /// Where connections and keys lie.
    pub store: Store,
    /// Renews tokens.
    pub refresher: Refresher,
    /// For the application's own account.
    pub endpoint: TokenEndpoint,
    /// For the question whether a token is alive.
    pub api: ProviderApi,
    /// The configured applications.
    pub applications: Applications,
    /// Deadlines and limits.
    pub settings: ProxySettings,
    /// Now.
    pub clock: Arc<dyn Clock>,
    /// Idempotency keys and jitter.
    pub random: Random,
    /// Holds calls whose caller hung up; shutdown waits for it.
    pub tracker: TaskTracker,
}

/// Why there is no proxy.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// TLS cannot be set up.
    #[error("cannot set TLS up: {0}")]
    Tls(#[from] rustls::Error),
    /// An application's API URL cannot be called.
    #[error(transparent)]
    Url(#[from] NotAnOrigin),
}

/// Forwards calls. Clones share everything.
#[derive(Debug, Clone)]
pub struct Proxy(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    keys: Keys,
    sellers: Sellers,
    own_accounts: OwnAccounts,
    api: ProviderApi,
    applications: HashMap<ApplicationId, (Arc<Application>, Arc<Upstream>)>,
    settings: ProxySettings,
    clock: Arc<dyn Clock>,
    random: Random,
    tracker: TaskTracker,
    metrics: Arc<Metrics>,
    in_flight: AtomicUsize,
    store: Store,
    usage: Usage,
    own_meters: HashMap<ApplicationId, Arc<Meter>>,
}

/// What a call is authorised with.
#[derive(Debug, Clone)]
enum Credential {
    Seller(Arc<Known>),
    Own(Arc<OwnToken>),
}

impl Proxy {
    /// Puts the parts together. Metrics go to the recorder that is installed by now.
    pub fn new(parts: ProxyParts) -> Result<Self, ProxyError> {
        let ProxyParts {
            store,
            refresher,
            endpoint,
            api,
            applications,
            settings,
            clock,
            random,
            tracker,
        } = parts;
        let metrics = Arc::new(Metrics::new());
        let patience = Arc::new(Patience::new(
            settings.cache_ttl,
            settings.cache_stale,
            store.revocations(),
            metrics.clone(),
        ));
        let tls = http_client::tls_config()?;
        let with_upstream = |app: &Arc<Application>| {
            let upstream = Upstream::new(&app.api_url, tls.clone(), settings.connect_timeout)?;
            Ok((app.id.clone(), (app.clone(), Arc::new(upstream))))
        };
        Ok(Self(Arc::new(Inner {
            keys: Keys::new(store.clone(), patience.clone(), metrics.clone()),
            sellers: Sellers::new(
                settings.cache_size,
                store.clone(),
                refresher,
                patience,
                metrics.clone(),
            ),
            own_accounts: OwnAccounts::new(applications.iter().map(|app| &app.id), endpoint),
            api,
            applications: applications
                .iter()
                .map(with_upstream)
                .collect::<Result<_, NotAnOrigin>>()?,
            settings,
            clock,
            random,
            tracker,
            metrics,
            in_flight: AtomicUsize::new(0),
            store,
            usage: Usage::default(),
            own_meters: applications
                .iter()
                .map(|app| (app.id.clone(), Arc::new(Meter::new(app.id.clone(), None))))
                .collect(),
        })))
    }

    /// Answers one call. Never fails: what goes wrong is an answer.
    pub async fn handle<B>(&self, request: Request<B>, context: CallContext) -> Response<ProxyBody>
    where
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<BoxError>,
    {
        let inner = &self.0;
        let (parts, body) = request.into_parts();
        let mut record = self.record(context, parts.method.clone());
        match inner.prepare(parts, body, &mut record).await {
            Err(problem) => refuse(&problem, record),
            Ok(call) if call.route.method == Method::GET => inner.exchange(call, record).await,
            Ok(call) => {
                let (inner, tracker) = (Arc::clone(inner), inner.tracker.clone());
                Finish::new(async move { inner.exchange(call, record).await }, tracker).await
            }
        }
    }

    /// Adds what was counted to `usage_hourly`. To be called every few seconds, and at the end.
    pub async fn flush_usage(&self) -> Result<(), StoreError> {
        let now = self.0.clock.now();
        self.0.usage.flush(&self.0.store, now).await
    }

    /// Forgets payments that the duplicate guard no longer compares with.
    pub async fn forget_payments(&self) -> Result<(), StoreError> {
        let window = self.0.settings.duplicate_payment_window;
        let before = self.0.clock.now() - TimeDelta::from_std(window).unwrap_or(TimeDelta::MAX);
        self.0.store.forget_payments(before).await
    }

    /// The answer to a call in which a defect of ours came to light.
    pub fn failed(&self, method: Method, context: CallContext) -> Response<ProxyBody> {
        let record = self.record(context, method);
        let detail = "this is a defect; the log has more under the request's id";
        let problem = ProxyProblem::new(ProblemCode::InternalError, detail).outcome(Outcome::Unknown);
        refuse(&problem, record)
    }

    /// Forgets opened tokens that were not used for long. To be called every few seconds.
    pub fn forget_old(&self) {
        let now = self.0.clock.now();
        self.0.sellers.forget_old(now);
        self.0.keys.forget_old(now);
        let in_flight = self.0.in_flight.load(Ordering::Relaxed);
        self.0.metrics.level(in_flight, self.0.sellers.remembered());
    }

    fn record(&self, context: CallContext, method: Method) -> Record {
        Record::new(self.0.clone(), context.request_id, method)
    }
}

/// An answer of ours.
fn refuse(problem: &ProxyProblem, mut record: Record) -> Response<ProxyBody> {
    record.refused(problem);
    let mut response = problem.response(&record.request_id, record.idempotency_key.as_ref());
    exchange::stamp(response.headers_mut(), &record);
    response.map(|body| ProxyBody::whole(body, record))
}

impl Inner {
    /// Everything before the call goes out, in the order of DESIGN.md section 5: key 401, path 400, route 403, scope 403,
    /// connection 404 and 409, limits 503.
    async fn prepare<B>(&self, parts: Parts, body: B, record: &mut Record) -> Result<Call, ProxyProblem>
    where
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<BoxError>,
    {
        let Parts {
            method, uri, headers, ..
        } = parts;
        let now = self.clock.now();
        let (key, seller_of_token) = credentials(&headers)?;
        let known_key = self.keys.find(key, now).await?;
        let target =
            path::parse(&uri).map_err(|refusal| ProxyProblem::new(ProblemCode::InvalidPath, refusal))?;
        let route = allowed_route(&method, target.path)?;
        record.route = Some(route);
        if !known_key.key.scopes.allow(route.scope) {
            let detail = format!("the API key lacks the scope `{}`", route.scope);
            return Err(ProxyProblem::new(ProblemCode::InsufficientScope, detail));
        }
        let (app, upstream) = self.applications.get(&known_key.key.application).ok_or_else(|| {
            ProxyProblem::new(
                ProblemCode::ConnectionNotFound,
                "the API key's application is not configured",
            )
        })?;
        let deadline = self.deadline(&headers, record)?;
        let idempotency_key = self.idempotency_key(&method, &headers)?;
        let Target {
            selector,
            path,
            query,
        } = target;
        let credential = if let Some(seller) = seller(selector, seller_of_token)? {
            Credential::Seller(self.seller(&known_key, &seller, now, record).await?)
        } else {
            record.own_meter = self.own_meters.get(&app.id).cloned();
            self.take_seat(record)?;
            Credential::Own(Box::pin(self.own_accounts.token(app, now, deadline)).await?)
        };
        let target = upstream
            .target(path, query)
            .map_err(|_| ProxyProblem::new(ProblemCode::InvalidPath, "the path cannot be sent on"))?;
        record.idempotency_key.clone_from(&idempotency_key);
        let bounds = Bounds {
            max: self.settings.max_body,
            idle: self.settings.idle_timeout,
        };
        let upload = Upload::take(body, bounds).await.map_err(refused_upload)?;
        let credential = match credential {
            Credential::Seller(known) => {
                if route.makes_a_payment() {
                    let guard =
                        self.guard_against_duplicates(&headers, &known, &upload, idempotency_key.as_ref());
                    Box::pin(guard).await?;
                }
                Credential::Seller(self.sellers.with_live_token(known, now, deadline).await?)
            }
            own @ Credential::Own(_) => own,
        };
        Ok(Call::new(
            app,
            upstream,
            route,
            target,
            headers,
            idempotency_key,
            upload,
            credential,
            deadline,
        ))
    }

    /// The seller's connection and a place for the call.
    async fn seller(
        &self,
        key: &KnownKey,
        seller: &SellerId,
        now: DateTime<Utc>,
        record: &mut Record,
    ) -> Result<Arc<Known>, ProxyProblem> {
        let known = self.sellers.find(&key.key.application, seller, now).await?;
        record.connection = Some(known.clone());
        if known.authorization_at(now).is_none() {
            match known.connection.status {
                Status::Revoked => return Err(revoked()),
                Status::ReconnectRequired => {
                    return Err(reconnect_required("Mercado Pago no longer accepts the grant"));
                }
                Status::Active => {}
            }
        }
        self.take_seat(record)?;
        Ok(known)
    }

    /// Refuses what looks like the payment before, if that was asked for in the settings and not waived by the caller.
    async fn guard_against_duplicates(
        &self,
        headers: &HeaderMap,
        known: &Known,
        upload: &Upload,
        idempotency_key: Option<&HeaderValue>,
    ) -> Result<(), ProxyProblem> {
        let window = self.settings.duplicate_payment_window;
        let is_waived = headers
            .get(headers::ALLOW_DUPLICATE)
            .is_some_and(|value| value == "true");
        match (upload, idempotency_key) {
            (Upload::Held(body), Some(key)) if !window.is_zero() && !is_waived => {
                let now = self.clock.now();
                duplicates::check(&self.store, &known.connection.id, body, key, window, now).await
            }
            _ => Ok(()),
        }
    }

    fn take_seat(&self, record: &mut Record) -> Result<(), ProxyProblem> {
        let ProxySettings {
            max_in_flight,
            max_in_flight_per_seller,
            ..
        } = self.settings;
        if record.take_seat(max_in_flight, max_in_flight_per_seller) {
            return Ok(());
        }
        let detail = "too many calls are under way; nothing was sent";
        Err(ProxyProblem::new(ProblemCode::Overloaded, detail).outcome(Outcome::NotSent))
    }

    /// `PROXY_TIMEOUT`, or the caller's shorter `Connector-Timeout`, from the call's beginning.
    fn deadline(&self, headers: &HeaderMap, record: &Record) -> Result<tokio::time::Instant, ProxyProblem> {
        let mut limit = self.settings.timeout;
        if let Some(asked) = headers.get(headers::TIMEOUT) {
            let asked = asked
                .to_str()
                .ok()
                .and_then(|text| humantime::parse_duration(text.trim()).ok());
            let asked = asked.filter(|asked| *asked > Duration::ZERO).ok_or_else(|| {
                let detail = "`Connector-Timeout` is a duration such as `10s` or `1500ms`";
                ProxyProblem::new(ProblemCode::InvalidRequest, detail)
            })?;
            limit = limit.min(asked);
        }
        Ok(tokio::time::Instant::from_std(record.started()) + limit)
    }

    /// The caller's idempotency key, or one of ours for what changes something.
    fn idempotency_key(
        &self,
        method: &Method,
        headers: &HeaderMap,
    ) -> Result<Option<HeaderValue>, ProxyProblem> {
        let mut given = headers.get_all(headers::IDEMPOTENCY_KEY).iter();
        match (given.next(), given.next()) {
            (Some(key), None) => {
                let bytes = key.as_bytes();
                if (1..=256).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic) {
                    return Ok(Some(key.clone()));
                }
                let detail = "`X-Idempotency-Key` is 1 to 256 visible characters";
                Err(ProxyProblem::new(ProblemCode::InvalidRequest, detail))
            }
            (Some(_), Some(_)) => Err(ProxyProblem::new(
                ProblemCode::InvalidRequest,
                "`X-Idempotency-Key` stands there more than once",
            )),
            (None, _) if matches!(*method, Method::POST | Method::PUT) => {
                let mut text = [0; uuid::fmt::Hyphenated::LENGTH];
                let text = self.random.uuid().hyphenated().encode_lower(&mut text);
                Ok(HeaderValue::from_str(text).ok())
            }
            (None, _) => Ok(None),
        }
    }
}

/// The bearer token's API key, and the seller it names behind a `~`.
fn credentials(headers: &HeaderMap) -> Result<(&str, Option<&str>), ProxyProblem> {
    let mut given = headers.get_all(AUTHORIZATION).iter();
    let token = match (given.next(), given.next()) {
        (Some(one), None) => one.to_str().ok(),
        _ => None,
    };
    let token = token.and_then(|text| {
        let (scheme, token) = text.split_at_checked("bearer ".len())?;
        scheme
            .eq_ignore_ascii_case("bearer ")
            .then(|| token.trim_matches(' '))
    });
    let token = token.ok_or_else(|| {
        ProxyProblem::new(
            ProblemCode::InvalidApiKey,
            "send one `Authorization: Bearer mck_...` header",
        )
    })?;
    Ok(match token.bytes().position(|byte| byte == b'~') {
        Some(tilde) => (&token[..tilde], Some(&token[tilde + 1..])),
        None => (token, None),
    })
}

/// Whose account it is: a seller's, or (none) the application's own.
fn seller(selector: Selector, of_token: Option<&str>) -> Result<Option<SellerId>, ProxyProblem> {
    let invalid = |detail: &'static str| ProxyProblem::new(ProblemCode::InvalidRequest, detail);
    match (selector, of_token) {
        (Selector::Token, Some(seller)) => match seller.parse() {
            Ok(seller) => Ok(Some(seller)),
            Err(_) => Err(invalid(
                "what stands behind `~` in the bearer token is no seller's id",
            )),
        },
        (Selector::Token, None) => Err(invalid(
            "with `/proxy/~` the bearer token is `<api key>~<seller_id>`",
        )),
        (Selector::Seller(seller), of_token) if of_token.is_none_or(|other| other == seller.as_str()) => {
            Ok(Some(seller))
        }
        (Selector::Own, None) => Ok(None),
        _ => Err(invalid("the path and the bearer token name different accounts")),
    }
}

fn allowed_route(method: &Method, path: &str) -> Result<&'static Route, ProxyProblem> {
    match match_route(method, path) {
        Match::Route(route) => Ok(route),
        Match::OtherMethod => Err(ProxyProblem::new(
            ProblemCode::RouteNotAllowed,
            format!("`{method}` is not forwarded for this path"),
        )),
        Match::Unknown => Err(ProxyProblem::new(
            ProblemCode::RouteNotAllowed,
            "this path is not forwarded; see the API's description",
        )),
    }
}

/// A body that cannot be sent on.
fn refused_upload(error: UploadError) -> ProxyProblem {
    match error {
        UploadError::TooLarge => ProxyProblem::new(
            ProblemCode::BodyTooLarge,
            "the body is larger than `PROXY_MAX_BODY`",
        ),
        UploadError::Stalled => {
            ProxyProblem::new(ProblemCode::InvalidRequest, "the request's body stopped coming")
        }
        UploadError::BrokeOff => {
            ProxyProblem::new(ProblemCode::InvalidRequest, "the request's body broke off")
        }
    }
    .outcome(Outcome::NotSent)
}
