//! The specs' words and rules as pure data and functions: no I/O, no `await`, no clock.
//!
//! Everything here is decided from its arguments alone, so it can be tested and fuzzed to exhaustion.

pub mod authorization;
pub mod cookie;
pub mod fetch_metadata;
pub mod forwarded;
pub mod framing;
pub mod header_name;
pub mod hop_by_hop;
pub mod host;
pub mod id_token;
pub mod json;
pub mod jwks;
pub mod jws;
pub mod logout_token;
pub mod metadata;
pub mod origin;
pub mod original_request;
pub mod path;
pub mod query;
pub mod return_to;
pub mod token_response;
pub mod websocket;
pub mod websocket_frames;

#[cfg(test)]
pub(crate) mod signing;

/// Any error of a body under way.
pub type BodyError = Box<dyn std::error::Error + Send + Sync>;
