//! The suite: the real binary against real parts, each file a theme, each test a sentence.
//!
//! Row names (`ck_07`, `rf_02`) are those of the project's checklist; `class_a` … `class_n` are classes of advisories
//! against programs of this kind. Class N (nothing secret in any output) is judged in every test of the suite: every
//! cloakroom runs at `log.level: trace`, and what it wrote is searched when it stops.

#![expect(
    clippy::disallowed_methods,
    reason = "the suite is not the product: it has no clock and no task tracker"
)]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]
#![expect(clippy::too_many_lines, reason = "a table of cases is as long as it has rows")]
#![expect(clippy::format_collect, reason = "clarity before speed")]

mod admin;
mod admin_tls;
mod audit;
mod backchannel;
mod cache;
mod callback;
mod clock;
mod command_line;
mod cores;
mod csrf;
mod diagnosis;
mod forward_auth;
mod framing;
mod frontchannel;
mod grpc;
mod handshake;
mod headers;
mod http2;
mod http2_floods;
mod http2_websockets;
mod ingress;
#[path = "../shared/ingress.rs"]
mod ingresses;
mod limits;
mod login;
mod logout;
mod messages;
mod operate;
mod outage;
mod own_sessions;
mod parts;
mod paths;
mod proxying;
mod real_provider;
mod redirect;
mod redis_failover;
mod redis_faults;
mod refresh;
mod return_to;
mod routes;
mod sessions;
mod streams;
mod support;
mod tls;
mod tokens;
