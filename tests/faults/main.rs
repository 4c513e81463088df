//! The fault suite (DESIGN.md section 14): real `serve` processes, killed with SIGKILL, on a real database that crashes, with
//! a strictly rotating provider that hangs, fails and loses answers. Nothing here looks into the service: it is judged by
//! what the provider and the callers saw.
//!
//! The short form is part of `cargo test`. The long form, with a release build, by one command:
//!
//! ```sh
//! cargo build --release && CONNECTOR_BINARY=$PWD/target/release/marketplace-connector FAULTS_SECONDS=600 FAULTS_SELLERS=2000 \
//!   cargo test --test faults -- --nocapture --test-threads=1
//! ```
//!
//! `FAULTS_SEED` plans other disturbances; each run prints its own. The same seed plans the same ones: when which replica
//! is killed, the database crashes and the weather at the provider turns. What meets what in which microsecond is the
//! machine's.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

mod callers;
mod chaos;
mod clock;
mod fleet;
mod herd;
mod judge;
mod keys;
mod outage;
mod plan;
mod provider;
mod receiver;
#[path = "../it/support/mod.rs"]
#[expect(dead_code, reason = "the integration tests use more of it")]
mod support;
