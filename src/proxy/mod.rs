//! The proxied call.

mod headers;
mod idle;
mod path;
mod retry;
mod upload;
mod upstream;
