//! `demo --run`: the whole story, played as an outsider would: over HTTP, through the pages and the public API alone.

use anyhow::{Context as _, bail, ensure};
use http::{Method, StatusCode};
use serde_json::{Value, json};
use url::Url;

use super::browser::Browser;
use crate::domain::secret::ApiKeySecret;

/// A published test card of Argentina.
const CARD: (&str, &str) = ("4509953566233704", "123");

/// The steps, in order.
const STEPS: [&str; 10] = [
    "connect",
    "customer",
    "card",
    "payment",
    "rejected",
    "refund",
    "subscription",
    "refresh",
    "revoke",
    "after revoke",
];

/// Where the story plays.
pub(super) struct Story {
    pub(super) connector: Url,
    pub(super) sandbox: Url,
    pub(super) api_key: ApiKeySecret,
    pub(super) seller: &'static str,
    pub(super) http: reqwest::Client,
    /// What one step leaves for the next.
    pub(super) left: Left,
}

/// What one step leaves for the next.
#[derive(Default)]
pub(super) struct Left {
    public_key: String,
    customer: String,
    payment: i64,
}

/// An answer of the connector's API or of the provider behind it.
struct Answer {
    status: StatusCode,
    headers: http::HeaderMap,
    body: Value,
}

impl Answer {
    fn expect(self, wanted: &[StatusCode]) -> anyhow::Result<Self> {
        if wanted.contains(&self.status) {
            return Ok(self);
        }
        bail!("answered {}: {}", self.status, self.told())
    }

    /// What went wrong, in the answer's own words.
    fn told(&self) -> String {
        let text = |name: &str| self.body[name].as_str();
        let code = self
            .headers
            .get("connector-error")
            .and_then(|code| code.to_str().ok());
        let message = text("detail")
            .or_else(|| text("message"))
            .map_or_else(|| self.body.to_string(), str::to_owned);
        code.map_or_else(|| message.clone(), |code| format!("{code}: {message}"))
    }

    fn text(&self, name: &str) -> anyhow::Result<&str> {
        self.body[name]
            .as_str()
            .with_context(|| format!("the answer has no `{name}`: {}", self.body))
    }
}

impl Story {
    /// Plays one step after the other; `tell` gets a line for each. Fails at the first that fails.
    pub(super) async fn play(
        &mut self,
        tell: &mut dyn FnMut(&str) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        for step in STEPS {
            match self.step(step).await {
                Ok(came_back) => tell(&format!("ok      {step:<13} {came_back}"))?,
                Err(error) => {
                    tell(&format!("FAILED  {step:<13} {error:#}"))?;
                    bail!("the story ends at `{step}`");
                }
            }
        }
        Ok(())
    }

    async fn step(&mut self, step: &str) -> anyhow::Result<String> {
        match step {
            "connect" => self.connect().await,
            "customer" => self.customer().await,
            "card" => self.card().await,
            "payment" => self.payment().await,
            "rejected" => self.rejected().await,
            "refund" => self.refund().await,
            "subscription" => self.subscription().await,
            "refresh" => self.refresh().await,
            "revoke" => self.revoke().await,
            _ => self.after_revoke().await,
        }
    }

    /// The seller opens the link, consents, and comes back.
    async fn connect(&mut self) -> anyhow::Result<String> {
        let link = connect_link(&self.http, &self.connector, &self.api_key, self.seller).await?;
        let mut browser = Browser::new(self.http.clone());
        let landing = browser.open(link).await?;
        let sent_on = browser.submit(landing.form_action()?, &[]).await?.redirect()?;
        let consent = browser.open(sent_on).await?;
        let account = consent.choice("MLA")?;
        let decision = [("seller", account.as_str()), ("decision", "allow")];
        let back = browser
            .submit(consent.form_action()?, &decision)
            .await?
            .redirect()?;
        let ended = browser.open(back).await?;
        let connection = self.api(Method::GET, &self.connection_path(), None).await?;
        if ended.status != StatusCode::OK || connection.status != StatusCode::OK {
            bail!("the seller sees ({}) {}", ended.status, ended.told());
        }
        let status = connection.text("status")?;
        ensure!(status == "active", "the connection is {status}");
        connection
            .text("public_key")?
            .clone_into(&mut self.left.public_key);
        Ok(format!(
            "{} is connected to account {}, status {status}",
            self.seller, connection.body["user_id"]
        ))
    }

    async fn customer(&mut self) -> anyhow::Result<String> {
        let body = json!({ "email": "buyer@example.com", "first_name": "Ana" });
        let customer = self
            .proxied(Method::POST, "/v1/customers", Some(body))
            .await?
            .expect(&CREATED)?;
        customer.text("id")?.clone_into(&mut self.left.customer);
        Ok(format!("customer {}", self.left.customer))
    }

    async fn card(&mut self) -> anyhow::Result<String> {
        let token = self.card_token("APRO").await?;
        let path = format!("/v1/customers/{}/cards", self.left.customer);
        let card = self
            .proxied(Method::POST, &path, Some(json!({ "token": token })))
            .await?
            .expect(&CREATED)?;
        Ok(format!(
            "card {} ending in {}",
            card.body["id"],
            card.text("last_four_digits")?
        ))
    }

    async fn payment(&mut self) -> anyhow::Result<String> {
        let payment = self.pay("APRO").await?;
        let status = payment.text("status")?;
        ensure!(status == "approved", "the payment is {status}");
        self.left.payment = payment.body["id"].as_i64().context("the payment has no id")?;
        Ok(format!(
            "payment {} of 100.50 is {status} ({})",
            self.left.payment,
            payment.text("status_detail")?
        ))
    }

    async fn rejected(&mut self) -> anyhow::Result<String> {
        let payment = self.pay("FUND").await?;
        let status = payment.text("status")?;
        ensure!(status == "rejected", "the payment is {status}");
        let decline = payment
            .headers
            .get("connector-decline")
            .context("the answer has no Connector-Decline")?;
        Ok(format!(
            "payment is {status} ({}), decline {}",
            payment.text("status_detail")?,
            decline.to_str()?
        ))
    }

    async fn refund(&mut self) -> anyhow::Result<String> {
        let path = format!("/v1/payments/{}/refunds", self.left.payment);
        let refund = self
            .proxied(Method::POST, &path, Some(json!({ "amount": 40.25 })))
            .await?
            .expect(&CREATED)?;
        Ok(format!(
            "refund {} of {} is {}",
            refund.body["id"],
            refund.body["amount"],
            refund.text("status")?
        ))
    }

    async fn subscription(&mut self) -> anyhow::Result<String> {
        let body = json!({
            "reason": "Monthly box",
            "external_reference": "box-1",
            "payer_email": "buyer@example.com",
            "card_token_id": self.card_token("APRO").await?,
            "auto_recurring": {
                "frequency": 1,
                "frequency_type": "months",
                "transaction_amount": 50,
                "currency_id": "ARS",
            },
            "back_url": "https://shop.example.com/thanks",
            "status": "authorized",
        });
        let subscription = self
            .proxied(Method::POST, "/preapproval", Some(body))
            .await?
            .expect(&CREATED)?;
        Ok(format!(
            "subscription {} is {}",
            subscription.text("id")?,
            subscription.text("status")?
        ))
    }

    async fn refresh(&mut self) -> anyhow::Result<String> {
        let path = format!("{}/refresh", self.connection_path());
        let connection = self
            .api(Method::POST, &path, None)
            .await?
            .expect(&[StatusCode::OK])?;
        let me = self
            .proxied(Method::GET, "/users/me", None)
            .await?
            .expect(&[StatusCode::OK])?;
        let until = connection.text("access_token_expires_at")?;
        Ok(format!(
            "new access token until {until}, account {} answers to it",
            me.body["id"]
        ))
    }

    async fn revoke(&mut self) -> anyhow::Result<String> {
        let connection = self
            .api(Method::DELETE, &self.connection_path(), None)
            .await?
            .expect(&[StatusCode::OK])?;
        Ok(format!(
            "status {} ({})",
            connection.text("status")?,
            connection.text("status_reason")?
        ))
    }

    async fn after_revoke(&mut self) -> anyhow::Result<String> {
        let answer = self
            .proxied(Method::GET, "/users/me", None)
            .await?
            .expect(&[StatusCode::CONFLICT])?;
        let code = answer
            .headers
            .get("connector-error")
            .and_then(|code| code.to_str().ok())
            .unwrap_or_default();
        ensure!(
            code == "connection_revoked",
            "the proxied call answers 409 {code}"
        );
        Ok(format!("a proxied call answers 409 {code}"))
    }

    /// A payment of the given cardholder, whose name decides how it ends (Mercado Pago's test cards).
    async fn pay(&self, cardholder: &str) -> anyhow::Result<Answer> {
        let body = json!({
            "token": self.card_token(cardholder).await?,
            "transaction_amount": 100.50,
            "installments": 1,
            "payment_method_id": "visa",
            "description": "Blue shoes",
            "payer": { "email": "buyer@example.com" },
        });
        self.proxied(Method::POST, "/v1/payments", Some(body))
            .await?
            .expect(&CREATED)
    }

    /// A card token, as the buyer's browser makes it: straight at the provider, never through the connector.
    async fn card_token(&self, cardholder: &str) -> anyhow::Result<String> {
        let mut url = self.sandbox.join("/v1/card_tokens")?;
        url.query_pairs_mut()
            .append_pair("public_key", &self.left.public_key);
        let answer = send(self.http.post(url).json(&card(cardholder)))
            .await?
            .expect(&CREATED)?;
        Ok(answer.text("id")?.to_owned())
    }

    fn connection_path(&self) -> String {
        format!("/v1/connections/{}", self.seller)
    }

    async fn proxied(&self, method: Method, path: &str, body: Option<Value>) -> anyhow::Result<Answer> {
        self.api(method, &format!("/proxy/{}{path}", self.seller), body)
            .await
    }

    async fn api(&self, method: Method, path: &str, body: Option<Value>) -> anyhow::Result<Answer> {
        let request = self
            .http
            .request(method, self.connector.join(path)?)
            .bearer_auth(self.api_key.expose());
        send(match body {
            Some(body) => request.json(&body),
            None => request,
        })
        .await
    }
}

const CREATED: [StatusCode; 2] = [StatusCode::OK, StatusCode::CREATED];

async fn send(request: reqwest::RequestBuilder) -> anyhow::Result<Answer> {
    let response = request.send().await?;
    let (status, headers) = (response.status(), response.headers().clone());
    let text = response.text().await.context("the answer breaks off")?;
    let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
    Ok(Answer {
        status,
        headers,
        body,
    })
}

/// A card as the buyer types it in.
pub(super) fn card(cardholder: &str) -> Value {
    let (number, security_code) = CARD;
    json!({
        "card_number": number,
        "security_code": security_code,
        "expiration_month": 11,
        "expiration_year": 2040,
        "cardholder": { "name": cardholder, "identification": { "type": "DNI", "number": "12345678" } },
    })
}

/// Makes a connect link for a seller, by the platform's API.
pub(super) async fn connect_link(
    http: &reqwest::Client,
    connector: &Url,
    api_key: &ApiKeySecret,
    seller: &str,
) -> anyhow::Result<Url> {
    let request = http
        .post(connector.join("/v1/connect-links")?)
        .bearer_auth(api_key.expose());
    let link = send(request.json(&json!({ "seller_id": seller, "locale": "en" })))
        .await?
        .expect(&CREATED)?;
    Ok(link.text("url")?.parse()?)
}
