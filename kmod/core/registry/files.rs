// SPDX-License-Identifier: GPL-2.0

//! What root finds of a heap in debugfs.
//!
//! - `buffers`: one line for each live buffer, of any heap: the inode number of
//!   the dma-buf (as in `/proc/<pid>/fdinfo`), its size in bytes, its physical
//!   address if it is one run of pages, and the process that allocated it.
//! - `ranges`: the ranges of a carveout, in order of address.
//! - `stats`: the figures.
//! - `retry`: whatever is written there has the heap settle what it can.

use super::{
    debugfs_root,
    Heap,
    Retry, //
};
use kernel::{
    debugfs::File,
    fmt,
    prelude::*,
    sync::Arc,
    uaccess::UserSliceReader, //
};

/// The heap's directory in debugfs.
pub(super) struct Files {
    _buffers: Pin<KBox<File<Arc<Heap>>>>,
    _ranges: Pin<KBox<File<Arc<Heap>>>>,
    _stats: Pin<KBox<File<Arc<Heap>>>>,
    _retry: Pin<KBox<File<Arc<Heap>>>>,
}

impl Files {
    pub(super) fn new(heap: &Arc<Heap>) -> Result<Self> {
        let dir = debugfs_root().ok_or(ENOENT)?.subdir(heap.name());
        Ok(Self {
            _buffers: KBox::pin_init(
                dir.read_callback_file(c"buffers", heap.clone(), &show_buffers),
                GFP_KERNEL,
            )?,
            _ranges: KBox::pin_init(
                dir.read_callback_file(c"ranges", heap.clone(), &show_ranges),
                GFP_KERNEL,
            )?,
            _stats: KBox::pin_init(
                dir.read_callback_file(c"stats", heap.clone(), &show_stats),
                GFP_KERNEL,
            )?,
            _retry: KBox::pin_init(
                dir.write_callback_file(c"retry", heap.clone(), &write_retry),
                GFP_KERNEL,
            )?,
        })
    }
}

fn show_buffers(heap: &Arc<Heap>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    heap.books.show(f)
}

fn show_ranges(heap: &Arc<Heap>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let Ok(entered) = heap.enter() else {
        return Ok(());
    };
    let Ok(ranges) = entered.attached.backend.ranges() else {
        return writeln!(f, "out of memory");
    };
    for range in &ranges {
        // The handle is for holders of the file descriptor only.
        writeln!(
            f,
            "{:#x} {:#x} - {} {} {}",
            range.start,
            range.size,
            range.state,
            range.origin.pid,
            range.origin.comm()
        )?;
    }
    Ok(())
}

fn show_stats(heap: &Arc<Heap>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let info = heap.info();
    let account = heap.account();
    writeln!(f, "size {}", info.size)?;
    writeln!(f, "free {}", info.free)?;
    writeln!(f, "clean {}", info.clean)?;
    writeln!(f, "dirty {}", info.dirty)?;
    writeln!(f, "largest_free {}", info.largest_free)?;
    writeln!(f, "quarantined {}", info.quarantined)?;
    writeln!(f, "protected {}", info.protected_bytes)?;
    writeln!(f, "buffers {}", info.buffers)?;
    writeln!(f, "used {}", account.used)?;
    writeln!(f, "high_water {}", account.high_water)?;
    writeln!(f, "allocations {}", account.allocations)?;
    writeln!(f, "failures {}", account.failures)
}

fn write_retry(heap: &Arc<Heap>, _reader: &mut UserSliceReader) -> Result {
    heap.retry_now(Retry::Request);
    Ok(())
}
