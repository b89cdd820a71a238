//! `wingbeat new`: a small project to begin with, a chat whose every part is there to be changed.
#![forbid(unsafe_code)]

mod name;

use crate::args::NewArgs;
use crate::failure::Failure;
use name::check_name;
use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::{env, fs};

/// The files of a project, and what they begin as. `{{name}}` and `{{wingbeat}}` are filled in.
const FILES: [(&str, &str); 5] = [
    ("Cargo.toml", include_str!("template/Cargo.toml.in")),
    (".gitignore", include_str!("template/gitignore.in")),
    ("src/main.rs", include_str!("template/main.rs.in")),
    ("src/room.rs", include_str!("template/room.rs.in")),
    ("src/page.html", include_str!("template/page.html.in")),
];

/// Said where the project depends on a version.
const NEEDS_A_RELEASE: &str = concat!(
    "It needs wingbeat ",
    env!("CARGO_PKG_VERSION"),
    " from crates.io, where no version is yet; with a checkout instead: wingbeat new NAME --path DIRECTORY\n\n"
);

/// Runs `wingbeat new`, and returns what to do next.
///
/// # Errors
/// [`Failure`] if no crate can have this name, if there is no wingbeat at `--path`, or if the project's directory has
/// something in it or cannot be written. Nothing that was there is changed.
pub(crate) fn new(args: &NewArgs) -> Result<String, Failure> {
    check_name(&args.name).map_err(|why| Failure::usage(format!("invalid project name '{}': {why}", args.name)))?;
    let wingbeat = match args.path.clone().or_else(own_checkout) {
        Some(path) => local(&path)?,
        None => published(),
    };
    let directory = Path::new(&args.name);
    make_directory(directory)?;
    for (path, template) in FILES {
        let text = template.replace("{{name}}", &args.name).replace("{{wingbeat}}", &wingbeat);
        write(&directory.join(path), &text)?;
    }
    let note = if wingbeat == published() { NEEDS_A_RELEASE } else { "" };
    Ok(format!("{note}{}", next_steps(&args.name)))
}

/// The dependency on the version that this program is.
fn published() -> String {
    format!("\"{}\"", env!("CARGO_PKG_VERSION"))
}

/// Where the crate is, if Cargo runs this program from its sources: `cargo run` tells where.
fn own_checkout() -> Option<PathBuf> {
    let path = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR")?);
    let manifest = fs::read_to_string(path.join("Cargo.toml")).ok()?;
    is_wingbeat(&manifest).then_some(path)
}

fn is_wingbeat(manifest: &str) -> bool {
    manifest.lines().any(|line| line.trim() == "name = \"wingbeat\"")
}

/// The dependency on the crate in a directory.
fn local(path: &Path) -> Result<String, Failure> {
    let cannot = |why: &dyn std::fmt::Display| Failure::cannot(format!("use --path {}", path.display()), why);
    let manifest = fs::read_to_string(path.join("Cargo.toml")).map_err(|error| cannot(&error))?;
    if !is_wingbeat(&manifest) {
        return Err(cannot(&"that is not the crate wingbeat"));
    }
    let path: PathBuf = path.canonicalize().map_err(|error| cannot(&error))?;
    let path = path.to_str().ok_or_else(|| cannot(&"the path is not UTF-8"))?;
    // What JSON escapes, and how, is the same in a string of TOML.
    let path = serde_json::to_string(path).map_err(|error| cannot(&error))?;
    Ok(format!("{{ path = {path} }}"))
}

/// Makes the project's directory, or takes one that is empty.
fn make_directory(directory: &Path) -> Result<(), Failure> {
    let cannot = |why: &dyn std::fmt::Display| Failure::cannot(format!("make {}", directory.display()), why);
    match fs::create_dir(directory) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        made => return made.map_err(|error| cannot(&error)),
    }
    match fs::read_dir(directory).map_err(|error| cannot(&error))?.next() {
        None => Ok(()),
        Some(_) => Err(cannot(&"it is there already, and not empty")),
    }
}

/// Writes a file that is not there yet.
fn write(path: &Path, text: &str) -> Result<(), Failure> {
    let cannot = |error| Failure::cannot(format!("write {}", path.display()), error);
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(cannot)?;
    }
    let mut file = OpenOptions::new().write(true).create_new(true).open(path).map_err(cannot)?;
    file.write_all(text.as_bytes()).map_err(cannot)
}

fn next_steps(name: &str) -> String {
    format!(
        "\
created {name}: a page, an API, and a socket with a channel

  cd {name}
  cargo test    # the channel, without a server
  cargo run     # then open http://127.0.0.1:4000 in two windows, and say something from outside:
  curl http://127.0.0.1:4000/api/messages --json '{{\"room\":\"lobby\",\"from\":\"curl\",\"text\":\"hello\"}}'
"
    )
}
