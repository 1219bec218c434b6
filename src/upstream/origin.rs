//! One of a route's origins: what it is called, how it is reached, and its connections.

use super::connect::{Connector, Late};
use super::http2::TheirFailure;
use super::pool::{Failed, Pool};
use super::{UpstreamError, root};
use crate::config::Protocol;
use crate::protocol::BodyError;
use http::uri::Scheme;
use http::{HeaderValue, Uri};
use std::fmt;
use std::path::{Path, PathBuf};
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
pub enum Address {
    /// An http or https URL, without a path.
    Tcp(Uri),
    /// A socket in the file system.
    Unix(PathBuf),
}

impl Origin {
    /// Connections begin with the first request.
    ///
    /// # Errors
    /// The host is no value of a header.
    pub fn new(address: Address, protocol: Protocol, connector: Connector) -> Result<Self, String> {
        Ok(Self {
            host: address.host()?,
            refused_until: AtomicU64::new(0),
            pool: Pool::new(address.clone(), protocol, connector),
            address,
        })
    }

    /// Whether it is a socket in the file system.
    pub fn is_socket(&self) -> bool {
        matches!(self.address, Address::Unix(_))
    }

    /// What a failed request means for who waits for it.
    pub fn error(&self, failed: &Failed) -> UpstreamError {
        let cause = match failed {
            Failed::Connecting(error) if is_late(error) => return UpstreamError::Timeout,
            Failed::Connecting(error) | Failed::Broken(error) => root(error.as_ref()),
        };
        UpstreamError::Unavailable(format!("{self}: {cause}"))
    }
}

/// Whether a connection was not there in time.
pub fn is_late(error: &BodyError) -> bool {
    error.is::<Late>()
        || error
            .downcast_ref::<TheirFailure>()
            .is_some_and(|theirs| theirs.cause().is::<Late>())
}

const WANTED: &str =
    "wanted: an origin such as http://orders:8080, without a path, or a socket such as unix:/run/orders.sock";

impl Address {
    /// Takes `http` and `https` origins and `unix:` with an absolute path.
    ///
    /// # Errors
    /// A sentence for the operator: what was found and what is wanted.
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return if Path::new(path).is_absolute() && !path.starts_with("//") {
                Ok(Self::Unix(path.into()))
            } else {
                Err(format!("the upstream's socket has no absolute path; {WANTED}"))
            };
        }
        let uri: Uri = text
            .parse()
            .map_err(|_| format!("the upstream is not a URL; {WANTED}"))?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) {
            return Err(format!("the upstream has no http or https scheme; {WANTED}"));
        }
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
        Ok(Self::Tcp(uri))
    }

    /// Whether it is `https`.
    pub fn needs_tls(&self) -> bool {
        self.scheme() == Scheme::HTTPS
    }

    /// `https`, or what is without TLS.
    pub fn scheme(&self) -> Scheme {
        match self {
            Self::Tcp(uri) => uri.scheme().cloned().unwrap_or(Scheme::HTTP),
            Self::Unix(_) => Scheme::HTTP,
        }
    }

    fn host(&self) -> Result<HeaderValue, String> {
        let Self::Tcp(uri) = self else {
            return Ok(HeaderValue::from_static("localhost"));
        };
        let host = uri.host().unwrap_or_default();
        let default_port = if self.needs_tls() { 443 } else { 80 };
        let host = match uri.port_u16() {
            Some(port) if port != default_port => format!("{host}:{port}"),
            _ => host.to_owned(),
        };
        HeaderValue::try_from(host).map_err(|_| format!("the upstream has no usable host; {WANTED}"))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(uri) => match uri.authority() {
                Some(authority) => write!(f, "{}://{authority}", self.scheme()),
                None => Ok(()),
            },
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}
