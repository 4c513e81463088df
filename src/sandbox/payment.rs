//! What a payment and a refund are, member for member as Mercado Pago answers them.

use std::borrow::Cow;

use chrono::Duration;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::answer::Stamp;
use super::card_tokens::{CardFacts, Cardholder, Identification};
use super::input::Amount;

/// Text that is mostly known beforehand.
pub(super) type Word = Cow<'static, str>;

/// A payment's status (Mercado Pago's list).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Status {
    Pending,
    Approved,
    Authorized,
    InProcess,
    InMediation,
    Rejected,
    Cancelled,
    Refunded,
    ChargedBack,
}

/// Who pays.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Payer {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) email: Option<String>,
    pub(super) identification: Identification,
    #[serde(rename = "type")]
    pub(super) kind: Word,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) first_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) last_name: Option<String>,
}

/// The card that was charged.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct PaymentCard {
    pub(super) id: Option<String>,
    pub(super) first_six_digits: String,
    pub(super) last_four_digits: String,
    pub(super) expiration_month: u32,
    pub(super) expiration_year: i32,
    pub(super) date_created: Stamp,
    pub(super) date_last_updated: Stamp,
    pub(super) cardholder: Cardholder,
}

impl PaymentCard {
    pub(super) fn new(facts: CardFacts, id: Option<String>, now: Stamp) -> Self {
        Self {
            id,
            first_six_digits: facts.first_six_digits,
            last_four_digits: facts.last_four_digits,
            expiration_month: facts.expiration_month,
            expiration_year: facts.expiration_year,
            date_created: now,
            date_last_updated: now,
            cardholder: facts.cardholder,
        }
    }
}

/// Where the money of a payment goes.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct TransactionDetails {
    pub(super) net_received_amount: Amount,
    pub(super) total_paid_amount: Amount,
    pub(super) overpaid_amount: Amount,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) external_resource_url: Option<String>,
    pub(super) installment_amount: Amount,
    pub(super) financial_institution: Option<String>,
    pub(super) payment_method_reference_id: Option<String>,
}

/// A fee taken from the seller.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[expect(clippy::struct_field_names, reason = "the names are Mercado Pago's")]
pub(super) struct Fee {
    #[serde(rename = "type")]
    pub(super) kind: Word,
    pub(super) amount: Amount,
    pub(super) fee_payer: Word,
}

/// What the payer of a transfer needs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct PointOfInteraction {
    #[serde(rename = "type")]
    pub(super) kind: Word,
    pub(super) transaction_data: TransactionData,
}

/// See [`PointOfInteraction`].
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct TransactionData {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) qr_code: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) qr_code_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ticket_url: Option<String>,
}

/// Whom a refund came from.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Source {
    pub(super) id: String,
    pub(super) name: String,
    #[serde(rename = "type")]
    pub(super) kind: Word,
}

/// A refund.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[expect(clippy::struct_field_names, reason = "the names are Mercado Pago's")]
pub(super) struct Refund {
    pub(super) id: u64,
    pub(super) payment_id: u64,
    pub(super) amount: Amount,
    pub(super) metadata: Box<RawValue>,
    pub(super) source: Source,
    pub(super) date_created: Stamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) unique_sequence_number: Option<String>,
    pub(super) refund_mode: Word,
    pub(super) adjustment_amount: Amount,
    pub(super) status: Word,
    pub(super) reason: Option<String>,
    pub(super) label: Option<String>,
    pub(super) partition_details: Vec<String>,
}

/// A payment.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[expect(clippy::struct_field_names, reason = "the names are Mercado Pago's")]
pub(super) struct Payment {
    pub(super) id: u64,
    pub(super) date_created: Stamp,
    pub(super) date_approved: Option<Stamp>,
    pub(super) date_last_updated: Stamp,
    pub(super) date_of_expiration: Option<Stamp>,
    pub(super) money_release_date: Option<Stamp>,
    pub(super) operation_type: Word,
    pub(super) issuer_id: Option<String>,
    pub(super) payment_method_id: Word,
    pub(super) payment_type_id: Word,
    pub(super) status: Status,
    pub(super) status_detail: Word,
    pub(super) currency_id: Word,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) description: Option<String>,
    pub(super) live_mode: bool,
    pub(super) sponsor_id: Option<u64>,
    pub(super) authorization_code: Option<String>,
    pub(super) collector_id: u64,
    pub(super) payer: Payer,
    pub(super) metadata: Box<RawValue>,
    pub(super) additional_info: Box<RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) external_reference: Option<String>,
    pub(super) transaction_amount: Amount,
    pub(super) transaction_amount_refunded: Amount,
    pub(super) coupon_amount: Amount,
    pub(super) installments: i64,
    pub(super) transaction_details: TransactionDetails,
    pub(super) fee_details: Vec<Fee>,
    pub(super) captured: bool,
    pub(super) binary_mode: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) statement_descriptor: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) card: Option<PaymentCard>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) notification_url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) callback_url: Option<String>,
    pub(super) refunds: Vec<Refund>,
    pub(super) processing_mode: Word,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) point_of_interaction: Option<PointOfInteraction>,
}

/// Mercado Pago's share of a payment, in hundredths. The real one depends on country, method and plan.
const PROVIDER_FEE_PERCENT: i64 = 4;
/// Days until the seller may use the money.
const RELEASE_DAYS: i64 = 14;

impl Payment {
    /// What the seller gets of this payment.
    pub(super) fn net(&self) -> Amount {
        self.transaction_details.net_received_amount
    }

    /// Marks the payment as approved: fees are taken, first Mercado Pago's, then the marketplace's.
    pub(super) fn approve(&mut self, application_fee: Option<Amount>, now: Stamp) {
        let provider_fee = self.transaction_amount.share(PROVIDER_FEE_PERCENT, 100);
        let marketplace_fee = application_fee.unwrap_or_default();
        self.status = Status::Approved;
        self.status_detail = Word::Borrowed("accredited");
        self.captured = true;
        self.date_approved = Some(now);
        self.date_last_updated = now;
        self.money_release_date = Some(Stamp(now.0 + Duration::days(RELEASE_DAYS)));
        self.fee_details = vec![Fee {
            kind: Word::Borrowed("mercadopago_fee"),
            amount: provider_fee,
            fee_payer: Word::Borrowed("collector"),
        }];
        if marketplace_fee.0 > 0 {
            self.fee_details.push(Fee {
                kind: Word::Borrowed("application_fee"),
                amount: marketplace_fee,
                fee_payer: Word::Borrowed("collector"),
            });
        }
        let net = self.transaction_amount.0 - provider_fee.0 - marketplace_fee.0;
        self.transaction_details.net_received_amount = Amount(net.max(0));
        self.transaction_details.total_paid_amount = self.transaction_amount;
        self.transaction_details.installment_amount =
            self.transaction_amount.share(1, self.installments.max(1));
    }

    /// Moves the payment to another status.
    pub(super) fn become_status(&mut self, status: Status, detail: &'static str, now: Stamp) {
        self.status = status;
        self.status_detail = Word::Borrowed(detail);
        self.date_last_updated = now;
    }

    /// The marketplace's fee that was asked for.
    pub(super) fn application_fee(&self) -> Option<Amount> {
        self.fee_details
            .iter()
            .find(|fee| fee.kind == "application_fee")
            .map(|fee| fee.amount)
    }
}
