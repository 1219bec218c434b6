//! The demo's pages and their files, compiled in: the single-page app and the attacker's page.
//!
//! INVARIANT: no page holds a script or a style of its own; each works under the Content-Security-Policy it comes with.

use super::server::{self, Answer};
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, REFERRER_POLICY};
use http::{HeaderValue, StatusCode};

/// A file: its path, its content type, its bytes.
type File = (&'static str, &'static str, &'static str);

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

/// The single-page app. The first one also answers where no file is, for addresses that only the app knows.
const APP: [File; 8] = [
    ("/index.html", HTML, include_str!("spa/index.html")),
    ("/app.css", CSS, include_str!("spa/app.css")),
    ("/app.js", SCRIPT, include_str!("spa/app.js")),
    ("/net.js", SCRIPT, include_str!("spa/net.js")),
    ("/calls.js", SCRIPT, include_str!("spa/calls.js")),
    ("/panels.js", SCRIPT, include_str!("spa/panels.js")),
    ("/hanger.svg", SVG, include_str!("spa/hanger.svg")),
    ("/ticket.svg", SVG, include_str!("spa/ticket.svg")),
];

/// The attacker's page.
const ATTACKER: [File; 3] = [
    ("/", HTML, include_str!("spa/attacker.html")),
    ("/attacker.css", CSS, include_str!("spa/attacker.css")),
    ("/attacker.js", SCRIPT, include_str!("spa/attacker.js")),
];

/// The origins that the pages have to know.
#[derive(Clone, Debug)]
pub struct Origins {
    /// The app, on `localhost`.
    pub app: String,
    /// The provider, on `127.0.0.1`.
    pub provider: String,
    /// The attacker's page, on `127.0.0.1`.
    pub attacker: String,
}

/// A file of the app; the app itself for a path that looks like none.
#[must_use]
pub fn app(path: &str, origins: &Origins) -> Answer {
    let is_page = !path.rsplit('/').next().is_some_and(|last| last.contains('.'));
    let found = APP
        .iter()
        .find(|(name, ..)| *name == path || (is_page && *name == "/index.html"));
    let sockets = origins.app.replacen("http", "ws", 1);
    // connect-src names the WebSocket's origin: some browsers do not count it as 'self'.
    let policy = format!(
        "default-src 'self'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self' {sockets}; \
         frame-src {attacker}; form-action 'self'; base-uri 'none'; object-src 'none'; frame-ancestors 'none'; \
         require-trusted-types-for 'script'",
        attacker = origins.attacker,
    );
    answer(found, origins, &policy)
}

/// A file of the attacker's page. It may be framed, and may send whatever it likes wherever it likes.
#[must_use]
pub fn attacker(path: &str, origins: &Origins) -> Answer {
    let found = ATTACKER.iter().find(|(name, ..)| *name == path);
    answer(
        found,
        origins,
        "script-src 'self'; style-src 'self'; base-uri 'none'",
    )
}

fn answer(found: Option<&File>, origins: &Origins, policy: &str) -> Answer {
    let Some((_, content_type, text)) = found else {
        return server::words(StatusCode::NOT_FOUND, "there is no such file\n");
    };
    let mut answer = if *content_type == HTML {
        let text = text
            .replace("{{APP}}", &escape(&origins.app))
            .replace("{{PROVIDER}}", &escape(&origins.provider))
            .replace("{{ATTACKER}}", &escape(&origins.attacker));
        server::content(StatusCode::OK, content_type, text)
    } else {
        server::content(StatusCode::OK, content_type, *text)
    };
    let headers = answer.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    if let Ok(policy) = HeaderValue::from_str(policy) {
        headers.insert(CONTENT_SECURITY_POLICY, policy);
    }
    answer
}

/// Text for HTML, between tags or in a quoted attribute.
#[must_use]
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
        .replace('\'', "&#39;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::header::CONTENT_TYPE;

    fn origins() -> Origins {
        Origins {
            app: "http://localhost:8080".into(),
            provider: "http://127.0.0.1:1".into(),
            attacker: "http://127.0.0.1:2".into(),
        }
    }

    #[test]
    fn pages_hold_no_script_and_no_style_of_their_own() {
        for (name, _, html) in APP.iter().chain(&ATTACKER).filter(|(_, kind, _)| *kind == HTML) {
            for script in html.split("<script").skip(1) {
                let (tag, rest) = script.split_once('>').unwrap();
                assert!(
                    tag.contains("src=\"/") && rest.starts_with("</script>"),
                    "{name}: {tag}"
                );
            }
            assert!(!html.contains("<style") && !html.contains(" style="), "{name}");
            let handlers = [" onclick=", " onload=", " onsubmit=", " onerror=", "javascript:"];
            assert!(handlers.iter().all(|handler| !html.contains(handler)), "{name}");
        }
    }

    #[test]
    fn every_file_has_its_content_type_and_a_strict_policy() {
        for (name, kind, _) in APP {
            let answer = app(name, &origins());
            assert_eq!(answer.headers()[CONTENT_TYPE], kind, "{name}");
            assert_eq!(answer.headers()[CACHE_CONTROL], "no-cache", "{name}");
            let policy = answer.headers()[CONTENT_SECURITY_POLICY].to_str().unwrap();
            assert!(
                policy.starts_with("default-src 'self'; script-src 'self';"),
                "{name}"
            );
            assert!(!policy.contains("unsafe"), "{name}");
        }
        for (name, kind, _) in ATTACKER {
            assert_eq!(attacker(name, &origins()).headers()[CONTENT_TYPE], kind, "{name}");
        }
    }

    #[test]
    fn an_address_that_only_the_app_knows_gets_the_app_and_a_missing_file_does_not() {
        for page in ["/", "/streams", "/a/deep/link"] {
            assert_eq!(app(page, &origins()).headers()[CONTENT_TYPE], HTML, "{page}");
        }
        assert_eq!(app("/missing.js", &origins()).status(), StatusCode::NOT_FOUND);
        assert_eq!(attacker("/app.js", &origins()).status(), StatusCode::NOT_FOUND);
    }
}
