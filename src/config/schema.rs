//! The JSON Schema of the config, and how the rest of this folder reads it.
//!
//! It comes out of the types in `settings`. Editors get it from `cloakroom schema`; the walk over the file and the
//! names of the environment variables come from the same value. Two keywords of our own: `x-form` names a form of
//! text in `units`, `x-secret` marks what no message may repeat.

use super::settings::Settings;
use super::units::{FORMS, Form};
use schemars::Schema;
use schemars::generate::SchemaSettings;
use schemars::transform::RecursiveTransform;
use serde_json::Value;
use std::sync::LazyLock;

/// The schema. Without references: each key's description stands where the key is.
pub(super) static SCHEMA: LazyLock<Value> = LazyLock::new(|| {
    let settings = SchemaSettings::draft07().with(|settings| settings.inline_subschemas = true);
    let mut schema = settings
        .with_transform(RecursiveTransform(drop_useless_defaults))
        .into_generator()
        .into_root_schema_for::<Settings>();
    schema.insert("title".into(), "cloakroom's config".into());
    schema.insert("description".into(), "Every key of cloakroom.yaml.".into());
    schema.to_value()
});

/// Defaults that tell a reader nothing: "not set", and "one or more" without one.
fn drop_useless_defaults(schema: &mut Schema) {
    let useless = match schema.get("default") {
        Some(Value::Array(items)) => items.is_empty() && schema.get("anyOf").is_some(),
        Some(Value::Null | Value::Object(_)) => true,
        _ => false,
    };
    if useless {
        schema.remove("default");
    }
}

/// The schema, pretty-printed, with a line break at its end.
pub(super) fn pretty() -> String {
    format!("{:#}\n", *SCHEMA)
}

/// What a schema offers to choose from: itself where it is no choice.
pub(super) fn alternatives(schema: &Value) -> Vec<&Value> {
    match schema
        .get("anyOf")
        .or_else(|| schema.get("oneOf"))
        .and_then(Value::as_array)
    {
        Some(choices) => choices.iter().flat_map(alternatives).collect(),
        None => vec![schema],
    }
}

/// Whether a schema (no choice) takes values of a type.
pub(super) fn takes(schema: &Value, kind: &str) -> bool {
    match schema.get("type") {
        Some(Value::String(only)) => only == kind,
        Some(Value::Array(kinds)) => kinds.iter().any(|one| one == kind),
        _ => false,
    }
}

/// The alternatives that take values of a type.
pub(super) fn taking<'a>(schema: &'a Value, kind: &str) -> Vec<&'a Value> {
    alternatives(schema)
        .into_iter()
        .filter(|choice| takes(choice, kind))
        .collect()
}

/// The words that a schema (no choice) lists; empty where it takes any text.
pub(super) fn words(schema: &Value) -> Vec<&str> {
    let listed = schema
        .get("enum")
        .and_then(Value::as_array)
        .map_or(&[][..], Vec::as_slice);
    schema
        .get("const")
        .into_iter()
        .chain(listed)
        .filter_map(Value::as_str)
        .collect()
}

/// The form that a schema (no choice) wants a text to have.
pub(super) fn form(schema: &Value) -> Option<&'static Form> {
    let name = schema.get("x-form")?.as_str()?;
    FORMS.iter().find(|form| form.name == name)
}

/// Whether a schema is that of one secret.
pub(super) fn is_secret(schema: &Value) -> bool {
    schema.get("x-secret").is_some()
        || alternatives(schema).len() > 1
            && ["anyOf", "oneOf"]
                .iter()
                .filter_map(|choice| schema.get(*choice)?.as_array())
                .flatten()
                .any(is_secret)
}

/// Whether there is a secret anywhere in what a schema describes.
pub(super) fn holds_secret(schema: &Value) -> bool {
    match schema {
        Value::Object(map) => map.contains_key("x-secret") || map.values().any(holds_secret),
        Value::Array(items) => items.iter().any(holds_secret),
        _ => false,
    }
}

/// The keys that a section may have, with their schemas, over all its alternatives; `*` is any name.
pub(super) fn keys(schema: &Value) -> Vec<(&str, &Value)> {
    let objects = taking(schema, "object");
    let named = objects
        .iter()
        .filter_map(|object| object.get("properties")?.as_object());
    let any = objects
        .iter()
        .filter_map(|object| object.get("additionalProperties").filter(|any| any.is_object()));
    named
        .flat_map(|properties| properties.iter().map(|(name, schema)| (name.as_str(), schema)))
        .chain(any.map(|schema| ("*", schema)))
        .collect()
}

/// The schema of a key in a section.
pub(super) fn key<'a>(schema: &'a Value, name: &str) -> Option<&'a Value> {
    let all = keys(schema);
    let named = all.iter().find(|(key, _)| *key == name);
    named
        .or_else(|| all.iter().find(|(key, _)| *key == "*"))
        .map(|(_, schema)| *schema)
}

/// The paths of all keys of the config, sections included, down to lists.
pub(super) static PATHS: LazyLock<Vec<Vec<&str>>> = LazyLock::new(|| paths(&SCHEMA));

fn paths(schema: &Value) -> Vec<Vec<&str>> {
    let mut all = Vec::new();
    for (name, schema) in keys(schema) {
        all.push(vec![name]);
        all.extend(
            paths(schema)
                .into_iter()
                .map(|below| [vec![name], below].concat()),
        );
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_described_and_nothing_unknown_is_let_in() {
        fn visit(schema: &Value, path: &str) {
            for object in taking(schema, "object") {
                assert!(object.get("additionalProperties").is_some(), "{path}");
            }
            for (name, schema) in keys(schema) {
                let path = format!("{path}.{name}");
                assert!(name == "*" || schema.get("description").is_some(), "{path}");
                visit(schema, &path);
            }
            for list in taking(schema, "array") {
                visit(&list["items"], &format!("{path}[]"));
            }
        }
        visit(&SCHEMA, "");
    }

    #[test]
    fn the_file_for_editors_is_the_schema() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        if std::fs::read_to_string(root.join("config/schema.json")).ok() != Some(pretty()) {
            std::fs::create_dir_all(root.join("target")).unwrap();
            std::fs::write(root.join("target/schema.json"), pretty()).unwrap();
            panic!("config/schema.json is out of date: copy target/schema.json over it");
        }
    }
}
