//! `cloakroom sessions`: lists, shows and ends sessions by way of a running cloakroom's admin listener.
//!
//! Where that is and which token it wants comes from the config, as for the other commands, or from the command line.
//!
//! INVARIANT: the token is never printed, and what others wrote (users' names, answers) is printed without control
//! characters, so that none of it speaks to the terminal.

use super::admin_listener::{Asker, TlsArguments, url_of, why};
use super::output::{complain, print};
use super::{FAILED, print_mistakes, runtime};
use crate::clock::{Clock, UnixTime};
use crate::config::{self, AdminTls, SecretSource};
use crate::protocol::query::encode;
use crate::secret::Secret;
use crate::session::Reference;
use clap::{Args, Subcommand};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{Method, Request, StatusCode, header};
use serde::Deserialize;
use serde_json::Value;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// How long the answer may take: longer than the listener waits for the store.
const PATIENCE: Duration = Duration::from_secs(15);
/// The longest answer that is read, in bytes.
const LONGEST: usize = 64 * 1024 * 1024;

#[derive(Debug, Subcommand)]
pub(super) enum Sessions {
    /// A user's sessions, the oldest first.
    List {
        #[command(flatten)]
        user: User,
        #[command(flatten)]
        asked: Asked,
    },
    /// One session, by its reference in a list or in the log.
    Show {
        // Somebody's cookie may begin with a hyphen, and must not be repeated as an argument that is unknown.
        /// 64 hexadecimal digits.
        #[arg(allow_hyphen_values = true)]
        reference: String,
        #[command(flatten)]
        asked: Asked,
    },
    /// End one session, or all of a user.
    Revoke {
        /// 64 hexadecimal digits.
        #[arg(
            required_unless_present = "sub",
            conflicts_with = "sub",
            allow_hyphen_values = true
        )]
        reference: Option<String>,
        /// The user at the provider, all of whose sessions end.
        #[arg(long)]
        sub: Option<String>,
        /// Only those at the provider of this name in the config.
        #[arg(long, requires = "sub")]
        provider: Option<String>,
        #[command(flatten)]
        asked: Asked,
    },
}

#[derive(Debug, Args)]
pub(super) struct User {
    /// The user at the provider: the ID token's `sub`.
    #[arg(long)]
    sub: String,
    /// Only at the provider of this name in the config.
    #[arg(long)]
    provider: Option<String>,
}

/// Who is asked, and how the answer is printed.
#[derive(Debug, Args)]
pub(super) struct Asked {
    /// The config with `server.admin` and `server.admin_token`. Default: as for run.
    #[arg(long)]
    config: Option<PathBuf>,
    #[arg(
        long,
        help = "The admin listener, where it is not the config's, such as http://127.0.0.1:9090"
    )]
    url: Option<String>,
    /// A file with the token, where it is not the config's.
    #[arg(long, conflicts_with = "token_env")]
    token_file: Option<PathBuf>,
    /// An environment variable with the token, where it is not the config's.
    #[arg(long)]
    token_env: Option<String>,
    #[command(flatten)]
    tls: TlsArguments,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// A session as the admin listener shows it.
#[derive(Debug, Deserialize)]
struct Shown {
    reference: String,
    provider: String,
    sub: String,
    sid: Option<String>,
    /// Unix time, seconds.
    begun: u64,
    /// Unix time, seconds.
    absolute_end: u64,
}

/// What is asked.
struct Question {
    method: Method,
    target: String,
}

pub(super) fn sessions(command: &Sessions) -> ExitCode {
    let (asked, question) = match command {
        Sessions::List { user, asked } => (
            asked,
            Ok(of_user(Method::GET, &user.sub, user.provider.as_deref())),
        ),
        Sessions::Show { reference, asked } => (asked, of_one(Method::GET, reference)),
        Sessions::Revoke {
            reference,
            sub,
            provider,
            asked,
        } => {
            let question = match (reference, sub) {
                (Some(reference), _) => of_one(Method::DELETE, reference),
                (None, sub) => {
                    let sub = sub.as_deref().unwrap_or_default();
                    Ok(of_user(Method::DELETE, sub, provider.as_deref()))
                }
            };
            (asked, question)
        }
    };
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(code) => return code,
    };
    let answered = question.and_then(|question| {
        let whom = asked.whom()?;
        runtime.block_on(ask(&question, &whom))
    });
    match answered {
        Ok(answer) => {
            let shown = if asked.json { json(&answer) } else { text(&answer) };
            print(&shown).err().unwrap_or(ExitCode::SUCCESS)
        }
        Err(Failed::Mistakes(mistakes)) => {
            print_mistakes(&mistakes);
            ExitCode::from(FAILED)
        }
        Err(Failed::Because(reason)) => {
            complain(&format!("cloakroom: {}", plain(&reason)));
            ExitCode::from(FAILED)
        }
    }
}

/// Why there is no answer.
#[derive(Debug)]
enum Failed {
    Mistakes(Vec<config::Mistake>),
    Because(String),
}

impl From<String> for Failed {
    fn from(reason: String) -> Self {
        Self::Because(reason)
    }
}

fn of_user(method: Method, sub: &str, provider: Option<&str>) -> Question {
    let provider = provider.map(|name| format!("&provider={}", encode(name)));
    Question {
        method,
        target: format!("/sessions?sub={}{}", encode(sub), provider.unwrap_or_default()),
    }
}

/// What is no reference is not repeated, neither to the terminal nor to the listener: it may be a cookie.
fn of_one(method: Method, text: &str) -> Result<Question, Failed> {
    let reference: Reference = text.trim().parse().map_err(|_| {
        "a session's reference is 64 hexadecimal digits, as `sessions list` and the log show it".to_owned()
    })?;
    Ok(Question {
        method,
        target: format!("/sessions/{reference}"),
    })
}

/// The listener that is asked.
struct Whom {
    /// Without a path.
    url: String,
    asker: Asker,
    token: Secret,
}

impl Asked {
    /// The listener, and the token that it wants. The config is read only for what the command line does not say.
    fn whom(&self) -> Result<Whom, Failed> {
        let token = match (&self.token_file, &self.token_env) {
            (Some(file), _) => Some(SecretSource::file(file)),
            (None, Some(name)) => Some(SecretSource::env(name)),
            (None, None) => None,
        };
        if let (Some(url), Some(token)) = (&self.url, &token) {
            return Ok(Whom {
                url: url.clone(),
                asker: self.tls.asker(url, None)?,
                token: token.current()?,
            });
        }
        let loaded = config::load(self.config.as_deref()).map_err(Failed::Mistakes)?;
        let server = loaded.settings.server;
        let (url, own) = match &self.url {
            Some(url) => (url.clone(), None),
            None => (url_of(&server)?, server.admin_tls.as_ref().map(AdminTls::pair)),
        };
        let token = token.or(server.admin_token).ok_or_else(|| {
            "no `server.admin_token` is set in the config, so the admin listener has no /sessions: set one (`cloakroom keys \
             generate` makes it) and restart, or say --token-file"
                .to_owned()
        })?;
        Ok(Whom {
            asker: self.tls.asker(&url, own.as_ref())?,
            url,
            token: token.current()?,
        })
    }
}

/// Asks, and returns the answer's document.
async fn ask(question: &Question, whom: &Whom) -> Result<Value, Failed> {
    let (base, token) = (whom.url.trim_end_matches('/'), &whom.token);
    if !["http://", "https://"]
        .iter()
        .any(|scheme| base.starts_with(scheme))
    {
        return Err(format!(
            "{base} is no address of an admin listener; wanted: something like http://127.0.0.1:9090"
        )
        .into());
    }
    let bearer = header::HeaderValue::try_from(format!("Bearer {}", token.expose()));
    let mut bearer = bearer.map_err(|_| "the token holds what no header can carry".to_owned())?;
    bearer.set_sensitive(true);
    let request = Request::builder()
        .method(&question.method)
        .uri(format!("{base}{}", question.target))
        .header(header::AUTHORIZATION, bearer)
        .body(Empty::<bytes::Bytes>::new())
        .map_err(|_| format!("{base} is no address; wanted: something like http://127.0.0.1:9090"))?;
    let asking = async {
        let answer = whom.asker.request(request).await.map_err(|error| {
            let why = why(&error);
            format!("{base} cannot be asked ({why}); is it running, and is this its server.admin address?")
        })?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), LONGEST).collect().await;
        let body = body.map_err(|error| format!("the answer of {base} broke off: {error}"))?;
        Ok::<_, String>((status, body.to_bytes()))
    };
    let answered = tokio::time::timeout(PATIENCE, asking).await;
    let (status, body) =
        answered.map_err(|_| format!("no answer of {base} within {} s", PATIENCE.as_secs()))??;
    if status == StatusCode::OK {
        let read = serde_json::from_slice(&body);
        return Ok(read.map_err(|_| format!("{base} answers, and not as an admin listener does"))?);
    }
    Err(refusal(base, status, &body).into())
}

/// What an answer that is none means, and what to do.
fn refusal(base: &str, status: StatusCode, body: &[u8]) -> String {
    let problem: Option<Value> = serde_json::from_slice(body).ok();
    let said = problem.as_ref().and_then(|problem| problem["detail"].as_str());
    let said = said.map_or_else(|| String::from_utf8_lossy(body).trim().to_owned(), str::to_owned);
    let said = if said.is_empty() { status.to_string() } else { said };
    match status {
        StatusCode::FORBIDDEN => {
            format!("{base} refuses the token (403); is it the one that this cloakroom runs with?")
        }
        StatusCode::NOT_FOUND if problem.is_none() => {
            format!(
                "{base} has no /sessions (404); is this the server.admin address of a cloakroom that has it?"
            )
        }
        _ => format!("{base} says: {said} ({})", status.as_u16()),
    }
}

/// For machines.
fn json(answer: &Value) -> String {
    format!("{answer:#}\n")
}

/// For people: a table, or a sentence.
fn text(answer: &Value) -> String {
    if let Some(ended) = answer["ended"].as_u64() {
        return match ended {
            0 => "There were no sessions to end.\n".into(),
            1 => "1 session has ended.\n".into(),
            many => format!("{many} sessions have ended.\n"),
        };
    }
    let listed = match answer {
        Value::Array(_) => serde_json::from_value(answer.clone()),
        one => serde_json::from_value(one.clone()).map(|one| vec![one]),
    };
    let listed: Vec<Shown> = listed.unwrap_or_default();
    if listed.is_empty() {
        return "There are no sessions.\n".into();
    }
    table(&listed, Clock::System.now())
}

fn table(listed: &[Shown], now: UnixTime) -> String {
    let mut rows = vec![["REFERENCE", "PROVIDER", "SUB", "SID", "AGE", "ENDS WITHIN"].map(str::to_owned)];
    rows.extend(listed.iter().map(|one| {
        [
            plain(&one.reference),
            plain(&one.provider),
            plain(&one.sub),
            one.sid.as_deref().map_or_else(|| "-".into(), plain),
            span(now.since(UnixTime::from_secs(one.begun))),
            span(UnixTime::from_secs(one.absolute_end).since(now)),
        ]
    }));
    let width = |column: usize| {
        rows.iter()
            .map(|row| row[column].chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..6).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        let cells = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:width$}"));
        let line = cells.collect::<Vec<_>>().join("  ");
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// A span in its two greatest units.
fn span(span: Duration) -> String {
    let seconds = span.as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m{:02}s", seconds % 60),
        (0, _, _) => format!("{hours}h{minutes:02}m"),
        _ => format!("{days}d{hours:02}h"),
    }
}

/// Without what could speak to the terminal.
fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for sign in text.chars() {
        if sign.is_control() || is_invisible(sign) {
            plain.extend(sign.escape_unicode());
        } else {
            plain.push(sign);
        }
    }
    plain
}

/// Signs that turn the direction of what stands around them, or take no room: one name could look like another.
fn is_invisible(sign: char) -> bool {
    matches!(sign, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_table_has_a_line_for_each_session_and_speaks_to_no_terminal() {
        let one = |sub: &str, sid: Option<&str>, begun: u64| Shown {
            reference: "a7".repeat(32),
            provider: "main".into(),
            sub: sub.into(),
            sid: sid.map(str::to_owned),
            begun,
            absolute_end: begun + 43_200,
        };
        let listed = [
            one("alice", Some("s-1"), 1_000_000),
            one("\u{1b}[2Jbob\n\u{202e}x\u{9b}1m", None, 1_003_600),
        ];
        let text = table(&listed, UnixTime::from_secs(1_003_665));
        let reference = "a7".repeat(32);
        let wanted = format!(
            "REFERENCE{:55}  PROVIDER  SUB                                 SID  AGE    ENDS WITHIN\n\
             {reference}  main      alice                               s-1  1h01m  10h58m\n\
             {reference}  main      \\u{{1b}}[2Jbob\\u{{a}}\\u{{202e}}x\\u{{9b}}1m  -    1m05s  11h58m\n",
            ""
        );
        assert_eq!(text, wanted);
    }

    #[test]
    fn spans_are_told_in_two_units() {
        for (seconds, wanted) in [
            (0, "0s"),
            (59, "59s"),
            (60, "1m00s"),
            (3_599, "59m59s"),
            (3_600, "1h00m"),
            (86_399, "23h59m"),
            (90_000, "1d01h"),
            (34_560_000, "400d00h"),
        ] {
            assert_eq!(span(Duration::from_secs(seconds)), wanted);
        }
    }

    #[test]
    fn what_is_asked_is_spelled_safely() {
        let question = of_user(Method::GET, "auth0|a b&provider=x#ü", Some("main"));
        assert_eq!(
            question.target,
            "/sessions?sub=auth0%7Ca%20b%26provider%3Dx%23%C3%BC&provider=main"
        );
        assert_eq!(of_user(Method::GET, "a", None).target, "/sessions?sub=a");
        let one = of_one(Method::DELETE, &format!(" {}\n", "A7".repeat(32))).unwrap();
        assert_eq!(one.target, format!("/sessions/{}", "a7".repeat(32)));
        let Err(Failed::Because(why)) = of_one(Method::GET, "canary") else {
            panic!("no reference");
        };
        assert!(!why.contains("canary"), "{why}");
    }

    #[test]
    fn a_refusal_says_what_to_do() {
        let said = |status: u16, body: &str| {
            refusal(
                "http://10.0.0.7:9",
                StatusCode::from_u16(status).unwrap(),
                body.as_bytes(),
            )
        };
        let problem = r#"{"detail":"The session store does not answer."}"#;
        assert_eq!(
            said(503, problem),
            "http://10.0.0.7:9 says: The session store does not answer. (503)"
        );
        assert!(said(403, problem).contains("refuses the token (403)"));
        assert!(said(404, "not found\n").contains("has no /sessions (404)"));
        assert!(said(421, "ask by IP address or as localhost\n").contains("ask by IP address"));
        assert!(said(502, "").contains("502 Bad Gateway"));
    }

    #[test]
    fn what_was_done_is_told_in_a_sentence() {
        assert_eq!(text(&json!({"ended": 1})), "1 session has ended.\n");
        assert_eq!(text(&json!({"ended": 3})), "3 sessions have ended.\n");
        assert_eq!(text(&json!({"ended": 0})), "There were no sessions to end.\n");
        assert_eq!(text(&json!([])), "There are no sessions.\n");
    }
}
