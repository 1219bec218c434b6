//! May this request pass, and as whom?
//!
//! On a request's way this stands between `router`, which found the route, and `session`, which knows the tokens.

pub mod authenticate;
pub mod csrf;
pub mod gate;

pub use authenticate::{Caller, SessionCookie};
pub use gate::Gate;
