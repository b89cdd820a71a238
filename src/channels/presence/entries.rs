//! [`Entries`]: what a fetch hook sees, and how keys with their metas are written.
#![forbid(unsafe_code)]

use crate::channels::{Json, PayloadError};
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The keys of one list or of one half of a diff, on their way to clients.
#[derive(Debug)]
pub struct Entries(Vec<Entry>);

/// A key, its metas, and what a fetch hook adds to them.
#[derive(Debug)]
pub struct Entry {
    key: Arc<str>,
    metas: Vec<Box<str>>,
    fields: BTreeMap<Box<str>, String>,
}

impl Entries {
    /// How many keys; in a diff almost always one.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Never: a hook is not asked about nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The keys, to look up at once what is to be added.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(Entry::key)
    }

    /// The entries, to add to.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Entry> {
        self.0.iter_mut()
    }

    pub(super) fn new<'a, M>(groups: impl Iterator<Item = (Arc<str>, M)>) -> Entries
    where
        M: Iterator<Item = &'a str>,
    {
        let entry =
            |(key, metas): (_, M)| Entry { key, metas: metas.map(Box::from).collect(), fields: BTreeMap::new() };
        Entries(groups.map(entry).collect())
    }

    /// Writes them all, with what was added.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        self.0.iter().for_each(|entry| write_member(out, &entry.key, entry.metas(), &entry.fields));
    }

    /// Writes the only one, without its key.
    pub(super) fn write_only(&self, out: &mut Vec<u8>) {
        self.0.iter().take(1).for_each(|entry| write_metas(out, entry.metas(), &entry.fields));
    }
}

impl Entry {
    /// The key.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The metas, in track order, each an object with its `phx_ref`.
    pub fn metas(&self) -> impl Iterator<Item = Json<'_>> {
        self.metas.iter().map(|meta| Json::trusted(meta))
    }

    /// Adds a field beside `metas`, or replaces what was added under this name.
    ///
    /// # Errors
    /// [`PayloadError::Unserializable`].
    ///
    /// # Panics
    /// If `field` is `metas`: clients need those.
    pub fn add(&mut self, field: &str, value: &(impl Serialize + ?Sized)) -> Result<(), PayloadError> {
        assert_ne!(field, "metas", "a hook adds to an entry, its metas stay");
        let json = serde_json::to_string(value).map_err(|_| PayloadError::Unserializable)?;
        self.fields.insert(field.into(), json);
        Ok(())
    }
}

/// Writes `"key":{"metas":[…]}` into an object that may have other members.
pub(super) fn write_plain<'a>(out: &mut Vec<u8>, key: &str, metas: impl Iterator<Item = &'a str>) {
    write_member(out, key, metas.map(Json::trusted), &BTreeMap::new());
}

/// Writes `{"metas":[…]}`.
pub(super) fn write_plain_metas<'a>(out: &mut Vec<u8>, metas: impl Iterator<Item = &'a str>) {
    write_metas(out, metas.map(Json::trusted), &BTreeMap::new());
}

type Fields = BTreeMap<Box<str>, String>;

fn write_member<'a>(out: &mut Vec<u8>, key: &str, metas: impl Iterator<Item = Json<'a>>, fields: &Fields) {
    if out.last() != Some(&b'{') {
        out.push(b',');
    }
    write_string(out, key);
    out.push(b':');
    write_metas(out, metas, fields);
}

fn write_metas<'a>(out: &mut Vec<u8>, metas: impl Iterator<Item = Json<'a>>, fields: &Fields) {
    out.extend_from_slice(b"{\"metas\":[");
    for (i, meta) in metas.enumerate() {
        if i > 0 {
            out.push(b',');
        }
        out.extend_from_slice(meta.as_str().as_bytes());
    }
    out.push(b']');
    for (field, json) in fields {
        out.push(b',');
        write_string(out, field);
        out.push(b':');
        out.extend_from_slice(json.as_bytes());
    }
    out.push(b'}');
}

fn write_string(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("a string is JSON, and a Vec takes it");
}
