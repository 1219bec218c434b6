//! Why a question was refused, for the operator.
//!
//! A stranger can bring most of these about through the ingress. INVARIANT: each is a warning at most every ten minutes,
//! with how often it was passed over; at `log.level: debug` there is a line for every one. What was sent is in none.

use crate::protocol::original_request::Unclear;
use crate::seldom::Seldom;
use std::net::IpAddr;
use std::time::Duration;

/// How often each kind is told.
const EVERY: Duration = Duration::from_mins(10);

/// Why a question was refused.
#[derive(Clone, Copy, Debug, thiserror::Error)]
pub(super) enum Complaint {
    #[error("by {0}, a peer that is not in server.trusted_proxies: 403")]
    Stranger(IpAddr),
    #[error("for something other than `GET /`: 403")]
    Other,
    #[error("with a head that is refused everywhere: 400, or 403 for an odd Expect")]
    Head,
    #[error("something that is not clear, because {0}: 403")]
    Unclear(Unclear),
    #[error("about a host that is not public_url's: 403")]
    OtherHost,
    #[error(
        "about a request with headers that only a proxy may write, in another spelling or of another name: 403"
    )]
    Posing,
    #[error("about cloakroom's own endpoints: send them to server.listen")]
    Own,
}

/// What was told lately, by kind.
#[derive(Debug)]
pub(super) struct Complaints([Seldom; 7]);

impl Default for Complaints {
    fn default() -> Self {
        Self([const { Seldom::every(EVERY) }; 7])
    }
}

impl Complaints {
    /// It happened.
    pub(super) fn note(&self, complaint: &Complaint, request_id: &str) {
        let kind = match complaint {
            Complaint::Stranger(_) => 0,
            Complaint::Other => 1,
            Complaint::Head => 2,
            Complaint::Unclear(_) => 3,
            Complaint::OtherHost => 4,
            Complaint::Posing => 5,
            Complaint::Own => 6,
        };
        if let Some(unsaid) = self.0[kind].due() {
            tracing::warn!(request_id, unsaid, "forward-auth was asked {complaint}");
        } else {
            tracing::debug!(request_id, "forward-auth was asked {complaint}");
        }
    }
}
