// SPDX-License-Identifier: MIT OR Apache-2.0

//! How many files this process may have open.

use rustix::io::Errno;
use rustix::process::{getrlimit, setrlimit, Resource, Rlimit};

/// Another limit for open files, until this is dropped.
#[derive(Debug)]
pub struct Limit(Rlimit);

impl Limit {
    /// Lets this process have file descriptors below `count` only.
    pub fn set(count: u64) -> Result<Self, Errno> {
        let old = getrlimit(Resource::Nofile);
        let maximum = old.maximum.map(|maximum| maximum.max(count));
        setrlimit(
            Resource::Nofile,
            Rlimit {
                current: Some(count),
                maximum,
            },
        )?;
        Ok(Self(old))
    }
}

impl Drop for Limit {
    fn drop(&mut self) {
        // What was allowed before is allowed again.
        let _ = setrlimit(
            Resource::Nofile,
            Rlimit {
                current: self.0.current,
                maximum: self.0.maximum,
            },
        );
    }
}
