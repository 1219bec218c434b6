//! A folder on disk, asked as browsers and strangers ask.

mod replaced;

use super::*;
use std::fs;
use std::os::unix::fs::symlink;

struct Site {
    files: StaticFiles,
    outer: tempfile::TempDir,
}

fn site() -> Site {
    site_for(Auth::None)
}

fn site_for(auth: Auth) -> Site {
    let outer = tempfile::tempdir().unwrap();
    let root = outer.path().join("dist");
    for folder in ["assets", "docs", "empty", ".git", ".well-known", "inside"] {
        fs::create_dir_all(root.join(folder)).unwrap();
    }
    fs::write(outer.path().join("secret.txt"), "secret").unwrap();
    for (name, content) in [
        ("index.html", "<p>app"),
        ("plain.txt", "0123456789"),
        ("assets/app-B1x9k2Qa.js", "js"),
        ("assets/app-B1x9k2Qa.js.br", "br"),
        ("assets/app-B1x9k2Qa.js.gz", "gz"),
        ("docs/index.html", "<p>docs"),
        (".git/config", "secret"),
        (".env", "secret"),
        (".well-known/security.txt", "contact"),
        ("50% off;x.txt", "odd"),
        ("\u{fc}ber uns.txt", "umlaut"),
        ("inside/real.txt", "real"),
    ] {
        fs::write(root.join(name), content).unwrap();
    }
    symlink(outer.path().join("secret.txt"), root.join("leak.txt")).unwrap();
    symlink(outer.path().join("secret.txt"), root.join("plain2.txt.gz")).unwrap();
    fs::write(root.join("plain2.txt"), "plain2").unwrap();
    symlink(outer.path(), root.join("outside")).unwrap();
    symlink(root.join("inside/real.txt"), root.join("alias.txt")).unwrap();
    let named = Files {
        root,
        fallback: Some("index.html".into()),
    };
    let files = StaticFiles::new(&named, auth);
    Site { files, outer }
}

async fn ask(
    site: &Site,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
) -> Result<(Response<()>, String), Failure> {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(()).unwrap();
    let parsed = RequestPath::parse(request.uri().path()).unwrap();
    let (parts, body) = site
        .files
        .serve(&request.into_parts().0, &parsed)
        .await?
        .into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    Ok((
        Response::from_parts(parts, ()),
        String::from_utf8(bytes.to_vec()).unwrap(),
    ))
}

#[tokio::test]
async fn files_are_served_with_their_type_and_how_long_they_keep() {
    let site = site();
    for (path, kind, caching, content) in [
        ("/plain.txt", "text/plain", "no-cache", "0123456789"),
        (
            "/assets/app-B1x9k2Qa.js",
            "text/javascript",
            "public, max-age=31536000, immutable",
            "js",
        ),
        ("/", "text/html", "no-cache", "<p>app"),
        ("/docs/", "text/html", "no-cache", "<p>docs"),
        ("/.well-known/security.txt", "text/plain", "no-cache", "contact"),
        ("/50%25%20off%3Bx.txt", "text/plain", "no-cache", "odd"),
        ("/%C3%BCber%20uns.txt", "text/plain", "no-cache", "umlaut"),
        ("/alias.txt", "text/plain", "no-cache", "real"),
        ("/pl%61in.txt", "text/plain", "no-cache", "0123456789"),
    ] {
        let (head, body) = ask(&site, "GET", path, &[]).await.unwrap();
        assert_eq!(
            (head.status(), body.as_str()),
            (StatusCode::OK, content),
            "{path}"
        );
        assert!(
            head.headers()["content-type"].to_str().unwrap().starts_with(kind),
            "{path}"
        );
        assert_eq!(head.headers()["cache-control"], caching, "{path}");
        assert_eq!(head.headers()["x-content-type-options"], "nosniff", "{path}");
    }
    let (head, body) = ask(&site, "HEAD", "/plain.txt", &[]).await.unwrap();
    assert_eq!(
        (&head.headers()["content-length"], body.as_str()),
        (&HeaderValue::from_static("10"), "")
    );
    assert_eq!(
        ask(&site, "POST", "/plain.txt", &[]).await.unwrap_err(),
        Failure::MethodNotAllowed("GET, HEAD")
    );
}

#[tokio::test]
async fn what_only_some_may_see_is_kept_by_their_browsers_only() {
    for auth in [Auth::Required, Auth::Optional] {
        let site = site_for(auth);
        for (path, caching) in [
            ("/assets/app-B1x9k2Qa.js", "private, max-age=31536000, immutable"),
            ("/plain.txt", "private, no-cache"),
            ("/docs", "private, no-cache"),
            ("/docs/", "private, no-cache"),
            ("/orders/7", "private, no-cache"),
        ] {
            let (head, _) = ask(&site, "GET", path, &[]).await.unwrap();
            assert_eq!(head.headers()["cache-control"], caching, "{auth:?} {path}");
        }
    }
}

#[tokio::test]
async fn ranges_conditions_and_precompressed_variants_work() {
    let site = site();
    let (head, body) = ask(&site, "GET", "/plain.txt", &[("range", "bytes=2-4")])
        .await
        .unwrap();
    assert_eq!(
        (head.status(), body.as_str()),
        (StatusCode::PARTIAL_CONTENT, "234")
    );
    assert_eq!(head.headers()["content-range"], "bytes 2-4/10");
    for (range, status, content) in [
        ("bytes=-3", StatusCode::PARTIAL_CONTENT, "789"),
        ("bytes=8-99", StatusCode::PARTIAL_CONTENT, "89"),
        ("bytes=10-", StatusCode::RANGE_NOT_SATISFIABLE, ""),
        ("bytes=0-0,9-9", StatusCode::OK, "0123456789"),
    ] {
        let (head, body) = ask(&site, "GET", "/plain.txt", &[("range", range)])
            .await
            .unwrap();
        assert_eq!((head.status(), body.as_str()), (status, content), "{range}");
    }
    // Only GET has ranges (RFC 9110 §14.2).
    let (head, _) = ask(&site, "HEAD", "/plain.txt", &[("range", "bytes=2-4")])
        .await
        .unwrap();
    assert_eq!(
        (head.status(), &head.headers()["content-length"]),
        (StatusCode::OK, &HeaderValue::from_static("10"))
    );
    let (head, body) = ask(&site, "GET", "/plain.txt", &[("if-match", "\"another\"")])
        .await
        .unwrap();
    assert_eq!(
        (head.status(), body.as_str()),
        (StatusCode::PRECONDITION_FAILED, "")
    );
    let (head, body) = ask(
        &site,
        "GET",
        "/assets/app-B1x9k2Qa.js",
        &[("range", "bytes=1-"), ("accept-encoding", "br")],
    )
    .await
    .unwrap();
    assert_eq!(
        (&head.headers()["content-encoding"], body.as_str()),
        (&HeaderValue::from_static("br"), "r")
    );
    let resumed = [("range", "bytes=2-4"), ("if-range", "\"of another version\"")];
    let (head, body) = ask(&site, "GET", "/plain.txt", &resumed).await.unwrap();
    assert_eq!((head.status(), body.as_str()), (StatusCode::OK, "0123456789"));
    let (head, _) = ask(&site, "GET", "/plain.txt", &[]).await.unwrap();
    let etag = head.headers()["etag"].to_str().unwrap().to_owned();
    let (head, body) = ask(&site, "GET", "/plain.txt", &[("if-none-match", &etag)])
        .await
        .unwrap();
    assert_eq!((head.status(), body.as_str()), (StatusCode::NOT_MODIFIED, ""));
    for (accept, encoding, content) in [
        ("gzip", Some("gzip"), "gz"),
        ("br, gzip", Some("br"), "br"),
        ("zstd", None, "js"),
    ] {
        let asked = [("accept-encoding", accept)];
        let (head, body) = ask(&site, "GET", "/assets/app-B1x9k2Qa.js", &asked)
            .await
            .unwrap();
        let said = head
            .headers()
            .get("content-encoding")
            .map(|v| v.to_str().unwrap());
        assert_eq!((said, body.as_str()), (encoding, content));
        assert!(
            head.headers()["content-type"]
                .to_str()
                .unwrap()
                .starts_with("text/javascript")
        );
    }
}

#[tokio::test]
async fn the_entry_page_answers_for_pages_only() {
    let site = site();
    let html = [("accept", "text/html,*/*")];
    let navigation = [("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")];
    for (path, headers) in [
        ("/orders/7", &[][..]),
        ("/orders/v1.2", &html),
        ("/orders/v1.2", &navigation),
        ("/empty/", &[]),
        ("/empty", &[]),
        ("/plain.txt/", &html),
    ] {
        let (head, body) = ask(&site, "GET", path, headers).await.unwrap();
        assert_eq!(
            (head.status(), body.as_str()),
            (StatusCode::OK, "<p>app"),
            "{path}"
        );
        assert_eq!(head.headers()["cache-control"], "no-cache");
    }
    for path in ["/assets/missing.js", "/assets/app-0x9k2Qab.js", "/favicon.ico"] {
        assert_eq!(
            ask(&site, "GET", path, &[("accept", "*/*")]).await.unwrap_err(),
            Failure::NotFound,
            "{path}"
        );
    }
    let (head, _) = ask(&site, "GET", "/docs?x=1", &[]).await.unwrap();
    assert_eq!(
        (head.status(), &head.headers()["location"]),
        (StatusCode::FOUND, &HeaderValue::from_static("/docs/?x=1"))
    );
}

#[tokio::test]
async fn nothing_hidden_and_nothing_outside_is_served() {
    let site = site();
    for path in [
        "/.git/config",
        "/.env",
        "/%2eenv",
        "/docs/.htaccess",
        "/.well-known/.x",
        "/..%2Fsecret.txt",
    ] {
        let Ok(parsed) = RequestPath::parse(path) else {
            continue;
        };
        let request = Request::builder()
            .uri(path)
            .header("accept", "text/html")
            .body(())
            .unwrap();
        assert_eq!(
            site.files.serve(&request.into_parts().0, &parsed).await.err(),
            Some(Failure::NotFound),
            "{path}"
        );
    }
    let root = site.outer.path().join("dist");
    let _socket = std::os::unix::net::UnixListener::bind(root.join("app.sock")).unwrap();
    for path in ["/leak.txt", "/outside/secret.txt", "/plain2.txt", "/app.sock"] {
        let asked = [("accept", "*/*"), ("accept-encoding", "gzip")];
        assert_eq!(
            ask(&site, "GET", path, &asked).await.unwrap_err(),
            Failure::NotFound,
            "{path}"
        );
    }
    // Also not as what is served where nothing is.
    fs::remove_file(root.join("index.html")).unwrap();
    symlink(site.outer.path().join("secret.txt"), root.join("index.html")).unwrap();
    for path in ["/", "/orders/7"] {
        assert_eq!(
            ask(&site, "GET", path, &[]).await.unwrap_err(),
            Failure::NotFound,
            "{path}"
        );
    }
    // A folder that is called like a precompressed file is none.
    fs::create_dir(root.join("plain.txt.br")).unwrap();
    let (_, body) = ask(&site, "GET", "/plain.txt", &[("accept-encoding", "br")])
        .await
        .unwrap();
    assert_eq!(body, "0123456789");
}
