//! The outermost tests: a real Chromium in front of the real binary, with a certified provider and a recording upstream.
//!
//! Each test has a world of its own: provider on `op.localhost`, cloakroom on `app.localhost`, both on free ports, and a
//! browser with an empty profile. The names differ because ports do not separate sites: with one name for both,
//! `SameSite=Strict` would never be felt. `tests/run` installs what this needs. Screenshots go to `tests/out`.

mod attack;
mod cookies;
mod demo;
mod forward_auth;
#[path = "../shared/ingress.rs"]
mod ingresses;
mod login;
mod logout;
mod session;
mod streams;
mod support;
mod tls;
