// SPDX-License-Identifier: MIT OR Apache-2.0

//! The figures that `ringfence-bench` prints, as one JSON document.

use serde::{Deserialize, Serialize};

/// What one run has measured.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Figures {
    /// Release of the kernel.
    pub kernel: String,
    /// How time was turned into instructions.
    pub counter: Counter,
    /// Heap by heap, from the smallest size to the largest.
    pub heaps: Vec<HeapFigures>,
    /// Heaps of pages beside the kernel's own, if they were measured.
    #[serde(default)]
    pub pages: Vec<PageFigures>,
    /// Heaps in a machine that has been in use, if they were measured.
    #[serde(default)]
    pub states: Vec<StateFigures>,
    /// Heaps that are nearly full.
    #[serde(default)]
    pub mixed: Vec<MixedFigures>,
    /// Mappings of processes, if they were measured.
    #[serde(default)]
    pub touches: Vec<TouchFigures>,
    /// What protecting a buffer costs, from the smallest size to the largest.
    #[serde(default)]
    pub protection: Vec<ProtectionFigures>,
    /// What decryption costs, if it was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<ContentFigures>,
    /// What decoding costs, if it was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decoding: Option<DecodingFigures>,
}

/// Instructions for decoding a frame, each the median of all rounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DecodingFigures {
    /// Pixels of a line.
    pub width: u64,
    /// Lines.
    pub height: u64,
    /// Bytes of the bitstream.
    pub bytes: u64,
    /// Rounds.
    pub rounds: u32,
    /// All of DECODE, from one protected buffer to another.
    pub whole: u64,
    /// DECODE of no picture at all: calls, and mapping both buffers.
    pub around: u64,
    /// The same library in a program of Linux, in memory of its own.
    pub library: u64,
}

/// Instructions of commands that decrypt, each the median of all rounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContentFigures {
    /// Bytes of one command.
    pub bytes: u64,
    /// Rounds.
    pub rounds: u32,
    /// AES-CTR over the trusted application's own memory.
    pub plain: u64,
    /// A sample of `cenc`, into a protected buffer.
    pub cenc: u64,
    /// A sample of `cbcs` with the pattern 1:9, into a protected buffer.
    pub cbcs: u64,
    /// A film.
    pub film: FilmFigures,
}

/// A film that was decrypted from its start to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FilmFigures {
    /// Frames.
    pub frames: u64,
    /// Bytes of all frames.
    pub bytes: u64,
    /// Calls of the secure world for all of them.
    pub secure_calls: u64,
    /// Calls for the frame that took most.
    pub most_secure_calls: u64,
    /// Whether no frame took more than four calls and one for each MiB.
    pub within_bounds: bool,
}

/// A process's mapping of a buffer, in which every page is written to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TouchFigures {
    /// Name under /dev/dma_heap.
    pub heap: String,
    /// Whether the mapping lies where blocks of 2 MiB fit.
    pub aligned: bool,
    /// Bytes.
    pub size: u64,
    /// `mmap`, and a write to every page.
    pub touch: Spread,
}

/// Heaps in one state of the machine's memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StateFigures {
    /// The state.
    pub state: MemoryState,
    /// Heap by heap, from the smallest size to the largest.
    pub heaps: Vec<HeapFigures>,
}

/// What the machine's memory is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MemoryState {
    /// Nearly all of it is free.
    Fresh,
    /// It is full of files, which can be moved.
    Full,
    /// And pages all over it can't be moved.
    Pinned,
}

/// Allocations and releases of mixed sizes by several threads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MixedFigures {
    /// Name under /dev/dma_heap.
    pub heap: String,
    /// Bytes that there are to allocate.
    pub region: u64,
    /// Per cent of these that are allocated, about.
    pub occupancy: u32,
    /// Threads.
    pub threads: u32,
    /// Bytes of the largest buffers.
    pub largest: u64,
    /// Calls in which no interrupt came, of both kinds together.
    pub calls: u64,
    /// Calls in which one came; what the kernel does then is in their time.
    pub interrupted: u64,
    /// Instructions of the dearest of these.
    pub interrupted_max: u64,
    /// Calls that had to wait, for a lock whose holder was not running; the wait is in no
    /// figure.
    pub waited: u64,
    /// Calls in which another thread was given the processor.
    pub preempted: u64,
    /// Allocations that were put off for a while, as no clean memory was left, or no run.
    pub put_off: u64,
    /// `RINGFENCE_IOCTL_ALLOC` that does not wait.
    pub alloc: Spread,
    /// `close` of the only file descriptor.
    pub close: Spread,
}

/// Buffers of pages, of one heap and one size.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PageFigures {
    /// Which heap, and how it was set up.
    pub subject: String,
    /// Bytes.
    pub size: u64,
    /// `DMA_HEAP_IOCTL_ALLOC`.
    pub alloc: Spread,
    /// `mmap`, and a write to every page.
    pub touch: Spread,
    /// Attaching to a device and mapping for it, and back.
    pub import: Spread,
    /// Mapping for the kernel, and back.
    pub vmap: Spread,
    /// `close` of the only file descriptor.
    pub close: Spread,
}

/// Buffers of one size in a heap that fences each on its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProtectionFigures {
    /// Bytes.
    pub size: u64,
    /// Rounds, each an allocation and a close.
    pub rounds: u32,
    /// Allocation: the buffer is fenced and zeroed.
    pub alloc: Work,
    /// Close: it is zeroed and opened.
    pub close: Work,
}

/// What one call had the secure world do, the median of all rounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Work {
    /// Instructions of the whole call.
    pub instructions: u64,
    /// Calls of the firmware.
    pub firmware_calls: u64,
    /// Instructions in the firmware.
    pub firmware: u64,
    /// Blocks that were zeroed.
    pub scrubs: u64,
    /// Instructions for zeroing, with the windows to do it through.
    pub scrubbing: u64,
    /// Instructions of these in the bare zeroing loop.
    pub zeroing: u64,
}

impl Work {
    /// Number by number, the median of some calls; none of no calls.
    pub fn median(calls: &[Self]) -> Option<Self> {
        let of = |number: fn(&Self) -> u64| {
            Spread::of(calls.iter().map(number).collect()).map(|spread| spread.median)
        };
        Some(Self {
            instructions: of(|work| work.instructions)?,
            firmware_calls: of(|work| work.firmware_calls)?,
            firmware: of(|work| work.firmware)?,
            scrubs: of(|work| work.scrubs)?,
            scrubbing: of(|work| work.scrubbing)?,
            zeroing: of(|work| work.zeroing)?,
        })
    }
}

/// The counter that was read, and what it counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counter {
    /// Steps in a second of guest time, as the counter itself says.
    pub hertz: u64,
    /// Instructions in one step: found by timing a loop of known length.
    pub instructions_per_step: u64,
    /// Instructions that a figure has for reading the counter itself.
    pub overhead: u64,
}

/// One heap.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeapFigures {
    /// Name under /dev/dma_heap.
    pub heap: String,
    /// One entry for each size.
    pub sizes: Vec<SizeFigures>,
}

/// One size of buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SizeFigures {
    /// Bytes.
    pub size: u64,
    /// Rounds that were tried, each an allocation and a close.
    pub rounds: u32,
    /// Rounds whose allocation failed, and that are in no other figure.
    pub failures: u32,
    /// `DMA_HEAP_IOCTL_ALLOC`; absent when every round failed.
    pub alloc: Option<Spread>,
    /// `close` of the only file descriptor.
    pub close: Option<Spread>,
}

/// Instructions of one call, over all rounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spread {
    /// The cheapest call.
    pub min: u64,
    /// Half of the calls cost no more than this.
    pub median: u64,
    /// The dearest call.
    pub max: u64,
}

impl Spread {
    /// The spread of some calls; none of no calls.
    pub fn of(mut calls: Vec<u64>) -> Option<Self> {
        calls.sort_unstable();
        Some(Self {
            min: *calls.first()?,
            median: *calls.get((calls.len() - 1) / 2)?,
            max: *calls.last()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Spread;

    #[test]
    fn a_median_is_a_call_that_was_made() {
        let spread = |calls: &[u64]| Spread::of(calls.to_vec()).map(|s| (s.min, s.median, s.max));
        assert_eq!(spread(&[9, 1, 5]), Some((1, 5, 9)));
        assert_eq!(spread(&[9, 1, 5, 6]), Some((1, 5, 9)));
        assert_eq!(spread(&[7]), Some((7, 7, 7)));
        assert_eq!(spread(&[]), None);
    }
}
