//! `providers`.

use super::super::report::{Findings, KeyPath, quoted};
use super::super::settings::{ProviderSettings, Settings};
use super::grammar::{self, Url};
use super::{lies_under, not_zero};

/// What stands right under the prefix and is no redirect URI.
const OWN_ENDPOINTS: [&str; 6] = [
    "login",
    "logout",
    "user",
    "session",
    "backchannel-logout",
    "frontchannel-logout",
];

pub fn check(settings: &Settings, findings: &mut Findings<'_>) {
    let providers = &settings.providers;
    if providers.is_empty() {
        findings.refuse(
            &KeyPath::root("providers"),
            "is empty; wanted: at least one provider, such as `main`",
        );
    }
    for (i, provider) in providers.iter().enumerate() {
        let at = KeyPath::root("providers").key(&provider.name);
        name(provider, &at, findings);
        urls(provider, &at, findings);
        client(provider, &at, findings);
        redirect_path(settings, i, &at, findings);
        whither(settings, provider, &at, findings);
        // RFC 9700 §4.4.2.2: where issuers are told apart by redirect URI, "clients MUST use a distinct redirection URI
        // for each issuer they interact with"; two names for one issuer could not be told apart by its logout tokens either.
        if let Some(other) = providers[..i]
            .iter()
            .find(|other| other.issuer == provider.issuer)
        {
            let message = format!(
                "is the issuer of `providers.{}`, too; wanted: one provider for each issuer",
                other.name
            );
            findings.refuse(&at.key("issuer"), message);
        }
    }
}

fn name(provider: &ProviderSettings, at: &KeyPath, findings: &mut Findings<'_>) {
    let is_name = |name: &str| {
        !name.is_empty()
            && name
                .bytes()
                .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_'))
    };
    if !is_name(&provider.name) {
        findings.refuse(
            at,
            "has a name that is none; wanted: letters a to z, digits and _",
        );
    }
    if provider
        .label
        .as_ref()
        .is_some_and(|label| label.trim().is_empty() || label.contains(char::is_control))
    {
        findings.refuse(
            &at.key("label"),
            "shows nothing; wanted: a text for the sign-in page, such as Acme",
        );
    }
}

/// RFC 8414 §2: the issuer "uses the 'https' scheme and has no query or fragment components"; the same section wants
/// https for endpoints.
fn urls(provider: &ProviderSettings, at: &KeyPath, findings: &mut Findings<'_>) {
    let mut check = |path: KeyPath, url: &str, query_allowed| {
        if let Some(doubt) = Url::provider_doubt(url, query_allowed) {
            findings.refuse(
                &path,
                format!(
                    "found {}, which {doubt}; wanted: an https URL (http on this machine only)",
                    quoted(url)
                ),
            );
        }
    };
    check(at.key("issuer"), &provider.issuer, false);
    let endpoints = &provider.endpoints;
    let overrides = [
        ("authorization", &endpoints.authorization),
        ("token", &endpoints.token),
        ("jwks", &endpoints.jwks),
        ("userinfo", &endpoints.userinfo),
        ("revocation", &endpoints.revocation),
        ("end_session", &endpoints.end_session),
    ];
    for (name, url) in overrides {
        if let Some(url) = url {
            check(at.key("endpoints").key(name), url, true);
        }
    }
    if let Some(url) = &provider.discovery_url {
        check(at.key("discovery_url"), url, true);
    }
}

fn client(provider: &ProviderSettings, at: &KeyPath, findings: &mut Findings<'_>) {
    // RFC 6749 appendix A.1: VSCHAR.
    if provider.client_id.is_empty() || !provider.client_id.bytes().all(|b| (0x20..=0x7e).contains(&b)) {
        findings.refuse(
            &at.key("client_id"),
            "is empty or no printable ASCII; wanted: the name that the provider gave to cloakroom",
        );
    }
    for (i, scope) in provider.scopes.iter().enumerate() {
        if !grammar::is_scope(scope) {
            let message = format!(
                "found {}; wanted: one scope, without spaces and quotes",
                quoted(scope)
            );
            findings.refuse(&at.key("scopes").index(i), message);
        }
    }
    // OpenID Connect Core §3.1.2.1: "OpenID Connect requests MUST contain the openid scope value."
    if !provider.scopes.iter().any(|scope| scope == "openid") {
        findings.refuse(&at.key("scopes"), "is without `openid`, which every login needs");
    }
    not_zero(
        provider.default_token_lifetime,
        &at.key("default_token_lifetime"),
        findings,
    );
}

/// Browsers are sent to the issuer's host, unless the config names another endpoint for them: they have to know it.
fn whither(settings: &Settings, provider: &ProviderSettings, at: &KeyPath, findings: &mut Findings<'_>) {
    let (path, url) = match &provider.endpoints.authorization {
        Some(url) => (at.key("endpoints").key("authorization"), url),
        None => (at.key("issuer"), &provider.issuer),
    };
    let Some(host) = Url::host(url) else { return };
    let is_elsewhere = Url::host(settings.public_url.origin()).is_none_or(|own| !grammar::is_loopback(own));
    let whose = if grammar::is_cluster_name(host) {
        "names a host that only the cluster knows"
    } else if grammar::is_loopback(host) && is_elsewhere {
        "names this very machine"
    } else {
        return;
    };
    let remedy = if findings.is_set(&at.key("endpoints").key("authorization")) {
        "name the provider as browsers know it"
    } else {
        "name the issuer as browsers know it, and use `discovery_url` and `endpoints` for the way from here"
    };
    findings.warn(
        &path,
        &format!("{whose}, and browsers are sent there to sign in; {remedy}"),
    );
}

fn redirect_path(settings: &Settings, i: usize, at: &KeyPath, findings: &mut Findings<'_>) {
    let at = at.key("redirect_path");
    let prefix = settings.prefix.as_str();
    let Some(path) = settings.providers[i].redirect_path.as_deref() else {
        return;
    };
    if let Some(doubt) = grammar::path_doubt(path) {
        // A default that is wrong is so because of the prefix, which has its own message.
        if findings.is_set(&at) {
            findings.refuse(
                &at,
                format!(
                    "found {}, which {doubt}; wanted: a path such as {prefix}/callback",
                    quoted(path)
                ),
            );
        }
        return;
    }
    let below = path
        .strip_prefix(prefix)
        .and_then(|below| below.strip_prefix('/'));
    let Some(below) = below else {
        let message = format!(
            "found {}, which is not under the prefix; wanted: a path such as {prefix}/callback",
            quoted(path)
        );
        return findings.refuse(&at, message);
    };
    let endpoint = OWN_ENDPOINTS
        .iter()
        .find(|endpoint| lies_under(&format!("/{below}"), &format!("/{endpoint}")));
    if let Some(endpoint) = endpoint {
        let message = format!(
            "found {}, where cloakroom's own `{endpoint}` is; wanted: a path such as {prefix}/callback",
            quoted(path)
        );
        findings.refuse(&at, message);
    }
    let taken = settings.providers[..i].iter().find(|other| {
        other
            .redirect_path
            .as_deref()
            .is_some_and(|other| other.eq_ignore_ascii_case(path))
    });
    if let Some(other) = taken {
        findings.refuse(
            &at,
            format!(
                "found {}, which is that of `providers.{}`, too; wanted: one of its own",
                quoted(path),
                other.name
            ),
        );
    }
}
