// SPDX-License-Identifier: MIT OR Apache-2.0

//! The heaps of this system, and allocation from them.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use dma_heap::HeapKind;
use ringfence_proto::command;
use serde::{Serialize, Serializer};

use crate::buffer::Buffer;
use crate::error::Error;
use crate::uapi;

/// Where the kernel shows its dma-buf heaps.
pub const HEAPS_PATH: &str = "/dev/dma_heap";

/// What a heap's buffers are for, as a number on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UseCase(pub u32);

impl UseCase {
    /// The use case, if this build knows it.
    pub fn known(self) -> Option<command::UseCase> {
        command::UseCase::from_raw(self.0)
    }
}

impl fmt::Display for UseCase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.known() {
            Some(known) => f.pad(known.name()),
            None => f.pad(&format!("use-case-{}", self.0)),
        }
    }
}

impl Serialize for UseCase {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What the driver says of one of its heaps. Sizes are in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HeapInfo {
    /// Name, under [`HEAPS_PATH`] too.
    pub name: String,
    /// Whether there is a backend, so that allocations can succeed.
    pub online: bool,
    /// Whether its buffers are fenced off from the normal world.
    pub protected: bool,
    /// Whether its whole region is fenced off while any buffer lives, instead of
    /// each buffer on its own.
    pub whole_region: bool,
    /// Whether its buffers may be mapped and accessed by the CPU.
    pub cpu_access: bool,
    /// Whether its buffers are physically contiguous.
    pub contiguous: bool,
    /// What its buffers are for.
    pub use_case: UseCase,
    /// The region's size.
    pub size: u64,
    /// Free now, in runs of any length.
    pub free: u64,
    /// The longest free run: the largest buffer that can be had now.
    pub largest_free: u64,
    /// Kept from all use, because protecting or releasing it failed.
    pub quarantined: u64,
    /// Fenced off now.
    pub protected_bytes: u64,
    /// Live buffers.
    pub buffers: u32,
    /// Every buffer starts at a multiple of this physical address.
    pub alignment: u32,
    /// In live buffers.
    pub used: u64,
    /// The unit in which memory is taken.
    pub granule: u64,
    /// The largest alignment that a [`Request`](crate::request::Request) may ask for.
    pub max_alignment: u64,
    /// Whether a request may ask for the upper end of the memory.
    pub top_down: bool,
    /// Whether a request may ask not to wait.
    pub no_wait: bool,
}

/// What became of a heap's allocations since it was first registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct History {
    /// The most bytes that were ever in live buffers.
    pub high_water: u64,
    /// Buffers that were made.
    pub allocations: u64,
    /// Allocations that were refused.
    pub failures: u64,
}

impl From<&uapi::HeapInfo> for History {
    fn from(raw: &uapi::HeapInfo) -> Self {
        Self {
            high_water: raw.high_water,
            allocations: raw.allocations,
            failures: raw.failures,
        }
    }
}

impl From<&uapi::HeapInfo> for HeapInfo {
    fn from(raw: &uapi::HeapInfo) -> Self {
        Self {
            name: uapi::name(&raw.name),
            online: raw.flags & uapi::ONLINE != 0,
            protected: raw.flags & uapi::PROTECTED != 0,
            whole_region: raw.flags & uapi::WHOLE_REGION != 0,
            cpu_access: raw.flags & uapi::CPU_ACCESS != 0,
            contiguous: raw.flags & uapi::CONTIGUOUS != 0,
            use_case: UseCase(raw.use_case),
            size: raw.size,
            free: raw.free,
            largest_free: raw.largest_free,
            quarantined: raw.quarantined,
            protected_bytes: raw.protected_bytes,
            buffers: raw.buffers,
            alignment: raw.alignment,
            used: raw.used,
            granule: raw.granule,
            max_alignment: raw.max_alignment,
            top_down: raw.alloc_flags & uapi::ALLOC_TOP_DOWN != 0,
            no_wait: raw.alloc_flags & uapi::ALLOC_NO_WAIT != 0,
        }
    }
}

/// Names of all dma-buf heaps of this system, sorted; Ringfence's and others.
pub fn names() -> Result<Vec<String>, Error> {
    let failed = |source| Error::Read {
        path: PathBuf::from(HEAPS_PATH),
        source,
    };
    let entries = match fs::read_dir(HEAPS_PATH) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut names = entries
        .map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned()))
        .collect::<io::Result<Vec<_>>>()
        .map_err(failed)?;
    names.sort();
    Ok(names)
}

/// An open dma-buf heap, Ringfence's or another.
#[derive(Debug)]
pub struct Heap {
    name: String,
    heap: dma_heap::Heap,
}

impl Heap {
    /// Opens the heap of this name.
    pub fn open(name: &str) -> Result<Self, Error> {
        // A name is one path component: nothing outside the folder is opened.
        let known = names()?;
        if !known.iter().any(|candidate| candidate == name) {
            return Err(Error::NoHeap {
                name: name.to_owned(),
                known,
            });
        }
        let path = Path::new(HEAPS_PATH).join(name);
        let heap = dma_heap::Heap::new(HeapKind::Custom(path.clone()))
            .map_err(|source| Error::Open { path, source })?;
        Ok(Self {
            name: name.to_owned(),
            heap,
        })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Allocates a buffer of at least `size` bytes; the kernel rounds up to
    /// whole pages.
    ///
    /// # Errors
    ///
    /// [`Error::Allocation`] says why there is none.
    pub fn allocate(&self, size: u64) -> Result<Buffer, Error> {
        let failed = |error: io::Error| Error::Allocation {
            heap: self.name.clone(),
            size,
            reason: error.into(),
        };
        let length = usize::try_from(size).map_err(|_| failed(rustix::io::Errno::NOMEM.into()))?;
        self.heap.allocate(length).map(Buffer::from).map_err(failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn use_cases_have_the_devicetree_names() {
        assert_eq!(UseCase(1).to_string(), "secure-video");
        assert_eq!(UseCase(77).to_string(), "use-case-77");
        assert_eq!(UseCase(77).known(), None);
        assert_eq!(
            serde_json::to_string(&UseCase(2)).unwrap(),
            "\"trusted-ui\""
        );
    }

    #[test]
    fn a_raw_heap_is_read_field_by_field() {
        let mut raw = uapi::HeapInfo::ask(0);
        raw.flags = uapi::PROTECTED | uapi::CONTIGUOUS | uapi::ONLINE | uapi::WHOLE_REGION;
        raw.size = 100;
        raw.free = 60;
        raw.largest_free = 50;
        raw.quarantined = 10;
        raw.protected_bytes = 40;
        raw.buffers = 3;
        raw.alignment = 4096;
        raw.use_case = 1;
        raw.used = 30;
        raw.granule = 65536;
        raw.max_alignment = 1 << 30;
        raw.alloc_flags = uapi::ALLOC_NO_WAIT;
        (raw.high_water, raw.allocations, raw.failures) = (90, 7, 2);
        raw.name[..3].copy_from_slice(b"abc");
        assert_eq!(
            HeapInfo::from(&raw),
            HeapInfo {
                name: "abc".into(),
                online: true,
                protected: true,
                whole_region: true,
                cpu_access: false,
                contiguous: true,
                use_case: UseCase(1),
                size: 100,
                free: 60,
                largest_free: 50,
                quarantined: 10,
                protected_bytes: 40,
                buffers: 3,
                alignment: 4096,
                used: 30,
                granule: 65536,
                max_alignment: 1 << 30,
                top_down: false,
                no_wait: true,
            }
        );
        let history = History::from(&raw);
        assert_eq!(history.high_water, 90);
        assert_eq!((history.allocations, history.failures), (7, 2));
    }
}
