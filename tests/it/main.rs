//! The one integration binary. Peers are real: our sandbox as the provider, a real database, real sockets, and for some
//! suites a real browser and the official SDKs. Time is advanced, never slept.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on has failed"
)]

mod architecture;
mod cli;
mod demo;
mod serve;
