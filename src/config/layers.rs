//! The layers, file and environment, put together into the settings.
//!
//! The last step of reading the config, after the walk has made sure that everything fits. `figment` lays the
//! environment over the file and hands the result to serde, whose defaults are the lowest layer.
//!
//! INVARIANT: an error says what was expected, never what was found: that may be a secret.

use super::report::KeyPath;
use super::settings::Settings;
use super::yaml::{Node, Place, Value};
use figment::error::Kind;
use figment::value::{Dict, Map, Value as Data};
use figment::{Error, Figment, Metadata, Profile, Provider};

/// The settings in a walked tree.
///
/// # Errors
/// The key that does not fit its type, and what was expected there.
pub(super) fn settings(tree: &Node) -> Result<Settings, (KeyPath, String)> {
    let mut settings = Figment::new()
        .merge(Layer::File(tree))
        .merge(Layer::Environment(tree))
        .extract::<Settings>()
        .map_err(|error| misfit(&error))?;
    // The first provider has the short redirect path, and the layers' maps are sorted by name.
    if let Some(Value::Map(entries)) = tree.get("providers").map(|node| &node.value) {
        let position = |name: &str| entries.iter().position(|(key, _)| key.name == name);
        settings
            .providers
            .sort_by_cached_key(|provider| position(&provider.name));
    }
    Ok(settings)
}

/// The part of a tree that comes from one source. What a variable sets is in the tree as one piece, with the
/// variable for its place; so are lists, which are never mixed.
#[derive(Clone, Copy)]
enum Layer<'a> {
    File(&'a Node),
    Environment(&'a Node),
}

impl Provider for Layer<'_> {
    fn metadata(&self) -> Metadata {
        Metadata::named(match self {
            Self::File(_) => "the file",
            Self::Environment(_) => "the environment",
        })
    }

    fn data(&self) -> Result<Map<Profile, Dict>, Error> {
        let (Self::File(tree) | Self::Environment(tree)) = self;
        let dict = match &tree.value {
            Value::Map(entries) => entries
                .iter()
                .filter_map(|(key, node)| Some((key.name.clone(), self.part(node)?)))
                .collect(),
            _ => Dict::new(),
        };
        Ok(Profile::Default.collect(dict))
    }
}

impl Layer<'_> {
    /// What of a node is this layer's.
    fn part(self, node: &Node) -> Option<Data> {
        let is_own = matches!(
            (self, &node.place),
            (Self::File(_), Place::File(..)) | (Self::Environment(_), Place::Variable(_))
        );
        match &node.value {
            Value::Map(entries) => {
                let dict: Dict = entries
                    .iter()
                    .filter_map(|(key, node)| Some((key.name.clone(), self.part(node)?)))
                    .collect();
                (is_own || !dict.is_empty()).then(|| dict.into())
            }
            _ if is_own => data(node),
            _ => None,
        }
    }
}

/// A node with all that is in it. A key without a value is as good as absent.
fn data(node: &Node) -> Option<Data> {
    Some(match &node.value {
        Value::Null => return None,
        Value::Bool(truth) => (*truth).into(),
        Value::Int(number) => (*number).into(),
        Value::Float(number) => (*number).into(),
        Value::Text(text) => text.as_str().into(),
        Value::List(items) => items.iter().filter_map(data).collect::<Vec<_>>().into(),
        Value::Map(entries) => entries
            .iter()
            .filter_map(|(key, node)| Some((key.name.clone(), data(node)?)))
            .collect::<Dict>()
            .into(),
    })
}

/// An error without what was found.
fn misfit(error: &Error) -> (KeyPath, String) {
    let path = error.path.iter().fold(KeyPath::default(), |path, step| {
        step.parse()
            .map_or_else(|_| path.key(step), |index| path.index(index))
    });
    let message = match &error.kind {
        Kind::InvalidType(_, wanted) | Kind::InvalidValue(_, wanted) | Kind::InvalidLength(_, wanted) => {
            format!("does not fit; wanted: {wanted}")
        }
        Kind::UnknownVariant(_, wanted) => format!("does not fit; wanted: one of {wanted:?}"),
        Kind::UnknownField(_, wanted) => format!("does not fit; wanted: the keys {wanted:?}"),
        Kind::MissingField(name) => format!("lacks {name}"),
        _ => "does not fit".into(),
    };
    (path, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::yaml::parse;

    #[test]
    fn a_misfit_names_its_key_and_not_its_value() {
        let file = |line, column| Place::File("f".into(), line, column);
        for (text, wanted) in [
            ("{public_url: [canary]}", "public_url: does not fit; wanted: "),
            (
                "{routes: [{path: /, csrf: canary}]}",
                "routes[0].csrf: does not fit; wanted: one of",
            ),
            ("{canary: 1}", "canary: does not fit; wanted: the keys"),
            ("{prefix: /x}", ": lacks public_url"),
        ] {
            let tree = parse(text, &file).unwrap();
            let (path, message) = settings(&tree).unwrap_err();
            let line = format!("{path}: {message}");
            assert!(line.starts_with(wanted), "{line}");
            assert!(!message.contains("canary"), "{line}");
        }
    }
}
