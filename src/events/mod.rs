//! What happens between Mercado Pago, us and the platform without anybody asking: notifications in, events out
//! (DESIGN.md section 9). Without HTTP routes; those are in `http`.
//!
//! Guarantees: a notification that was confirmed is kept together with what follows from it; an event is told to every
//! endpoint that wants it at least once, or stands as given up after its last attempt. Order is not promised.

mod deliverer;
mod egress;
mod endpoints;
mod group;
mod intake;
#[cfg(test)]
mod scenarios;
mod signature;

pub use deliverer::{Deliverer, DelivererParts};
pub use egress::{EgressPolicy, EndpointUrlError, is_public};
pub use endpoints::{EndpointError, Endpoints, NewEndpoint, Replayed};
pub use intake::{Intake, IntakeError, IntakeParts};
