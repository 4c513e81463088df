//! The marketplace connector: connects a marketplace's sellers to Mercado Pago, keeps their tokens sealed and fresh, and
//! proxies the platform's calls with the right seller's token.
//!
//! Data flows one way (a test holds it): `domain <- mercadopago, vault <- config <- storage, rescue <- access, connect, refresh,
//! proxy, events <- http <- app <- demo, cli`. `sandbox` is an independent simulator of Mercado Pago and knows only the clock and the
//! randomness of `domain`, so that a shared bug cannot hide in shared code.

pub mod access;
pub mod app;
pub mod cli;
pub mod config;
pub mod connect;
pub mod demo;
pub mod domain;
pub mod events;
pub mod http;
pub mod mercadopago;
pub mod proxy;
pub mod refresh;
pub mod replica;
pub mod rescue;
pub mod sandbox;
pub mod storage;
pub mod telemetry;
pub mod vault;
