//! What stands at a path of the folder, looked up and read in one go; blocking.
//!
//! A file is opened once, and what is said of it (length, time, `ETag`) is what the open file says: one that is replaced
//! meanwhile is the old one to its end, whole.
//!
//! INVARIANT: nothing outside the folder is opened, also not through a symbolic link.
//! INVARIANT: a file that was read whole did not change while it was read, as far as its length and its time tell.

use bytes::Bytes;
use rustix::buffer::spare_capacity;
use std::fs::{self, Metadata};
use std::io;
use std::path::Path;
use std::sync::Arc;

/// The most bytes that a file and its precompressed variants may have together, to be read whole: more than the script
/// of nearly every app.
pub const LARGEST: u64 = 4 * 1024 * 1024;

/// How often a file that changes while it is read is read again, before it is taken for one that always does.
const TRIES: usize = 3;

/// What stands at a path.
#[derive(Clone, Debug)]
pub enum Found {
    File(Arc<File>),
    Folder,
    Nothing,
}

/// A file and the precompressed ones beside it.
#[derive(Debug)]
pub struct File {
    /// Its last segment.
    pub name: String,
    /// The ends of the names, the first of which is empty.
    pub variants: Vec<(&'static str, Variant)>,
}

/// One representation of a file.
#[derive(Debug)]
pub struct Variant {
    pub about: Metadata,
    pub content: Content,
}

/// What is in a file.
#[derive(Clone, Debug)]
pub enum Content {
    Whole(Bytes),
    /// More than is read at once.
    Large(Arc<fs::File>),
}

impl File {
    /// The representation whose name ends so beside the file's own.
    pub fn variant(&self, ending: &str) -> Option<&Variant> {
        let mut variants = self.variants.iter();
        variants
            .find(|(its, _)| *its == ending)
            .map(|(_, variant)| variant)
    }

    /// How many bytes of it are in memory; `None`: some are not.
    pub fn in_memory(&self) -> Option<u64> {
        let lengths = self.variants.iter().map(|(_, variant)| match &variant.content {
            Content::Whole(bytes) => Some(bytes.len() as u64),
            Content::Large(_) => None,
        });
        lengths.sum()
    }
}

/// Looks at a path below `root`, links followed; what lies outside is nothing. Bytes that are the same as those `known` so
/// far are not held twice.
///
/// # Errors
/// There is a file, and it cannot be read.
pub fn look_up(root: &Path, path: &str, known: Option<&File>) -> io::Result<Found> {
    let Ok(root) = root.canonicalize() else {
        return Ok(Found::Nothing);
    };
    let asked = root.join(path.trim_start_matches('/'));
    let mut opened = Vec::new();
    // The precompressed files beside it are served in its place, so they have to lie in the folder too.
    for ending in ["", ".br", ".gz"] {
        let mut name = asked.clone().into_os_string();
        name.push(ending);
        let real = match Path::new(&name).canonicalize() {
            Ok(real) if !real.starts_with(&root) => return Ok(Found::Nothing),
            Ok(real) => real,
            Err(_) if ending.is_empty() => return Ok(Found::Nothing),
            Err(_) => continue,
        };
        if ending.is_empty() && real.is_dir() {
            return Ok(Found::Folder);
        }
        match open(&real)? {
            Some(file) => opened.push((ending, file.metadata()?.len(), file)),
            None if ending.is_empty() => return Ok(Found::Nothing),
            None => {}
        }
    }
    let is_small = opened.iter().map(|(_, length, _)| length).sum::<u64>() <= LARGEST;
    let mut variants = Vec::with_capacity(opened.len());
    for (ending, _, file) in opened {
        let known = known.and_then(|known| known.variant(ending));
        variants.push((ending, Variant::of(file, is_small, known)?));
    }
    let name = path.rsplit('/').next().unwrap_or_default().to_owned();
    Ok(Found::File(Arc::new(File { name, variants })))
}

/// The file at a path, if there is one.
fn open(real: &Path) -> io::Result<Option<fs::File>> {
    // Before it is opened: opening a pipe takes as long as it likes.
    if !real.is_file() {
        return Ok(None);
    }
    match fs::File::open(real) {
        // It was taken away meanwhile.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        opened => opened.map(Some),
    }
}

impl Variant {
    fn of(file: fs::File, is_small: bool, known: Option<&Self>) -> io::Result<Self> {
        for _ in 0..TRIES {
            let about = file.metadata()?;
            if !is_small || about.len() > LARGEST {
                break;
            }
            let mut bytes = read(&file, 0, about.len())?;
            if bytes.len() as u64 == about.len() && is_unchanged(&file, &about)? {
                if let Some(Content::Whole(same)) = known.map(|known| &known.content)
                    && *same == bytes
                {
                    bytes = same.clone();
                }
                let content = Content::Whole(bytes);
                return Ok(Self { about, content });
            }
        }
        let about = file.metadata()?;
        let content = Content::Large(Arc::new(file));
        Ok(Self { about, content })
    }
}

/// Reads so many bytes; fewer, where the file ends before.
pub fn read(file: &fs::File, from: u64, length: u64) -> io::Result<Bytes> {
    let length = usize::try_from(length).map_err(|_| io::ErrorKind::FileTooLarge)?;
    let mut bytes = Vec::with_capacity(length);
    while bytes.len() < length {
        let at = from + bytes.len() as u64;
        if rustix::io::pread(file, spare_capacity(&mut bytes), at)? == 0 {
            break;
        }
    }
    bytes.truncate(length);
    Ok(bytes.into())
}

/// Whether a file is still what was said about it.
pub fn is_unchanged(file: &fs::File, about: &Metadata) -> io::Result<bool> {
    let now = file.metadata()?;
    Ok(now.len() == about.len() && now.modified()? == about.modified()?)
}
