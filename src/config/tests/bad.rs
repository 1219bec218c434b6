//! OB-05: whatever is wrong is refused, all at once, with its place, its key and what is wanted; CA-06: no message
//! holds a secret. OA-01, OA-02, BF-07, CK-01, CK-02, MD-03 and AZ-11 where they are about the config.

use super::*;

/// Configs, each followed by what is said about it: `#! LINE:COLUMN KEY: a part of the message`, for every mistake in
/// it. A blank line ends one, `==` begins a heading.
const BAD: &str = include_str!("bad.txt");

#[test]
fn ob_05_every_mistake_is_named_with_place_and_key_and_no_secret() {
    let blocks = BAD
        .split("\n\n")
        .map(str::trim)
        .filter(|block| !block.starts_with("=="));
    let mut count = 0;
    let mut wrong = Vec::new();
    for text in blocks {
        count += 1;
        let Err(mistakes) = load_text("f", &complete(text)) else {
            panic!("accepted:\n{text}");
        };
        let all = lines(&mistakes);
        assert!(!all.contains("canary"), "{text}\nshows a secret:\n{all}");
        let expected: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("#! ")).collect();
        let fits = |(mistake, expected): (&Mistake, &&str)| {
            let (place, message) = expected.split_once(": ").expect("place, key and message");
            format!("{} {}", mistake.place, mistake.key) == format!("f:{place}")
                && mistake.message.contains(message)
        };
        if mistakes.len() != expected.len() || !mistakes.iter().zip(&expected).all(fits) {
            wrong.push(format!("{text}\n-- but found\n{all}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count >= 100, "{count}");
}

#[test]
fn what_is_no_yaml_or_no_section_is_one_mistake() {
    for (text, place, message) in [
        ("", "f:1:1", "is empty; wanted: at least `public_url`"),
        ("# nothing\n\n# here\n", "f:1:1", "is empty"),
        ("---\n...\n", "f:2:1", "is empty"),
        (
            "- a\n- b\n",
            "f:1:1",
            "found a list; wanted: a section with keys such as `providers`, `public_url`",
        ),
        ("canary", "f:1:1", "found a text; wanted: a section"),
        ("4711", "f:1:1", "found a number; wanted: a section"),
        ("client_secret: @canary\n", "f:1:16", "is no valid YAML"),
        (
            "client_secret: canary: x\n",
            "f:1:22",
            "is no valid YAML: mapping values",
        ),
        ("a: \"canary\n", "f:", "is no valid YAML"),
        ("a: [canary\n", "f:", "is no valid YAML"),
        ("a: 1\n b: 2\n", "f:2:3", "is no valid YAML"),
        ("a: 1\n---\na: 2\n", "f:2:1", "a second document"),
    ] {
        let mistakes = load_text("f", text).unwrap_err();
        let all = lines(&mistakes);
        assert_eq!(mistakes.len(), 1, "{text}\n{all}");
        assert!(
            mistakes[0].place.starts_with(place) && mistakes[0].message.contains(message),
            "{text}\n{all}"
        );
        assert!(!all.contains("canary"), "{all}");
    }
}

/// Changes a text a little, at random but always the same.
fn change(text: &str, random: &mut impl FnMut(usize) -> usize) -> String {
    const SIGNS: [&str; 24] = [
        ":", " ", "\n", "- ", "{", "}", "[", "]", "\"", "'", "#", ",", "&a ", "*a", "!x ", "|", ">", "\t",
        "~", "0", "\u{85}", "é", "<<: ", "---\n",
    ];
    let mut changed: Vec<char> = text.chars().collect();
    for _ in 0..=random(4) {
        let at = random(changed.len());
        let end = (at + random(12)).min(changed.len());
        match random(3) {
            0 => drop(changed.drain(at..end)),
            1 => drop(changed.splice(at..at, SIGNS[random(SIGNS.len())].chars())),
            _ => {
                let copy: Vec<char> = changed[at..end].to_vec();
                let to = random(changed.len());
                changed.splice(to..to, copy);
            }
        }
    }
    changed.into_iter().collect()
}

#[test]
fn whatever_is_changed_in_a_config_ends_in_settings_or_mistakes() {
    let good = include_str!("../../../config/reference.yaml");
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % below.max(1) as u64).unwrap_or(0)
    };
    for _ in 0..300 {
        let text = change(good, &mut random);
        if let Err(mistakes) = load_text("f", &text) {
            assert!(!mistakes.is_empty());
            // The walk lets nothing through that the types refuse.
            assert!(
                !lines(&mistakes).contains("does not fit"),
                "{text}\n{}",
                lines(&mistakes)
            );
        }
    }
}
