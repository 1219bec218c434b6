//! One of a route's origins: what it is called, how it is reached, and its connections.

use super::connect::{Connector, Late};
use super::pool::{Failed, Pool};
use super::{UpstreamError, root};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Uri};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

/// An origin and its connections.
#[derive(Debug)]
pub struct Origin {
    /// Its own name as `Host` says it: the scheme's own port is left out.
    pub host: HeaderValue,
    /// Milliseconds after the start of [`super::Upstream`]; before that it is asked last.
    pub refused_until: AtomicU64,
    /// Its connections.
    pub pool: Arc<Pool>,
    address: Address,
}

/// Where it is.
#[derive(Clone, Debug)]
pub struct Address {
    /// `http` or `https`.
    pub scheme: Scheme,
    authority: Authority,
}

impl Origin {
    /// Connections begin with the first request.
    ///
    /// # Errors
    /// The host is no value of a header.
    pub fn new(address: Address, connector: Connector) -> Result<Self, String> {
        Ok(Self {
            host: address.host()?,
            refused_until: AtomicU64::new(0),
            pool: Pool::new(address.uri(), connector),
            address,
        })
    }

    /// What a failed request means for who waits for it.
    pub fn error(&self, failed: &Failed) -> UpstreamError {
        let cause = match failed {
            Failed::Connecting(error, _) if error.is::<Late>() => return UpstreamError::Timeout,
            Failed::Connecting(error, _) => root(error.as_ref()),
            Failed::Broken(error) => root(error),
        };
        UpstreamError::Unavailable(format!("{self}: {cause}"))
    }
}

const WANTED: &str = "wanted: an origin such as http://orders:8080, without a path";

impl Address {
    /// Takes `http` and `https` origins.
    ///
    /// # Errors
    /// A sentence for the operator: what was found and what is wanted.
    pub fn parse(text: &str) -> Result<Self, String> {
        let uri: Uri = text
            .parse()
            .map_err(|_| format!("the upstream is not a URL; {WANTED}"))?;
        let scheme = match uri.scheme_str() {
            Some("http") => Scheme::HTTP,
            Some("https") => Scheme::HTTPS,
            _ => return Err(format!("the upstream has no http or https scheme; {WANTED}")),
        };
        let authority = uri
            .authority()
            .filter(|authority| !authority.host().is_empty())
            .ok_or_else(|| format!("the upstream has no host; {WANTED}"))?;
        if authority.as_str().contains('@') {
            return Err(format!("the upstream holds credentials; {WANTED}"));
        }
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() || text.contains('#') {
            return Err(format!("the upstream holds more than an origin; {WANTED}"));
        }
        Ok(Self {
            scheme,
            authority: authority.clone(),
        })
    }

    fn host(&self) -> Result<HeaderValue, String> {
        let default_port = if self.scheme == Scheme::HTTPS { 443 } else { 80 };
        let host = match self.authority.port_u16() {
            Some(port) if port != default_port => format!("{}:{port}", self.authority.host()),
            _ => self.authority.host().to_owned(),
        };
        HeaderValue::try_from(host).map_err(|_| format!("the upstream has no usable host; {WANTED}"))
    }

    fn uri(&self) -> Uri {
        let mut parts = http::uri::Parts::default();
        parts.scheme = Some(self.scheme.clone());
        parts.authority = Some(self.authority.clone());
        parts.path_and_query = Some(PathAndQuery::from_static("/"));
        Uri::from_parts(parts).unwrap_or_default()
    }
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}://{}", self.address.scheme, self.address.authority)
    }
}
