//! What the running binary bears: strangers who are slow, many, malformed or malicious, and upstreams that lie. Each attack
//! goes over real sockets against a fresh process, and a signed-in bystander asks beside it all the while:
//!
//! - the bystander is answered at once, during the attack and after it;
//! - memory has a bound while it lasts, and both memory and file descriptors return when it is over.
//!
//! What is refused, and in which words, is for `tests/it` to judge; here everything is counted and printed, a row for each
//! attack (`--nocapture`). `soak` is the long run of ordinary load; it has a head comment of its own.
//!
//! Not one of `cargo test`'s, for its length and its thirst: `cargo test --test toughness`. Attacks are bounded in number
//! and time, and go to 127.0.0.1 alone.
//!
//! Sources: CVE-2023-44487 (rapid reset), CVE-2024-27316 (CONTINUATION), CVE-2025-8671 (resets that the server is made to
//! send), CVE-2019-9511 to -9518 (HTTP/2 frames that cost nothing to send), CVE-2016-6581 (HPACK bomb).

#![expect(
    clippy::disallowed_methods,
    reason = "the suite is not the product: it has no clock and no task tracker"
)]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]
#![expect(dead_code, reason = "the support is that of the other tests, too")]
#![expect(clippy::too_many_lines, clippy::format_collect, reason = "as in the support")]

mod crowd;
mod floods;
mod http2;
mod idle;
#[path = "../shared/ingress.rs"]
mod ingresses;
mod liar;
mod lying;
mod siege;
mod slow;
mod smuggling;
mod soak;

#[path = "../it/support/mod.rs"]
mod support;
#[path = "../chaos/visitor.rs"]
mod visitor;

/// Bytes.
const MIB: u64 = 1024 * 1024;
