//! The helper process of the gateway that verifies passwords and tokens, so that the gateway's event loop never does.

#![forbid(unsafe_code)]

mod attempts;
pub mod check;
mod database;
mod dispatcher;
mod files;
mod identity;
mod json;
mod jwt;
mod limits;
mod names;
mod passwords;
pub mod process;
mod rules;
mod server;
mod tokens;
mod users;
