// SPDX-License-Identifier: GPL-2.0

//! What a heap module implements to serve a heap.

use crate::{
    bindings,
    dma_buf::DmaBuf,
    task::Origin, //
};
use kernel::{
    page::PAGE_SIZE,
    prelude::*,
    sync::Arc,
    time::Msecs, //
};

/// The buffers are fenced off from the normal world.
pub const PROTECTED: u32 = bindings::RINGFENCE_PROTECTED;
/// The CPU may map the buffers.
pub const CPU_ACCESS: u32 = bindings::RINGFENCE_CPU_ACCESS;
/// The buffers are contiguous.
pub const CONTIGUOUS: u32 = bindings::RINGFENCE_CONTIGUOUS;
/// All of the heap's region is fenced at once, as long as a buffer lives.
pub const WHOLE_REGION: u32 = bindings::RINGFENCE_WHOLE_REGION;
/// The heap can serve allocations now.
pub const ONLINE: u32 = bindings::RINGFENCE_ONLINE;

/// The flags that say what buffers are like.
pub(crate) const PROPERTIES: u32 = PROTECTED | CPU_ACCESS | CONTIGUOUS;

/// What a backend is asked to allocate.
///
/// The registry has compared it with the backend's [`Abilities`].
#[derive(Clone, Copy)]
pub struct Request {
    /// Bytes, a multiple of the page size, not 0.
    pub size: usize,
    /// Flags of the file descriptor to be.
    pub fd_flags: u32,
    /// Bytes to which the buffer's start is to be aligned: a power of two, or 0 for
    /// what the heap does anyhow.
    pub alignment: u64,
    /// Take the upper end of the memory that fits.
    pub top_down: bool,
    /// Fail with `EAGAIN` rather than take longer for a larger buffer, be it by
    /// zeroing memory or by making others move.
    pub no_wait: bool,
}

impl Request {
    /// Asks for nothing in particular, as the dma-heap core's ioctl does.
    pub fn plain(size: usize, fd_flags: u32) -> Self {
        Self {
            size,
            fd_flags,
            alignment: 0,
            top_down: false,
            no_wait: false,
        }
    }
}

/// What a backend's buffers are like, and which wishes it can fulfil.
///
/// This never changes while the backend is attached.
#[derive(Clone, Copy)]
pub struct Abilities {
    /// [`PROTECTED`], [`CPU_ACCESS`], [`CONTIGUOUS`]: what holds for every buffer.
    pub properties: u32,
    /// Bytes: the unit in which memory is taken.
    pub granule: u64,
    /// Bytes: the largest [`Request::alignment`].
    pub max_alignment: u64,
    /// Whether [`Request::top_down`] can be.
    pub top_down: bool,
    /// Whether [`Request::no_wait`] can be.
    pub no_wait: bool,
}

impl Default for Abilities {
    /// Pages, without any promise.
    fn default() -> Self {
        Self {
            properties: 0,
            granule: PAGE_SIZE as u64,
            max_alignment: PAGE_SIZE as u64,
            top_down: false,
            no_wait: false,
        }
    }
}

impl Abilities {
    /// Whether a request can be fulfilled to the letter, with `required` properties.
    ///
    /// # Errors
    ///
    /// `EOPNOTSUPP`.
    pub(super) fn allow(&self, request: &Request, required: u32) -> Result {
        let fits = required & !self.properties == 0
            && request.alignment <= self.max_alignment
            && (self.top_down || !request.top_down)
            && (self.no_wait || !request.no_wait);
        if fits {
            Ok(())
        } else {
            Err(EOPNOTSUPP)
        }
    }
}

/// What a heap is, and how full; the fields of `struct ringfence_heap_info`.
#[derive(Clone, Copy, Default)]
pub struct HeapInfo {
    /// [`PROTECTED`], [`CPU_ACCESS`], [`CONTIGUOUS`], [`ONLINE`].
    pub flags: u32,
    /// Bytes.
    pub size: u64,
    /// Bytes not allocated: [`clean`](Self::clean) and [`dirty`](Self::dirty).
    pub free: u64,
    /// Bytes that can be handed out without being zeroed by the heap.
    pub clean: u64,
    /// Bytes that are to be zeroed before they are handed out.
    pub dirty: u64,
    /// Bytes of the longest free run.
    pub largest_free: u64,
    /// Bytes kept back because the secure world could not open them.
    pub quarantined: u64,
    /// Bytes that are fenced now.
    pub protected_bytes: u64,
    /// Live buffers.
    pub buffers: u32,
    /// Number of the use case.
    pub use_case: u32,
    /// Bytes to which the start of a buffer is aligned.
    pub alignment: u32,
}

/// One allocated range, for the `ranges` file.
pub struct RangeLine {
    /// Physical address.
    pub start: u64,
    /// Bytes.
    pub size: u64,
    /// How the range stands, in one word.
    pub state: &'static str,
    /// Who allocated it.
    pub origin: Origin,
}

/// Why a backend should look after its quarantined ranges.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// The delay of [`Heap::retry_after`] is over.
    Timer,
    /// Somebody wrote to the heap's `retry` file.
    Request,
}

/// A driver's allocator.
#[vtable]
pub trait Backend: Send + Sync + Sized + 'static {
    /// Makes a buffer.
    ///
    /// # Errors
    ///
    /// Those that the design names. After any of them everything is as before.
    fn allocate(this: &Arc<Self>, request: &Request) -> Result<DmaBuf>;

    /// Says what the heap is and how full.
    fn info(&self) -> HeapInfo;

    /// Says what can be asked of the heap; of pages without promises, nothing.
    fn abilities(&self) -> Abilities {
        Abilities {
            properties: self.info().flags & PROPERTIES,
            ..Abilities::default()
        }
    }

    /// By which name control groups limit the use of contiguous memory, if not by
    /// the heap's: heaps on the same memory have the same.
    fn memory(&self) -> Option<&CStr> {
        None
    }

    /// The allocated ranges, in order of address; of pages, none.
    fn ranges(&self) -> Result<KVVec<RangeLine>> {
        Ok(KVVec::new())
    }

    /// Tries once more to settle ranges that could not be given back.
    fn retry(_this: &Arc<Self>, _why: Retry) {}

    /// Does a short spell of the work that nobody waits for, and answers after how
    /// many milliseconds to be called again; `None` is to wait for [`Heap::wake`].
    ///
    /// It is not called any more when [`Attachment`]'s drop is over.
    fn background(&self) -> Option<Msecs> {
        None
    }
}

/// [`Backend`] without its associated items.
pub(super) trait Serve: Send + Sync {
    fn allocate(&self, request: &Request) -> Result<DmaBuf>;
    fn abilities(&self) -> Abilities;
    fn info(&self) -> HeapInfo;
    fn memory(&self) -> Option<&CStr>;
    fn ranges(&self) -> Result<KVVec<RangeLine>>;
    fn retry(&self, why: Retry);
    fn background(&self) -> Option<Msecs>;
}

/// A backend as a trait object.
pub(super) struct Server<B>(pub(super) Arc<B>);

impl<B: Backend> Serve for Server<B> {
    fn allocate(&self, request: &Request) -> Result<DmaBuf> {
        B::allocate(&self.0, request)
    }

    fn abilities(&self) -> Abilities {
        self.0.abilities()
    }

    fn info(&self) -> HeapInfo {
        self.0.info()
    }

    fn memory(&self) -> Option<&CStr> {
        self.0.memory()
    }

    fn ranges(&self) -> Result<KVVec<RangeLine>> {
        self.0.ranges()
    }

    fn retry(&self, why: Retry) {
        B::retry(&self.0, why);
    }

    fn background(&self) -> Option<Msecs> {
        self.0.background()
    }
}

#[cfg(RINGFENCE_TEST)]
#[kunit_tests(ringfence_backend)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_promised_that_can_not_be_kept() {
        let able = Abilities {
            properties: CONTIGUOUS,
            max_alignment: 1 << 20,
            ..Abilities::default()
        };
        let plain = Request::plain(PAGE_SIZE, 0);
        let with = |change: fn(&mut Request)| {
            let mut request = plain;
            change(&mut request);
            able.allow(&request, 0)
        };
        assert!(able.allow(&plain, CONTIGUOUS).is_ok());
        assert_eq!(able.allow(&plain, PROTECTED), Err(EOPNOTSUPP));
        assert_eq!(able.allow(&plain, CONTIGUOUS | CPU_ACCESS), Err(EOPNOTSUPP));
        assert!(with(|request| request.alignment = 1 << 20).is_ok());
        assert_eq!(with(|request| request.alignment = 1 << 21), Err(EOPNOTSUPP));
        assert_eq!(with(|request| request.top_down = true), Err(EOPNOTSUPP));
        assert_eq!(with(|request| request.no_wait = true), Err(EOPNOTSUPP));
    }
}
