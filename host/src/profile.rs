// SPDX-License-Identifier: MIT OR Apache-2.0

//! Allocation policies in files, so that a board and not a program says which
//! heaps there are.
//!
//! ```toml
//! # /etc/ringfence/camera.toml
//! heaps = ["camera", "system"]    # in order of preference
//! require = ["cpu-access"]        # contiguous, protected, cpu-access; may be left out
//! ```

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::Spanned;

use crate::error::Error;
use crate::fallback::{Policy, PolicyError, Property};

/// Where profiles are that are named without a folder.
pub const FOLDER: &str = "/etc/ringfence";

/// A profile as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Profile {
    heaps: Spanned<Vec<Spanned<String>>>,
    #[serde(default)]
    require: Option<Spanned<Vec<Property>>>,
}

/// What is wrong with a profile.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {reason}")]
pub struct ProfileError {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong there.
    pub reason: String,
}

/// The policy in a file.
///
/// `name` is the name of a file in [`FOLDER`], without `.toml`; or, with a slash
/// in it, any path.
///
/// # Errors
///
/// [`Error::Read`], and [`Error::Profile`] with line and reason.
pub fn load(name: &str) -> Result<Policy, Error> {
    let path = path(name);
    let text = fs::read_to_string(&path).map_err(|source| Error::Read {
        path: path.clone(),
        source,
    })?;
    parse(&text).map_err(|error| Error::Profile { path, error })
}

fn path(name: &str) -> PathBuf {
    if name.contains('/') {
        PathBuf::from(name)
    } else {
        Path::new(FOLDER).join(format!("{name}.toml"))
    }
}

/// The policy in a profile's text.
pub fn parse(text: &str) -> Result<Policy, ProfileError> {
    let wrong = |place: Option<Range<usize>>, reason: String| ProfileError {
        line: line(text, place.map_or(0, |place| place.start)),
        reason,
    };
    let profile: Profile = toml::from_str(text)
        .map_err(|error| wrong(error.span(), error.message().trim().to_owned()))?;
    let heaps = profile.heaps.get_ref();
    let required = profile
        .require
        .as_ref()
        .map_or(&[][..], |list| list.get_ref().as_slice());
    let names = heaps.iter().map(|name| name.get_ref().as_str());
    Policy::new(names, required.iter().copied()).map_err(|error| {
        let place = match &error {
            PolicyError::NoHeaps => Some(profile.heaps.span()),
            PolicyError::Twice(name) => heaps
                .iter()
                .rfind(|other| other.get_ref() == name)
                .map(Spanned::span),
            PolicyError::ProtectedWithCpuAccess => profile.require.as_ref().map(Spanned::span),
        };
        wrong(place, error.to_string())
    })
}

/// The line on which a byte is, from 1.
fn line(text: &str, offset: usize) -> usize {
    let before = text.as_bytes().iter().take(offset);
    before.filter(|&&byte| byte == b'\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(text: &str) -> (usize, String) {
        let error = parse(text).unwrap_err();
        (error.line, error.reason)
    }

    #[test]
    fn a_profile_is_a_policy() {
        let policy = parse("# why\nheaps = [\"camera\", \"system\"]\nrequire = [\"cpu-access\"]\n");
        assert_eq!(
            policy.unwrap(),
            Policy::new(["camera", "system"], [Property::CpuAccess]).unwrap()
        );
        assert!(parse("heaps = [\"camera\"]").is_ok());
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        assert_eq!(
            wrong("\nheaps = []\n"),
            (2, PolicyError::NoHeaps.to_string())
        );
        let (line, reason) = wrong("heaps = [\n  \"a\",\n  \"a\",\n]\n");
        assert_eq!((line, reason.as_str()), (3, "heap a is named twice"));
        let (line, reason) =
            wrong("heaps = [\"a\"]\n\nrequire = [\"protected\", \"cpu-access\"]\n");
        assert_eq!(line, 3);
        assert!(reason.contains("both protected"), "{reason}");
        let (line, reason) = wrong("heaps = [\"a\"]\nrequire = [\"contigous\"]\n");
        assert_eq!(line, 2);
        assert!(reason.contains("contigous"), "{reason}");
        let (line, reason) = wrong("heaps = [\"a\"]\nfallbacks = 1\n");
        assert_eq!(line, 2);
        assert!(reason.contains("fallbacks"), "{reason}");
        assert_eq!(wrong("\n\nheaps = [\"a\"\n").0, 3);
        assert!(wrong("require = []\n").1.contains("heaps"));
        assert_eq!(wrong("heaps = \"a\"").0, 1);
    }

    #[test]
    fn a_name_is_looked_up_and_a_path_taken() {
        assert_eq!(path("camera"), Path::new("/etc/ringfence/camera.toml"));
        assert_eq!(path("./camera.toml"), Path::new("./camera.toml"));
        let missing = load("/nowhere/camera.toml").unwrap_err();
        assert!(missing.to_string().contains("/nowhere/camera.toml"));
    }
}
