//! `deploy/troubleshooting.md`, read as what it promises: entries, and what each quotes of cloakroom to the letter.
//!
//! A test takes its entry, brings the trouble about, and hands over what cloakroom said of it; every quote of the entry has
//! to be found there. So neither the page nor the code can change alone.

use crate::support::browser::Reply;
use crate::support::cloakroom::Cloakroom;
use crate::support::html;
use serde_json::Value;
use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

/// Where a quote is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Where {
    /// On a page.
    Page,
    /// In an answer for scripts.
    Answer,
    /// In the log.
    Log,
    /// By `cloakroom check`.
    Check,
}

/// What an entry says of cloakroom where there is nothing to quote.
const NOTHING: &str = "cloakroom says nothing";

/// The whole page.
pub fn text() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/troubleshooting.md");
    std::fs::read_to_string(path).unwrap()
}

/// The headings of all entries, in the page's order.
pub fn headings(text: &str) -> Vec<&str> {
    text.lines()
        .filter_map(|line| line.strip_prefix("### "))
        .collect()
}

/// The code spans of a line (`CommonMark` §6.1).
pub fn spans(line: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = line;
    while let Some(at) = rest.find('`') {
        let fence: String = rest[at..].chars().take_while(|c| *c == '`').collect();
        let inner = &rest[at + fence.len()..];
        let end = inner
            .match_indices(fence.as_str())
            .find(|(end, _)| !inner[..*end].ends_with('`') && !inner[end + fence.len()..].starts_with('`'));
        let (end, _) = end.unwrap_or_else(|| panic!("an open code span: {line}"));
        let span = &inner[..end];
        let stripped = span.strip_prefix(' ').and_then(|span| span.strip_suffix(' '));
        found.push(stripped.unwrap_or(span).to_owned());
        rest = &inner[end + fence.len()..];
    }
    found
}

/// One entry, under test.
pub struct Entry {
    heading: &'static str,
    quotes: Vec<(Where, String)>,
    said: Vec<(Where, String)>,
    settled: bool,
}

impl Entry {
    /// The entry of that heading.
    pub fn of(heading: &'static str) -> Self {
        let text = text();
        let mut parts = text.split("\n### ").skip(1);
        let body = parts
            .find_map(|part| part.strip_prefix(heading)?.strip_prefix('\n'))
            .unwrap_or_else(|| panic!("the page has no entry {heading:?}"));
        let body = body.split("\n## ").next().unwrap();
        let mut quotes = Vec::new();
        for line in body.lines() {
            for (label, place) in [
                ("- Page: ", Where::Page),
                ("- Answer: ", Where::Answer),
                ("- Log: ", Where::Log),
                ("- Check: ", Where::Check),
            ] {
                if let Some(line) = line.strip_prefix(label) {
                    quotes.extend(spans(line).into_iter().map(|quote| (place, quote)));
                }
            }
        }
        assert!(
            !quotes.is_empty() || body.contains(NOTHING),
            "{heading:?} neither quotes cloakroom nor says that there is nothing to quote"
        );
        assert!(body.contains("\n**Do:** "), "{heading:?} does not say what to do");
        Self {
            heading,
            quotes,
            said: Vec::new(),
            settled: false,
        }
    }

    /// A page of cloakroom's own was shown.
    pub fn page(&mut self, reply: &Reply) {
        let page = reply.page();
        let mut text = String::new();
        for part in page.split('<') {
            let (_, shown) = part.split_once('>').unwrap_or(("", part));
            text.push_str(&html::unescape(shown));
            text.push('\n');
        }
        self.said.push((Where::Page, text));
    }

    /// An answer came.
    pub fn answer(&mut self, reply: &Reply) {
        let body = reply.text();
        let problem: Value = serde_json::from_str(&body).unwrap_or_default();
        let word = |name: &str| problem[name].as_str().unwrap_or_default().to_owned();
        let text = format!("{} {}\n{}\n{body}", reply.status, word("code"), word("detail"));
        self.said.push((Where::Answer, text));
    }

    /// A command that ends by itself said this.
    pub fn check(&mut self, said: &str) {
        self.said.push((Where::Check, said.to_owned()));
    }

    /// The log of something that has ended already.
    pub fn log(&mut self, log: &str) {
        self.said.push((Where::Log, flat(log)));
    }

    /// All that the entry quotes has to have been said, or to be in the log within some seconds.
    pub async fn settle(mut self, cloakroom: &Cloakroom) {
        let end = Instant::now() + Duration::from_secs(5);
        loop {
            let log = (Where::Log, flat(&cloakroom.log()));
            let missing = self.missing(Some(&log));
            if missing.is_empty() {
                self.settled = true;
                return;
            }
            let waits_for_the_log = missing.iter().all(|(place, _)| *place == Where::Log);
            if !waits_for_the_log || Instant::now() > end {
                self.settled = true;
                panic!(
                    "{:?} quotes what was not said: {missing:#?}\nbut this:\n{:#?}",
                    self.heading, self.said
                );
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// As [`Entry::settle`], where nothing runs.
    pub fn settle_at_once(mut self) {
        self.settled = true;
        let missing = self.missing(None);
        assert!(
            missing.is_empty(),
            "{:?} quotes what was not said: {missing:#?}\nbut this:\n{:#?}",
            self.heading,
            self.said
        );
    }

    fn missing(&self, more: Option<&(Where, String)>) -> Vec<(Where, String)> {
        let is_said = |(place, quote): &(Where, String)| {
            let texts = self.said.iter().chain(more).filter(|(found, _)| found == place);
            texts
                .flat_map(|(_, text)| text.lines())
                .any(|line| holds(line, quote))
        };
        self.quotes
            .iter()
            .filter(|quote| !is_said(quote))
            .cloned()
            .collect()
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        assert!(
            self.settled || std::thread::panicking(),
            "{:?} was not settled",
            self.heading
        );
    }
}

/// Whether a line holds a quote, in which `…` stands for whatever differs.
pub fn holds(line: &str, quote: &str) -> bool {
    let mut rest = line;
    quote.split('…').map(str::trim_end).all(|part| {
        rest.find(part).is_some_and(|at| {
            rest = &rest[at + part.len()..];
            true
        })
    })
}

/// A log of JSON lines as lines of `message key=value …`, the keys in alphabetical order.
fn flat(log: &str) -> String {
    let mut text = String::new();
    for line in log.lines() {
        let Ok(Value::Object(fields)) = serde_json::from_str::<Value>(line) else {
            text.push_str(line);
            text.push('\n');
            continue;
        };
        let message = fields.get("message").and_then(Value::as_str).unwrap_or_default();
        text.push_str(message);
        for (name, value) in fields.iter().filter(|(name, _)| *name != "message") {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            let _cannot_fail = write!(text, " {name}={value}");
        }
        text.push('\n');
    }
    text
}
