//! Why payments are not approved, in the three groups of Mercado Pago's page "¿Por qué se rechaza un pago?", each reason
//! with the action that its documents advise.
//!
//! Reads `status` and `status_detail` of a payment and nothing else. A reason that is in none of the lists is `other`: it
//! is counted, and nothing is claimed about it.

use serde::Deserialize;

use crate::domain::connection::text_enum;

text_enum! {
    /// The group a decline belongs to.
    DeclineCategory {
        /// The buyer filled something in wrong.
        DataEntry = "data_entry",
        /// The bank that issued the card said no.
        Issuer = "issuer",
        /// Kept from happening by Mercado Pago's or the bank's prevention of fraud, or by a rule.
        FraudPrevention = "fraud_prevention",
        /// A reason that no list has.
        Other = "other",
    }
}

text_enum! {
    /// What helps after a decline.
    DeclineAction {
        /// Let the buyer correct the card's data, with a new card token.
        CorrectCardData = "correct_card_data",
        /// The buyer calls the bank and authorises the amount, then pays again.
        CallIssuer = "call_issuer",
        /// Another card or another means of payment.
        UseAnotherMethod = "use_another_method",
        /// Another number of instalments.
        ChangeInstallments = "change_installments",
        /// It was paid already: look the earlier payment up before anything else.
        CheckEarlierPayment = "check_earlier_payment",
        /// The buyer confirms with the bank (3-D Secure).
        CompleteChallenge = "complete_challenge",
        /// Send more about buyer and purchase (device id, payer, items), and do not repeat the same payment at once.
        SendMoreData = "send_more_data",
        /// The same once more, later.
        RetryLater = "retry_later",
    }
}

/// A declined payment: its group and what helps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decline {
    /// The group.
    pub category: DeclineCategory,
    /// What helps.
    pub action: DeclineAction,
}

impl Decline {
    /// The text of the `Connector-Decline` header.
    pub fn header(self) -> String {
        format!("{};action={}", self.category, self.action)
    }
}

/// How a payment stands, as far as approval rates are concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PaymentOutcome {
    /// `approved` or `authorized`.
    Approved,
    /// `rejected`.
    Declined(Decline),
    /// Anything else: pending, cancelled, refunded.
    Undecided,
}

/// The outcome that a payment's JSON tells; none if it is no payment.
pub fn read_payment(body: &[u8]) -> Option<PaymentOutcome> {
    #[derive(Deserialize)]
    struct Payment<'a> {
        #[serde(borrow)]
        status: std::borrow::Cow<'a, str>,
        #[serde(borrow, default)]
        status_detail: Option<std::borrow::Cow<'a, str>>,
    }
    let payment: Payment<'_> = serde_json::from_slice(body).ok()?;
    Some(match payment.status.as_ref() {
        "approved" | "authorized" => PaymentOutcome::Approved,
        "rejected" => PaymentOutcome::Declined(decline(payment.status_detail.as_deref().unwrap_or_default())),
        _ => PaymentOutcome::Undecided,
    })
}

/// What a `status_detail` of a rejected payment means.
pub fn decline(status_detail: &str) -> Decline {
    use DeclineAction as Action;
    use DeclineCategory::{DataEntry, FraudPrevention, Issuer, Other};
    let (category, action) = match status_detail {
        "cc_rejected_bad_filled_card_number"
        | "cc_rejected_bad_filled_date"
        | "cc_rejected_bad_filled_other"
        | "cc_rejected_bad_filled_security_code" => (DataEntry, Action::CorrectCardData),

        "cc_rejected_call_for_authorize" | "cc_rejected_card_disabled" => (Issuer, Action::CallIssuer),
        "cc_rejected_duplicated_payment" => (Issuer, Action::CheckEarlierPayment),
        "cc_rejected_invalid_installments" => (Issuer, Action::ChangeInstallments),
        "cc_rejected_card_error" | "cc_rejected_time_out" | "bank_error" => (Issuer, Action::RetryLater),
        "cc_rejected_insufficient_amount"
        | "cc_rejected_max_attempts"
        | "cc_rejected_card_type_not_allowed"
        | "cc_amount_rate_limit_exceeded"
        | "rejected_by_bank"
        | "rejected_by_issuer"
        | "insufficient_amount" => (Issuer, Action::UseAnotherMethod),

        "cc_rejected_3ds_challenge" | "cc_rejected_3ds_mandatory" => {
            (FraudPrevention, Action::CompleteChallenge)
        }
        "cc_rejected_high_risk" | "rejected_high_risk" | "rejected_insufficient_data" => {
            (FraudPrevention, Action::SendMoreData)
        }
        "cc_rejected_blacklist"
        | "cc_rejected_other_reason"
        | "rejected_by_regulations"
        | "rejected_by_biz_rule"
        | "rejected_other_reason" => (FraudPrevention, Action::UseAnotherMethod),

        _ => (Other, Action::UseAnotherMethod),
    };
    Decline { category, action }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_documented_groups_are_told_apart() {
        for detail in ["card_number", "date", "other", "security_code"] {
            let decline = decline(&format!("cc_rejected_bad_filled_{detail}"));
            assert_eq!(decline.header(), "data_entry;action=correct_card_data");
        }
        let issuer = [
            "call_for_authorize",
            "card_disabled",
            "duplicated_payment",
            "insufficient_amount",
            "invalid_installments",
            "max_attempts",
        ];
        for detail in issuer {
            assert_eq!(
                decline(&format!("cc_rejected_{detail}")).category,
                DeclineCategory::Issuer,
                "{detail}"
            );
        }
        for detail in ["blacklist", "high_risk", "other_reason"] {
            assert_eq!(
                decline(&format!("cc_rejected_{detail}")).category,
                DeclineCategory::FraudPrevention,
                "{detail}"
            );
        }
        assert_eq!(
            decline("cc_rejected_call_for_authorize").header(),
            "issuer;action=call_issuer"
        );
        assert_eq!(
            decline("cc_rejected_high_risk").header(),
            "fraud_prevention;action=send_more_data"
        );
        assert_eq!(decline("something_new").category, DeclineCategory::Other);
    }

    #[test]
    fn a_payment_is_read_by_its_status() {
        let read = |text: &str| read_payment(text.as_bytes());
        assert_eq!(
            read(r#"{"id":1,"status":"approved"}"#),
            Some(PaymentOutcome::Approved)
        );
        assert_eq!(
            read(r#"{"status":"in_process","status_detail":null}"#),
            Some(PaymentOutcome::Undecided)
        );
        let rejected = read(
            r#"{"status":"rejected","status_detail":"cc_rejected_max_attempts","transaction_amount":1.10}"#,
        );
        assert!(matches!(
            rejected,
            Some(PaymentOutcome::Declined(Decline {
                category: DeclineCategory::Issuer,
                ..
            }))
        ));
        assert_eq!(read(r#"{"status":400,"message":"bad"}"#), None);
        assert_eq!(read("<html>"), None);
    }
}
