//! What time brings about by itself: unpaid payments expire, subscriptions charge, failed charges are tried again.
//!
//! Nothing runs in the background for it: a seller's agenda is worked off, in order and each entry at its own instant,
//! whenever somebody looks at that seller or the clock is moved.

use chrono::{DateTime, Utc};

use super::answer::Stamp;
use super::payment::Status;
use super::state::{Due, Seller, World};
use super::{billing, payments};

impl World {
    /// Works off all that is due for a seller.
    pub(super) fn settle(&self, seller: &Seller, now: DateTime<Utc>) {
        loop {
            let mut books = seller.books();
            match books.agenda.first_key_value() {
                Some(((at, _), _)) if *at <= now => {}
                _ => return,
            }
            let Some(((at, _), due)) = books.agenda.pop_first() else {
                return;
            };
            drop(books);
            match due {
                Due::Expire(payment) => self.expire(seller, payment, at),
                Due::Charge(subscription) => billing::charge(self, seller, &subscription, at),
                Due::Retry(invoice) => billing::retry(self, seller, invoice, at),
            }
        }
    }

    /// Works off all that is due for anybody.
    pub(super) fn settle_all(&self) {
        let now = self.now();
        for seller in self.all_sellers() {
            self.settle(&seller, now);
        }
    }

    fn expire(&self, seller: &Seller, id: u64, at: DateTime<Utc>) {
        let mut books = seller.books();
        let Some(payment) = books.payments.get_mut(&id) else {
            return;
        };
        // The date may have been moved since the entry was made.
        let postponed = payment.date_of_expiration.is_some_and(|date| date.0 > at);
        if postponed
            || !matches!(
                payment.status,
                Status::Pending | Status::InProcess | Status::Authorized
            )
        {
            return;
        }
        payment.become_status(Status::Cancelled, "expired", Stamp(at));
        let payment = payment.clone();
        drop(books);
        payments::told(self, seller, &payment);
    }
}
