//! Where a server is and who we are there: URL, user, password, database, TLS.
//!
//! All of it is read again for each new connection, so a rotated file needs no restart.

use super::fault::Fault;
use super::tls::Tls;
use crate::config::{RedisSettings, SecretSource};
use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

/// A byte stream to Redis, whatever is below.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A server's name and port, as other servers tell it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Address {
    pub(super) host: String,
    pub(super) port: u16,
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// Who we are, where the URL does not say it.
#[derive(Clone, Debug)]
pub(super) struct Login {
    /// The section that it stands in, for messages.
    section: &'static str,
    user: Option<String>,
    password: Option<SecretSource>,
    database: Option<u16>,
}

impl Login {
    /// At the servers that keep the data.
    pub(super) fn of_data(settings: &RedisSettings) -> Self {
        Self {
            section: "session.store.redis",
            user: settings.user.clone(),
            password: settings.password.clone(),
            database: settings.database,
        }
    }

    /// At the sentinels.
    pub(super) fn of_sentinels(settings: &crate::config::Sentinel) -> Self {
        Self {
            section: "session.store.redis.sentinel",
            user: settings.user.clone(),
            password: settings.password.clone(),
            database: None,
        }
    }

    /// What is said here counts before what the URL says.
    fn over(&self, info: ConnectionInfo) -> Result<ConnectionInfo, String> {
        // CLIENT SETINFO would be one more command for the ACL to allow.
        let mut redis = info.redis_settings().clone().set_skip_set_lib_name();
        if let Some(user) = &self.user {
            redis = redis.set_username(user);
        }
        if let Some(password) = &self.password {
            let password = password
                .current()
                .map_err(|why| format!("`{}.password`: {why}", self.section))?;
            redis = redis.set_password(password.expose());
        }
        if let Some(database) = self.database {
            redis = redis.set_db(i64::from(database));
        }
        Ok(info.set_redis_settings(redis))
    }

    /// At a server that others told of.
    pub(super) fn at(&self, address: &Address, tls: bool) -> Result<ConnectionInfo, String> {
        let info = addr(address, tls)
            .into_connection_info()
            .map_err(|_| format!("{address} is no address"))?;
        self.over(info)
    }
}

fn addr(address: &Address, tls: bool) -> ConnectionAddr {
    let (host, port) = (address.host.clone(), address.port);
    if tls {
        ConnectionAddr::TcpTls {
            host,
            port,
            insecure: false,
            tls_params: None,
        }
    } else {
        ConnectionAddr::Tcp(host, port)
    }
}

/// A server that the config names.
#[derive(Clone, Debug)]
pub(super) struct Target {
    /// The URL's key, for messages.
    key: String,
    url: SecretSource,
    login: Login,
}

impl Target {
    /// # Errors
    /// What cannot be used, without the URL.
    pub(super) fn new(key: String, url: &SecretSource, login: Login) -> Result<Self, String> {
        let url = url.clone();
        let target = Self { key, url, login };
        target.current().map(|_| target)
    }

    /// Address and login as they are now.
    pub(super) fn current(&self) -> Result<ConnectionInfo, String> {
        let key = &self.key;
        let url = self.url.current().map_err(|why| format!("`{key}`: {why}"))?;
        // The library's error may quote the URL, and with it the password: it is not passed on.
        let info = url.expose().into_connection_info().map_err(|_| {
            format!(
                "`{key}` is no Redis URL: `redis://[user:password@]host[:port][/database]` is wanted, or `rediss://` \
                 for TLS (reserved characters in user and password percent-encoded)"
            )
        })?;
        if let ConnectionAddr::TcpTls { insecure: true, .. } = info.addr() {
            return Err(format!(
                "`{key}`: `#insecure` is not supported; name the authority in `ca`"
            ));
        }
        self.login.over(info)
    }

    /// Whether it is reached over TLS.
    pub(super) fn is_tls(&self) -> bool {
        let now = self.current();
        now.is_ok_and(|info| matches!(info.addr(), ConnectionAddr::TcpTls { .. }))
    }

    /// Where it is.
    pub(super) fn address(&self) -> Option<Address> {
        match self.current().ok()?.addr() {
            ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => Some(Address {
                host: host.clone(),
                port: *port,
            }),
            _ => None,
        }
    }

    /// The same login at a server that this one told of.
    pub(super) fn at(&self, address: &Address) -> Result<ConnectionInfo, String> {
        let info = self.current()?;
        let tls = matches!(info.addr(), ConnectionAddr::TcpTls { .. });
        Ok(info.set_addr(addr(address, tls)))
    }
}

/// Opens a byte stream to a server.
pub(super) async fn open(address: &ConnectionAddr, tls: &Tls) -> Result<Box<dyn Stream>, Fault> {
    let named = |error: std::io::Error| Fault::said(format!("{address}: {error}"));
    match address {
        ConnectionAddr::Tcp(host, port) => Ok(Box::new(tcp(host, *port).await.map_err(named)?)),
        ConnectionAddr::TcpTls { host, port, .. } => {
            let name = ServerName::try_from(host.clone())
                .map_err(|_| Fault::said(format!("{address}: no name that a certificate can hold")))?;
            let config = tls.current().map_err(Fault::said)?;
            let stream = tcp(host, *port).await.map_err(named)?;
            let stream = TlsConnector::from(config).connect(name, stream).await;
            Ok(Box::new(stream.map_err(|error| {
                Fault::said(format!("{address}: TLS: {error}"))
            })?))
        }
        ConnectionAddr::Unix(path) => Ok(Box::new(UnixStream::connect(path).await.map_err(named)?)),
        _ => Err(Fault::said("the URL's kind of address is not supported")),
    }
}

async fn tcp(host: &str, port: u16) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect((host, port)).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}
