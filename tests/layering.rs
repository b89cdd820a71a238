//! The sources keep the architecture's rules: layers, islands of unsafe, sizes, nothing of one machine
//!
//! Arrows point from user to used; `buffer` is the bottom and `proto`, `driver` and `pubsub` are siblings above it that
//! know nothing of one another. Comments and literals are not code: a doc link may point anywhere.
#![forbid(unsafe_code)]

use std::{collections::BTreeSet, fs, path::Path};

/// What each layer may name besides itself. The facade (everything else under `src/`) may name all.
const LAYERS: [(&str, &[&str]); 6] = [
    ("buffer", &[]),
    ("proto", &["buffer"]),
    ("driver", &["buffer"]),
    ("pubsub", &["buffer"]),
    ("engine", &["buffer", "proto", "driver", "pubsub"]),
    ("channels", &["proto"]),
];

/// The only places where `unsafe` may stand; a directory ends with a slash. The `mod.rs` above an island and lib.rs
/// cannot `forbid`, they carry `deny`.
const ISLANDS: [&str; 5] = [
    "src/driver/uring/",
    "src/buffer/ring.rs",
    "src/proto/mask.rs",
    "tests/zero_alloc.rs",
    // The floor beside which the driver is measured: no part of the library.
    "benches/peers/src/bin/raw-uring/",
];
const ABOVE_ISLANDS: [&str; 4] = ["src/lib.rs", "src/driver/mod.rs", "src/buffer/mod.rs", "src/proto/mod.rs"];

const FILE_LINES: usize = 500;
const FUNCTION_LINES: usize = 70;

/// Beginnings of paths that exist on one machine only (split, so that this file does not hold them).
const MACHINE_PATHS: [&str; 6] = [
    concat!("/ho", "me/"),
    concat!("/ro", "ot/"),
    concat!("/wo", "rk/"),
    concat!("/Us", "ers/"),
    concat!("/t", "mp/"),
    concat!("C:", "\\"),
];

#[test]
fn sources_keep_the_rules() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for directory in ["src", "tests", "examples", "benches", "fuzz"] {
        collect(&root.join(directory), root, &mut files);
    }
    assert!(files.iter().any(|(path, _)| path == "src/lib.rs"), "the sources were not found");
    let layers = files.iter().filter_map(|(path, _)| layer_of(path)).collect::<BTreeSet<_>>();
    assert!(layers.contains("buffer") && layers.contains("proto"), "a layer has another name now: {layers:?}");
    let broken = files.iter().flat_map(|(path, text)| check(path, text)).collect::<Vec<_>>();
    assert!(broken.is_empty(), "{} broken:\n{}", broken.len(), broken.join("\n"));
}

/// Every `.rs` file below `directory`, with its path relative to `root`; build output is left out.
fn collect(directory: &Path, root: &Path, files: &mut Vec<(String, String)>) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries {
        let path = entry.expect("the directory can be read").path();
        if path.is_dir() && !path.ends_with("target") && !path.ends_with("venv") && !path.ends_with("node_modules") {
            collect(&path, root, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path.strip_prefix(root).expect("below the root").to_string_lossy().into_owned();
            files.push((name, fs::read_to_string(&path).expect("a source file is UTF-8")));
        }
    }
}

/// What is wrong with one file, one line each.
fn check(path: &str, text: &str) -> Vec<String> {
    let tokens = tokens(text);
    let mut broken = Vec::new();
    let mut report = |line: usize, what: String| broken.push(format!("{path}:{line}: {what}"));
    for (line, number) in text.lines().zip(1..) {
        if let Some(found) = MACHINE_PATHS.iter().find(|start| line.contains(**start)) {
            report(number, format!("names a path of one machine ({found})"));
        }
    }
    let island = ISLANDS.iter().any(|island| path == *island || island.ends_with('/') && path.starts_with(island));
    for token in tokens.iter().filter(|token| token.text == "unsafe" && !island) {
        report(token.line, "unsafe outside the islands".into());
    }
    if !path.starts_with("src/") {
        return broken;
    }
    if !island && !closed_to_unsafe(path, &tokens) {
        report(1, "does not forbid unsafe_code".into());
    }
    let lines = text.split("\n#[cfg(test)]\nmod ").next().map_or(0, |code| code.lines().count());
    if lines > FILE_LINES {
        report(lines, format!("{lines} lines before the tests, more than {FILE_LINES}"));
    }
    for (name, line, lines) in functions(&tokens).into_iter().filter(|(_, _, lines)| *lines > FUNCTION_LINES) {
        report(line, format!("fn {name} has {lines} lines, more than {FUNCTION_LINES}"));
    }
    for (line, used) in upward(path, &tokens) {
        report(line, format!("names crate::{used}, which is not below it"));
    }
    broken
}

/// Whether the file begins with `#![forbid(unsafe_code)]`, or `deny` where an island lies below.
fn closed_to_unsafe(path: &str, tokens: &[Token<'_>]) -> bool {
    tokens.windows(6).any(|window| {
        let text = window.iter().map(|token| token.text).collect::<Vec<_>>();
        text[..2] == ["#", "!"]
            && text[2] == "["
            && (text[3] == "forbid" || text[3] == "deny" && ABOVE_ISLANDS.contains(&path))
            && text[5] == "unsafe_code"
    })
}

/// The layer a file belongs to, if it is not of the facade.
fn layer_of(path: &str) -> Option<&str> {
    let first = path.strip_prefix("src/")?.split('/').next()?;
    let name = first.strip_suffix(".rs").unwrap_or(first);
    LAYERS.iter().any(|(layer, _)| *layer == name).then_some(name)
}

/// Top-level modules that a file of a layer names and may not, with the line.
fn upward<'a>(path: &str, tokens: &[Token<'a>]) -> Vec<(usize, &'a str)> {
    let Some(layer) = layer_of(path) else { return Vec::new() };
    let (_, below) = LAYERS.iter().find(|(name, _)| *name == layer).expect("layer_of returns one of them");
    let named = crate_names(path, tokens);
    named.into_iter().filter(|(_, name)| *name != layer && !below.contains(name)).collect()
}

/// First path segment below the crate's root, wherever a path begins there: by `crate::`, or by enough `super::`.
fn crate_names<'a>(path: &str, tokens: &[Token<'a>]) -> Vec<(usize, &'a str)> {
    let mut found = Vec::new();
    let mut inline = Vec::new(); // depth of the braces that each inline module opened
    let mut depth = 0;
    let mut at = 0;
    while at < tokens.len() {
        match tokens[at].text {
            "{" => depth += 1,
            "}" => {
                inline.pop_if(|opened| *opened == depth);
                depth -= 1;
            }
            "mod" if text_at(tokens, at + 2) == "{" => inline.push(depth + 1),
            "crate" if text_at(tokens, at + 1) == "::" => heads(tokens, at + 2, &mut found),
            "super" if at == 0 || tokens[at - 1].text != "::" => {
                let climbs = (0..).take_while(|i| text_at(tokens, at + 2 * i) == "super").count();
                if climbs == module_depth(path) + inline.len() {
                    heads(tokens, at + 2 * climbs, &mut found);
                }
            }
            _ => {}
        }
        at += 1;
    }
    found
}

/// How many `super::` lead from the file's module to the root of the crate.
fn module_depth(path: &str) -> usize {
    let inner = path.strip_prefix("src/").unwrap_or(path);
    let components = inner.split('/').count();
    if inner.ends_with("mod.rs") || inner == "lib.rs" { components - 1 } else { components }
}

/// The path segment at `at`, or the first segment of each path of the group `{a, b::c}` there.
fn heads<'a>(tokens: &[Token<'a>], at: usize, found: &mut Vec<(usize, &'a str)>) {
    if text_at(tokens, at) != "{" {
        found.extend(tokens.get(at).map(|token| (token.line, token.text)));
        return;
    }
    let mut depth = 0;
    for (i, token) in tokens.iter().enumerate().skip(at) {
        match token.text {
            "{" => depth += 1,
            "}" if depth == 1 => return,
            "}" => depth -= 1,
            _ => {}
        }
        let starts = matches!(tokens[i - 1].text, "{" | ",");
        if depth == 1 && starts && is_word(token.text) {
            found.push((token.line, token.text));
        }
    }
}

/// Name, first line and number of lines of every function that has a body.
fn functions<'a>(tokens: &[Token<'a>]) -> Vec<(&'a str, usize, usize)> {
    let mut found = Vec::new();
    for (i, token) in tokens.iter().enumerate() {
        if token.text != "fn" || !is_word(text_at(tokens, i + 1)) {
            continue;
        }
        if let Some(last) = body_end(&tokens[i..]) {
            found.push((tokens[i + 1].text, token.line, last - token.line + 1));
        }
    }
    found
}

/// The line of the brace that ends the function which the tokens begin with; none for a declaration.
fn body_end(tokens: &[Token<'_>]) -> Option<usize> {
    let (mut brackets, mut braces) = (0, 0);
    for token in tokens {
        match token.text {
            "(" | "[" => brackets += 1,
            ")" | "]" => brackets -= 1,
            "{" => braces += 1,
            "}" => braces -= 1,
            ";" if brackets == 0 && braces == 0 => return None,
            _ => {}
        }
        if token.text == "}" && braces == 0 && brackets == 0 {
            return Some(token.line);
        }
    }
    None
}

fn text_at<'a>(tokens: &[Token<'a>], at: usize) -> &'a str {
    tokens.get(at).map_or("", |token| token.text)
}

fn is_word(text: &str) -> bool {
    text.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// A word, `::` or one other character, outside comments and literals.
struct Token<'a> {
    text: &'a str,
    line: usize,
}

fn tokens(text: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let (mut at, mut line) = (0, 1);
    while let Some(c) = text[at..].chars().next() {
        let rest = &text[at..];
        let (length, code) = match c {
            _ if rest.starts_with("//") => (rest.find('\n').unwrap_or(rest.len()), false),
            _ if rest.starts_with("/*") => (block_comment(rest), false),
            '"' => (string(rest), false),
            '\'' => (char_or_lifetime(rest), false),
            _ if is_word(rest) => word_or_prefixed_literal(rest),
            _ if c.is_whitespace() => (c.len_utf8(), false),
            _ if rest.starts_with("::") => (2, true),
            _ => (c.len_utf8(), true),
        };
        if code {
            tokens.push(Token { text: &rest[..length], line });
        }
        line += rest[..length].matches('\n').count();
        at += length;
    }
    tokens
}

/// Length of a word, or of a literal that begins with letters (`r#".."#`, `b".."`, `c".."`, `b'.'`).
fn word_or_prefixed_literal(rest: &str) -> (usize, bool) {
    let word = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
    let after = &rest[word..];
    let hashes = after.len() - after.trim_start_matches('#').len();
    match &rest[..word] {
        "r" | "br" | "cr" if after[hashes..].starts_with('"') => {
            let end = format!("\"{}", "#".repeat(hashes));
            let body = word + hashes + 1;
            (rest[body..].find(&end).map_or(rest.len(), |found| body + found + end.len()), false)
        }
        "b" | "c" if after.starts_with('"') => (word + string(after), false),
        "b" if after.starts_with('\'') => (word + char_or_lifetime(after), false),
        _ => (word, true),
    }
}

fn string(rest: &str) -> usize {
    let mut escaped = false;
    for (i, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return i + 1,
            _ => {}
        }
    }
    rest.len()
}

/// `'x'`, `'\n'`, `'\u{1F600}'`, or the quote alone of a lifetime or label.
fn char_or_lifetime(rest: &str) -> usize {
    let mut chars = rest.char_indices().skip(1);
    match chars.next() {
        Some((_, '\\')) => {
            chars.next();
            rest[3..].find('\'').map_or(1, |end| 3 + end + 1)
        }
        Some((i, c)) if rest[i + c.len_utf8()..].starts_with('\'') => i + c.len_utf8() + 1,
        _ => 1,
    }
}

fn block_comment(rest: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        let here = &rest.as_bytes()[at..];
        match here {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    rest.len()
}

mod planted {
    //! The checker itself: what is planted must be found, what is allowed must pass.
    use super::*;

    const HEAD: &str = "#![forbid(unsafe_code)]\n";

    fn found(path: &str, body: &str) -> Vec<String> {
        check(path, &format!("{HEAD}{body}"))
    }

    #[test]
    fn an_arrow_up_is_found_however_it_is_written() {
        for body in [
            "use crate::engine::Worker;",
            "use crate::{buffer::Pool, engine::Worker};",
            "use crate::{\n    buffer::{self, Pool},\n    engine,\n};",
            "fn f() -> crate::engine::Worker { g() }",
            "use super::super::engine::Worker;",
            "mod tests { use super::super::super::engine; }",
            "use crate::driver::SocketId;",
            "use crate::server;",
        ] {
            assert_eq!(found("src/proto/frame.rs", body).len(), 1, "{body}");
        }
        assert_eq!(found("src/buffer/pool.rs", "use crate::proto::Opcode;").len(), 1);
        assert_eq!(found("src/pubsub/mod.rs", "use super::driver::Driver;").len(), 1);
        assert_eq!(found("src/engine.rs", "use crate::server::Server;").len(), 1);
    }

    #[test]
    fn arrows_down_and_inside_pass() {
        for body in [
            "use crate::buffer::Pool; use crate::proto::Opcode;",
            "use super::super::buffer::Pool;",
            "use super::opcode; mod tests { use super::super::opcode; use super::*; }",
            "//! See [`crate::engine::Worker`].\n/* crate::engine */ const S: &str = \"crate::engine\";",
            "const R: &str = r#\"crate::engine \" \"#; const C: char = '\"'; fn f<'a>(x: &'a u8) {}",
            "macro_rules! m { ($crate:ident) => {} }",
        ] {
            assert_eq!(found("src/proto/frame.rs", body), [""; 0], "{body}");
        }
        assert_eq!(found("src/engine/worker.rs", "use crate::{driver::Driver, proto, pubsub::Topics};"), [""; 0]);
        assert_eq!(found("src/server.rs", "use crate::{engine::Worker, driver::Epoll};"), [""; 0]);
    }

    #[test]
    fn unsafe_is_found_outside_the_islands() {
        let body = "fn f() { unsafe { g() } }";
        assert_eq!(found("src/engine/table.rs", body).len(), 1);
        assert_eq!(found("src/driver/epoll.rs", body).len(), 1);
        assert_eq!(found("tests/memory.rs", body).len(), 1);
        assert_eq!(found("src/driver/uring/ops.rs", body), [""; 0]);
        assert_eq!(found("tests/zero_alloc.rs", body), [""; 0]);
        assert_eq!(found("src/engine/table.rs", "// unsafe\nconst S: &str = \"unsafe\";"), [""; 0]);
    }

    #[test]
    fn a_file_that_does_not_forbid_unsafe_is_found() {
        assert_eq!(check("src/engine/table.rs", "fn f() {}").len(), 1);
        assert_eq!(check("src/engine/table.rs", "#![deny(unsafe_code)]").len(), 1);
        assert_eq!(check("src/engine/table.rs", "// #![forbid(unsafe_code)]").len(), 1);
        assert_eq!(check("src/driver/mod.rs", "#![deny(unsafe_code)]"), [""; 0]);
        assert_eq!(check("src/driver/mod.rs", "").len(), 1);
        assert_eq!(check("src/driver/uring/ops.rs", ""), [""; 0]);
    }

    #[test]
    fn sizes_are_counted() {
        let long = |lines: usize| "fn g() {}\n".repeat(lines);
        assert_eq!(found("src/engine/table.rs", &long(FILE_LINES - 1)), [""; 0]);
        assert_eq!(found("src/engine/table.rs", &long(FILE_LINES)).len(), 1);
        let tests = format!("#[cfg(test)]\nmod tests {{\n{}}}", long(FILE_LINES));
        assert_eq!(found("src/engine/table.rs", &tests), [""; 0]);

        let function = |lines: usize| format!("fn f(x: [u8; 2])\n{{\n{}}}", "    g(\"}\");\n".repeat(lines - 3));
        assert_eq!(found("src/engine/table.rs", &function(FUNCTION_LINES)), [""; 0]);
        assert_eq!(found("src/engine/table.rs", &function(FUNCTION_LINES + 1)).len(), 1);
        let declaration = format!("trait T {{ fn f(x: [u8; 2]); }}\n{}", long(FUNCTION_LINES));
        assert_eq!(found("src/engine/table.rs", &declaration), [""; 0]);
    }

    #[test]
    fn a_path_of_one_machine_is_found_even_in_a_comment() {
        for start in MACHINE_PATHS {
            assert_eq!(found("src/engine/table.rs", &format!("// see {start}notes")).len(), 1, "{start}");
            assert_eq!(found("examples/echo.rs", &format!("const P: &str = \"{start}x\";")).len(), 1, "{start}");
        }
    }
}
