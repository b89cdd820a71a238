//! Empty: this package only names a dependency, see its Cargo.toml.
