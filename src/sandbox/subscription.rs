//! What plans, subscriptions and their invoices are, member for member as Mercado Pago answers them.

use chrono::{DateTime, Datelike as _, Days, Months, Utc};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::answer::Stamp;
use super::card_tokens::CardFacts;
use super::input::Amount;
use super::payment::Word;

/// Unit of a period.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum FrequencyType {
    Days,
    Months,
}

/// A time before the first charge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FreeTrial {
    pub(super) frequency: u32,
    pub(super) frequency_type: FrequencyType,
}

/// How often and how much.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct AutoRecurring {
    pub(super) frequency: u32,
    pub(super) frequency_type: FrequencyType,
    pub(super) transaction_amount: Amount,
    pub(super) currency_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) start_date: Option<Stamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) end_date: Option<Stamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) repetitions: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) billing_day: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) billing_day_proportional: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) free_trial: Option<FreeTrial>,
}

/// `from` plus so many days or months; the end of a month stays within its month.
pub(super) fn later(from: DateTime<Utc>, count: u32, unit: FrequencyType) -> DateTime<Utc> {
    let moved = match unit {
        FrequencyType::Days => from.checked_add_days(Days::new(count.into())),
        FrequencyType::Months => from.checked_add_months(Months::new(count)),
    };
    moved.unwrap_or(DateTime::<Utc>::MAX_UTC)
}

impl AutoRecurring {
    /// The instant that all charges are counted from: after the free trial, on the billing day if there is one.
    pub(super) fn anchor(&self, start: DateTime<Utc>) -> DateTime<Utc> {
        let begin = self
            .free_trial
            .map_or(start, |trial| later(start, trial.frequency, trial.frequency_type));
        match self.billing_day {
            Some(day) if self.frequency_type == FrequencyType::Months => {
                let this_month = begin.with_day(day).unwrap_or(begin);
                if this_month >= begin {
                    this_month
                } else {
                    later(this_month, 1, FrequencyType::Months)
                }
            }
            _ => begin,
        }
    }

    /// The charge after `charged` ones.
    pub(super) fn charge_date(&self, anchor: DateTime<Utc>, charged: u32) -> DateTime<Utc> {
        later(
            anchor,
            self.frequency.saturating_mul(charged),
            self.frequency_type,
        )
    }

    /// The part of the amount for the days between the beginning and the first billing day.
    pub(super) fn proportional(&self, start: DateTime<Utc>) -> Option<Amount> {
        if self.billing_day_proportional != Some(true) || self.billing_day.is_none() {
            return None;
        }
        let begin = self
            .free_trial
            .map_or(start, |trial| later(start, trial.frequency, trial.frequency_type));
        let days = (self.anchor(start) - begin).num_days();
        let month = (later(begin, 1, FrequencyType::Months) - begin).num_days();
        (days > 0).then(|| self.transaction_amount.share(days, month))
    }
}

/// A plan.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Plan {
    pub(super) id: String,
    pub(super) application_id: u64,
    pub(super) collector_id: u64,
    pub(super) reason: String,
    pub(super) status: Word,
    pub(super) auto_recurring: AutoRecurring,
    pub(super) payment_methods_allowed: Box<RawValue>,
    pub(super) back_url: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) external_reference: Option<String>,
    pub(super) init_point: String,
    pub(super) date_created: Stamp,
    pub(super) last_modified: Stamp,
}

/// A subscription's status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum State {
    Pending,
    Authorized,
    Paused,
    Cancelled,
}

/// Counts of a subscription's charges.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Summarized {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) quotas: Option<u32>,
    pub(super) charged_quantity: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) pending_charge_quantity: Option<u32>,
    pub(super) charged_amount: Amount,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) pending_charge_amount: Option<Amount>,
    /// `green`, `yellow` or `red`: how well charging goes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) semaphore: Option<Word>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) last_charged_date: Option<Stamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) last_charged_amount: Option<Amount>,
}

/// A subscription as answers show it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Shown {
    pub(super) id: String,
    pub(super) version: u32,
    pub(super) application_id: u64,
    pub(super) collector_id: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) preapproval_plan_id: Option<String>,
    pub(super) reason: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) external_reference: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) back_url: Option<String>,
    pub(super) init_point: String,
    pub(super) auto_recurring: AutoRecurring,
    pub(super) payer_id: u64,
    pub(super) payer_email: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) card_id: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) payment_method_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) card_id_secondary: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) payment_method_id_secondary: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) next_payment_date: Option<Stamp>,
    pub(super) date_created: Stamp,
    pub(super) last_modified: Stamp,
    pub(super) summarized: Summarized,
    pub(super) status: State,
}

/// A subscription with what is not shown of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Subscription {
    pub(super) shown: Shown,
    pub(super) card: Option<CardFacts>,
    pub(super) secondary_card: Option<CardFacts>,
    /// What charges are counted from, once it is authorized.
    pub(super) anchor: Option<DateTime<Utc>>,
    /// A partial charge before the first full one: when, how much.
    pub(super) proportional: Option<(DateTime<Utc>, Amount)>,
    /// Periods since the anchor whose charge date is over.
    pub(super) periods: u32,
    /// Charges that came due so far.
    pub(super) charges: u32,
    /// Charges that failed one after the other.
    pub(super) failures: u32,
    pub(super) live_mode: bool,
}

/// The payment of an invoice.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct InvoicePayment {
    pub(super) id: u64,
    pub(super) status: super::payment::Status,
    pub(super) status_detail: Word,
}

/// An invoice of a subscription ("authorized payment").
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct AuthorizedPayment {
    pub(super) id: u64,
    #[serde(rename = "type")]
    pub(super) kind: Word,
    pub(super) preapproval_id: String,
    pub(super) reason: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) external_reference: Option<String>,
    pub(super) currency_id: String,
    pub(super) transaction_amount: Amount,
    pub(super) debit_date: Stamp,
    pub(super) date_created: Stamp,
    pub(super) last_modified: Stamp,
    pub(super) retry_attempt: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) next_retry_date: Option<Stamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) payment_method_id: Option<String>,
    pub(super) payer_id: u64,
    /// `scheduled`, `processed`, `recycling` or `cancelled`.
    pub(super) status: Word,
    pub(super) status_detail: Word,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) payment: Option<InvoicePayment>,
}

#[cfg(test)]
mod tests {
    use chrono::TimeZone as _;

    use super::*;

    fn monthly() -> AutoRecurring {
        AutoRecurring {
            frequency: 1,
            frequency_type: FrequencyType::Months,
            transaction_amount: Amount(3_000),
            currency_id: String::from("ARS"),
            start_date: None,
            end_date: None,
            repetitions: None,
            billing_day: None,
            billing_day_proportional: None,
            free_trial: None,
        }
    }

    fn day(year: i32, month: u32, day: u32) -> DateTime<Utc> {
        Utc.with_ymd_and_hms(year, month, day, 12, 0, 0).unwrap()
    }

    #[test]
    fn a_subscription_of_the_31st_charges_on_the_last_day_of_short_months_and_comes_back_to_the_31st() {
        let anchor = day(2026, 1, 31);
        assert_eq!(monthly().charge_date(anchor, 1), day(2026, 2, 28));
        assert_eq!(monthly().charge_date(anchor, 2), day(2026, 3, 31));
    }

    #[test]
    fn a_free_trial_and_a_billing_day_move_the_first_charge() {
        let trial = FreeTrial {
            frequency: 1,
            frequency_type: FrequencyType::Months,
        };
        let recurring = AutoRecurring {
            free_trial: Some(trial),
            billing_day: Some(10),
            ..monthly()
        };
        assert_eq!(recurring.anchor(day(2026, 1, 15)), day(2026, 3, 10));
        assert_eq!(recurring.anchor(day(2026, 1, 5)), day(2026, 2, 10));
    }

    #[test]
    fn the_proportional_amount_is_that_of_the_days_until_the_billing_day() {
        let recurring = AutoRecurring {
            billing_day: Some(16),
            billing_day_proportional: Some(true),
            ..monthly()
        };
        assert_eq!(recurring.proportional(day(2026, 4, 1)), Some(Amount(1_500)));
        assert_eq!(recurring.proportional(day(2026, 4, 16)), None);
    }
}
