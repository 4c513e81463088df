//! Sending a call and making of what comes what the caller gets: attempts, the 401 path, declines on the side.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_LENGTH, HeaderMap, HeaderValue, TRANSFER_ENCODING};
use http::{Request, Response, Uri, response};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use tokio::time::Instant as Deadline;

use super::body::ProxyBody;
use super::problem::{Outcome, ProxyProblem};
use super::record::Record;
use super::retry::{self, Failure, Situation};
use super::unauthorized::{After401, Refused};
use super::upload::{HELD, Upload};
use super::upstream::{Lease, SendError, Upstream};
use super::{Credential, Inner, headers, refuse, refused_upload};
use crate::domain::problem::ProblemCode;
use crate::mercadopago;
use crate::mercadopago::application::Application;
use crate::mercadopago::declines::{self, PaymentOutcome};
use crate::mercadopago::routes::{Replay, Route};

/// A call that is ready to go.
pub(super) struct Call {
    app: Arc<Application>,
    upstream: Arc<Upstream>,
    /// Its route.
    pub(super) route: &'static Route,
    target: Uri,
    headers: HeaderMap,
    keyed: bool,
    upload: Upload,
    credential: Credential,
    deadline: Deadline,
}

/// What Mercado Pago answered.
struct Answer {
    head: response::Parts,
    body: AnswerBody,
}

enum AnswerBody {
    Whole(Bytes),
    Streamed(Incoming, Lease),
}

impl Call {
    /// Edits the caller's headers into those that go out.
    #[expect(
        clippy::too_many_arguments,
        reason = "each is one decision of the checks before"
    )]
    pub(super) fn new(
        app: &Arc<Application>,
        upstream: &Arc<Upstream>,
        route: &'static Route,
        target: Uri,
        mut headers: HeaderMap,
        idempotency_key: Option<HeaderValue>,
        upload: Upload,
        credential: Credential,
        deadline: Deadline,
    ) -> Self {
        headers::filter_request(&mut headers, upstream.host(), authorization(&credential));
        let keyed = idempotency_key.is_some();
        if let Some(key) = idempotency_key {
            headers.insert(headers::IDEMPOTENCY_KEY, key);
        }
        if upload.size_hint().exact().is_none() {
            // Without it the HTTP library would send a GET without its body.
            headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
        let (app, upstream) = (app.clone(), upstream.clone());
        Self {
            app,
            upstream,
            route,
            target,
            headers,
            keyed,
            upload,
            credential,
            deadline,
        }
    }

    fn authorise(&mut self, credential: Credential) {
        self.headers.insert(AUTHORIZATION, authorization(&credential));
        self.credential = credential;
    }

    fn time_left(&self) -> Duration {
        self.deadline.saturating_duration_since(Deadline::now())
    }
}

fn authorization(credential: &Credential) -> HeaderValue {
    match credential {
        // Checked before the call was made; an empty credential is refused by Mercado Pago, never another's.
        Credential::Seller(known) => known
            .authorization()
            .cloned()
            .unwrap_or(HeaderValue::from_static("Bearer")),
        Credential::Own(token) => token.authorization.clone(),
    }
}

impl Inner {
    /// Sends the call and answers the caller.
    pub(super) async fn exchange(&self, mut call: Call, mut record: Record) -> Response<ProxyBody> {
        match self.attempts(&mut call, &mut record).await {
            Ok(answer) => self.respond(call.route, answer, record),
            Err(problem) => refuse(
                &ProxyProblem {
                    never_again: call.route.replay == Replay::Never,
                    ..problem
                },
                record,
            ),
        }
    }

    /// Sends the call until it is answered or must not be sent again.
    async fn attempts(&self, call: &mut Call, record: &mut Record) -> Result<Answer, ProxyProblem> {
        let mut round = 0;
        let mut replayed = false;
        // Whether some attempt may have reached Mercado Pago without telling its outcome.
        let mut unknown = false;
        loop {
            let sent_at = Instant::now();
            record.attempts += 1;
            let attempt = self.attempt(call).await;
            record.provider += sent_at.elapsed();
            let (failure, answer, error) = match attempt {
                Ok(answer) if answer.head.status == 401 && !replayed && call.upload.is_at_hand() => {
                    let refused = Refused {
                        app: &call.app,
                        credential: &call.credential,
                        was_users_me: call.route.template == "/users/me",
                        sent_at,
                        deadline: call.deadline,
                    };
                    match Box::pin(self.after_401(refused)).await? {
                        After401::PassOn => return Ok(answer),
                        After401::Replay(credential) => {
                            replayed = true;
                            call.authorise(credential);
                            continue;
                        }
                    }
                }
                Ok(answer) => {
                    let status = answer.head.status.as_u16();
                    if !retry::may_repeat(status) {
                        return Ok(answer);
                    }
                    let retry_after = mercadopago::retry_after(&answer.head.headers, self.clock.now());
                    (Failure::Answered { status, retry_after }, Some(answer), None)
                }
                Err(error) => (failure_of(&error), None, Some(error)),
            };
            if let Some(refused) = call.upload.error() {
                return Err(refused_upload(refused));
            }
            unknown |= !matches!(
                failure,
                Failure::NotSent | Failure::Answered { status: ..=499, .. }
            );
            let situation = Situation {
                replay: call.route.replay,
                keyed: call.keyed,
                body_at_hand: call.upload.is_at_hand(),
                attempts_left: self.settings.max_retries.saturating_sub(round),
                time_left: call.time_left(),
            };
            let decided = retry::decide(situation, failure, retry::backoff(round, self.random.unit()));
            match (decided, answer, error) {
                (Some(delay), ..) => {
                    self.metrics.retry();
                    round += 1;
                    tokio::time::sleep(delay).await;
                }
                (None, Some(answer), _) => return Ok(answer),
                (None, None, error) => return Err(given_up(error, unknown)),
            }
        }
    }

    /// Sends the call once. The answer of a payment is read whole if it is small.
    async fn attempt(&self, call: &Call) -> Result<Answer, SendError> {
        let mut request = Request::new(call.upload.clone());
        *request.method_mut() = call.route.method.clone();
        *request.uri_mut() = call.target.clone();
        *request.headers_mut() = call.headers.clone();
        let (response, mut lease) = call.upstream.send(request, call.deadline).await?;
        let (head, incoming) = response.into_parts();
        let small = content_length(&head.headers).is_some_and(|length| length <= HELD as u64);
        let body = if incoming.is_end_stream() {
            lease.give_back();
            AnswerBody::Whole(Bytes::new())
        } else if small && call.route.answers_with_a_payment() {
            let read = tokio::time::timeout_at(call.deadline, incoming.collect());
            let whole = read.await.map_err(|_| SendError::TimedOut)?;
            let whole = whole.map_err(|error| SendError::Lost(error.to_string()))?;
            lease.give_back();
            AnswerBody::Whole(whole.to_bytes())
        } else {
            AnswerBody::Streamed(incoming, lease)
        };
        Ok(Answer { head, body })
    }

    /// Mercado Pago's answer as the caller gets it.
    fn respond(&self, route: &'static Route, answer: Answer, mut record: Record) -> Response<ProxyBody> {
        let Answer { mut head, body } = answer;
        head.extensions.clear();
        headers::filter_response(&mut head.headers);
        if route.answers_with_a_payment()
            && head.status.is_success()
            && let AnswerBody::Whole(whole) = &body
        {
            record.payment = declines::read_payment(whole);
            if let Some(PaymentOutcome::Declined(decline)) = record.payment
                && let Ok(value) = HeaderValue::from_str(&decline.header())
            {
                head.headers.insert(headers::DECLINE, value);
            }
        }
        record.answered(head.status.as_u16());
        stamp(&mut head.headers, &record);
        let body = match body {
            AnswerBody::Whole(whole) => ProxyBody::whole(whole, record),
            AnswerBody::Streamed(incoming, lease) => {
                ProxyBody::streamed(incoming, lease, self.settings.idle_timeout, record)
            }
        };
        Response::from_parts(head, body)
    }
}

/// The headers that every answer gets.
pub(super) fn stamp(map: &mut HeaderMap, record: &Record) {
    map.insert(headers::REQUEST_ID, record.request_id.clone());
    if let Some(key) = &record.idempotency_key {
        map.insert(headers::IDEMPOTENCY_KEY, key.clone());
    }
    let attempts = match record.attempts {
        0 => HeaderValue::from_static("0"),
        1 => HeaderValue::from_static("1"),
        more => HeaderValue::from(more),
    };
    map.insert(headers::ATTEMPTS, attempts);
    map.insert(
        headers::SERVER_TIMING,
        server_timing(record.provider, record.own()),
    );
    map.insert(
        http::header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
}

/// `provider;dur=12.345, connector;dur=0.211`, in milliseconds. Written by hand: it stands in every answer, and general
/// formatting would be a noticeable part of what a call costs.
fn server_timing(provider: Duration, own: Duration) -> HeaderValue {
    // From the end to the beginning, as digits come. Two numbers of at most 21 characters and the names between them.
    let mut text = [0; 72];
    let begin = prepend_milliseconds(&mut text, 72, own);
    let begin = prepend(&mut text, begin, b", connector;dur=");
    let begin = prepend_milliseconds(&mut text, begin, provider);
    let begin = prepend(&mut text, begin, b"provider;dur=");
    HeaderValue::from_bytes(&text[begin..]).unwrap_or(HeaderValue::from_static("connector"))
}

/// Puts `part` before `end`; where it begins.
fn prepend(text: &mut [u8], end: usize, part: &[u8]) -> usize {
    let begin = end - part.len();
    text[begin..end].copy_from_slice(part);
    begin
}

/// Puts milliseconds with three decimals before `end`; where they begin.
fn prepend_milliseconds(text: &mut [u8], end: usize, duration: Duration) -> usize {
    let mut rest = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    let mut begin = end;
    let mut digits = 0;
    // At least `0.000`.
    while rest > 0 || digits < 4 {
        if digits == 3 {
            begin = prepend(text, begin, b".");
        }
        let digit = b'0' + (rest % 10) as u8;
        begin = prepend(text, begin, &[digit]);
        rest /= 10;
        digits += 1;
    }
    begin
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn failure_of(error: &SendError) -> Failure {
    match error {
        SendError::NotSent(_) => Failure::NotSent,
        SendError::Lost(_) => Failure::Lost,
        SendError::Garbled(_) => Failure::Garbled,
        SendError::TimedOut => Failure::TimedOut,
    }
}

/// The answer of ours when no attempt brought one of Mercado Pago's.
fn given_up(error: Option<SendError>, unknown: bool) -> ProxyProblem {
    use ProblemCode::{ProviderConnectionLost, ProviderProtocolError, ProviderTimeout, ProviderUnreachable};
    let (code, detail, reason) = match error {
        Some(SendError::NotSent(reason)) if !unknown => (
            ProviderUnreachable,
            "Mercado Pago was not reached; nothing was sent",
            reason,
        ),
        Some(SendError::Garbled(reason)) => (
            ProviderProtocolError,
            "Mercado Pago's answer is no HTTP answer; the call may have been processed",
            reason,
        ),
        Some(SendError::TimedOut) => (
            ProviderTimeout,
            "Mercado Pago did not answer in time; the call may have been processed",
            String::new(),
        ),
        Some(SendError::NotSent(reason) | SendError::Lost(reason)) => (
            ProviderConnectionLost,
            "the connection to Mercado Pago broke; the call may have been processed",
            reason,
        ),
        None => (
            ProviderConnectionLost,
            "Mercado Pago gave no answer",
            String::new(),
        ),
    };
    tracing::warn!(code = code.as_str(), reason, "a proxied call got no answer");
    let outcome = if unknown {
        Outcome::Unknown
    } else {
        Outcome::NotSent
    };
    ProxyProblem::new(code, detail).outcome(outcome)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_timing_is_in_milliseconds() {
        let value = server_timing(Duration::from_micros(12_345), Duration::from_micros(7));
        assert_eq!(value, "provider;dur=12.345, connector;dur=0.007");
        let value = server_timing(Duration::from_secs(30), Duration::ZERO);
        assert_eq!(value, "provider;dur=30000.000, connector;dur=0.000");
        let longest = server_timing(Duration::MAX, Duration::MAX);
        assert_eq!(
            longest,
            "provider;dur=18446744073709551.615, connector;dur=18446744073709551.615"
        );
    }
}
