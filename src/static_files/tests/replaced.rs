//! Files that are replaced, rewritten and removed while they are served, and how much of them is held in memory.

use super::*;
use http_body::Body as _;
use std::fs::OpenOptions;
use std::time::{Duration, SystemTime};

impl Site {
    fn at(&self, name: &str) -> PathBuf {
        self.outer.path().join("dist").join(name)
    }

    /// Puts a file there the way of a careful deployment: in one step, whole.
    fn put(&self, name: &str, content: impl AsRef<[u8]>) {
        let new = self.outer.path().join("new");
        fs::write(&new, content).unwrap();
        fs::rename(new, self.at(name)).unwrap();
    }

    async fn body(&self, path: &str) -> Body {
        let request = Request::builder().uri(path).body(()).unwrap();
        let parsed = RequestPath::parse(path).unwrap();
        self.files
            .serve(&request.into_parts().0, &parsed)
            .await
            .unwrap()
            .into_body()
    }

    /// The file's bytes themselves, where they are sent in one go.
    async fn bytes(&self, path: &str) -> Bytes {
        let frame = self.body(path).await.frame().await.unwrap().unwrap();
        frame.into_data().unwrap()
    }
}

async fn a_second() {
    tokio::time::advance(kept::FRESH_FOR).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_deployed_is_served_within_a_second_head_and_body_together() {
    let site = site();
    let html = [("accept", "text/html")];
    for (path, name) in [
        ("/", "index.html"),
        ("/plain.txt", "plain.txt"),
        ("/orders/7", "index.html"),
    ] {
        site.put(name, "old");
        a_second().await;
        let (old, body) = ask(&site, "GET", path, &html).await.unwrap();
        assert_eq!(body, "old");
        site.put(name, "new and longer");
        // While it is in demand nobody looks at the disk, and nothing is mixed.
        let (head, body) = ask(&site, "GET", path, &html).await.unwrap();
        assert_eq!((head.headers(), body.as_str()), (old.headers(), "old"), "{path}");
        a_second().await;
        let (new, body) = ask(&site, "GET", path, &html).await.unwrap();
        assert_eq!(
            (body.as_str(), &new.headers()["content-length"]),
            ("new and longer", &HeaderValue::from_static("14")),
            "{path}"
        );
        assert_ne!(new.headers()["etag"], old.headers()["etag"], "{path}");
        let known = [("if-none-match", old.headers()["etag"].to_str().unwrap())];
        assert_eq!(ask(&site, "GET", path, &known).await.unwrap().1, "new and longer");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_taken_away_or_leads_outside_is_gone_within_a_second() {
    let site = site();
    let gone =
        |found: Result<(Response<()>, String), Failure>| assert_eq!(found.err(), Some(Failure::NotFound));
    for path in ["/plain.txt", "/inside/real.txt", "/docs/"] {
        ask(&site, "GET", path, &[("accept", "*/*")]).await.unwrap();
    }
    fs::remove_file(site.at("plain.txt")).unwrap();
    fs::remove_file(site.at("docs/index.html")).unwrap();
    fs::remove_dir_all(site.at("inside")).unwrap();
    fs::write(site.outer.path().join("real.txt"), "secret").unwrap();
    symlink(site.outer.path(), site.at("inside")).unwrap();
    a_second().await;
    gone(ask(&site, "GET", "/plain.txt", &[]).await);
    gone(ask(&site, "GET", "/inside/real.txt", &[]).await);
    let (_, body) = ask(&site, "GET", "/docs/", &[]).await.unwrap();
    assert_eq!(body, "<p>app", "the entry page instead");

    let br = [("accept-encoding", "br")];
    let (head, _) = ask(&site, "GET", "/assets/app-B1x9k2Qa.js", &br).await.unwrap();
    assert_eq!(head.headers()["content-encoding"], "br");
    fs::remove_file(site.at("assets/app-B1x9k2Qa.js.br")).unwrap();
    a_second().await;
    let (head, body) = ask(&site, "GET", "/assets/app-B1x9k2Qa.js", &br).await.unwrap();
    assert_eq!(
        (head.headers().get("content-encoding"), body.as_str()),
        (None, "js")
    );
}

/// A large file that nobody has touched for long, and its content.
fn large(site: &Site) -> Vec<u8> {
    let content: Vec<u8> = (0..folder::LARGEST + 12_345)
        .map(|n| (n / 7 % 251) as u8)
        .collect();
    site.put("large.bin", &content);
    let file = OpenOptions::new().write(true).open(site.at("large.bin")).unwrap();
    file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_hours(1))
        .unwrap();
    content
}

#[tokio::test]
async fn a_large_file_goes_out_in_pieces_and_none_of_it_is_kept() {
    let site = site();
    let content = large(&site);
    let sent = site.body("/large.bin").await;
    assert_eq!(sent.size_hint().exact(), Some(content.len() as u64));
    let mut got = Vec::new();
    let mut sent = std::pin::pin!(sent);
    while let Some(frame) = sent.frame().await {
        let piece = frame.unwrap().into_data().unwrap();
        assert!(piece.len() as u64 <= pieces::PIECE);
        got.extend_from_slice(&piece);
    }
    assert!(got == content);
    assert_eq!(site.files.kept.weight(), 0);
    let request = Request::builder()
        .uri("/large.bin")
        .header("range", "bytes=100000-400000");
    let parsed = RequestPath::parse("/large.bin").unwrap();
    let answer = site
        .files
        .serve(&request.body(()).unwrap().into_parts().0, &parsed)
        .await
        .unwrap();
    assert_eq!(answer.status(), StatusCode::PARTIAL_CONTENT);
    assert!(answer.into_body().collect().await.unwrap().to_bytes() == content[100_000..=400_000]);
}

#[tokio::test]
async fn a_large_file_that_changes_on_its_way_breaks_off_and_one_that_is_replaced_does_not() {
    let site = site();
    for (change, is_whole) in [("replace", true), ("rewrite", false), ("truncate", false)] {
        let content = large(&site);
        let mut sent = site.body("/large.bin").await;
        let first = sent.frame().await.unwrap().unwrap().into_data().unwrap();
        let file = OpenOptions::new().write(true).open(site.at("large.bin")).unwrap();
        match change {
            "replace" => site.put("large.bin", "new"),
            "rewrite" => fs::write(site.at("large.bin"), vec![b'x'; content.len()]).unwrap(),
            _ => file.set_len(pieces::PIECE + 1).unwrap(),
        }
        let rest = sent.collect().await;
        assert_eq!(rest.is_ok(), is_whole, "{change}");
        if let Ok(rest) = rest {
            assert!(content[first.len()..] == rest.to_bytes(), "{change}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn who_reads_the_same_file_slowly_shares_one_copy_of_it() {
    let site = site();
    let first = site.bytes("/plain.txt").await;
    a_second().await;
    let second = site.bytes("/plain.txt").await;
    assert_eq!(first.as_ptr(), second.as_ptr());
    site.put("plain.txt", "9876543210");
    a_second().await;
    assert_eq!(site.bytes("/plain.txt").await, "9876543210");
    assert_eq!(first, "0123456789", "the old one to its end");
}

#[tokio::test]
async fn however_many_ask_for_a_file_at_once_few_read_it() {
    let site = Arc::new(site());
    let mut asking = tokio::task::JoinSet::new();
    for _ in 0..200 {
        let site = site.clone();
        asking.spawn(async move { site.bytes("/plain.txt").await });
    }
    let all = asking.join_all().await;
    let mut copies: Vec<_> = all.iter().map(|bytes| bytes.as_ptr()).collect();
    copies.sort_unstable();
    copies.dedup();
    assert!(copies.len() <= kept::AT_ONCE, "{}", copies.len());
}

#[tokio::test(start_paused = true)]
async fn what_is_kept_is_bounded_and_the_largest_that_may_be_is_kept() {
    let site = site();
    for n in 0..2 * kept::ROOM / folder::LARGEST {
        let name = format!("{n}.bin");
        fs::File::create(site.at(&name))
            .unwrap()
            .set_len(folder::LARGEST)
            .unwrap();
        let path = format!("/{name}");
        assert_eq!(site.bytes(&path).await.len() as u64, folder::LARGEST);
        if n == 0 {
            fs::remove_file(site.at(&name)).unwrap();
            assert_eq!(site.bytes(&path).await.len() as u64, folder::LARGEST);
        }
        assert!(site.files.kept.weight() <= kept::ROOM);
    }
    assert!(site.files.kept.weight() > kept::ROOM / 2);
}
