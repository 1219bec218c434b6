//! The Compose file's services with a real Keycloak: who follows `deploy/compose/README.md` signs in, calls the API and
//! signs out, here and then at Keycloak. Not one of `cargo test`'s: it takes Java and Keycloak, which `tests/deploy/keycloak` brings.
//!
//! All services run with the commands, the environment and the files of the Compose file, in one network where their
//! names are known. Only the API is another one, which answers with the request that it was sent, as that image does.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]
#![expect(
    clippy::disallowed_methods,
    reason = "the suite is not the product: it reads its own environment"
)]
#![expect(dead_code, reason = "the support is that of the other tests, too")]

mod support;

use std::fs;
use std::time::Duration;
use support::compose::{cloakroom, compose, initialised, network, redis, secrets, words};
use support::container::{BINARY, Container, together};
use support::{checkout, succeeds};
use tempfile::TempDir;

/// An API that answers with the request that it was sent.
const ECHO: &str = "
import http.server, signal, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
class Echo(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(f'{self.requestline}\\n{self.headers}'.encode())
http.server.ThreadingHTTPServer(('', 3000), Echo).serve_forever()
";

/// What a browser does, once the provider is well (the first argument asks). curl keeps cookies as strictly, and takes localhost for safe as browsers do.
const VISIT: &str = r#"
bash -c "$1" 2>/dev/null || { sleep 1; exit 1; }
set -eu
cd /tmp
fail() { echo "VISIT: $1"; exit 1; }
visit() { curl --silent --show-error --max-time 30 --cookie jar --cookie-jar jar --header 'Sec-Fetch-Mode: navigate' --header 'Sec-Fetch-Dest: document' "$@"; }
fetch() { curl --silent --show-error --max-time 30 --cookie jar --cookie-jar jar --header 'Sec-Fetch-Mode: cors' --header 'Sec-Fetch-Dest: empty' --header 'Sec-Fetch-Site: same-origin' "$@"; }
app=http://localhost:8080
sign_in() {
  rm -f jar
  provider=$(visit --header 'Sec-Fetch-Site: same-origin' --output /dev/null --write-out '%{redirect_url}' "$app/bff/login?return_to=/")
  case $provider in http://localhost:8180/realms/demo/*) ;; *) fail "the login leads to '$provider'" ;; esac
  visit --output form "$provider"
  action=$(sed -n 's/.*<form[^>]* action="\([^"]*\)".*/\1/p' form | sed 's/&amp;/\&/g')
  [ -n "$action" ] || fail "there is no form at the provider"
  back=$(visit --output answer --write-out '%{redirect_url}' --data-urlencode username=alice --data-urlencode password=alice "$action")
  case $back in "$app"/bff/callback\?*) ;; *) fail "the provider leads to '$back'" ;; esac
  visit --header 'Sec-Fetch-Site: cross-site' --output answer "$back"
  fetch "$app/bff/user" | tee answer | grep -q '"preferred_username":"alice"' || fail "who is here: $(cat answer)"
}
sign_in
fetch "$app/api/orders" | tee answer | grep -qi '^authorization: bearer ey' || fail "the API got: $(cat answer)"
fetch "$app/" | grep -q 'An app behind cloakroom' || fail "the app's page is not served"
left=$(fetch --request POST --header 'Accept: application/json' "$app/bff/logout" | sed -n 's/.*"redirect_to":"\([^"]*\)".*/\1/p')
end=$(visit --header 'Sec-Fetch-Site: same-origin' --output /dev/null --write-out '%{redirect_url}' "$app$left")
case $end in http://localhost:8180/realms/demo/*) ;; *) fail "the logout leads to '$end'" ;; esac
home=$(visit --output answer --write-out '%{redirect_url}' "$end")
[ "$home" = "$app/" ] || fail "the provider's logout leads to '$home': $(head -c 2000 answer)"
[ "$(fetch --output /dev/null --write-out '%{http_code}' "$app/bff/user")" = 401 ] || fail "the session is still there"
sign_in
# At Keycloak, whose page asks once more; cloakroom hears of it from Keycloak alone.
visit --output form http://localhost:8180/realms/demo/protocol/openid-connect/logout
action=$(sed -n 's/.*<form[^>]* action="\([^"]*\)".*/\1/p' form | sed 's/&amp;/\&/g')
code=$(sed -n 's/.*name="session_code" value="\([^"]*\)".*/\1/p' form)
[ -n "$action" ] || fail "there is no form to sign out with: $(head -c 2000 form)"
visit --output answer --data-urlencode "session_code=$code" --data-urlencode confirmLogout=Logout "http://localhost:8180$action"
[ "$(fetch --output /dev/null --write-out '%{http_code}' "$app/bff/user")" = 401 ] || fail "signed out at Keycloak, and the session is still there: $(head -c 2000 answer)"
"#;

fn of(words: &[String]) -> Vec<&str> {
    words.iter().map(String::as_str).collect()
}

#[test]
fn who_follows_the_readme_signs_in_calls_the_api_and_signs_out() {
    let made = initialised();
    let folder = TempDir::new().unwrap();
    let place = |name: &str| {
        let path = folder.path().join(name);
        fs::create_dir_all(&path).unwrap();
        path.display().to_string()
    };
    let home = |name: &str| {
        std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run tests/deploy/keycloak"))
    };
    let (java, distribution) = (home("JAVA_HOME"), home("KEYCLOAK_HOME"));
    let (tls, ca, keycloak) = (place("tls"), place("ca"), place("keycloak"));
    succeeds(std::process::Command::new("cp").args(["-r", &format!("{distribution}/."), &keycloak]));
    let path = format!("{java}/bin:/usr/bin:/bin");
    let machine = || {
        let mut container = Container::of_this_machine().with(&[
            "--tmpfs",
            "/tmp",
            "--setenv",
            "PATH",
            &path,
            "--setenv",
            "JAVA_HOME",
            &java,
        ]);
        // Where Java does not lie under /usr.
        container.bind(java.as_ref(), &java);
        network(&mut container);
        container
    };

    let command = |service: &str| [words(service, "/entrypoint"), words(service, "/command")].concat();
    let certificate = machine().with(&["--bind", &tls, "/tls", "--bind", &ca, "/ca"]);
    let (succeeded, said) = certificate.outcome(&of(&command("certificate")));
    assert!(succeeded, "{said}");

    let mut provider = machine().with(&["--bind", &keycloak, "/opt/keycloak", "--ro-bind", &tls, "/tls"]);
    let realm = checkout("deploy/compose/keycloak/realm.json")
        .display()
        .to_string();
    fs::create_dir_all(folder.path().join("keycloak/data/import")).unwrap();
    provider = provider.with(&["--ro-bind", &realm, "/opt/keycloak/data/import/demo-realm.json"]);
    for (name, value) in compose()["services"]["keycloak"]["environment"]
        .as_object()
        .unwrap()
    {
        provider = provider.with(&["--setenv", name, value.as_str().unwrap()]);
    }
    secrets(&mut provider, "keycloak", &made);

    let pem = fs::read_to_string(folder.path().join("ca/keycloak.pem")).unwrap();
    let (redis, cloakroom, api, browser) = (redis(&made), cloakroom(&made, &pem), machine(), machine());
    let (redis_command, provider_command) = (words("redis", "/command"), command("keycloak"));
    let healthcheck = words("keycloak", "/healthcheck/test");
    assert_eq!(healthcheck[..3], ["CMD", "/bin/bash", "-c"]);
    let said = together(
        &[
            (&redis, &of(&redis_command)),
            (&api, &["python3", "-c", ECHO]),
            (&provider, &of(&provider_command)),
            (&cloakroom, &[BINARY, "run"]),
        ],
        (&browser, &["bash", "-c", VISIT, "visit", &healthcheck[3]]),
        Duration::from_mins(15),
    );
    println!("{said}");
    assert!(said.contains("\"stopped\""), "{said}");
    assert!(!said.contains("could not be revoked"), "{said}");
    assert!(said.contains(r#""cause":"backchannel""#), "{said}");
    assert!(!said.contains("logout_refused"), "{said}");
}
