//! The manifests: rendered by kustomize, judged by Kubernetes' own schemas, and held against the config that they carry.

use crate::support::container::{BINARY, Container, QUICK, together};
use crate::support::{
    documents, list, longest_stop, outcome, port, read, string, stub_secret, succeeds, tool, yaml,
};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use tempfile::TempDir;

const OVERLAYS: [&str; 3] = ["gateway", "ingress-companion", "sidecar"];
/// The oldest and the newest Kubernetes that the schemas are there for.
const VERSIONS: [&str; 2] = ["1.33", "1.37"];
/// Seconds that a pod has to spare when everything was cut at the end of `drain_timeout`.
const MARGIN: u64 = 5;

/// What an overlay renders to.
struct Rendered {
    text: String,
    objects: Vec<Value>,
}

fn render(overlay: &str) -> Rendered {
    let folder = crate::support::checkout("deploy/kubernetes/overlays").join(overlay);
    let text = succeeds(tool("kubectl").arg("kustomize").arg(folder));
    let objects = documents(&text);
    Rendered { text, objects }
}

impl Rendered {
    fn of_kind(&self, kind: &str) -> Vec<&Value> {
        self.objects
            .iter()
            .filter(|object| object["kind"] == kind)
            .collect()
    }

    fn one(&self, kind: &str) -> &Value {
        let found = self.of_kind(kind);
        assert_eq!(found.len(), 1, "one {kind}");
        found[0]
    }

    /// The only Deployment's pod.
    fn pod(&self) -> &Value {
        &self.one("Deployment")["spec"]["template"]["spec"]
    }

    fn cloakroom(&self) -> &Value {
        let mut containers = list(self.pod(), "/containers").iter();
        containers
            .find(|container| container["name"] == "cloakroom")
            .expect("cloakroom")
    }

    /// The config that its `ConfigMap` holds.
    fn config(&self) -> Value {
        yaml(string(self.one("ConfigMap"), "/data/cloakroom.yaml"))
    }

    /// cloakroom's environment, in a pod whose address is 127.0.0.1.
    fn environment(&self) -> BTreeMap<String, String> {
        let mut environment = BTreeMap::new();
        for variable in list(self.cloakroom(), "/env") {
            let value = match variable.pointer("/valueFrom/fieldRef/fieldPath") {
                Some(field) => {
                    assert_eq!(field, "status.podIP");
                    "127.0.0.1".to_owned()
                }
                // Kubernetes fills in the variables that stand above.
                None => environment.iter().fold(
                    string(variable, "/value").to_owned(),
                    |value, (name, known): (&String, &String)| value.replace(&format!("$({name})"), known),
                ),
            };
            environment.insert(string(variable, "/name").to_owned(), value);
        }
        environment
    }

    /// The number of a named port of any container.
    fn port(&self, name: &str) -> u64 {
        let containers = list(self.pod(), "/containers").iter();
        let mut ports = containers.flat_map(|container| list(container, "/ports"));
        let found = ports
            .find(|port| port["name"] == name)
            .unwrap_or_else(|| panic!("no port {name}"));
        found["containerPort"].as_u64().unwrap()
    }
}

/// What Kubernetes' schema for a version says of objects, unknown fields included.
fn judge(text: &str, version: &str) -> (bool, String) {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("objects.yaml");
    fs::write(&file, text).unwrap();
    let (good, said) = outcome(
        tool("kubernetes-validate")
            .args(["--strict", "-k", version])
            .arg(&file),
    );
    // A kind without a schema is only a warning to it.
    (good && !said.contains("WARN"), said)
}

#[test]
fn every_object_is_one_that_kubernetes_takes() {
    for overlay in OVERLAYS {
        let rendered = render(overlay);
        for version in VERSIONS {
            let (good, said) = judge(&rendered.text, version);
            assert!(good, "{overlay}: {said}");
            assert_eq!(
                said.matches(" passed for resource ").count(),
                rendered.objects.len(),
                "{said}"
            );
        }
    }
    // The judge is strict: a key that does not exist and one of the wrong type.
    let good = render("gateway").text;
    for (from, to) in [("maxSurge: 1", "maxSurges: 1"), ("replicas: 2", "replicas: two")] {
        assert!(good.contains(from));
        assert!(!judge(&good.replacen(from, to, 1), VERSIONS[1]).0, "{to}");
    }
}

/// A pod's volumes as a container of the suite has them, secrets with made-up values.
fn container(rendered: &Rendered) -> Container {
    let (pod, map) = (rendered.pod(), rendered.one("ConfigMap"));
    let user = rendered.cloakroom()["securityContext"]["runAsUser"]
        .as_u64()
        .unwrap();
    let mut container = Container::of_the_suite().user(user.try_into().unwrap());
    for (name, value) in rendered.environment() {
        container = container.with(&["--setenv", &name, &value]);
    }
    for mount in list(rendered.cloakroom(), "/volumeMounts") {
        let mut volumes = list(pod, "/volumes").iter();
        let volume = volumes
            .find(|volume| volume["name"] == mount["name"])
            .expect("the volume");
        let folder = Path::new(string(mount, "/mountPath"));
        let inside = |name: &str| folder.join(name).display().to_string();
        assert_eq!(mount["readOnly"], true);
        assert_eq!(
            mount.get("subPath"),
            None,
            "a file mounted by subPath is never updated"
        );
        if volume.get("configMap").is_some() {
            assert_eq!(
                volume["configMap"]["name"], map["metadata"]["name"],
                "kustomize filled in the hashed name"
            );
            container.file(
                &inside("cloakroom.yaml"),
                string(map, "/data/cloakroom.yaml"),
                0o644,
            );
        } else {
            let mode = volume["secret"]["defaultMode"].as_u64().unwrap();
            // The kubelet gives the files to fsGroup. Others may not read them, or `check` complains.
            assert_eq!(pod["securityContext"]["fsGroup"], user);
            for item in list(volume, "/secret/items") {
                let value = stub_secret(string(item, "/key"));
                container.file(&inside(string(item, "/path")), &value, mode.try_into().unwrap());
            }
        }
    }
    container
}

/// Panics unless an overlay's config is good where its pod has it, and nothing is to be said about it.
fn has_a_good_config(overlay: &str) {
    let rendered = render(overlay);
    let arguments = list(rendered.cloakroom(), "/args");
    assert_eq!(arguments[..2], ["run", "--config"]);
    let warnings = container(&rendered).check(arguments[2].as_str().unwrap());
    assert!(warnings.is_empty(), "{overlay}: {warnings:#?}");
}

#[test]
fn the_gateway_has_a_good_config() {
    has_a_good_config("gateway");
}

#[test]
fn the_sidecar_has_a_good_config() {
    has_a_good_config("sidecar");
}

#[test]
fn the_ingress_companion_has_a_good_config() {
    has_a_good_config("ingress-companion");
}

#[test]
fn a_pod_answers_its_own_probes_and_stops_when_asked() {
    let rendered = render("gateway");
    let container = container(&rendered);
    let liveness = &rendered.cloakroom()["livenessProbe"]["httpGet"];
    let url = format!(
        "http://127.0.0.1:{}{}",
        rendered.port(string(liveness, "/port")),
        string(liveness, "/path")
    );
    // Readiness waits for the store, which is not there; the drain's length is the config's.
    let arguments = list(rendered.cloakroom(), "/args")
        .iter()
        .map(|word| word.as_str().unwrap());
    let run: Vec<&str> = std::iter::once(BINARY).chain(arguments).collect();
    let said = together(
        &[(&container, &run)],
        (&container, &[BINARY, "healthcheck", "--url", &url]),
        QUICK,
    );
    assert!(
        said.contains("not ready any more, still accepting") && said.contains("\"stopped\""),
        "{said}"
    );
}

#[test]
fn a_pod_has_time_to_drain() {
    for overlay in OVERLAYS {
        let rendered = render(overlay);
        let longest = longest_stop(&rendered.config());
        let grace = rendered.pod()["terminationGracePeriodSeconds"].as_u64().unwrap();
        assert!(
            grace >= longest + MARGIN,
            "{overlay}: {longest} s to stop, {grace} s of grace"
        );
        // What cloakroom sends requests to in the same pod is there as long, and has time to stop after that.
        let others = list(rendered.pod(), "/containers").iter();
        for other in others.filter(|container| container["name"] != "cloakroom") {
            let sleep = other["lifecycle"]["preStop"]["sleep"]["seconds"]
                .as_u64()
                .unwrap();
            assert!(
                (longest..=grace - MARGIN).contains(&sleep),
                "{overlay}: sleeps {sleep} s of {longest}"
            );
        }
    }
}

#[test]
fn ports_are_those_that_the_config_listens_on() {
    for overlay in OVERLAYS {
        let rendered = render(overlay);
        let server = rendered.config()["server"].clone();
        let listeners = [
            ("http", "listen"),
            ("admin", "admin"),
            ("forward-auth", "forward_auth"),
        ];
        let admin = rendered.environment()["CLOAKROOM_SERVER__ADMIN"].clone();
        let listens: Vec<(&str, u64)> = listeners
            .iter()
            .filter_map(|(name, key)| {
                let address = if *key == "admin" {
                    &admin
                } else {
                    server.get(key)?.as_str()?
                };
                Some((*name, port(address)))
            })
            .collect();
        let declared: Vec<(&str, u64)> = list(rendered.cloakroom(), "/ports")
            .iter()
            .map(|port| (string(port, "/name"), port["containerPort"].as_u64().unwrap()))
            .collect();
        assert_eq!(declared, listens, "{overlay}");
        for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
            assert_eq!(
                rendered.cloakroom()[probe]["httpGet"]["port"],
                "admin",
                "{overlay}: {probe}"
            );
        }
        let service = rendered.one("Service");
        for port in list(service, "/spec/ports") {
            let target = string(port, "/targetPort");
            assert_eq!(port["port"], rendered.port(target));
            assert_ne!(target, "admin", "the admin listener is in no Service");
        }
        assert_eq!(
            service["spec"]["selector"],
            rendered.one("Deployment")["spec"]["template"]["metadata"]["labels"]
        );
    }
}

#[test]
fn only_the_ingress_and_the_monitoring_may_connect() {
    for overlay in OVERLAYS {
        let rendered = render(overlay);
        let policy = &rendered.one("NetworkPolicy")["spec"];
        assert_eq!(policy["policyTypes"], json!(["Ingress"]));
        let labels = &rendered.one("Deployment")["spec"]["template"]["metadata"]["labels"];
        assert_eq!(&policy["podSelector"]["matchLabels"], labels);
        let allowed = list(policy, "/ingress").iter().map(|rule| {
            let from = list(rule, "/from");
            assert_eq!(from.len(), 1);
            let namespace = &from[0]["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"];
            let ports: Vec<&str> = list(rule, "/ports")
                .iter()
                .map(|port| string(port, "/port"))
                .collect();
            (namespace.as_str().unwrap(), ports)
        });
        let allowed: Vec<_> = allowed.collect();
        let open = if overlay == "ingress-companion" {
            vec!["http", "forward-auth"]
        } else {
            vec!["http"]
        };
        assert_eq!(
            allowed,
            [("ingress-nginx", open), ("monitoring", vec!["admin"])],
            "{overlay}"
        );
    }
}

#[test]
fn containers_have_no_rights() {
    for overlay in OVERLAYS {
        let rendered = render(overlay);
        let pod = rendered.pod();
        for container in list(pod, "/containers") {
            let context = &container["securityContext"];
            for (key, wanted) in [
                ("runAsNonRoot", json!(true)),
                ("readOnlyRootFilesystem", json!(true)),
                ("allowPrivilegeEscalation", json!(false)),
                ("capabilities", json!({ "drop": ["ALL"] })),
                ("seccompProfile", json!({ "type": "RuntimeDefault" })),
            ] {
                assert_eq!(context[key], wanted, "{overlay}: {key}");
            }
            assert!(container["resources"]["limits"]["memory"].is_string());
            assert!(container["resources"]["requests"]["cpu"].is_string());
            let tag = string(container, "/image").rsplit_once(':').expect("a tag").1;
            assert_ne!(tag, "latest");
        }
        assert_eq!(pod["automountServiceAccountToken"], false);
        // Else a Service such as cloakroom-redis puts variables into the pod that look like settings.
        assert_eq!(pod["enableServiceLinks"], false);
        assert!(
            rendered.of_kind("Secret").is_empty(),
            "secrets are named, never carried"
        );
    }
    // The image's user is the pod's.
    let user = crate::support::dockerfile::stages("amd64")["image"].setting("USER")[0].clone();
    let context = render("gateway").cloakroom()["securityContext"].clone();
    assert_eq!(
        format!("{}:{}", context["runAsUser"], context["runAsGroup"]),
        user
    );
}

#[test]
fn pods_are_replaced_one_by_one_and_spread() {
    for overlay in OVERLAYS {
        let rendered = render(overlay);
        let deployment = &rendered.one("Deployment")["spec"];
        assert!(deployment["replicas"].as_u64().unwrap() >= 2);
        assert_eq!(
            deployment["strategy"]["rollingUpdate"],
            json!({ "maxSurge": 1, "maxUnavailable": 0 })
        );
        let labels = &deployment["template"]["metadata"]["labels"];
        assert_eq!(&deployment["selector"]["matchLabels"], labels);
        let budget = &rendered.one("PodDisruptionBudget")["spec"];
        assert_eq!(
            (&budget["selector"]["matchLabels"], &budget["maxUnavailable"]),
            (labels, &json!(1))
        );
        let spread = list(rendered.pod(), "/topologySpreadConstraints");
        assert_eq!(spread[0]["topologyKey"], "kubernetes.io/hostname");
        for constraint in spread {
            assert_eq!(&constraint["labelSelector"]["matchLabels"], labels);
        }
        // Several replicas share sessions only through Redis.
        assert!(rendered.config()["session"]["store"]["redis"].is_object());
    }
}

/// The backend of a path of an Ingress: service and port.
fn backend<'a>(rendered: &'a Rendered, path: &str) -> (&'a str, &'a Value, &'a Value) {
    let ingresses = rendered.of_kind("Ingress").into_iter();
    let mut all = ingresses.flat_map(|ingress| {
        let rules = list(ingress, "/spec/rules").iter();
        rules.flat_map(move |rule| {
            list(rule, "/http/paths")
                .iter()
                .map(move |path| (ingress, rule, path))
        })
    });
    let (ingress, rule, found) = all.find(|(_, _, one)| one["path"] == path).unwrap();
    let public_url = format!("https://{}", string(rule, "/host"));
    assert_eq!(
        rendered.config()["public_url"],
        public_url,
        "the Ingress's host is that of public_url"
    );
    assert_eq!(ingress["spec"]["tls"][0]["hosts"], json!([rule["host"]]));
    let service = &found["backend"]["service"];
    (
        string(service, "/name"),
        &service["port"],
        &ingress["metadata"]["annotations"],
    )
}

#[test]
fn everything_goes_through_cloakroom_where_it_is_the_gateway_or_a_sidecar() {
    for (overlay, name) in [("gateway", "cloakroom"), ("sidecar", "orders")] {
        let rendered = render(overlay);
        let (service, port, _) = backend(&rendered, "/");
        assert_eq!((service, port), (name, &json!({ "name": "http" })), "{overlay}");
        assert_eq!(rendered.one("Service")["metadata"]["name"], name);
        assert_eq!(rendered.of_kind("Ingress").len(), 1);
    }
    // In the sidecar's pod the app is reached on the loopback interface, at the port that it is told.
    let sidecar = render("sidecar");
    let app = &list(sidecar.pod(), "/containers")[1];
    let address = string(&list(app, "/env")[0], "/value");
    for route in list(&sidecar.config(), "/routes") {
        assert_eq!(route["upstream"], format!("http://{address}"));
    }
}

#[test]
fn the_ingress_asks_about_every_path_but_the_open_ones() {
    let rendered = render("ingress-companion");
    let config = rendered.config();
    let (service, port, open) = backend(&rendered, "/bff");
    assert_eq!(
        (service, port, open),
        ("cloakroom", &json!({ "name": "http" }), &Value::Null)
    );
    assert_eq!(config["server"]["forward_auth_dialect"], "nginx");
    assert!(!list(&config, "/server/trusted_proxies").is_empty());
    let asked = |annotations: &Value| {
        // Kubernetes' name for the Service, with the port of the listener.
        let service = rendered.one("Service");
        let number = rendered.port("forward-auth");
        let ports = list(service, "/spec/ports");
        assert!(
            ports
                .iter()
                .any(|port| port["port"] == number && port["targetPort"] == "forward-auth")
        );
        let namespace = string(service, "/metadata/namespace");
        let url = format!(
            "http://{}.{namespace}.svc.cluster.local:{number}/",
            string(service, "/metadata/name")
        );
        assert_eq!(annotations["nginx.ingress.kubernetes.io/auth-url"], url);
        // Contract 6.2: whatever is not copied passes as the browser sent it.
        let headers = "Authorization,X-Auth-Request-User,X-Auth-Request-Email,X-Auth-Request-Groups";
        assert_eq!(
            annotations["nginx.ingress.kubernetes.io/auth-response-headers"],
            headers
        );
    };
    for route in list(&config, "/routes") {
        let (_, _, annotations) = backend(&rendered, string(route, "/path"));
        asked(annotations);
        assert_eq!(route.get("upstream"), None);
        // A page leads to the login and comes back; a script gets its 401.
        let signin = annotations
            .get("nginx.ingress.kubernetes.io/auth-signin")
            .and_then(Value::as_str);
        let wanted = "https://app.example.com/bff/login?return_to=$escaped_request_uri";
        assert_eq!(signin, (route["pages"] == true).then_some(wanted));
    }
    // The listener that hands out tokens is nobody's backend.
    for ingress in rendered.of_kind("Ingress") {
        assert!(
            !ingress["spec"].to_string().contains("forward-auth")
                && !ingress["spec"].to_string().contains("9091")
        );
    }
}

#[test]
fn the_pages_name_the_files_that_are_there() {
    let page = read("deploy/kubernetes/README.md");
    for overlay in OVERLAYS {
        assert!(page.contains(&format!("overlays/{overlay}")), "{overlay}");
    }
    for key in ["client-secret", "session-key", "redis-password"] {
        assert!(page.contains(key), "{key}");
    }
}
