//! Which route a path belongs to: the longest match wins, on whole segments (contract §2 `routes`, 4.2).
//!
//! On a request's way `router` asks here once; a login asks here where its `return_to` would land. INVARIANT: every
//! reading that an upstream could take of the path selects the same place, else the path is refused.

use super::settings::{EncodedSlash, RouteSettings};
use crate::protocol::path::{Ambiguous, RequestPath, is_under};

/// The routes, longest path first, and the prefix that is cloakroom's own.
#[derive(Clone, Debug)]
pub struct RouteTable {
    prefix: String,
    routes: Vec<RouteSettings>,
}

/// What a path belongs to.
#[derive(Clone, Copy, Debug)]
pub enum Destination<'a> {
    /// cloakroom's own endpoints.
    Own,
    /// A route, and its number in [`RouteTable::routes`].
    Route(usize, &'a RouteSettings),
    /// Nothing.
    Nowhere,
}

impl RouteTable {
    /// Orders the routes.
    #[must_use]
    pub fn new(prefix: &str, routes: &[RouteSettings]) -> Self {
        let mut routes = routes.to_vec();
        routes.sort_by_key(|route| std::cmp::Reverse(route.path.len()));
        Self {
            prefix: prefix.to_owned(),
            routes,
        }
    }

    /// All routes, longest path first.
    #[must_use]
    pub fn routes(&self) -> &[RouteSettings] {
        &self.routes
    }

    /// The place of a path.
    ///
    /// # Errors
    /// [`Ambiguous`] where an upstream could read the path so that another place were meant: answer 400.
    pub fn place(&self, path: &RequestPath) -> Result<Destination<'_>, Ambiguous> {
        let found = self.number(path.decoded());
        if path
            .other_readings()
            .iter()
            .any(|reading| self.number(reading) != found)
        {
            return Err(Ambiguous("The path can be read in two ways."));
        }
        let place = match found {
            Number::Own => Destination::Own,
            Number::Route(number) => Destination::Route(number, &self.routes[number]),
            Number::Nowhere => Destination::Nowhere,
        };
        let passes_slash =
            matches!(place, Destination::Route(_, route) if route.encoded_slash == EncodedSlash::Pass);
        if path.has_encoded_slash() && !passes_slash {
            return Err(Ambiguous(
                "The path holds an encoded slash, which this address does not take.",
            ));
        }
        Ok(place)
    }

    /// Whether a login may end at this path: not under the prefix in any case, and on no route where nobody may
    /// land from elsewhere. A path that no route serves may be landed at (contract 3.2).
    #[must_use]
    pub fn may_land(&self, path: &RequestPath) -> bool {
        !is_under(
            &path.decoded().to_ascii_lowercase(),
            &self.prefix.to_ascii_lowercase(),
        ) && match self.place(path) {
            Ok(Destination::Route(_, route)) => route.pages(),
            Ok(Destination::Nowhere) => true,
            Ok(Destination::Own) | Err(_) => false,
        }
    }

    fn number(&self, path: &str) -> Number {
        if is_under(path, &self.prefix) {
            return Number::Own;
        }
        self.routes
            .iter()
            .position(|route| is_under(path, &route.path))
            .map_or(Number::Nowhere, Number::Route)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Number {
    Own,
    Route(usize),
    Nowhere,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::return_to;

    /// `/api/public` open, `/api` with a session, `/` files: the routes that the corpora assume.
    fn table() -> RouteTable {
        let route = |path: &str, more: &str| -> RouteSettings {
            let mut value = serde_json::json!({ "path": path, "upstream": "http://127.0.0.1:1" });
            for pair in more.split_whitespace() {
                let (key, word) = pair.split_once('=').unwrap();
                value[key] = word.into();
            }
            serde_json::from_value(value).unwrap()
        };
        RouteTable::new(
            "/bff",
            &[
                route("/", "auth=none"),
                route("/api", ""),
                route("/api/public", "auth=none"),
            ],
        )
    }

    /// What a login that was asked for with this `return_to` leads to: itself, or the default.
    fn leads_to_itself(table: &RouteTable, value: &str) -> bool {
        return_to::parse(value).is_some_and(|path| table.may_land(&path))
    }

    #[test]
    fn class_a_rt_01_no_return_to_of_the_corpus_leads_elsewhere() {
        let table = table();
        let corpus = include_str!("../../tests/corpus/return_to.tsv");
        let mut seen = 0;
        for row in corpus.lines().skip(1).filter(|row| !row.is_empty()) {
            let fields: Vec<&str> = row.split('\t').collect();
            let (id, expect, json) = (fields[0], fields[2], fields[3]);
            seen += 1;
            // A lone surrogate is no string at all: it never gets as far as this.
            let Ok(value) = serde_json::from_str::<String>(json) else {
                assert_eq!(expect, "reject", "{id}");
                continue;
            };
            // `/api` is a route where nobody may land.
            let wanted = expect == "accept";
            assert_eq!(leads_to_itself(&table, &value), wanted, "{id} {value:?}");
        }
        assert_eq!(seen, 136);
    }

    #[test]
    fn rt_03_the_prefix_is_no_landing_place_in_any_case_or_encoding() {
        let table = table();
        for value in [
            "/bff",
            "/BFF/logout",
            "/%62ff/user",
            "/bff/callback?code=x",
            "/bFf/",
        ] {
            assert!(!leads_to_itself(&table, value), "{value}");
        }
        for value in ["/bffx", "/a/bff", "/nowhere/at/all"] {
            assert!(leads_to_itself(&table, value), "{value}");
        }
    }

    /// What servers behind us are known to make of a path, right or wrong, but for its case (routes tell that apart).
    fn views(path: &RequestPath) -> Vec<String> {
        let once = decode(path.raw());
        let mut views = vec![path.raw().to_owned(), decode(&once), once];
        views.dedup();
        for change in [
            |view: &str| view.replace('\\', "/"),
            without_parameters,
            without_dots,
            merged,
            // Each after the others, as a filter before a framework does.
            |view: &str| merged(&without_dots(&without_parameters(&view.replace('\\', "/")))),
        ] {
            let changed: Vec<String> = views.iter().map(|view| change(view)).collect();
            views.extend(changed);
        }
        views
    }

    fn decode(text: &str) -> String {
        let mut bytes = Vec::new();
        let mut rest = text.as_bytes();
        while let [byte, tail @ ..] = rest {
            let escape = tail.first_chunk::<2>().filter(|_| *byte == b'%');
            let value =
                escape.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
            bytes.push(value.unwrap_or(*byte));
            rest = if value.is_some() { &tail[2..] } else { tail };
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn without_parameters(view: &str) -> String {
        let cut: Vec<&str> = view.split('/').map(|s| s.split(';').next().unwrap()).collect();
        cut.join("/")
    }

    fn without_dots(view: &str) -> String {
        let mut kept: Vec<&str> = Vec::new();
        for segment in view.split('/').skip(1) {
            match segment {
                "." => {}
                ".." => drop(kept.pop()),
                segment => kept.push(segment),
            }
        }
        format!("/{}", kept.join("/"))
    }

    fn merged(view: &str) -> String {
        let kept: Vec<&str> = view.split('/').filter(|segment| !segment.is_empty()).collect();
        format!("/{}", kept.join("/"))
    }

    #[test]
    fn rm_02_no_reading_of_an_accepted_path_is_guarded_more_strictly_than_the_path_was() {
        const PIECES: [&str; 16] = [
            "/", "/api", "/%61pi", "/public", "/admin", "/open", "/bff", "x", ".", "%2e", "%2F", "%5c", ";",
            "%3B", "%25", "2e",
        ];
        let route = |path: &str, auth: &str, slash: &str| -> RouteSettings {
            serde_json::from_value(serde_json::json!({
                "path": path, "upstream": "http://127.0.0.1:1", "auth": auth, "encoded_slash": slash,
            }))
            .unwrap()
        };
        let table = RouteTable::new(
            "/bff",
            &[
                route("/", "none", "pass"),
                route("/api", "required", "pass"),
                route("/api/public", "none", "pass"),
                route("/api/public/admin", "required", "refuse"),
                route("/open", "none", "pass"),
                route("/open/admin", "required", "pass"),
                route("/admin", "optional", "refuse"),
            ],
        );
        let strictness = |number: Number| match number {
            Number::Nowhere => 4,
            Number::Own => 3,
            Number::Route(number) => match table.routes[number].auth() {
                crate::config::Auth::Required => 2,
                crate::config::Auth::Optional => 1,
                crate::config::Auth::None => 0,
            },
        };
        let (mut accepted, mut unusual) = (0, 0);
        for n in 0..PIECES.len().pow(4) {
            let mut raw = String::new();
            let mut digits = n;
            while digits > 0 {
                raw.push_str(PIECES[digits % PIECES.len()]);
                digits /= PIECES.len();
            }
            let Ok(path) = RequestPath::parse(&raw) else {
                continue;
            };
            let Ok(place) = table.place(&path) else { continue };
            accepted += 1;
            unusual += usize::from(raw.contains(['%', ';']));
            let chosen = match place {
                Destination::Own => Number::Own,
                Destination::Route(number, _) => Number::Route(number),
                Destination::Nowhere => Number::Nowhere,
            };
            for view in views(&path) {
                let seen = table.number(&view);
                assert!(strictness(chosen) >= strictness(seen), "{raw} read as {view}");
                assert!(
                    (seen == Number::Own) <= (chosen == Number::Own),
                    "{raw} read as {view}"
                );
            }
        }
        assert!(accepted > 10_000 && unusual > 5_000, "{accepted} {unusual}");
    }

    #[test]
    fn rm_04_the_longest_path_wins_on_whole_segments() {
        let table = table();
        let place = |path: &str| match table.place(&RequestPath::parse(path).unwrap()) {
            Ok(Destination::Route(_, route)) => route.path.clone(),
            Ok(Destination::Own) => "own".into(),
            Ok(Destination::Nowhere) => "nowhere".into(),
            Err(_) => "refused".into(),
        };
        for (path, wanted) in [
            ("/api/public", "/api/public"),
            ("/api/publicX", "/api"),
            ("/apix", "/"),
            ("/bff/anything", "own"),
            ("/API", "/"),
            ("/api;x=1/orders", "refused"),
            ("/api%2Fpublic", "refused"),
        ] {
            assert_eq!(place(path), wanted, "{path}");
        }
    }
}
