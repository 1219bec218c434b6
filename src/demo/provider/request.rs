//! The authorization request, read strictly (RFC 6749 §4.1.1, RFC 7636 §4.3, Core §3.1.2.1).
//!
//! INVARIANT: nothing is sent to a `redirect_uri` that is not registered, to the letter (RFC 9700 §2.1).

use super::Provider;
use crate::demo::form::{Form, encode};
use std::fmt::Write;

/// A request that holds.
#[derive(Clone, Debug)]
pub struct AuthorizationRequest {
    /// Where the answer goes.
    pub redirect_uri: String,
    /// Given back as it came.
    pub state: Option<String>,
    /// For the ID token.
    pub nonce: Option<String>,
    /// What is asked for, of what there is.
    pub scope: Vec<String>,
    /// RFC 7636 §4.2, `S256`.
    pub code_challenge: String,
    /// `prompt`'s words.
    pub prompt: Vec<String>,
    /// How old a sign-in may be, seconds.
    pub max_age: Option<u64>,
    /// Who it is about, perhaps.
    pub login_hint: Option<String>,
    /// The parameters as they came, for the form's hidden fields.
    pub parameters: Vec<(String, String)>,
}

/// Why a request does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The browser is not sent anywhere; a sentence for the page.
    Page(&'static str),
    /// The browser is sent back with this URL.
    Back(String),
}

/// What is read of a request; the rest is ignored (RFC 6749 §3.1) and not carried on.
const PARAMETERS: [&str; 13] = [
    "client_id",
    "redirect_uri",
    "response_type",
    "response_mode",
    "scope",
    "state",
    "nonce",
    "code_challenge",
    "code_challenge_method",
    "prompt",
    "max_age",
    "login_hint",
    "acr_values",
];
/// The scopes that mean something here.
pub const SCOPES: [&str; 4] = ["openid", "profile", "email", "offline_access"];
/// The longest value, bytes: a code remembers some of them.
const MAX_VALUE: usize = 1024;

impl AuthorizationRequest {
    /// Reads a request.
    ///
    /// # Errors
    /// [`Refusal`]
    pub fn read(provider: &Provider, form: &Form) -> Result<Self, Refusal> {
        let owned = |name| form.value(name).map(str::to_owned);
        if form.value("client_id") != Some(&provider.client_id) {
            return Err(Refusal::Page("The app that sent you here is not registered."));
        }
        let redirect_uri = owned("redirect_uri")
            .filter(|uri| *uri == provider.redirect_uri)
            .ok_or(Refusal::Page(
                "The app asked to send you to an address that is not registered.",
            ))?;
        if form.pairs().any(|(_, value)| value.len() > MAX_VALUE) {
            return Err(Refusal::Page("The app asked with more words than fit."));
        }
        let state = owned("state");
        let refused =
            |error, why| Refusal::Back(provider.error_url(&redirect_uri, state.as_deref(), error, why));
        let wrong = |why| refused("invalid_request", why);

        if form.value("response_type") != Some("code") {
            return Err(refused("unsupported_response_type", "only code is served"));
        }
        if form.value("response_mode").is_some_and(|mode| mode != "query") {
            return Err(wrong("only response_mode query is served"));
        }
        for (unserved, error) in [
            ("request", "request_not_supported"),
            ("request_uri", "request_uri_not_supported"),
        ] {
            if form.value(unserved).is_some() {
                return Err(refused(error, "request objects are not served"));
            }
        }
        let scope: Vec<String> = words(form.value("scope"));
        if !scope.iter().any(|word| word == "openid") {
            return Err(refused("invalid_scope", "scope must hold openid"));
        }
        // RFC 7636 §4.4.1: "If the server requires Proof Key for Code Exchange … MUST return … invalid_request".
        if form.value("code_challenge_method") != Some("S256") {
            return Err(wrong("code_challenge_method must be S256"));
        }
        // The hash of anything under S256 is 43 base64url characters (RFC 7636 §4.2).
        let code_challenge = owned("code_challenge")
            .filter(|c| c.len() == 43 && c.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b)))
            .ok_or_else(|| wrong("code_challenge must be 43 base64url characters"))?;
        let prompt = words(form.value("prompt"));
        // Core §3.1.2.1: "If this parameter contains none with any other value, an error is returned."
        if prompt.len() > 1 && prompt.iter().any(|word| word == "none") {
            return Err(wrong("prompt none stands alone"));
        }
        if prompt
            .iter()
            .any(|word| !["none", "login", "consent", "select_account"].contains(&word.as_str()))
        {
            return Err(wrong("prompt holds a word that is not known"));
        }
        let max_age = match form.value("max_age") {
            None => None,
            Some(seconds) => Some(
                seconds
                    .parse()
                    .map_err(|_| wrong("max_age must be a number of seconds"))?,
            ),
        };
        Ok(Self {
            nonce: owned("nonce"),
            scope: scope
                .into_iter()
                .filter(|word| SCOPES.contains(&word.as_str()))
                .collect(),
            code_challenge,
            prompt,
            max_age,
            login_hint: owned("login_hint"),
            parameters: form
                .pairs()
                .filter(|(name, _)| PARAMETERS.contains(name))
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
            redirect_uri,
            state,
        })
    }

    /// Whether `prompt` holds that word.
    #[must_use]
    pub fn prompts(&self, word: &str) -> bool {
        self.prompt.iter().any(|found| found == word)
    }
}

impl Provider {
    /// The redirect URI with an error (RFC 6749 §4.1.2.1).
    #[must_use]
    pub fn error_url(&self, redirect_uri: &str, state: Option<&str>, error: &str, why: &str) -> String {
        let query = format!("error={}&error_description={}", encode(error), encode(why));
        self.answer_url(redirect_uri, state, &query)
    }

    /// The redirect URI with an answer, `state` as it came and who answers.
    #[must_use]
    pub fn answer_url(&self, redirect_uri: &str, state: Option<&str>, answer: &str) -> String {
        let mut url = format!("{redirect_uri}?{answer}");
        if let Some(state) = state {
            let _ = write!(url, "&state={}", encode(state));
        }
        // RFC 9207 §2: "authorization servers … MUST include … the iss parameter", in errors as well.
        let _ = write!(url, "&iss={}", encode(&self.issuer));
        url
    }
}

/// Words between spaces, each once.
#[must_use]
pub fn words(text: Option<&str>) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    for word in text
        .unwrap_or_default()
        .split(' ')
        .filter(|word| !word.is_empty())
    {
        if !words.iter().any(|known| known == word) {
            words.push(word.to_owned());
        }
    }
    words
}
