//! Rule 2.2: the environment over the file.

use super::super::settings::*;
use super::super::{SecretSource, check};
use super::*;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::time::Duration;

fn with(text: &str, variables: &[(&str, &str)]) -> Result<Loaded, Vec<Mistake>> {
    let variables: Vec<(OsString, OsString)> = variables
        .iter()
        .map(|(name, value)| (name.into(), value.into()))
        .collect();
    check("f", &complete(text), variables.into_iter(), false)
}

fn settings(text: &str, variables: &[(&str, &str)]) -> Settings {
    with(text, variables)
        .unwrap_or_else(|mistakes| panic!("{}", lines(&mistakes)))
        .settings
}

fn mistake(variables: &[(&str, &str)]) -> (String, String, String) {
    let mut mistakes = with("", variables).unwrap_err();
    assert_eq!(mistakes.len(), 1, "{}", lines(&mistakes));
    let Mistake { place, key, message } = mistakes.remove(0);
    assert!(!message.contains("canary"), "{message}");
    (place, key, message)
}

#[test]
fn a_variable_overrides_its_key() {
    let settings = settings(
        "session: {idle_timeout: 5m, cookie: {same_site: lax}}\nserver: {trusted_proxies: [10.0.0.0/8, 10.1.0.0/16]}",
        &[
            ("CLOAKROOM_PUBLIC_URL", "https://other.example"),
            ("CLOAKROOM_SESSION__IDLE_TIMEOUT", "10m"),
            ("CLOAKROOM_SESSION__COOKIE__PERSISTENT", "true"),
            ("CLOAKROOM_SERVER__TRUSTED_PROXIES", "[192.0.2.0/24]"),
            ("CLOAKROOM_PROVIDERS__MAIN__CLIENT_ID", "from-outside"),
        ],
    );
    assert_eq!(settings.public_url.origin(), "https://other.example");
    assert_eq!(settings.session.idle_timeout, Duration::from_mins(10));
    // Its neighbours in the file stay.
    assert_eq!(
        (
            settings.session.cookie.same_site,
            settings.session.cookie.persistent
        ),
        (SameSite::Lax, true)
    );
    assert_eq!(settings.server.trusted_proxies, ["192.0.2.0/24".parse().unwrap()]);
    assert_eq!(
        (
            settings.providers[0].client_id.as_str(),
            settings.providers[0].issuer.as_str()
        ),
        ("from-outside", "https://id.example.com")
    );
}

#[test]
fn lists_are_replaced_whole_and_sections_merged() {
    let routes = settings(
        "",
        &[(
            "CLOAKROOM_ROUTES",
            "[{path: /x, upstream: 'http://x'}, {path: /y}]",
        )],
    )
    .routes;
    assert_eq!(
        routes.iter().map(|route| route.path.as_str()).collect::<Vec<_>>(),
        ["/x", "/y"]
    );
    let cookie = settings(
        "session: {cookie: {same_site: lax}}",
        &[("CLOAKROOM_SESSION", "{cookie: {name: __Host-x}}")],
    )
    .session
    .cookie;
    assert_eq!(
        (cookie.name.as_str(), cookie.same_site),
        ("__Host-x", SameSite::Lax)
    );
}

#[test]
fn a_choice_in_the_environment_replaces_the_files() {
    const KEYS: (&str, &str) = (
        "CLOAKROOM_SESSION__KEYS",
        "[AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA]",
    );
    const URL: (&str, &str) = ("CLOAKROOM_SESSION__STORE__REDIS__URL", "redis://r");
    for text in [
        "",
        "session: {store: {memory: {max_sessions: 5}}}",
        "session: {store: }",
        "session:",
    ] {
        let store = settings(text, &[KEYS, URL]).session.store;
        let StoreSettings::Redis(redis) = store else {
            panic!("{text}")
        };
        assert_eq!(redis.url, Some(SecretSource::plain("redis://r")));
    }
    let kept = settings("session: {store: {redis: {key_prefix: x, url: y}}}", &[KEYS, URL])
        .session
        .store;
    assert!(matches!(kept, StoreSettings::Redis(redis) if redis.key_prefix == "x"));
    let memory = settings(
        "session: {store: {redis: {url: y}}}",
        &[("CLOAKROOM_SESSION__STORE", "{memory: }")],
    )
    .session
    .store;
    assert!(matches!(memory, StoreSettings::Memory(_)));
    // A secret's source is a choice, too.
    let secret = settings(
        "",
        &[("CLOAKROOM_PROVIDERS__MAIN__CLIENT_SECRET__ENV", "CARGO_PKG_NAME")],
    )
    .providers
    .remove(0)
    .client_secret;
    assert_eq!(secret[0].current().unwrap().expose(), "cloakroom");
}

#[test]
fn a_provider_can_come_from_the_environment_alone() {
    let all = [
        ("CLOAKROOM_PROVIDERS__OTHER__ISSUER", "https://other"),
        ("CLOAKROOM_PROVIDERS__OTHER__CLIENT_ID", "other"),
        ("CLOAKROOM_PROVIDERS__OTHER__CLIENT_SECRET", "canary"),
    ];
    let loaded = with("", &all).unwrap();
    assert_eq!(
        loaded.settings.providers[1].redirect_path.as_deref(),
        Some("/bff/callback/other")
    );
    assert!(!warns(
        &loaded,
        "providers.other.client_secret",
        "stands in the config"
    ));
    let (place, key, message) = mistake(&all[..2]);
    assert_eq!(
        (place.as_str(), key.as_str()),
        (
            "CLOAKROOM_PROVIDERS__OTHER__CLIENT_ID",
            "providers.other.client_secret"
        )
    );
    assert!(message.contains("is missing"));
}

#[test]
fn providers_keep_the_files_order_and_the_environments_come_last() {
    let text = "providers:\n  zeta: {issuer: \"https://z\", client_id: z, client_secret: a}\n  \
                beta: {issuer: \"https://b\", client_id: b, client_secret: a}";
    let providers = settings(
        text,
        &[
            ("CLOAKROOM_PROVIDERS__ALPHA__ISSUER", "https://a"),
            ("CLOAKROOM_PROVIDERS__ALPHA__CLIENT_ID", "a"),
            ("CLOAKROOM_PROVIDERS__ALPHA__CLIENT_SECRET", "a"),
            ("CLOAKROOM_PROVIDERS__BETA__CLIENT_ID", "b2"),
        ],
    )
    .providers;
    let found: Vec<_> = providers
        .iter()
        .map(|provider| {
            (
                provider.name.as_str(),
                provider.client_id.as_str(),
                provider.redirect_path.as_deref().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        found,
        [
            ("zeta", "z", "/bff/callback"),
            ("beta", "b2", "/bff/callback/beta"),
            ("alpha", "a", "/bff/callback/alpha"),
        ]
    );
}

#[test]
fn a_bad_value_names_its_variable() {
    for (name, value, key, message) in [
        (
            "CLOAKROOM_SESSION__IDLE_TIMEOUT",
            "10",
            "session.idle_timeout",
            "wanted: a duration",
        ),
        (
            "CLOAKROOM_SESSION__IDLE_TIMEOUT",
            "13h",
            "session.idle_timeout",
            "longer than",
        ),
        (
            "CLOAKROOM_SESSION__IDLE_TIMEOUT",
            "",
            "session.idle_timeout",
            "found no value",
        ),
        (
            "CLOAKROOM_SESSION__COOKIE",
            "{nmae: x}",
            "session.cookie.nmae",
            "`session.cookie.name`",
        ),
        (
            "CLOAKROOM_SERVER__LISTEN",
            "[::]:80",
            "server.listen",
            "needs quotes",
        ),
        (
            "CLOAKROOM_PROVIDERS__MAIN__CLIENT_SECRET",
            "@canary",
            "providers.main.client_secret",
            "needs quotes",
        ),
        (
            "CLOAKROOM_PROVIDERS__MAIN__CLIENT_SECRET",
            "4711",
            "providers.main.client_secret",
            "found a number",
        ),
        (
            "CLOAKROOM_SESSION__STORE",
            "redis://:canary@r",
            "session.store",
            "found a text",
        ),
        (
            "CLOAKROOM_ROUTES",
            "[{path: /a}, {path: /a}]",
            "routes[1].path",
            "serves already",
        ),
    ] {
        let (found_place, found_key, found) = mistake(&[(name, value)]);
        assert_eq!((found_place.as_str(), found_key.as_str()), (name, key), "{found}");
        assert!(found.contains(message), "{name}: {found}");
    }
    let bytes = (
        OsString::from("CLOAKROOM_PREFIX"),
        OsString::from_vec(vec![b'/', 0xff]),
    );
    let mistakes = check("f", &complete(""), std::iter::once(bytes), false).unwrap_err();
    assert_eq!(lines(&mistakes), "CLOAKROOM_PREFIX: prefix: is no UTF-8 text");
}

#[test]
fn two_variables_that_contradict_each_other_are_refused() {
    let (place, _, message) = mistake(&[
        ("CLOAKROOM_PROVIDERS__MAIN__CLIENT_SECRET", "canary"),
        ("CLOAKROOM_PROVIDERS__MAIN__CLIENT_SECRET__FILE", "/x"),
    ]);
    assert_eq!(place, "CLOAKROOM_PROVIDERS__MAIN__CLIENT_SECRET__FILE");
    assert!(
        message.contains("beside CLOAKROOM_PROVIDERS__MAIN__CLIENT_SECRET,"),
        "{message}"
    );
    let (_, key, message) = mistake(&[
        ("CLOAKROOM_SESSION__STORE__MEMORY__MAX_SESSIONS", "5"),
        ("CLOAKROOM_SESSION__STORE__REDIS__URL", "redis://r"),
    ]);
    assert_eq!(key, "session.store");
    assert!(message.contains("more than one"));
}

#[test]
fn an_unknown_variable_is_a_warning_with_the_nearest_known_one() {
    for (name, near) in [
        (
            "CLOAKROOM_SESION__IDLE_TIMEOUT",
            "CLOAKROOM_SESSION__IDLE_TIMEOUT",
        ),
        (
            "CLOAKROOM_PROVIDERS__MAIN__CLIENT_IDD",
            "CLOAKROOM_PROVIDERS__MAIN__CLIENT_ID",
        ),
        (
            "CLOAKROOM_ROUTES__0__PATH",
            "CLOAKROOM_ROUTES, which replaces the whole list",
        ),
        (
            "CLOAKROOM_session__idle_timeout",
            "CLOAKROOM_SESSION__IDLE_TIMEOUT",
        ),
        ("CLOAKROOM_", "CLOAKROOM_LOG"),
        ("CLOAKROOM_SERVER____LISTEN", "CLOAKROOM_SERVER__LISTEN"),
    ] {
        let warnings = with("", &[(name, "canary")]).unwrap().warnings.concat();
        assert!(
            warnings.contains(&format!("{name}: no key")) && warnings.contains(near),
            "{name}: {warnings}"
        );
        assert!(!warnings.contains("canary"));
    }
}

#[test]
fn variables_that_are_not_the_configs_are_ignored() {
    let usual = with("", &[]).unwrap().warnings;
    let ignored = [
        ("CLOAKROOM_CONFIG", "/x"),
        ("CLOAKROOM_SERVICE_HOST", "10.0.0.1"),
        ("CLOAKROOM_SERVICE_PORT_HTTP", "80"),
        ("CLOAKROOM_PORT", "tcp://10.0.0.1:80"),
        ("CLOAKROOM_PORT_80_TCP_ADDR", "10.0.0.1"),
        ("cloakroom_prefix", "x"),
        ("XCLOAKROOM_PREFIX", "x"),
    ];
    assert_eq!(with("", &ignored).unwrap().warnings, usual);
    // One that the config itself names is no mistake in its spelling.
    let text = "server: {admin_token: {env: CLOAKROOM_ADMIN}}";
    let mistakes = with(text, &[("CLOAKROOM_ADMIN", "x")]).unwrap_err();
    assert!(
        lines(&mistakes).contains("the environment variable CLOAKROOM_ADMIN is not set"),
        "{}",
        lines(&mistakes)
    );
}

#[test]
fn an_empty_file_can_be_filled_from_the_environment() {
    let variables = [
        ("CLOAKROOM_PUBLIC_URL", "https://app.example.com"),
        (
            "CLOAKROOM_PROVIDERS",
            "{main: {issuer: 'https://id', client_id: a, client_secret: b}}",
        ),
    ];
    let variables = variables.map(|(name, value)| (OsString::from(name), OsString::from(value)));
    assert!(check("f", "# empty\n", variables.into_iter(), false).is_ok());
}
