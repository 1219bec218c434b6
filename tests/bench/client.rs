//! The HTTP client of the benchmark's load generators: whom they ask, with what, over which protocol.

use clap::Args;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::{http1, http2};
use hyper::header::HOST;
use hyper::{Method, Request, Response, Uri};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use std::path::PathBuf;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::runtime::Handle;

/// Whatever goes wrong.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// What every request is.
#[derive(Args)]
pub struct Target {
    /// HTTP/2, one stream at a time on each connection; else HTTP/1.1.
    #[arg(long)]
    http2: bool,
    /// For https: the certificate to trust, PEM.
    #[arg(long)]
    ca: Option<PathBuf>,
    /// A header for each request, as in `name: value`.
    #[arg(long = "header")]
    headers: Vec<String>,
    /// A file that each request uploads, by POST; else they are GETs.
    #[arg(long, value_parser = read)]
    upload: Option<Bytes>,
    /// Whom to ask: http or https, with a port.
    url: Uri,
}

/// A file's bytes, as the value of an argument.
///
/// # Errors
///
/// If it cannot be read.
pub fn read(path: &str) -> std::io::Result<Bytes> {
    std::fs::read(path).map(Bytes::from)
}

impl Target {
    /// A connection to it, whose work a task of its own does.
    ///
    /// # Errors
    ///
    /// If there is none to be had, or not with the protocol that is wanted.
    pub async fn connect(&self, tasks: &Handle) -> Result<Sender, Error> {
        let stream = self.stream().await?;
        if self.url.scheme_str() != Some("https") {
            return shake_hands(stream, self.http2, tasks).await;
        }
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(
            self.ca.as_ref().ok_or("https needs --ca")?,
        )?)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![if self.http2 {
            b"h2".to_vec()
        } else {
            b"http/1.1".to_vec()
        }];
        let name = ServerName::try_from(self.host()?.to_owned())?;
        let stream = tokio_rustls::TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await?;
        if self.http2 && stream.get_ref().1.alpn_protocol() != Some(b"h2") {
            return Err("the server does not choose h2".into());
        }
        shake_hands(stream, self.http2, tasks).await
    }

    /// A TCP connection to it.
    ///
    /// # Errors
    ///
    /// If there is none to be had.
    pub async fn stream(&self) -> Result<TcpStream, Error> {
        let port = self.url.port_u16().ok_or("no port in the URL")?;
        let stream = TcpStream::connect((self.host()?, port)).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    fn host(&self) -> Result<&str, Error> {
        Ok(self.url.host().ok_or("no host in the URL")?)
    }

    /// The next request.
    ///
    /// # Errors
    ///
    /// If the arguments do not make one.
    pub fn request(&self) -> Result<Request<Full<Bytes>>, Error> {
        let mut request = Request::builder();
        if self.http2 {
            request = request.uri(self.url.clone());
        } else {
            let authority = self.url.authority().ok_or("no host in the URL")?;
            let path = self.url.path_and_query().ok_or("no path in the URL")?;
            request = request.uri(path.as_str()).header(HOST, authority.as_str());
        }
        for header in &self.headers {
            let (name, value) = header.split_once(": ").ok_or("a header without a colon")?;
            request = request.header(name, value);
        }
        if self.upload.is_some() {
            request = request.method(Method::POST);
        }
        Ok(request.body(Full::new(self.upload.clone().unwrap_or_default()))?)
    }
}

/// One connection's sending half.
pub enum Sender {
    /// HTTP/1.1.
    Http1(http1::SendRequest<Full<Bytes>>),
    /// HTTP/2.
    Http2(http2::SendRequest<Full<Bytes>>),
}

impl Sender {
    /// Sends a request when the connection can take one, and waits for the response's head.
    ///
    /// # Errors
    ///
    /// If the connection breaks.
    pub async fn send(&mut self, request: Request<Full<Bytes>>) -> hyper::Result<Response<Incoming>> {
        match self {
            Self::Http1(sender) => {
                sender.ready().await?;
                sender.send_request(request).await
            }
            Self::Http2(sender) => {
                sender.ready().await?;
                sender.send_request(request).await
            }
        }
    }
}

async fn shake_hands<S>(stream: S, http2: bool, tasks: &Handle) -> Result<Sender, Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let io = TokioIo::new(stream);
    if http2 {
        // Windows as wide as h2load's: a body should not wait for its reader here.
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder
            .initial_stream_window_size((1 << 30) - 1)
            .initial_connection_window_size((1 << 30) - 1);
        let (sender, connection) = builder.handshake(io).await?;
        tasks.spawn(connection);
        return Ok(Sender::Http2(sender));
    }
    let (sender, connection) = http1::handshake(io).await?;
    tasks.spawn(connection);
    Ok(Sender::Http1(sender))
}
