//! Collects mistakes and warnings, each with its place and its key.
//!
//! Both the walk over the file and the checks of its meaning write here, so that all mistakes come out at once and in
//! the file's order.

use super::yaml::{Node, Place, Value};
use std::fmt;

/// One mistake: where, what was found, what is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// `file:line:column`, or the name of the environment variable.
    pub place: String,
    /// The key's path: `session.idle_timeout`, `routes[1].path`.
    pub key: String,
    /// What was found, what is wanted and what to do, in one sentence or two. Never a secret.
    pub message: String,
}

/// `file:line:column: key: message`
impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { place, key, message } = self;
        if key.is_empty() {
            write!(f, "{place}: {message}")
        } else {
            write!(f, "{place}: {key}: {message}")
        }
    }
}

/// The way from the root of the config to a value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct KeyPath(Vec<Step>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Key(String),
    Index(usize),
}

impl KeyPath {
    /// A key of the root.
    pub fn root(key: &str) -> Self {
        Self::default().key(key)
    }

    /// A key of what stands here.
    pub fn key(&self, name: &str) -> Self {
        let mut steps = self.0.clone();
        steps.push(Step::Key(name.to_owned()));
        Self(steps)
    }

    /// An item of what stands here, from 0.
    pub fn index(&self, index: usize) -> Self {
        let mut steps = self.0.clone();
        steps.push(Step::Index(index));
        Self(steps)
    }

    fn is_under(&self, other: &Self) -> bool {
        self.0.starts_with(&other.0)
    }
}

/// `routes[1].path`
impl fmt::Display for KeyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, step) in self.0.iter().enumerate() {
            match step {
                Step::Key(name) if i == 0 => f.write_str(&shown_key(name))?,
                Step::Key(name) => write!(f, ".{}", shown_key(name))?,
                Step::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

/// A key as messages show it: as far as it looks like one. What comes after that may be a secret, as in
/// `{client_secret:hunter2}`, where a space is missing.
fn shown_key(name: &str) -> String {
    let is_key = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.');
    match name.find(|c| !is_key(c)) {
        None => shown(name),
        Some(end) => format!("{}…", shown(&name[..end])),
    }
}

/// A text as messages show it: on one line, and not without end.
pub(super) fn shown(text: &str) -> String {
    const LONGEST: usize = 60;
    let escaped: String = text.chars().take(LONGEST).flat_map(char::escape_debug).collect();
    let rest = if text.chars().nth(LONGEST).is_some() {
        "…"
    } else {
        ""
    };
    // `escape_debug` also escapes quotes, which is for Rust's readers only.
    escaped.replace("\\\"", "\"").replace("\\'", "'") + rest
}

/// A text that was found, for keys that hold no secret; not repeated if there is an `@` in it, which is how passwords
/// come in URLs.
pub(super) fn quoted(text: &str) -> String {
    if text.contains('@') {
        "a text".into()
    } else {
        format!("`{}`", shown(text))
    }
}

/// A line without line breaks and escape sequences: the names of files and variables stand in it as they are.
fn on_one_line(text: String) -> String {
    if !text.contains(char::is_control) {
        return text;
    }
    let mut line = String::with_capacity(text.len());
    for sign in text.chars() {
        if sign.is_control() {
            line.extend(sign.escape_debug());
        } else {
            line.push(sign);
        }
    }
    line
}

/// What was found and not accepted, so far.
#[derive(Debug, Default)]
pub(super) struct Report {
    mistakes: Vec<(Place, Mistake)>,
    /// Where a value was replaced by a stand-in: what is said about stand-ins is not worth saying.
    broken: Vec<KeyPath>,
    warnings: Vec<(Place, String)>,
}

impl Report {
    /// Adds a mistake that makes the value unusable.
    pub fn broken(&mut self, place: &Place, path: &KeyPath, message: String) {
        self.broken.push(path.clone());
        self.add(place, path.to_string(), message);
    }

    /// Adds a mistake that has a place but no key.
    pub fn add(&mut self, place: &Place, key: String, message: String) {
        let mistake = Mistake {
            place: on_one_line(place.to_string()),
            key,
            message: on_one_line(message),
        };
        self.mistakes.push((place.clone(), mistake));
    }

    /// Adds a warning.
    pub fn warn(&mut self, place: &Place, key: &str, message: &str) {
        let separator = if key.is_empty() { "" } else { ": " };
        let warning = on_one_line(format!("{place}: {key}{separator}{message}"));
        self.warnings.push((place.clone(), warning));
    }

    /// Whether anything was refused.
    pub fn has_mistakes(&self) -> bool {
        !self.mistakes.is_empty()
    }

    /// The warnings, in the file's order, or all mistakes in that order.
    pub fn finish(mut self) -> Result<Vec<String>, Vec<Mistake>> {
        self.mistakes.sort_by(|(a, _), (b, _)| a.cmp(b));
        self.warnings.sort_by(|(a, _), (b, _)| a.cmp(b));
        if self.mistakes.is_empty() {
            Ok(self.warnings.into_iter().map(|(_, warning)| warning).collect())
        } else {
            Err(self.mistakes.into_iter().map(|(_, mistake)| mistake).collect())
        }
    }
}

/// Where the checks of the meaning write: they know keys, the tree knows places.
pub(super) struct Findings<'a> {
    tree: &'a Node,
    report: &'a mut Report,
    /// Whether this is a pod of Kubernetes, whose probes come from outside of it.
    pub in_pod: bool,
}

impl<'a> Findings<'a> {
    pub fn new(tree: &'a Node, report: &'a mut Report, in_pod: bool) -> Self {
        Self { tree, report, in_pod }
    }

    /// Whether the key stands in the file or the environment, rather than being a default.
    pub fn is_set(&self, path: &KeyPath) -> bool {
        self.locate(path).1
    }

    /// Whether the key stands in the file.
    pub fn is_in_file(&self, path: &KeyPath) -> bool {
        let (place, is_set, _) = self.locate(path);
        is_set && matches!(place, Place::File(..))
    }

    /// Adds a mistake, unless the value is a stand-in for one that was refused already.
    pub fn refuse(&mut self, path: &KeyPath, message: impl Into<String>) {
        if !self.report.broken.iter().any(|broken| path.is_under(broken)) {
            let (place, _, path) = self.locate(path);
            self.report.add(&place, path.to_string(), message.into());
        }
    }

    /// Adds a warning.
    pub fn warn(&mut self, path: &KeyPath, message: &str) {
        let (place, _, path) = self.locate(path);
        self.report.warn(&place, &path.to_string(), message);
    }

    /// The place of a key's value, or of the nearest section around it; whether it was found; and the path without
    /// the index `[0]` of a list that was written as a single value.
    fn locate(&self, path: &KeyPath) -> (Place, bool, KeyPath) {
        let mut node = Some(self.tree);
        let mut around = &self.tree.place;
        let mut walked = KeyPath::default();
        for step in &path.0 {
            match step {
                Step::Key(name) => {
                    walked.0.push(step.clone());
                    let entry = node.and_then(|node| node.entry(name));
                    around = entry.map_or(around, |(key, _)| &key.place);
                    node = entry.map(|(_, value)| value);
                }
                Step::Index(index) => match node.map(|node| &node.value) {
                    Some(Value::List(items)) => {
                        walked.0.push(step.clone());
                        node = items.get(*index);
                        around = node.map_or(around, |node| &node.place);
                    }
                    Some(_) => {}
                    None => walked.0.push(step.clone()),
                },
            }
        }
        (
            node.map_or(around, |node| &node.place).clone(),
            node.is_some(),
            walked,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_shown_on_one_short_line() {
        assert_eq!(shown("a\nb\u{1b}[1m\"'ü"), "a\\nb\\u{1b}[1m\"'ü");
        assert_eq!(shown(&"x".repeat(1000)).chars().count(), 61);
    }

    #[test]
    fn names_of_files_and_variables_break_no_line() {
        let mut report = Report::default();
        let place = Place::Variable("A\nB\u{1b}[1m".into());
        report.warn(&place, "", "is ü");
        assert_eq!(report.warnings[0].1, "A\\nB\\u{1b}[1m: is ü");
        report.add(&place, "k".into(), "/a\rb cannot be read".into());
        let mistakes = report.finish().unwrap_err();
        assert_eq!(
            mistakes[0].to_string(),
            "A\\nB\\u{1b}[1m: k: /a\\rb cannot be read"
        );
    }

    #[test]
    fn a_mistake_is_place_key_and_message() {
        let mistake = Mistake {
            place: "f:1:2".into(),
            key: "a[1].b".into(),
            message: "is wrong".into(),
        };
        assert_eq!(mistake.to_string(), "f:1:2: a[1].b: is wrong");
        assert_eq!(KeyPath::root("a").index(1).key("b").to_string(), "a[1].b");
    }
}
