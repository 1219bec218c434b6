//! Serves a folder: the files of a single-page app, with its entry page where no file is.
//!
//! On a request's way this stands where `proxy` stands on other routes. Ranges, conditions, types and the choice among
//! precompressed variants are `ServeDir`'s; which path that is, what may be seen and how long it may be kept is decided
//! here. What the disk says comes from `folder`, by way of `kept`, which asks it once a second for what is in demand.
//!
//! INVARIANT: what is served is the decoded view of the one parse of the path; nothing outside the folder (also not
//! through a symbolic link), nothing whose name begins with a dot but `.well-known`, no listing of a folder.
//! INVARIANT: an answer's head and body are those of one file; another that has taken its place is served a second later.
//!
//! Sources: RFC 9110 §13, §14; RFC 9111 §5.2.2; RFC 8246 (immutable); RFC 8615 (well-known).

mod caching;
mod folder;
mod kept;
mod pieces;
#[cfg(test)]
mod tests;

use crate::answer::{Body, Failure};
use crate::config::{Auth, Files};
use crate::protocol::path::RequestPath;
use bytes::Bytes;
use caching::Caching;
use folder::{Content, File, Found};
use http::header::{self, HeaderName};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Empty, Full};
use kept::Kept;
use pieces::Pieces;
use std::borrow::Cow;
use std::fs::Metadata;
use std::future::{Ready, ready};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use tower_http::services::ServeDir;
use tower_http::services::fs::{Backend, TokioFile};

/// A folder that is served.
#[derive(Debug)]
pub struct StaticFiles {
    kept: Kept,
    fallback: Option<String>,
    is_for_everybody: bool,
}

/// The one file that `ServeDir` is asked about.
#[derive(Clone)]
struct Looked(Arc<File>);

impl StaticFiles {
    /// Serves the folder that the config names. `auth` is its route's: what only some may see is kept by browsers only,
    /// never by caches on the way.
    #[must_use]
    pub fn new(files: &Files, auth: Auth) -> Self {
        Self {
            kept: Kept::new(&files.root),
            fallback: files.fallback.clone(),
            is_for_everybody: auth == Auth::None,
        }
    }

    /// Answers GET and HEAD. `path` is the path below the folder: without the route's prefix, where the route strips it.
    ///
    /// # Errors
    /// [`Failure::MethodNotAllowed`], [`Failure::NotFound`], or [`Failure::Internal`] where a file cannot be read.
    pub async fn serve(&self, head: &Parts, path: &RequestPath) -> Result<Response<Body>, Failure> {
        if !matches!(head.method, Method::GET | Method::HEAD) {
            return Err(Failure::MethodNotAllowed("GET, HEAD"));
        }
        let wanted = path.decoded();
        if path.has_encoded_slash() || is_hidden(wanted) {
            return Err(Failure::NotFound);
        }
        let names_folder = wanted.ends_with('/');
        let asked = if names_folder {
            Cow::Owned(format!("{wanted}index.html"))
        } else {
            Cow::Borrowed(wanted)
        };
        match self.find(&asked).await? {
            Found::File(file) => self.send(head, &file, Caching::of(&asked)).await,
            Found::Folder if !names_folder => {
                let index = self.find(&format!("{wanted}/index.html")).await?;
                match index {
                    Found::File(_) => self.with_slash(&head.uri),
                    _ => self.fall_back(head, wanted).await,
                }
            }
            Found::Folder | Found::Nothing => self.fall_back(head, wanted).await,
        }
    }

    /// The entry page, where the browser asks for a page: a missing script must not be answered with HTML.
    async fn fall_back(&self, head: &Parts, wanted: &str) -> Result<Response<Body>, Failure> {
        let Some(fallback) = self
            .fallback
            .as_deref()
            .filter(|_| asks_for_page(&head.headers, wanted))
        else {
            return Err(Failure::NotFound);
        };
        let fallback = format!("/{}", fallback.trim_start_matches('/'));
        match self.find(&fallback).await? {
            Found::File(file) => self.send(head, &file, Caching::Revalidated).await,
            Found::Folder | Found::Nothing => Err(Failure::NotFound),
        }
    }

    async fn find(&self, path: &str) -> Result<Found, Failure> {
        self.kept.find(path).await.map_err(|error| {
            tracing::error!(%error, "a file cannot be read");
            Failure::Internal
        })
    }

    async fn send(
        &self,
        head: &Parts,
        file: &Arc<File>,
        caching: Caching,
    ) -> Result<Response<Body>, Failure> {
        let mut ask = Request::new(Empty::<Bytes>::new());
        // The body is ours.
        *ask.method_mut() = Method::HEAD;
        *ask.uri_mut() = as_uri(&format!("/{}", file.name)).ok_or(Failure::NotFound)?;
        let has_body = head.method == Method::GET;
        // "For this specification, GET is the only method for which range handling is defined" (RFC 9110 §14.2). And
        // `ServeDir` knows no If-Range; without Range the whole file answers, which is always right (§13.1.5).
        let has_range = has_body && !head.headers.contains_key(header::IF_RANGE);
        for name in HEADERS_OF_INTEREST {
            if name == header::RANGE && !has_range {
                continue;
            }
            for value in head.headers.get_all(&name) {
                ask.headers_mut().append(name.clone(), value.clone());
            }
        }
        let mut files = ServeDir::with_backend("", Looked(file.clone()))
            .append_index_html_on_directories(false)
            .ignore_multi_range_requests(true)
            .precompressed_br()
            .precompressed_gzip();
        let answer = files.try_call(ask).await.map_err(|_| Failure::NotFound)?;
        let (mut head, _) = answer.into_parts();
        head.headers
            .insert(header::CACHE_CONTROL, caching.header(self.is_for_everybody));
        head.headers.insert(
            header::X_CONTENT_TYPE_OPTIONS,
            HeaderValue::from_static("nosniff"),
        );
        let is_content = matches!(head.status, StatusCode::OK | StatusCode::PARTIAL_CONTENT);
        let body = if has_body && is_content {
            content(file, &head.headers).ok_or(Failure::Internal)?
        } else {
            nothing()
        };
        Ok(Response::from_parts(head, body))
    }

    /// The same URL with a slash at its end, so that the page's relative links hold: 302, never 307 (RFC 9700 §4.12).
    fn with_slash(&self, uri: &Uri) -> Result<Response<Body>, Failure> {
        let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
        let location =
            HeaderValue::try_from(format!("{}/{query}", uri.path())).map_err(|_| Failure::NotFound)?;
        let mut answer = Response::new(nothing());
        *answer.status_mut() = StatusCode::FOUND;
        let headers = answer.headers_mut();
        headers.insert(header::LOCATION, location);
        headers.insert(
            header::CACHE_CONTROL,
            Caching::Revalidated.header(self.is_for_everybody),
        );
        Ok(answer)
    }
}

impl Backend for Looked {
    type File = TokioFile;
    type Metadata = Metadata;
    type OpenFuture = Ready<io::Result<TokioFile>>;
    type MetadataFuture = Ready<io::Result<Metadata>>;

    fn open(&self, _: PathBuf) -> Self::OpenFuture {
        ready(Err(io::ErrorKind::Unsupported.into()))
    }

    fn metadata(&self, path: PathBuf) -> Self::MetadataFuture {
        let name = path.file_name().and_then(|name| name.to_str());
        let variant = name
            .and_then(|name| name.strip_prefix(&*self.0.name))
            .and_then(|ending| self.0.variant(ending));
        ready(
            variant
                .map(|variant| variant.about.clone())
                .ok_or_else(|| io::ErrorKind::NotFound.into()),
        )
    }
}

fn nothing() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// The body that a head announces.
fn content(file: &File, head: &HeaderMap) -> Option<Body> {
    let text = |name: HeaderName| head.get(name).and_then(|value| value.to_str().ok());
    let ending = match text(header::CONTENT_ENCODING) {
        Some("br") => ".br",
        Some("gzip") => ".gz",
        _ => "",
    };
    let variant = file.variant(ending)?;
    let length: u64 = text(header::CONTENT_LENGTH)?.parse().ok()?;
    let from: u64 = match text(header::CONTENT_RANGE) {
        Some(range) => range.strip_prefix("bytes ")?.split('-').next()?.parse().ok()?,
        None => 0,
    };
    Some(match &variant.content {
        Content::Whole(bytes) => {
            let range = usize::try_from(from).ok()?..usize::try_from(from + length).ok()?;
            Full::new(bytes.slice(range))
                .map_err(|never| match never {})
                .boxed_unsync()
        }
        Content::Large(file) => Pieces::new(file.clone(), variant.about.clone(), from, length)
            .map_err(Into::into)
            .boxed_unsync(),
    })
}

/// What of a request concerns a file.
const HEADERS_OF_INTEREST: [HeaderName; 6] = [
    header::ACCEPT_ENCODING,
    header::RANGE,
    header::IF_MATCH,
    header::IF_NONE_MATCH,
    header::IF_MODIFIED_SINCE,
    header::IF_UNMODIFIED_SINCE,
];

fn is_hidden(path: &str) -> bool {
    let mut segments = path.split('/').skip(1);
    let first = segments.next().unwrap_or_default();
    (first.starts_with('.') && first != ".well-known") || segments.any(|segment| segment.starts_with('.'))
}

/// Whether a request without a file is for a page of the app: a navigation, or for something without an extension.
fn asks_for_page(headers: &HeaderMap, path: &str) -> bool {
    let says = |name: &str, value: &str| headers.get(name).is_some_and(|said| said == value);
    if says("sec-fetch-mode", "navigate") && says("sec-fetch-dest", "document") {
        return true;
    }
    let takes_html = headers.get_all(header::ACCEPT).iter().any(|accept| {
        accept
            .as_bytes()
            .windows(9)
            .any(|part| part.eq_ignore_ascii_case(b"text/html"))
    });
    let last = path.rsplit('/').next().unwrap_or_default();
    takes_html || !last.contains('.')
}

/// A path as `ServeDir` decodes it: into exactly the bytes that were decided on.
fn as_uri(path: &str) -> Option<Uri> {
    let mut encoded = String::with_capacity(path.len() + 8);
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push('%');
            for digit in [byte >> 4, byte & 15] {
                encoded.extend(char::from_digit(digit.into(), 16));
            }
        }
    }
    encoded.parse().ok()
}
