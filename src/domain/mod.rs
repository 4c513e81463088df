//! The words of the service as types (DESIGN.md section 2): what a seller id may be, which states a connection has, what a
//! secret is. Pure: no HTTP, no SQL, no provider.

pub mod clock;
pub mod connection;
pub mod event;
pub mod ids;
pub mod problem;
pub mod random;
pub mod schedule;
pub mod scope;
pub mod secret;
