//! What the tests play with: the whole service in this process ([`app`]) or as a process of its own ([`process`]), its
//! callers ([`http`], or as bytes [`wire`]), a provider that is not our sandbox ([`plain_provider`]), and a throw-away PostgreSQL
//! ([`postgres`]).

pub(crate) mod app;
pub(crate) mod chromium;
pub(crate) mod http;
pub(crate) mod plain_provider;
#[expect(dead_code, reason = "what stops a server is for the tests of the store")]
pub(crate) mod postgres;
pub(crate) mod process;
pub(crate) mod wire;

pub(crate) const ENCRYPTION_KEY: &str = "k1:Y2FuYXJ5LWVuY3J5cHRpb24ta2V5LW9mLTMyLWJ5dGU=";
pub(crate) const CLIENT_ID: &str = "1234567890123456";
pub(crate) const CLIENT_SECRET: &str = "canary-client-secret-5Wq8";
pub(crate) const API_KEY: &str = "mck_canary-api-key-0123456789abcdefghijkl";
pub(crate) const ADMIN_EMAIL: &str = "owner@example.com";
pub(crate) const ADMIN_PASSWORD: &str = "canary-password-of-the-owner";
