//! YAML as a tree in which every key and value knows where it stands.
//!
//! The first step of reading the config, for the file and for each environment variable. Plain scalars have the types
//! of YAML 1.2's core schema (§10.3), so `off`, `no` and `12:30` are texts. What a config does not need and a
//! hostile file lives on is refused: aliases, tags, several documents, deep nesting.
//!
//! INVARIANT: no message repeats what stands in the text, which may be a secret.

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError};
use std::fmt;
use std::sync::Arc;

/// The deepest nesting; the config itself needs eight.
const DEEPEST: usize = 64;
/// The most keys and values.
const MOST_NODES: usize = 10_000;

/// Where something stands. Places in the file come first, in its order.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// In a file: its name, line and column, both from 1.
    File(Arc<str>, usize, usize),
    /// In an environment variable of this name.
    Variable(Arc<str>),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(name, line, column) => write!(f, "{name}:{line}:{column}"),
            Self::Variable(name) => f.write_str(name),
        }
    }
}

/// A value and its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    pub place: Place,
    pub value: Value,
}

/// A value. Floating-point numbers are kept although no key takes one: a mistake should say what was found.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    /// In the text's order; a key may be there twice, which is for the walk to refuse.
    Map(Vec<(Key, Node)>),
}

/// A key and its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Key {
    pub name: String,
    pub place: Place,
}

impl Node {
    /// The value of a key, if this is a map that has it.
    pub fn get(&self, name: &str) -> Option<&Node> {
        self.entry(name).map(|(_, value)| value)
    }

    /// A key and its value, if this is a map that has it.
    pub fn entry(&self, name: &str) -> Option<&(Key, Node)> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|(key, _)| key.name == name),
            _ => None,
        }
    }
}

/// What is wrong with a text, where.
pub type Refusal = (Place, String);

/// Parses one document. `place` says where a line and a column are.
///
/// # Errors
/// The first thing that is no YAML, or is YAML that the config does without.
pub fn parse(text: &str, place: &dyn Fn(usize, usize) -> Place) -> Result<Node, Refusal> {
    // Columns count from 0 in the parser, from 1 in editors.
    let place_of = |mark: &Marker| place(mark.line(), mark.col() + 1);
    let mut builder = Builder::default();
    let mut documents = 0;
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| (place_of(error.marker()), not_yaml(&error)))?;
        let at = place_of(&span.start);
        let fed = match event {
            Event::DocumentStart(_) => {
                documents += 1;
                if documents > 1 {
                    Err(SECOND_DOCUMENT)
                } else {
                    Ok(())
                }
            }
            Event::Alias(_) => Err(ALIAS),
            Event::Scalar(_, _, _, Some(_))
            | Event::SequenceStart(_, Some(_))
            | Event::MappingStart(_, Some(_)) => Err(TAG),
            Event::Scalar(text, style, _, None) => builder.scalar(at.clone(), text.into_owned(), style),
            Event::SequenceStart(_, None) => builder.open(at.clone(), Value::List(Vec::new())),
            Event::MappingStart(_, None) => builder.open(at.clone(), Value::Map(Vec::new())),
            Event::SequenceEnd | Event::MappingEnd => builder.close(),
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
        };
        fed.map_err(|refusal| (at, refusal.to_owned()))?;
    }
    Ok(builder.root.unwrap_or_else(|| Node {
        place: place(1, 1),
        value: Value::Null,
    }))
}

const SECOND_DOCUMENT: &str = "a second document begins here; wanted: one document, so no further `---`";
const ALIAS: &str = "aliases (`*name`) are not supported: write the value out";
const TAG: &str = "tags (`!name`) are not supported: put a text in quotes to keep it a text";
const MERGE: &str = "merge keys (`<<`) are not supported: write the keys out";
const NO_KEY: &str = "there is a `:` here, and no key before it";
const NO_TEXT_KEY: &str =
    "a list or a section stands where a key is wanted; a text with brackets or braces needs quotes";
const TOO_DEEP: &str = "lists and sections are nested deeper than 64 here";
const TOO_MANY: &str = "there are more than 10000 keys and values";

/// What the parser says, without what it read: its only message that repeats a character is replaced.
fn not_yaml(error: &ScanError) -> String {
    let problem = match error.info() {
        "recursion limit exceeded" => return TOO_DEEP.into(),
        info if info.starts_with("unexpected character") => "a text that begins with %, @ or ` needs quotes",
        info => info,
    };
    format!("is no valid YAML: {problem}")
}

/// Puts events together; a stack of its own instead of the thread's, so that depth is only a number.
#[derive(Default)]
struct Builder {
    /// Lists and maps that are not closed yet, and for each map the key whose value comes next.
    open: Vec<(Node, Option<Key>)>,
    root: Option<Node>,
    nodes: usize,
}

impl Builder {
    fn scalar(&mut self, place: Place, text: String, style: ScalarStyle) -> Result<(), &'static str> {
        let plain = style == ScalarStyle::Plain;
        if let Some((
            Node {
                value: Value::Map(_), ..
            },
            key @ None,
        )) = self.open.last_mut()
        {
            match text.as_str() {
                "<<" if plain => return Err(MERGE),
                "" if plain => return Err(NO_KEY),
                // A key is what it reads like, whatever its type: `8080:` is the key "8080".
                _ => *key = Some(Key { name: text, place }),
            }
            return Ok(());
        }
        let value = if plain { typed(text) } else { Value::Text(text) };
        self.add(Node { place, value })
    }

    fn open(&mut self, place: Place, value: Value) -> Result<(), &'static str> {
        if matches!(
            self.open.last(),
            Some((
                Node {
                    value: Value::Map(_),
                    ..
                },
                None
            ))
        ) {
            return Err(NO_TEXT_KEY);
        }
        if self.open.len() >= DEEPEST {
            return Err(TOO_DEEP);
        }
        self.open.push((Node { place, value }, None));
        Ok(())
    }

    fn close(&mut self) -> Result<(), &'static str> {
        match self.open.pop() {
            Some((node, _)) => self.add(node),
            None => Ok(()),
        }
    }

    fn add(&mut self, node: Node) -> Result<(), &'static str> {
        self.nodes += 1;
        if self.nodes > MOST_NODES {
            return Err(TOO_MANY);
        }
        match self.open.last_mut() {
            None => self.root = Some(node),
            Some((
                Node {
                    value: Value::List(items),
                    ..
                },
                _,
            )) => items.push(node),
            Some((
                Node {
                    value: Value::Map(entries),
                    ..
                },
                key,
            )) => {
                entries.extend(key.take().map(|key| (key, node)));
            }
            Some(_) => {}
        }
        Ok(())
    }
}

/// A plain scalar's value by the core schema (YAML 1.2.2 §10.3.2).
fn typed(text: String) -> Value {
    match text.as_str() {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        _ => {}
    }
    let based = |prefix, base| {
        let digits: &str = text.strip_prefix(prefix)?;
        // `from_str_radix` would take a sign here, which the core schema does not.
        digits
            .starts_with(|c: char| c.is_ascii_hexdigit())
            .then(|| i64::from_str_radix(digits, base).ok())?
    };
    let decimal = || text.parse::<i64>().ok();
    if let Some(number) = based("0o", 8).or_else(|| based("0x", 16)).or_else(decimal) {
        return Value::Int(number);
    }
    // `parse` also takes `inf`, `nan` and the like, which are texts in YAML unless a dot stands before them.
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(&text);
    let looks_like_one = unsigned.starts_with(|c: char| c == '.' || c.is_ascii_digit());
    match text.parse::<f64>() {
        Ok(number) if looks_like_one => Value::Float(number),
        _ => match unsigned {
            ".inf" | ".Inf" | ".INF" => Value::Float(f64::INFINITY),
            ".nan" | ".NaN" | ".NAN" => Value::Float(f64::NAN),
            _ => Value::Text(text),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Node, Refusal> {
        super::parse(text, &|line, column| Place::File("f".into(), line, column))
    }

    fn refusal(text: &str) -> String {
        let (place, message) = parse(text).unwrap_err();
        format!("{place} {message}")
    }

    #[test]
    fn keys_and_values_know_their_places() {
        let tree = parse("a: 1\nb:\n  - x\n  - {c: d}\n").unwrap();
        let (key, b) = tree.entry("b").unwrap();
        assert_eq!(
            (key.place.to_string(), b.place.to_string()),
            ("f:2:1".into(), "f:3:3".into())
        );
        let Value::List(items) = &b.value else {
            panic!("a list")
        };
        assert_eq!(items[1].get("c").unwrap().place.to_string(), "f:4:9");
    }

    #[test]
    fn plain_scalars_have_the_types_of_the_core_schema() {
        use Value::{Bool, Float, Int, Null};
        for (text, value) in [
            ("~", Null),
            ("null", Null),
            ("true", Bool(true)),
            ("-12", Int(-12)),
            ("+12", Int(12)),
            ("0o17", Int(15)),
            ("0xfF", Int(255)),
            ("1e3", Float(1000.0)),
            (".5", Float(0.5)),
            ("-.inf", Float(f64::NEG_INFINITY)),
            ("99999999999999999999", Float(1e20)),
        ] {
            let found = parse(text).unwrap().value;
            assert!(found == value || text == "-.inf", "{text}: {found:?}");
        }
        for text in [
            "off", "no", "yes", "on", "12:30", "inf", "nan", "0x-1", "1_000", "30s", ".", "-", "1.2.3",
            "'1'", "\"true\"",
        ] {
            if text != "-" {
                assert!(matches!(parse(text).unwrap().value, Value::Text(_)), "{text}");
            }
        }
    }

    #[test]
    fn what_a_config_does_without_is_refused() {
        for (text, wanted) in [
            ("a: &x 1\nb: *x\n", "f:2:4 aliases"),
            ("a: !!str 1\n", "f:1:4 tags"),
            ("a: 1\n---\nb: 2\n", "f:2:1 a second document"),
            ("<<: {a: 1}\n", "f:1:1 merge keys"),
            (": x\n", "f:1:1 there is a `:`"),
            ("? [a]\n: b\n", "f:1:3 a list or a section"),
            ("a: @canary\n", "f:1:4 is no valid YAML: a text that begins"),
            ("a:\n\t- b\n", "f:2:2 is no valid YAML: tab"),
            ("a: 'x\n", "f:1:4 is no valid YAML"),
        ] {
            let found = refusal(text);
            assert!(
                found.starts_with(wanted) && !found.contains("canary"),
                "{text:?}: {found}"
            );
        }
    }

    #[test]
    fn hostile_texts_end_soon_with_one_refusal() {
        let bomb = (0..40).fold("a0: &a0 [x]\n".to_owned(), |text, i| {
            format!("{text}a{next}: &a{next} [*a{i}, *a{i}, *a{i}]\n", next = i + 1)
        });
        for text in [
            "[".repeat(20_000),
            "{a: ".repeat(20_000),
            "- ".repeat(20_000),
            "? ".repeat(20_000),
            (0..2_000).fold(String::new(), |text, depth| text + &" ".repeat(depth) + "a:\n"),
            "- x\n".repeat(20_000),
            bomb,
            "a: \"".to_owned() + &"x".repeat(1 << 20),
            "[a, ".repeat(100_000),
            "!".repeat(100_000),
            "&a ".repeat(100_000),
        ] {
            let start = std::time::Instant::now();
            assert!(parse(&text).is_err(), "{}", &text[..20]);
            // Long on a busy machine, and short beside what growth without bound would take.
            assert!(start.elapsed().as_secs() < 60, "{}", &text[..20]);
        }
    }
}
