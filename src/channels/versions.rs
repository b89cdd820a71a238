//! [`Versions`]: which serializer a client gets for the version it names.
#![forbid(unsafe_code)]

use super::{Serializer, V1, V2};
use semver::{Version, VersionReq};
use std::{
    fmt,
    sync::{Arc, LazyLock},
};

/// The formats a mount speaks, in order: a client gets the first whose requirement its `vsn` satisfies.
///
/// By default `~> 1.0.0` is [`V1`] and `~> 2.0.0` is [`V2`].
///
/// ```
/// use wingbeat::channels::Versions;
///
/// let versions = Versions::default();
/// assert_eq!(versions.negotiate(Some("2.0.0")), Some(1));
/// assert_eq!(versions.negotiate(None), Some(0));
/// assert_eq!(versions.negotiate(Some("3.0.0")), None);
/// ```
#[derive(Clone)]
pub struct Versions(Vec<(VersionReq, Arc<dyn Serializer>)>);

/// What a client that names no version speaks.
const UNNAMED: &str = "1.0.0";

impl Versions {
    /// None yet: whoever wants neither [`V1`] nor [`V2`] begins here.
    pub fn none() -> Self {
        Versions(Vec::new())
    }

    /// Adds a serializer behind the others. The requirement is one of SemVer: `~> 1.0.0` (from 1.0.0, below 1.1.0),
    /// `~> 1.0` (from 1.0.0, below 2.0.0), or what Cargo understands, such as `>=1.2, <1.5` or `=3.0.0`.
    ///
    /// # Panics
    /// The requirement is none, or there are 256 serializers already: mistakes in the program, seen when it starts.
    pub fn with(mut self, requirement: &str, serializer: impl Serializer) -> Self {
        let Some(parsed) = parse(requirement) else { panic!("{requirement:?} is no version requirement") };
        assert!(self.0.len() <= usize::from(u8::MAX), "more than 256 serializers");
        self.0.push((parsed, Arc::new(serializer)));
        self
    }

    /// The index of the serializer for a `vsn`, as it came in the query. None: the client is refused with 403, because
    /// it is no full version `x.y.z`, or a pre-release, or nobody's. Without one it is 1.0.0, as with Phoenix.
    pub fn negotiate(&self, vsn: Option<&str>) -> Option<u8> {
        let version = Version::parse(vsn.unwrap_or(UNNAMED)).ok().filter(|version| version.pre.is_empty())?;
        let index = self.0.iter().position(|(requirement, _)| requirement.matches(&version))?;
        Some(index as u8)
    }

    /// The serializer that [`Versions::negotiate`] found.
    ///
    /// # Panics
    /// The index is not from there.
    pub fn serializer(&self, index: u8) -> &dyn Serializer {
        &*self.0[usize::from(index)].1
    }

    /// All of them, in the order of their indexes.
    #[cfg(feature = "epoll")]
    pub(super) fn serializers(&self) -> impl Iterator<Item = &Arc<dyn Serializer>> {
        self.0.iter().map(|(_, serializer)| serializer)
    }

    /// How many there are. Indexes are below it.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none: then every client is refused.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Default for Versions {
    fn default() -> Self {
        // One value for all mounts, so that a broadcast is encoded once for the clients of all of them.
        static DEFAULT: LazyLock<Versions> =
            LazyLock::new(|| Versions::none().with("~> 1.0.0", V1).with("~> 2.0.0", V2));
        DEFAULT.clone()
    }
}

impl fmt::Debug for Versions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(requirement, _)| requirement.to_string())).finish()
    }
}

/// `~>` lets the last number that it names grow; Cargo's `~` does the same with three numbers, its `^` with two (but
/// not below 1.0).
fn parse(requirement: &str) -> Option<VersionReq> {
    let Some(least) = requirement.trim().strip_prefix("~>") else { return VersionReq::parse(requirement).ok() };
    let least = least.trim();
    let cargo = match least.split('.').map(|number| number.parse().ok()).collect::<Option<Vec<u64>>>()?[..] {
        [_, _, _] => format!("~{least}"),
        [major, minor] => format!(">={major}.{minor}.0, <{}.0.0", major.checked_add(1)?),
        _ => return None,
    };
    VersionReq::parse(&cargo).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_phoenix() {
        let versions = Versions::default();
        for vsn in [None, Some("1.0.0"), Some("1.0.5"), Some("1.0.0+build")] {
            assert_eq!(versions.negotiate(vsn), Some(0), "{vsn:?}");
        }
        for vsn in ["2.0.0", "2.0.9"] {
            assert_eq!(versions.negotiate(Some(vsn)), Some(1), "{vsn}");
        }
        for vsn in [
            "1.1.0",
            "2.1.0",
            "3.0.0",
            "0.9.0",
            "2",
            "2.0",
            "abc",
            "",
            "2.0.0-rc.1",
            "2.0.1-rc.1",
            "2.0.0.0",
            "v2.0.0",
            " 2.0.0",
            "2.0.0 ",
            "02.0.0",
            "2.0.-1",
            "+2.0.0",
            "2.0.99999999999999999999",
            "*",
            "~> 2.0.0",
        ] {
            assert_eq!(versions.negotiate(Some(vsn)), None, "{vsn:?}");
        }
        assert_eq!(Versions::none().negotiate(None), None);
    }

    #[test]
    fn the_first_that_matches_is_taken() {
        let versions = Versions::default().with("~> 2.1", V1).with(">=2.0.0", V2).with("=0.0.1", V2);
        assert_eq!((versions.len(), versions.is_empty()), (5, false));
        for (vsn, index) in [("2.0.3", 1), ("2.1.0", 2), ("2.9.9", 2), ("3.0.0", 3), ("0.0.1", 4)] {
            assert_eq!(versions.negotiate(Some(vsn)), Some(index), "{vsn}");
        }
        assert_eq!(format!("{versions:?}"), r#"["~1.0.0", "~2.0.0", ">=2.1.0, <3.0.0", ">=2.0.0", "=0.0.1"]"#);
    }

    #[test]
    fn what_is_no_requirement_is_noticed() {
        for requirement in ["", "~>", "~> 1", "~> 1.0.0.0", "~> 1.x", "abc", "~> 1.0.0-rc.1"] {
            assert!(parse(requirement).is_none(), "{requirement}");
        }
    }
}
