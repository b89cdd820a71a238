//! Files: from a directory, or from the program itself.
#![forbid(unsafe_code)]

use super::context::Context;
use super::plug::{Next, Plug};
use crate::engine::Response;
use bytes::Bytes;
use sha1::{Digest, Sha1};
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

/// Bytes that are read for one answer unless told otherwise.
const READ_BYTES: u64 = 8 << 20;

/// Answers GET and HEAD of files below a path; what is no file of its goes on to the next plug or route.
///
/// Types by their extension, a strong ETag (RFC 9110 §8.8.3), 304 to `If-None-Match`, single ranges (206, 416, `If-Range`).
/// A directory is its `index.html`. Not served: names that begin with a dot, or hold a slash, a backslash or NUL once
/// they are decoded; what a symbolic link leads to outside the root or under such a name; what is no regular file.
///
/// Files are read whole, on the worker's thread, which waits for the disk meanwhile, and at most [`StaticFiles::limit`]
/// bytes of one: meant for what the page cache holds. Put large files behind a server made for them.
///
/// ```
/// use wingbeat::http::{Router, StaticFiles};
///
/// Router::new()
///     .plug(StaticFiles::directory("/assets", "priv/static").cache_control("public, max-age=31536000"))
///     .plug(StaticFiles::embedded("/").file("app.js", "console.log('ready')"));
/// ```
#[derive(Debug)]
pub struct StaticFiles {
    prefix: Vec<String>,
    source: Source,
    cache_control: String,
    limit: u64,
}

#[derive(Debug)]
enum Source {
    Directory(PathBuf),
    Embedded(HashMap<String, (Bytes, String)>),
}

/// A file that was found.
struct Found {
    content_type: &'static str,
    etag: String,
    len: u64,
    content: Content,
}

enum Content {
    Disk(PathBuf),
    Memory(Bytes),
}

impl StaticFiles {
    /// The files of a directory, below a path.
    pub fn directory(prefix: &str, root: impl Into<PathBuf>) -> Self {
        Self::new(prefix, Source::Directory(root.into()))
    }

    /// Files that are part of the program, below a path.
    pub fn embedded(prefix: &str) -> Self {
        Self::new(prefix, Source::Embedded(HashMap::new()))
    }

    /// Adds a file to those of the program; not to a directory's.
    pub fn file(mut self, name: &str, content: impl Into<Bytes>) -> Self {
        if let Source::Embedded(files) = &mut self.source {
            let content = content.into();
            let digest: String = Sha1::digest(&content).iter().map(|byte| format!("{byte:02x}")).collect();
            files.insert(name.trim_start_matches('/').to_owned(), (content, format!("\"{digest}\"")));
        }
        self
    }

    /// The field `Cache-Control` of every file. Default: `no-cache`, which asks each time whether it changed.
    pub fn cache_control(mut self, value: &str) -> Self {
        self.cache_control = value.into();
        self
    }

    /// The most bytes read for one answer; a file or range beyond is not served. Default 8 MiB.
    pub fn limit(mut self, bytes: u64) -> Self {
        self.limit = bytes;
        self
    }

    fn new(prefix: &str, source: Source) -> Self {
        let prefix = prefix.split('/').filter(|segment| !segment.is_empty()).map(str::to_owned).collect();
        StaticFiles { prefix, source, cache_control: "no-cache".into(), limit: READ_BYTES }
    }

    fn find(&self, segments: &[String]) -> Option<Found> {
        let names = segments.strip_prefix(&self.prefix[..])?;
        if !names.iter().all(|name| is_plain(name)) {
            return None;
        }
        match &self.source {
            Source::Directory(root) => on_disk(root, names),
            Source::Embedded(files) => {
                let name = names.join("/");
                let index = || Some(if name.is_empty() { "index.html".into() } else { format!("{name}/index.html") });
                let (name, (bytes, etag)) = match files.get_key_value(&name) {
                    Some(found) => found,
                    None => files.get_key_value(&index()?)?,
                };
                Some(Found {
                    content_type: content_type(Path::new(name)),
                    etag: etag.clone(),
                    len: bytes.len() as u64,
                    content: Content::Memory(bytes.clone()),
                })
            }
        }
    }

    fn answer(&self, context: &Context<'_>, found: &Found) -> Option<Response> {
        let fields = |response: Response| {
            response
                .header("ETag", found.etag.clone())
                .header("Cache-Control", self.cache_control.clone())
                .header("Accept-Ranges", "bytes")
                .header("X-Content-Type-Options", "nosniff")
        };
        if context.header("if-none-match").is_some_and(|list| none_match_names(list, &found.etag)) {
            return Some(fields(Response::no_content().with_status(304)));
        }
        let fresh = context.header("if-range").is_none_or(|etag| etag == found.etag);
        let asked = context.header("range").filter(|_| fresh && context.method() == "GET");
        let part = match asked.map_or(Asked::Whole, |range| parse_range(range, found.len)) {
            Asked::Whole => None,
            Asked::Part(part) => Some(part),
            Asked::Nothing => {
                let refused = Response::new(416).header("Content-Range", format!("bytes */{}", found.len));
                return Some(fields(refused));
            }
        };
        let range = part.clone().unwrap_or(0..found.len);
        if range.end - range.start > self.limit {
            tracing::warn!(path = context.path(), bytes = found.len, "a file is too large to be served");
            return None;
        }
        let body = found.content.read(range.clone()).ok()?;
        let response = Response::with_type(if part.is_some() { 206 } else { 200 }, found.content_type, body);
        let response = fields(response);
        Some(match part {
            None => response,
            Some(part) => {
                response.header("Content-Range", format!("bytes {}-{}/{}", part.start, part.end - 1, found.len))
            }
        })
    }
}

impl Plug for StaticFiles {
    fn call(&self, context: &mut Context<'_>, next: Next<'_>) -> Response {
        if matches!(context.method(), "GET" | "HEAD")
            && let Some(found) = self.find(context.segments())
            && let Some(response) = self.answer(context, &found)
        {
            return response;
        }
        next.run(context)
    }
}

impl Content {
    fn read(&self, range: Range<u64>) -> io::Result<Bytes> {
        match self {
            Content::Memory(bytes) => Ok(bytes.slice(range.start as usize..range.end as usize)),
            Content::Disk(path) => {
                let mut file = File::open(path)?;
                file.seek(SeekFrom::Start(range.start))?;
                let mut bytes = Vec::new();
                let len = range.end - range.start;
                file.take(len).read_to_end(&mut bytes)?;
                // It was cut meanwhile: what was promised is not there.
                if bytes.len() as u64 == len { Ok(bytes.into()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
            }
        }
    }
}

/// Whether a decoded segment can be nothing but the name of a file below its directory.
fn is_plain(name: &str) -> bool {
    !name.starts_with('.') && !name.contains(['/', '\\', '\0'])
}

fn on_disk(root: &Path, names: &[String]) -> Option<Found> {
    let root = root.canonicalize().ok()?;
    // Without links and dots: where it really is, and under what names.
    let inside = |path: &Path| {
        let path = path.canonicalize().ok()?;
        let mut names = path.strip_prefix(&root).ok()?.iter();
        names.all(|name| name.to_str().is_some_and(is_plain)).then_some(path)
    };
    let mut path = inside(&names.iter().fold(root.clone(), |path, name| path.join(name)))?;
    if path.is_dir() {
        path = inside(&path.join("index.html"))?;
    }
    let meta = fs::metadata(&path).ok().filter(fs::Metadata::is_file)?;
    let changed = meta.modified().ok()?.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
    Some(Found {
        content_type: content_type(&path),
        etag: format!("\"{:x}-{changed:x}\"", meta.len()),
        len: meta.len(),
        content: Content::Disk(path),
    })
}

/// RFC 9110 §13.1.2, by the weak comparison that it asks for.
fn none_match_names(list: &str, etag: &str) -> bool {
    let mut tags = list.split(',').map(str::trim);
    list.trim() == "*" || tags.any(|tag| tag.strip_prefix("W/").unwrap_or(tag) == etag)
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Asked {
    Whole,
    Part(Range<u64>),
    Nothing,
}

/// A single range (RFC 9110 §14.1.2); what is another unit, several ranges or nonsense is the whole.
fn parse_range(value: &str, len: u64) -> Asked {
    let spec = value.strip_prefix("bytes=").map(str::trim).filter(|spec| !spec.contains(','));
    let Some((first, last)) = spec.and_then(|spec| spec.split_once('-')) else { return Asked::Whole };
    let number = |digits: &str| match digits.bytes().all(|byte| byte.is_ascii_digit()) {
        true => digits.parse::<u64>().ok(),
        false => None,
    };
    let range = match (number(first), number(last)) {
        (Some(first), Some(last)) if first > last => return Asked::Whole,
        (Some(first), Some(last)) => first..last.saturating_add(1).min(len),
        (Some(first), None) if last.is_empty() => first..len,
        (None, Some(suffix)) if first.is_empty() => len.saturating_sub(suffix)..len,
        _ => return Asked::Whole,
    };
    if range.start < range.end { Asked::Part(range) } else { Asked::Nothing }
}

fn content_type(path: &Path) -> &'static str {
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    match extension.to_ascii_lowercase().as_str() {
        "html" | "htm" => "text/html; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "json" | "map" => "application/json",
        "webmanifest" => "application/manifest+json",
        "txt" | "md" => "text/plain; charset=utf-8",
        "csv" => "text/csv; charset=utf-8",
        "xml" => "application/xml",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "gif" => "image/gif",
        "webp" => "image/webp",
        "avif" => "image/avif",
        "ico" => "image/vnd.microsoft.icon",
        "woff" => "font/woff",
        "woff2" => "font/woff2",
        "ttf" => "font/ttf",
        "wasm" => "application/wasm",
        "pdf" => "application/pdf",
        "mp3" => "audio/mpeg",
        "mp4" => "video/mp4",
        "webm" => "video/webm",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_single_or_the_whole() {
        for (value, expected) in [
            ("bytes=0-4", Asked::Part(0..5)),
            ("bytes=2-", Asked::Part(2..10)),
            ("bytes=-3", Asked::Part(7..10)),
            ("bytes=-30", Asked::Part(0..10)),
            ("bytes=9-99", Asked::Part(9..10)),
            ("bytes=0-18446744073709551615", Asked::Part(0..10)),
            ("bytes=10-", Asked::Nothing),
            ("bytes=-0", Asked::Nothing),
            ("bytes=4-2", Asked::Whole),
            ("bytes=0-1,3-4", Asked::Whole),
            ("bytes=+1-2", Asked::Whole),
            ("bytes=-", Asked::Whole),
            ("bytes=a-b", Asked::Whole),
            ("lines=0-1", Asked::Whole),
        ] {
            assert_eq!(parse_range(value, 10), expected, "{value}");
        }
        assert_eq!(parse_range("bytes=0-", 0), Asked::Nothing);
    }
}
