//! Compiles the uWebSockets peer from the sources that the crate `libuwebsockets-sys` carries, outside its
//! registry folder.
//! Without a C++ compiler or zlib the other peers still build: the runner then says why `uws` is missing.
#![forbid(unsafe_code)]

use std::env;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;

const SOURCE_MANIFEST: &str = "uws-source/Cargo.toml";
const SOURCE_CRATE: &str = "libuwebsockets-sys";
const PEER_MAIN: &str = "uws/main.cpp";
const OPTIMIZE: [&str; 2] = ["-O3", "-flto"];

fn main() {
    for input in ["build.rs", PEER_MAIN, SOURCE_MANIFEST, "uws-source/Cargo.lock"] {
        println!("cargo::rerun-if-changed={input}");
    }
    for compiler in ["CC", "CXX"] {
        println!("cargo::rerun-if-env-changed={compiler}");
    }
    let (program, missing) = match build_uws() {
        Ok(program) => (program.display().to_string(), String::new()),
        Err(error) => (String::new(), error.to_string().replace('\n', " ")),
    };
    if !missing.is_empty() {
        println!("cargo::warning=the uws peer is left out: {missing}");
    }
    println!("cargo::rustc-env=UWS_PEER={program}");
    println!("cargo::rustc-env=UWS_MISSING={missing}");
}

fn build_uws() -> Result<PathBuf, Box<dyn Error>> {
    let source = unpacked_source()?.join("uWebSockets");
    let usockets = source.join("uSockets/src");
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let mut objects = Vec::new();
    for folder in ["", "eventing", "crypto"] {
        for file in c_files(&usockets.join(folder))? {
            let object = out.join(file.file_name().expect("a listed file has a name")).with_extension("o");
            let compile = compiler("CC", "cc")
                .args(OPTIMIZE)
                .args(["-std=c11", "-DLIBUS_NO_SSL", "-I"])
                .arg(&usockets)
                .arg("-c")
                .arg(&file)
                .arg("-o")
                .arg(&object)
                .output();
            succeeded("cc", compile)?;
            objects.push(object);
        }
    }
    let program = out.join("uws");
    let link = compiler("CXX", "g++")
        .args(OPTIMIZE)
        .args(["-std=c++20", "-DLIBUS_NO_SSL", "-I"])
        .arg(source.join("src"))
        .arg("-I")
        .arg(&usockets)
        .arg(PEER_MAIN)
        .args(&objects)
        .arg("-lz")
        .arg("-o")
        .arg(&program)
        .output();
    succeeded("g++", link)?;
    Ok(program)
}

/// Where cargo has unpacked the crate; `cargo metadata` downloads it when it is not there yet.
fn unpacked_source() -> Result<PathBuf, Box<dyn Error>> {
    let metadata = Command::new(env::var("CARGO")?)
        .args(["metadata", "--locked", "--format-version", "1", "--manifest-path", SOURCE_MANIFEST])
        .args(["--filter-platform", &env::var("TARGET")?])
        .output();
    let metadata: serde_json::Value = serde_json::from_slice(&succeeded("cargo metadata", metadata)?)?;
    let packages = metadata["packages"].as_array().ok_or("cargo metadata lists no packages")?;
    let package = packages.iter().find(|package| package["name"] == SOURCE_CRATE).ok_or("the crate is not listed")?;
    let manifest = package["manifest_path"].as_str().ok_or("the crate has no manifest path")?;
    Ok(Path::new(manifest).parent().ok_or("the manifest has no folder")?.to_owned())
}

fn c_files(folder: &Path) -> Result<Vec<PathBuf>, Box<dyn Error>> {
    let mut files = Vec::new();
    for entry in folder.read_dir()? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "c") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn compiler(variable: &str, default: &str) -> Command {
    Command::new(env::var(variable).unwrap_or_else(|_| default.to_owned()))
}

fn succeeded(what: &str, run: std::io::Result<std::process::Output>) -> Result<Vec<u8>, Box<dyn Error>> {
    let output = run.map_err(|error| format!("{what} cannot be started: {error}"))?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    Err(format!("{what} failed: {}", String::from_utf8_lossy(&output.stderr)).into())
}
