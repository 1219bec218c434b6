//! The Compose file: judged by the Compose specification's schema, and held against the config and the realm beside it.
//! `tests/deploy/keycloak.rs` runs the same files against a real Keycloak.

use crate::support::compose::{cloakroom, compose, config, init, initialised, redis, words};
use crate::support::container::{BINARY, QUICK, together};
use crate::support::{checkout, list, longest_stop, outcome, port, read, seconds, string, tool};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use tempfile::TempDir;

fn realm() -> Value {
    serde_json::from_str(&read("deploy/compose/keycloak/realm.json")).unwrap()
}

fn judge(file: &Path) -> (bool, String) {
    outcome(
        tool("check-jsonschema")
            .args(["--builtin-schema", "vendor.compose-spec"])
            .arg(file),
    )
}

#[test]
fn the_file_is_one_that_compose_takes() {
    let (good, said) = judge(&checkout("deploy/compose/compose.yaml"));
    assert!(good, "{said}");
    let folder = TempDir::new().unwrap();
    let wrong = folder.path().join("compose.yaml");
    let text = read("deploy/compose/compose.yaml");
    fs::write(&wrong, text.replacen("read_only: true", "readonly: true", 1)).unwrap();
    assert!(!judge(&wrong).0, "the judge is strict");
}

#[test]
fn init_makes_each_secret_once_and_for_its_group_alone() {
    let folder = initialised();
    let secrets = |folder: &Path| -> Vec<(String, String)> {
        let declared = compose()["secrets"].as_object().unwrap().clone();
        let read = declared.iter().map(|(name, secret)| {
            let file = folder.join(string(secret, "/file"));
            let mode = fs::metadata(&file).unwrap().permissions().mode() & 0o777;
            assert_eq!(mode, 0o640, "{name}");
            (name.clone(), fs::read_to_string(file).unwrap())
        });
        read.collect()
    };
    let first = secrets(folder.path());
    for (name, secret) in &first {
        assert_eq!(secret.len(), 43, "{name}: {secret}");
        assert!(
            secret
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_')),
            "{name}"
        );
        assert_eq!(first.iter().filter(|(_, other)| other == secret).count(), 1);
    }
    let folder_of_secrets = fs::metadata(folder.path().join("secrets")).unwrap();
    assert_eq!(folder_of_secrets.permissions().mode() & 0o777, 0o750);
    let group = format!("SECRETS_GROUP={}\n", folder_of_secrets.gid());
    assert_eq!(fs::read_to_string(folder.path().join(".env")).unwrap(), group);
    init(&folder);
    assert_eq!(secrets(folder.path()), first, "a second run changes nothing");
    let shipped = fs::metadata(checkout("deploy/compose/init"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(shipped & 0o111, 0o111, "it can be called by its name");
    for ignored in ["/deploy/compose/.env", "/deploy/compose/secrets"] {
        assert!(
            read(".gitignore").lines().any(|line| line == ignored),
            "{ignored}"
        );
    }
}

fn certificate() -> String {
    rcgen::generate_simple_self_signed(["keycloak".to_owned()])
        .unwrap()
        .cert
        .pem()
}

#[test]
fn the_config_is_good_where_the_container_has_it() {
    // The path is where cloakroom looks without being told.
    let warnings = cloakroom(&initialised(), &certificate()).check("/etc/cloakroom/cloakroom.yaml");
    // Plain http is for this machine only, and Keycloak sends refresh tokens without offline_access.
    let is_known = |warning: &String| warning.contains("development") || warning.contains("offline_access");
    assert!(warnings.iter().all(is_known), "{warnings:#?}");
}

#[test]
fn the_container_has_no_rights_and_time_to_stop() {
    let service = &compose()["services"]["cloakroom"];
    assert_eq!(service["read_only"], true);
    assert_eq!(service["cap_drop"], json!(["ALL"]));
    assert_eq!(service["security_opt"], json!(["no-new-privileges:true"]));
    assert_eq!(service.get("user"), None, "the image's own");
    let grace = seconds(string(service, "/stop_grace_period"));
    assert!(grace >= longest_stop(&config()) + 5, "{grace} s");
    let dockerfile = checkout("deploy/compose").join(string(service, "/build/context"));
    assert!(dockerfile.join(string(service, "/build/dockerfile")).is_file());
}

#[test]
fn it_becomes_ready_with_the_redis_beside_it_and_its_password() {
    let made = initialised();
    let (redis, cloakroom) = (redis(&made), cloakroom(&made, &certificate()));
    let (command, healthcheck) = (words("redis", "/command"), words("redis", "/healthcheck/test"));
    let command: Vec<&str> = command.iter().map(String::as_str).collect();
    assert_eq!(healthcheck[0], "CMD-SHELL");
    let said = together(
        &[(&redis, &command)],
        (&redis, &["sh", "-c", &healthcheck[1]]),
        QUICK,
    );
    assert!(said.contains("Ready to accept connections"), "{said}");
    // Ready is who has heard from the store.
    let ready = [BINARY, "healthcheck", "--url", "http://127.0.0.1:9090/readyz"];
    let said = together(
        &[(&redis, &command), (&cloakroom, &[BINARY, "run"])],
        (&cloakroom, &ready),
        QUICK,
    );
    assert!(said.contains("\"stopped\""), "{said}");
}

#[test]
fn everybody_who_reads_a_secret_is_in_its_group() {
    let compose = compose();
    for (name, service) in compose["services"].as_object().unwrap() {
        for secret in list(service, "/secrets") {
            assert!(
                compose["secrets"].get(secret.as_str().unwrap()).is_some(),
                "{name}: {secret}"
            );
            assert!(
                service["group_add"].to_string().contains("SECRETS_GROUP:?"),
                "{name}"
            );
        }
        for other in service
            .get("depends_on")
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
        {
            let (other, wanted) = (&compose["services"][other.0], string(other.1, "/condition"));
            assert!(other.is_object());
            assert_eq!(
                wanted == "service_healthy",
                other.get("healthcheck").is_some(),
                "{name}"
            );
        }
        let image = string(service, "/image").rsplit_once(':').expect("a tag").1;
        assert_ne!(image, "latest", "{name}");
        // Nobody but this machine reaches what has known passwords.
        for port in list(service, "/ports") {
            assert!(port.as_str().unwrap().starts_with("127.0.0.1:"), "{name}: {port}");
        }
    }
}

#[test]
fn the_realm_knows_the_client_that_cloakroom_is() {
    let (config, realm) = (config(), realm());
    let provider = &config["providers"]["keycloak"];
    let public_url = string(&config, "/public_url");
    let client = &realm["clients"][0];
    assert_eq!(client["clientId"], provider["client_id"]);
    assert_eq!(client["publicClient"], false);
    assert_eq!(
        client["redirectUris"],
        json!([format!("{public_url}/bff/callback")])
    );
    let landing = format!("{public_url}/");
    assert_eq!(client["attributes"]["post.logout.redirect.uris"], landing);
    assert_eq!(client["attributes"]["pkce.code.challenge.method"], "S256");
    // Signing out there reaches cloakroom under the service's name, which the config lets in; with the session it is about.
    let inside = format!("cloakroom:{}", port(string(&config, "/server/listen")));
    assert_eq!(
        client["attributes"]["backchannel.logout.url"],
        format!("http://{inside}/bff/backchannel-logout")
    );
    assert_eq!(
        client["attributes"]["backchannel.logout.session.required"],
        "true"
    );
    assert_eq!(config["server"]["hosts"], json!([inside]));
    assert_eq!(client["frontchannelLogout"], false);
    // The secret is the one of compose.yaml, by a variable of Keycloak's container.
    let keycloak = &compose()["services"]["keycloak"];
    let command = string(keycloak, "/command/0");
    assert_eq!(client["secret"], "${CLIENT_SECRET}");
    assert!(
        command.contains("export CLIENT_SECRET=\"$$(</run/secrets/client-secret)\""),
        "{command}"
    );
    assert_eq!(provider["client_secret"]["file"], "/run/secrets/client-secret");
    // Keycloak asks for what is missing of these at the first login.
    let alice = &realm["users"][0];
    for detail in ["username", "email", "firstName", "lastName"] {
        assert!(alice[detail].is_string(), "{detail}");
    }
    assert_eq!(alice["credentials"][0]["temporary"], false);
}

#[test]
fn browsers_and_cloakroom_reach_the_provider_each_by_its_own_name() {
    let (config, compose) = (config(), compose());
    let (provider, keycloak) = (&config["providers"]["keycloak"], &compose["services"]["keycloak"]);
    let realm = format!("/realms/{}", string(&realm(), "/realm"));
    // Browsers: KC_HOSTNAME, at a port that is published under the same number.
    let issuer = string(provider, "/issuer");
    let environment = &keycloak["environment"];
    assert_eq!(issuer, format!("{}{realm}", string(environment, "/KC_HOSTNAME")));
    let published = port(string(environment, "/KC_HOSTNAME"));
    assert_eq!(string(environment, "/KC_HTTP_PORT"), published.to_string());
    assert_eq!(
        keycloak["ports"],
        json!([format!("127.0.0.1:{published}:{published}")])
    );
    // cloakroom: the service's name over https, which the certificate names and the config trusts.
    let inside = format!(
        "https://keycloak:{}{realm}",
        string(environment, "/KC_HTTPS_PORT")
    );
    assert_eq!(
        provider["discovery_url"],
        format!("{inside}/.well-known/openid-configuration")
    );
    assert!(string(provider, "/endpoints/revocation").starts_with(&inside));
    assert_eq!(environment["KC_HOSTNAME_BACKCHANNEL_DYNAMIC"], "true");
    let made = string(&compose, "/services/certificate/command/0");
    assert!(
        made.contains("san=dns:keycloak") && made.contains("-file /ca/keycloak.pem"),
        "{made}"
    );
    assert_eq!(compose["services"]["certificate"]["image"], keycloak["image"]);
    // The app: public_url is what is published.
    let listens = port(string(&config, "/server/listen"));
    let outside = port(string(&config, "/public_url"));
    assert_eq!(
        compose["services"]["cloakroom"]["ports"],
        json!([format!("127.0.0.1:{outside}:{listens}")])
    );
}
