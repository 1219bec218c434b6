//! cloakroom: a Backend-for-Frontend reverse proxy.
//!
//! A browser hands its coat in at the cloakroom and gets a ticket. The coat is the OAuth tokens: they stay behind
//! the counter, in a server-side session. The ticket is an opaque cookie. When the browser asks for something
//! under `/api`, cloakroom finds the coat, makes sure that it still fits (refreshes the token before it expires),
//! and sends the request on with it.
//!
//! # The floors
//!
//! A row imports only from rows below its own; within a row, ` · ` separates steps: what stands left may import
//! what stands right of it. `tests/house.rs` checks this table on every run.
//!
//! | floor    | modules                                                          | what they know                      |
//! | -------- | ---------------------------------------------------------------- | ----------------------------------- |
//! | top      | `main` · `cli` · `app`                                           | who starts what; prints and exits   |
//! | requests | `router`, `to_https` · `bff`, `proxy`, `static_files`, `admin`, `demo` · `guard` · `answer` | the way of a request |
//! | sessions | `session`                                                        | what a session is, one refresh at a time |
//! | outside  | `listener`, `provider`, `store`, `upstream` · `config`           | one folder for each thing we talk to |
//! | ground   | `protocol` · `clock`, `cores`, `secret`, `metrics`, `patience`, `pieces`, `seldom`, `turn`, `unique` | the specs' rules as data; no I/O |
//!
//! Walk it as data: `listener` takes bytes → `router` finds the route → `guard` says who asks → `session::refresh`
//! makes the token fresh → `proxy::request` → `upstream` → `proxy::response`. What stops a request on the way is a
//! [`answer::Failure`], and only `answer` writes it.

pub mod admin;
pub mod answer;
pub mod app;
pub mod bff;
pub mod cli;
pub mod clock;
pub mod config;
pub mod cores;
pub mod demo;
pub mod guard;
pub mod listener;
pub mod metrics;
pub mod patience;
pub mod pieces;
pub mod protocol;
pub mod provider;
pub mod proxy;
pub mod router;
pub mod secret;
pub mod seldom;
pub mod session;
pub mod static_files;
pub mod store;
pub mod to_https;
pub mod turn;
pub mod unique;
pub mod upstream;
