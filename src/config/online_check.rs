//! One line of `cloakroom check --online`: what was tried, how long it took, what to do about a failure.

use std::fmt;
use std::time::Duration;

/// One step.
#[derive(Clone, Debug)]
pub struct OnlineCheck {
    /// What was tried: `provider main: discovery at https://…`.
    pub tried: String,
    /// How long it took.
    pub took: Duration,
    /// What was found, or what failed and what to do about it.
    pub outcome: Result<String, String>,
}

impl fmt::Display for OnlineCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.took.as_millis();
        match &self.outcome {
            Ok(found) => write!(f, "ok     {} ({millis} ms): {found}", self.tried),
            Err(remedy) => write!(f, "FAILED {} ({millis} ms): {remedy}", self.tried),
        }
    }
}
