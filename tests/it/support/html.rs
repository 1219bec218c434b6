//! Just enough HTML to see where a page of cloakroom's leads.

/// Text out of an attribute.
pub fn unescape(text: &str) -> String {
    text.replace("&quot;", "\"")
        .replace("&#34;", "\"")
        .replace("&#39;", "'")
        .replace("&#x27;", "'")
        .replace("&#x2F;", "/")
        .replace("&#47;", "/")
        .replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&amp;", "&")
}

/// The value of the first `name="…"` after `from` in `page`.
fn attribute(page: &str, name: &str) -> Option<String> {
    let at = page.to_ascii_lowercase().find(&format!("{name}="))?;
    let rest = &page[at + name.len() + 1..];
    let quote = rest.chars().next()?;
    let value = if quote == '"' || quote == '\'' {
        rest[1..].split(quote).next()?
    } else {
        rest.split([' ', '>']).next()?
    };
    Some(unescape(value))
}

/// Every tag of that name, as it stands.
fn tags<'a>(page: &'a str, name: &str) -> Vec<&'a str> {
    let lower = page.to_ascii_lowercase();
    let opening = format!("<{name}");
    let starts = lower.match_indices(&opening).map(|(at, _)| at);
    starts
        .map(|at| page[at..].split_inclusive('>').next().unwrap_or_default())
        .collect()
}

/// Where the page goes by itself, without script.
pub fn refresh_target(page: &str) -> Option<String> {
    let meta = tags(page, "meta")
        .into_iter()
        .find(|tag| tag.to_ascii_lowercase().contains("refresh"))?;
    refresh_url(&attribute(meta, "content")?)
}

/// The URL in a `Refresh` value.
pub fn refresh_url(content: &str) -> Option<String> {
    let at = content.to_ascii_lowercase().find("url=")?;
    Some(content[at + 4..].trim().trim_matches(['"', '\'']).to_owned())
}

/// Where the page's links lead.
pub fn links(page: &str) -> Vec<String> {
    tags(page, "a ")
        .into_iter()
        .filter_map(|tag| attribute(tag, "href"))
        .collect()
}
