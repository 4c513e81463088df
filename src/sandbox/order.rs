//! What an order of the Orders API is, member for member. Amounts are strings there, and it spells `canceled` with one l.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::answer::{Refusal, Stamp};
use super::input::Amount;
use super::payment::Word;
use http::StatusCode;

/// An error of the Orders API, in its list and in the members that the SDKs read.
pub(super) fn order_error(status: u16, code: &str, message: &str) -> Refusal {
    let body = json!({
        "errors": [{ "code": code, "message": message, "details": [message] }],
        "message": message, "error": code, "status": status, "cause": [],
    });
    Refusal {
        status: StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST),
        body,
    }
}

/// `100.00`
pub(super) fn amount_text(amount: Amount) -> String {
    format!("{}.{:02}", amount.0 / 100, amount.0 % 100)
}

/// The amount of a text like `100.00`; none for a number or another text.
pub(super) fn text_amount(value: &Value) -> Option<Amount> {
    let amount: Amount = serde_json::from_str(value.as_str()?).ok()?;
    (amount.0 > 0).then_some(amount)
}

/// One payment of an order.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Transaction {
    pub(super) id: String,
    pub(super) amount: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) paid_amount: Option<String>,
    pub(super) reference_id: String,
    pub(super) status: Word,
    pub(super) status_detail: Word,
    pub(super) payment_method: Value,
}

/// One refund of an order.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct OrderRefund {
    pub(super) id: String,
    pub(super) transaction_id: String,
    pub(super) reference_id: String,
    pub(super) amount: String,
    pub(super) status: Word,
}

/// Payments and refunds of an order.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Transactions {
    pub(super) payments: Vec<Transaction>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) refunds: Vec<OrderRefund>,
}

/// An order.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Order {
    pub(super) id: String,
    #[serde(rename = "type")]
    pub(super) kind: Word,
    pub(super) processing_mode: String,
    pub(super) capture_mode: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) external_reference: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) description: Option<String>,
    pub(super) total_amount: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) total_paid_amount: Option<String>,
    pub(super) country_code: Word,
    pub(super) user_id: u64,
    pub(super) status: Word,
    pub(super) status_detail: Word,
    pub(super) created_date: Stamp,
    pub(super) last_updated_date: Stamp,
    pub(super) payer: Value,
    #[serde(skip_serializing_if = "Value::is_null")]
    pub(super) items: Value,
    pub(super) integration_data: Value,
    pub(super) transactions: Transactions,
}

impl Order {
    /// Status and detail that follow from its payments.
    pub(super) fn follow_payments(&mut self, now: Stamp) {
        let first = self.transactions.payments.first();
        let (status, detail) = match first.map(|payment| (&*payment.status, &*payment.status_detail)) {
            None | Some(("created", _)) => ("created", "created"),
            Some(("processed", _)) => ("processed", "accredited"),
            Some(("action_required", "waiting_capture")) => ("action_required", "waiting_capture"),
            Some(("action_required", _)) => ("action_required", "waiting_payment"),
            Some(("processing", _)) => ("processing", "in_process"),
            Some(("failed", _)) => ("failed", "failed"),
            Some(_) => ("canceled", "canceled"),
        };
        self.status = Word::Borrowed(status);
        self.status_detail = Word::Borrowed(detail);
        self.last_updated_date = now;
        if status == "processed" {
            self.total_paid_amount = Some(self.total_amount.clone());
        }
    }

    /// What is left of a payment to refund.
    pub(super) fn left(&self, payment: &Transaction) -> Amount {
        let given: i64 = self
            .transactions
            .refunds
            .iter()
            .filter(|refund| refund.transaction_id == payment.id)
            .filter_map(|refund| text_amount(&json!(refund.amount)))
            .map(|amount| amount.0)
            .sum();
        Amount(text_amount(&json!(payment.amount)).unwrap_or_default().0 - given)
    }
}
