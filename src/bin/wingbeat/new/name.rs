//! Which names a project may have.
#![forbid(unsafe_code)]

/// Longer ones no registry takes.
const LONGEST: usize = 64;

/// Words of the language (edition 2024), its own crates, and what Cargo makes directories of: a package of such a name
/// is refused by Cargo, or does not build.
const RESERVED: [&str; 63] = [
    "_",
    "abstract",
    "alloc",
    "as",
    "async",
    "await",
    "become",
    "box",
    "break",
    "build",
    "const",
    "continue",
    "core",
    "crate",
    "deps",
    "do",
    "dyn",
    "else",
    "enum",
    "examples",
    "extern",
    "false",
    "final",
    "fn",
    "for",
    "gen",
    "if",
    "impl",
    "in",
    "incremental",
    "let",
    "loop",
    "macro",
    "match",
    "mod",
    "move",
    "mut",
    "override",
    "priv",
    "proc_macro",
    "pub",
    "ref",
    "return",
    "self",
    "static",
    "std",
    "struct",
    "super",
    "test",
    "trait",
    "true",
    "try",
    "type",
    "typeof",
    "union",
    "unsafe",
    "unsized",
    "use",
    "virtual",
    "where",
    "while",
    "yield",
    "doctest",
];

/// The crates that the project uses.
const USED: [&str; 4] = ["serde", "serde_json", "signal_hook", "wingbeat"];

/// Checks that a project, its crate and its directory can have this name.
///
/// # Errors
/// Why not, in words.
pub(super) fn check_name(name: &str) -> Result<(), String> {
    let Some(first) = name.chars().next() else { return Err("it is empty".into()) };
    if let Some(wrong) = name.chars().find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))) {
        return Err(format!("'{wrong}' is none of a-z, A-Z, 0-9, - and _"));
    }
    if !(first.is_ascii_alphabetic() || first == '_') {
        return Err("it does not begin with a letter".into());
    }
    if name.len() > LONGEST {
        return Err(format!("it is longer than {LONGEST} characters"));
    }
    let as_crate = name.replace('-', "_");
    if RESERVED.contains(&as_crate.as_str()) {
        return Err("Rust or Cargo has another meaning for it".into());
    }
    match USED.contains(&as_crate.as_str()) {
        true => Err("the project uses a crate of this name".into()),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_names_are_taken() {
        for name in ["chat", "my-chat", "my_chat_2", "Chat", "_chat", &"x".repeat(64)] {
            assert_eq!(check_name(name), Ok(()), "{name}");
        }
    }

    #[test]
    fn a_name_that_cannot_be_is_refused_with_the_reason() {
        for (name, why) in [
            ("", "empty"),
            ("../chat", "'.'"),
            ("a/b", "'/'"),
            ("my chat", "' '"),
            ("tschüss", "'ü'"),
            ("2chat", "letter"),
            ("-chat", "letter"),
            (&"x".repeat(65), "longer"),
            ("async", "meaning"),
            ("proc-macro", "meaning"),
            ("test", "meaning"),
            ("wingbeat", "uses"),
            ("signal-hook", "uses"),
        ] {
            let refused = check_name(name).expect_err(name);
            assert!(refused.contains(why), "{name}: {refused}");
        }
    }
}
