//! Serves a folder: the files of a single-page app, with its entry page where no file is.
//!
//! On a request's way this stands where `proxy` stands on other routes. Ranges, conditions, types and precompressed
//! variants are `ServeDir`'s; which path that is, what may be seen and how long it may be kept is decided here.
//!
//! INVARIANT: what is served is the decoded view of the one parse of the path; nothing outside the folder (also not
//! through a symbolic link), nothing whose name begins with a dot but `.well-known`, no listing of a folder.
//!
//! Sources: RFC 9110 §13, §14; RFC 9111 §5.2.2; RFC 8246 (immutable); RFC 8615 (well-known).

mod caching;
#[cfg(test)]
mod tests;

use crate::answer::{Body, Failure};
use crate::config::{Auth, Files};
use crate::protocol::path::RequestPath;
use caching::Caching;
use http::header::{self, HeaderName};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Empty};
use std::io;
use std::path::{Path, PathBuf};
use tower_http::services::ServeDir;

/// A folder that is served.
#[derive(Clone, Debug)]
pub struct StaticFiles {
    root: PathBuf,
    fallback: Option<String>,
    is_for_everybody: bool,
    files: ServeDir,
}

/// What stands at a path of the folder.
enum Found {
    File,
    Folder,
    Nothing,
}

impl StaticFiles {
    /// Serves the folder that the config names. `auth` is its route's: what only some may see is kept by browsers only,
    /// never by caches on the way.
    #[must_use]
    pub fn new(files: &Files, auth: Auth) -> Self {
        Self {
            root: files.root.clone(),
            fallback: files.fallback.clone(),
            is_for_everybody: auth == Auth::None,
            files: ServeDir::new(&files.root)
                .append_index_html_on_directories(false)
                .ignore_multi_range_requests(true)
                .precompressed_br()
                .precompressed_gzip(),
        }
    }

    /// Answers GET and HEAD. `path` is the path below the folder: without the route's prefix, where the route strips it.
    ///
    /// # Errors
    /// [`Failure::MethodNotAllowed`], [`Failure::NotFound`], or [`Failure::Internal`] where a file cannot be read.
    pub async fn serve<B>(
        &self,
        request: &Request<B>,
        path: &RequestPath,
    ) -> Result<Response<Body>, Failure> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return Err(Failure::MethodNotAllowed("GET, HEAD"));
        }
        let wanted = path.decoded();
        if path.has_encoded_slash() || is_hidden(wanted) {
            return Err(Failure::NotFound);
        }
        match self.look_up(wanted).await {
            Found::File if !wanted.ends_with('/') => self.send(request, wanted, Caching::of(wanted)).await,
            Found::Folder => {
                let index = format!("{}/index.html", wanted.trim_end_matches('/'));
                if !matches!(self.look_up(&index).await, Found::File) {
                    return self.fall_back(request, wanted).await;
                }
                if wanted.ends_with('/') {
                    self.send(request, &index, Caching::Revalidated).await
                } else {
                    self.with_slash(request.uri())
                }
            }
            Found::File | Found::Nothing => self.fall_back(request, wanted).await,
        }
    }

    /// The entry page, where the browser asks for a page: a missing script must not be answered with HTML.
    async fn fall_back<B>(&self, request: &Request<B>, wanted: &str) -> Result<Response<Body>, Failure> {
        let Some(fallback) = self
            .fallback
            .as_deref()
            .filter(|_| asks_for_page(request.headers(), wanted))
        else {
            return Err(Failure::NotFound);
        };
        let fallback = format!("/{}", fallback.trim_start_matches('/'));
        self.send(request, &fallback, Caching::Revalidated).await
    }

    async fn send<B>(
        &self,
        request: &Request<B>,
        file: &str,
        caching: Caching,
    ) -> Result<Response<Body>, Failure> {
        let mut ask = Request::new(Empty::<bytes::Bytes>::new());
        *ask.method_mut() = request.method().clone();
        *ask.uri_mut() = as_uri(file).ok_or(Failure::NotFound)?;
        // `ServeDir` knows no If-Range; without Range the whole file answers, which is always right (RFC 9110 §13.1.5).
        let is_conditional_range = request.headers().contains_key(header::IF_RANGE);
        for name in HEADERS_OF_INTEREST {
            if name == header::RANGE && is_conditional_range {
                continue;
            }
            for value in request.headers().get_all(&name) {
                ask.headers_mut().append(name.clone(), value.clone());
            }
        }
        let answer = self.files.clone().try_call(ask).await.map_err(|error| {
            if matches!(error.kind(), io::ErrorKind::NotFound) {
                return Failure::NotFound;
            }
            tracing::error!(%error, "a file cannot be read");
            Failure::Internal
        })?;
        if answer.status() == StatusCode::NOT_FOUND {
            return Err(Failure::NotFound);
        }
        let mut answer = answer.map(|body| body.map_err(Into::into).boxed_unsync());
        let headers = answer.headers_mut();
        headers.insert(header::CACHE_CONTROL, caching.header(self.is_for_everybody));
        headers.insert(
            header::X_CONTENT_TYPE_OPTIONS,
            HeaderValue::from_static("nosniff"),
        );
        Ok(answer)
    }

    /// The same URL with a slash at its end, so that the page's relative links hold: 302, never 307 (RFC 9700 §4.12).
    fn with_slash(&self, uri: &Uri) -> Result<Response<Body>, Failure> {
        let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
        let location =
            HeaderValue::try_from(format!("{}/{query}", uri.path())).map_err(|_| Failure::NotFound)?;
        let mut answer = Response::new(Empty::new().map_err(|never| match never {}).boxed_unsync());
        *answer.status_mut() = StatusCode::FOUND;
        let headers = answer.headers_mut();
        headers.insert(header::LOCATION, location);
        headers.insert(
            header::CACHE_CONTROL,
            Caching::Revalidated.header(self.is_for_everybody),
        );
        Ok(answer)
    }

    /// What stands at a path, links followed; what lies outside the folder is nothing.
    async fn look_up(&self, path: &str) -> Found {
        let root = self.root.clone();
        let asked = root.join(path.trim_start_matches('/'));
        tokio::task::spawn_blocking(move || look_up(&root, &asked).unwrap_or(Found::Nothing))
            .await
            .unwrap_or(Found::Nothing)
    }
}

fn look_up(root: &Path, asked: &Path) -> io::Result<Found> {
    let root = root.canonicalize()?;
    let real = asked.canonicalize()?;
    // The precompressed files beside it are served in its place, so they have to lie in the folder too.
    let variants = [".br", ".gz"].into_iter().filter_map(|ending| {
        let mut variant = asked.as_os_str().to_owned();
        variant.push(ending);
        Path::new(&variant).canonicalize().ok()
    });
    if !variants.chain([real.clone()]).all(|file| file.starts_with(&root)) {
        return Ok(Found::Nothing);
    }
    let about = real.metadata()?;
    Ok(if about.is_file() {
        Found::File
    } else if about.is_dir() {
        Found::Folder
    } else {
        Found::Nothing
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
