//! What a deployment does wrong shows in its requests: told to the operator, seldom, with what to do.
//!
//! Nothing is decided here. INVARIANT: of what was sent only a well-formed host name is repeated, in the log and nowhere
//! else; a line comes at most every ten minutes, so that strangers cannot fill the log.

use crate::config::Settings;
use crate::guard::csrf::Provenance;
use crate::protocol::fetch_metadata::Site;
use crate::protocol::header_name::{X_FORWARDED_FOR, X_FORWARDED_PROTO};
use crate::protocol::{forwarded, websocket};
use crate::seldom::Seldom;
use http::HeaderMap;
use std::net::IpAddr;
use std::time::Duration;

/// How often each of them is told.
const EVERY: Duration = Duration::from_mins(10);

/// What was told lately.
#[derive(Debug)]
pub struct Notices {
    other_host: Seldom,
    untrusted: Seldom,
    plain_http: Seldom,
    handshake: Seldom,
}

impl Default for Notices {
    fn default() -> Self {
        let seldom = || Seldom::every(EVERY);
        Self {
            other_host: seldom(),
            untrusted: seldom(),
            plain_http: seldom(),
            handshake: seldom(),
        }
    }
}

impl Notices {
    /// Looks at a request's head.
    pub(super) fn look(
        &self,
        settings: &Settings,
        peer: IpAddr,
        provenance: Provenance,
        headers: &HeaderMap,
    ) {
        if headers.contains_key(&X_FORWARDED_FOR) {
            self.of_a_proxy(settings, peer, provenance, headers);
        }
        if !provenance.websocket
            && websocket::is_without_upgrade(headers)
            && let Some(unsaid) = self.handshake.due()
        {
            tracing::warn!(
                %peer, unsaid,
                "a WebSocket handshake came without Upgrade, so it is an ordinary request: let the proxy in front pass it \
                 on (nginx: proxy_http_version 1.1, and proxy_set_header for Upgrade and Connection)"
            );
        }
    }

    fn of_a_proxy(&self, settings: &Settings, peer: IpAddr, provenance: Provenance, headers: &HeaderMap) {
        let trusted = &settings.server.trusted_proxies;
        if !forwarded::is_trusted(peer, trusted) {
            // Where proxies are named, it is for the others to be found; strangers on the internet may send what they like.
            if (trusted.is_empty() || forwarded::is_private(peer))
                && let Some(unsaid) = self.untrusted.due()
            {
                tracing::warn!(
                    %peer, unsaid,
                    "this peer sends X-Forwarded-For and is not among server.trusted_proxies, so all who come through it \
                     have its address in logs, limits and what goes up: if it is your proxy, add its network"
                );
            }
            return;
        }
        // Browsers say where they come from (Fetch Metadata §2.2) only to sites that they reached in a trustworthy way.
        let says_http = headers
            .get(&X_FORWARDED_PROTO)
            .is_some_and(|proto| proto == "http");
        if says_http
            && provenance.navigation
            && provenance.site == Site::Absent
            && settings.public_url.scheme() == "https"
            && let Some(unsaid) = self.plain_http.due()
        {
            tracing::warn!(
                %peer, unsaid,
                "browsers reach the proxy in front over plain http, where they neither keep nor send our cookies: let it \
                 redirect them to public_url"
            );
        }
    }

    /// A request for a host that is not `public_url`'s.
    pub(super) fn of_other_host(&self, settings: &Settings, peer: IpAddr, host: &str) {
        if let Some(unsaid) = self.other_host.due() {
            // Well-formed, or it would have been 400; a name that is longer than any is cut.
            let host = host.get(..host.len().min(255)).unwrap_or_default();
            tracing::warn!(
                host, %peer, unsaid, public_url = settings.public_url.origin(),
                "answered 421 to a request for another host name: use the address of public_url, and let the proxy in \
                 front keep Host (nginx: proxy_set_header Host $http_host)"
            );
        }
    }
}
