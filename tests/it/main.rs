//! The one integration binary. Peers are real: our sandbox as the provider, a real database, real sockets, and for some
//! suites a real browser and the official SDKs. Time is advanced, never slept.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

mod architecture;
mod browser;
mod cli;
mod connecting;
mod crash;
mod demo;
mod events;
mod other_provider;
mod pgbouncer;
mod proxy_bytes;
mod proxy_money;
mod proxy_wire;
mod proxying;
mod refreshing;
mod sandbox;
mod sdks;
mod secrets;
mod serve;
mod storm;
mod support;
mod year;
