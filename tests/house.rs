//! Checks the house against its own plan: the table of floors in `src/lib.rs`, and the size and head of every file.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// A module's place: row and step of the table. A module may import what has a greater place, and itself.
type Floors = BTreeMap<String, (usize, usize)>;

/// The most lines of code in one file: blank lines, comments and tests do not count.
const MOST_LINES: usize = 500;

fn floors(lib: &str) -> Floors {
    let rows = lib
        .lines()
        .filter_map(|line| line.strip_prefix("//! |")?.split('|').nth(1));
    let rows = rows.filter(|cell| cell.contains('`')).enumerate();
    let steps = rows.flat_map(|(row, cell)| {
        cell.split(" · ")
            .enumerate()
            .map(move |(step, text)| ((row, step), text))
    });
    let names = |text: &str| {
        text.split('`')
            .skip(1)
            .step_by(2)
            .map(String::from)
            .collect::<Vec<_>>()
    };
    steps
        .flat_map(|(place, text)| names(text).into_iter().map(move |name| (name, place)))
        .collect()
}

/// What a path may begin with when it starts at the crate's root, in a file whose module lies `depth` below it.
fn roots(depth: usize) -> [String; 3] {
    ["crate::".into(), "cloakroom::".into(), "super::".repeat(depth)]
}

/// The first names after the crate's root, of single paths and of `{…}` groups.
fn imports(code: &str, depth: usize) -> Vec<&str> {
    let mut found = Vec::new();
    for root in roots(depth).iter().filter(|root| !root.is_empty()) {
        for (at, _) in code.match_indices(root.as_str()) {
            if code[..at].ends_with(|before: char| before.is_alphanumeric() || before == '_' || before == ':')
            {
                continue;
            }
            let rest = &code[at + root.len()..];
            let (mut level, mut expects) = (0, true);
            for (start, sign) in rest.char_indices() {
                let name = rest[start..]
                    .split(|sign: char| !sign.is_alphanumeric() && sign != '_')
                    .next()
                    .unwrap_or("");
                if expects && !name.is_empty() {
                    found.push(name);
                }
                level += usize::from(sign == '{');
                expects = level == 1 && matches!((expects, sign), (_, '{' | ',') | (true, ' ' | '\n'));
                level = level.saturating_sub(usize::from(sign == '}'));
                if level == 0 {
                    break;
                }
            }
        }
    }
    found
}

/// The code without its comment lines.
fn code(text: &str) -> String {
    let lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    lines.flat_map(|line| [line, "\n"]).collect()
}

/// What a file, named from `src/`, does against the plan.
fn offences(file: &Path, text: &str, floors: &Floors) -> Vec<String> {
    let mut steps: Vec<_> = file
        .with_extension("")
        .iter()
        .map(|step| step.to_string_lossy().into_owned())
        .collect();
    steps.retain(|step| step != "mod");
    let (module, code) = (steps[0].clone(), code(text));
    let mut wrong = Vec::new();
    match floors.get(&module) {
        Some(own) => {
            for name in imports(&code, steps.len()) {
                if name != module && floors.get(name).is_some_and(|place| place <= own) {
                    wrong.push(format!("imports `{name}`, which is not below `{module}`"));
                }
            }
        }
        None if module == "lib" => {}
        None => wrong.push(format!("`{module}` has no place in the table of floors")),
    }
    if !text.starts_with("//! ") {
        wrong.push("has no head comment".into());
    }
    let plain = code
        .split("\n#[cfg(test)]\nmod tests {")
        .next()
        .unwrap_or_default();
    let lines = plain.lines().filter(|line| !line.trim().is_empty()).count();
    if lines == 0 {
        wrong.push("is empty".into());
    }
    let is_test = steps.iter().any(|step| step == "tests");
    if lines > MOST_LINES && !is_test {
        wrong.push(format!("has {lines} lines of code, more than {MOST_LINES}"));
    }
    wrong
        .into_iter()
        .map(|what| format!("src/{} {what}", file.display()))
        .collect()
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder)
        .expect("src can be read")
        .map(|entry| entry.expect("an entry").path());
    let found = entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] });
    found
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .collect()
}

#[test]
fn every_file_keeps_to_its_floor() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let floors = floors(&fs::read_to_string(src.join("lib.rs")).expect("src/lib.rs"));
    assert!(
        floors.len() > 15,
        "the table of floors was not understood: {floors:?}"
    );
    let judge = |path: PathBuf| {
        let text = fs::read_to_string(&path).expect("a source file");
        offences(path.strip_prefix(&src).expect("below src"), &text, &floors)
    };
    let wrong: Vec<_> = files(&src).into_iter().flat_map(judge).collect();
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

#[test]
fn a_made_up_violation_is_found() {
    let table = "//! | floor | modules | x |\n//! | --- | --- | --- |\n//! | top | `main` · `app` | |\n//! | mid | `a`, `b` · `c` | |\n//! | low | `d` | |";
    let floors = floors(table);
    assert_eq!(floors["main"], (0, 0));
    assert_eq!(floors["c"], (1, 1));
    let judge =
        |file: &str, text: &str| offences(Path::new(file), &format!("//! Head.\n{text}\n"), &floors).len();
    assert_eq!(
        judge(
            "a/mod.rs",
            "use crate::{c::X, d::{self, app}};\nuse crate::a::Own; // crate::app"
        ),
        1
    );
    assert_eq!(
        judge(
            "a/x.rs",
            "//! crate::app\nuse crate::d::Y;\nuse super::b;\nuse other_crate::app;"
        ),
        0
    );
    for wrong in [
        "use crate::b::X;",
        "use crate::{d,\n    app::Y};",
        "fn f() { crate::main::x() }",
        "use super::super::b;",
    ] {
        assert_eq!(judge("a/x.rs", wrong), 1, "{wrong}");
    }
    assert_eq!(judge("d.rs", "use crate::c;"), 1);
    assert_eq!(judge("c.rs", "use crate::a;"), 1, "a step to the left");
    assert_eq!(judge("stray.rs", "fn f() {}"), 1, "no place");
    assert_eq!(judge("a.rs", ""), 1, "empty");
    assert_eq!(
        judge("a.rs", &"fn f() {}\n".repeat(MOST_LINES + 1)),
        1,
        "too long"
    );
    assert_eq!(
        judge("a/tests.rs", &"fn f() {}\n".repeat(MOST_LINES + 1)),
        0,
        "tests may be long"
    );
    assert_eq!(
        offences(Path::new("a.rs"), "fn f() {}", &floors).len(),
        1,
        "no head"
    );
}
