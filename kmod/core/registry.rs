// SPDX-License-Identifier: GPL-2.0

//! The heaps, and the backends that serve them.
//!
//! A [`Heap`] is a name in `/dev/dma_heap`, which once registered stays until
//! the machine is switched off. A [`Backend`] is a driver's allocator behind it,
//! which comes with [`Heap::attach`] and goes when the [`Attachment`] is dropped:
//! when the driver's device is unbound or its module is unloaded. In between,
//! allocations answer ENODEV. A later backend of the same name revives the heap.
//!
//! Nobody calls into a backend without a reference to its module ([`Entered`]),
//! and every buffer holds one, so that a module in use can't be unloaded. The
//! heap's worker is the exception: it must not keep a module that nobody uses, so
//! the backend's end waits for it instead.

use crate::{
    bindings,
    dma_buf::DmaBuf,
    dma_heap,
    task::Origin, //
};
use kernel::{
    container_of,
    debugfs::{
        Dir,
        File, //
    },
    fmt,
    impl_has_delayed_work,
    module::this_module,
    new_delayed_work,
    new_mutex,
    prelude::*,
    str::CString,
    sync::{
        global_lock,
        Arc,
        Mutex,
        SetOnce, //
    },
    time::{
        msecs_to_jiffies,
        Msecs, //
    },
    uaccess::UserSliceReader,
    workqueue::{
        self,
        DelayedWork,
        Queue,
        Work,
        WorkItem, //
    }, //
};

/// Bytes of a heap's name, with its NUL, that the UAPI has room for.
pub const NAME_SIZE: usize = bindings::RINGFENCE_NAME_SIZE as usize;

/// The buffers are fenced off from the normal world.
pub const PROTECTED: u32 = bindings::RINGFENCE_PROTECTED;
/// The buffers are contiguous.
pub const CONTIGUOUS: u32 = bindings::RINGFENCE_CONTIGUOUS;
/// All of the heap's region is fenced at once, as long as a buffer lives.
pub const WHOLE_REGION: u32 = bindings::RINGFENCE_WHOLE_REGION;
/// The heap can serve allocations now.
pub const ONLINE: u32 = bindings::RINGFENCE_ONLINE;

global_lock! {
    // SAFETY: Initialised by `init`, which the module calls before anything else.
    unsafe(uninit) static HEAPS: Mutex<KVec<Arc<Heap>>> = KVec::new();
}

/// Never removed, as the module never unloads.
static DEBUGFS: SetOnce<Dir> = SetOnce::new();

/// The queue of the heaps' workers. It is never removed, as the module never
/// unloads.
static QUEUE: SetOnce<&'static Queue> = SetOnce::new();

/// Makes the queue of the heaps' workers: not bound to a CPU, at rest while the
/// system is suspended, and with its own attributes, such as its nice value, in
/// `/sys/devices/virtual/workqueue/ringfence`.
///
/// This must be the last of the module's initialisation that can fail.
///
/// # Errors
///
/// `ENOMEM`.
pub(crate) fn start() -> Result {
    // SAFETY: Makes a queue, or answers NULL.
    let queue = unsafe { bindings::ringfence_workqueue() };
    if queue.is_null() {
        return Err(ENOMEM);
    }
    // SAFETY: The queue is valid, and is never destroyed.
    QUEUE.populate(unsafe { Queue::from_raw(queue) });
    Ok(())
}

/// Prepares the registry.
///
/// # Safety
///
/// Must be called exactly once, before anything else here.
pub(crate) unsafe fn init() {
    // SAFETY: The caller calls this once and first.
    unsafe { HEAPS.init() };
}

/// `/sys/kernel/debug/ringfence`, which is made the first time.
pub(crate) fn debugfs_root() -> Option<&'static Dir> {
    if DEBUGFS.as_ref().is_none() {
        DEBUGFS.populate(Dir::new(c"ringfence"));
    }
    DEBUGFS.as_ref()
}

/// What a backend is asked to allocate.
pub struct Request {
    /// Bytes, a multiple of the page size, not 0.
    pub size: usize,
    /// Flags of the file descriptor to be.
    pub fd_flags: u32,
}

/// What a heap is, and how full; the fields of `struct ringfence_heap_info`.
#[derive(Clone, Copy, Default)]
pub struct HeapInfo {
    /// [`PROTECTED`], [`CONTIGUOUS`], [`ONLINE`].
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

    /// The allocated ranges, in order of address.
    fn ranges(&self) -> Result<KVVec<RangeLine>>;

    /// Tries once more to settle ranges that could not be given back.
    fn retry(this: &Arc<Self>, why: Retry);

    /// Does a short spell of the work that nobody waits for, and answers after how
    /// many milliseconds to be called again; `None` is to wait for [`Heap::wake`].
    ///
    /// It is not called any more when [`Attachment`]'s drop is over.
    fn background(&self) -> Option<Msecs>;
}

/// [`Backend`] without its associated items.
trait Serve: Send + Sync {
    fn allocate(&self, request: &Request) -> Result<DmaBuf>;
    fn info(&self) -> HeapInfo;
    fn ranges(&self) -> Result<KVVec<RangeLine>>;
    fn retry(&self, why: Retry);
    fn background(&self) -> Option<Msecs>;
}

struct Server<B>(Arc<B>);

impl<B: Backend> Serve for Server<B> {
    fn allocate(&self, request: &Request) -> Result<DmaBuf> {
        B::allocate(&self.0, request)
    }

    fn info(&self) -> HeapInfo {
        self.0.info()
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

/// A reference to a module that keeps it from being unloaded.
struct ModuleReference(&'static ThisModule);

impl ModuleReference {
    /// Fails when the module is being unloaded.
    fn get(module: &'static ThisModule) -> Option<Self> {
        // SAFETY: Whoever has a backend attached is still there: its attachment is dropped before
        // its module is gone.
        if !unsafe { kernel::bindings::try_module_get(module.as_ptr()) } {
            return None;
        }
        Some(Self(module))
    }
}

impl Drop for ModuleReference {
    fn drop(&mut self) {
        // SAFETY: The reference was taken by `get`.
        unsafe { kernel::bindings::module_put(self.0.as_ptr()) };
    }
}

/// A backend that may be called.
///
/// The order of the fields is that of their drop: the backend goes first, while
/// the code of its destructor is still sure to be there.
struct Entered {
    backend: Arc<dyn Serve>,
    _module: ModuleReference,
}

struct Attached {
    backend: Arc<dyn Serve>,
    owner: &'static ThisModule,
}

struct State {
    /// Whether the dma-heap core knows the heap.
    registered: bool,
    backend: Option<Attached>,
    files: Option<Files>,
}

/// The heap's directory in debugfs.
struct Files {
    _ranges: Pin<KBox<File<Arc<Heap>>>>,
    _stats: Pin<KBox<File<Arc<Heap>>>>,
    _retry: Pin<KBox<File<Arc<Heap>>>>,
}

/// A heap, which is never freed.
///
/// # Invariants
///
/// Every heap is in `HEAPS`, from which none is ever removed.
#[pin_data]
pub struct Heap {
    name: CString,
    #[pin]
    state: Mutex<State>,
    #[pin]
    retry: DelayedWork<Heap, RETRY>,
    #[pin]
    background: DelayedWork<Heap, BACKGROUND>,
}

/// The number of [`Heap::retry`] among a heap's works.
const RETRY: u64 = 0;
/// The number of [`Heap::background`].
const BACKGROUND: u64 = 1;

impl_has_delayed_work! {
    impl HasDelayedWork<Self, 0> for Heap { self.retry }
    impl HasDelayedWork<Self, 1> for Heap { self.background }
}

impl WorkItem<RETRY> for Heap {
    type Pointer = Arc<Heap>;

    fn run(this: Arc<Heap>) {
        this.retry_now(Retry::Timer);
    }
}

impl WorkItem<BACKGROUND> for Heap {
    type Pointer = Arc<Heap>;

    fn run(this: Arc<Heap>) {
        let backend = match &this.state.lock().backend {
            Some(attached) => attached.backend.clone(),
            None => return,
        };
        // The attachment's drop waits for this to return, and has the last reference.
        let again = backend.background();
        drop(backend);
        if let Some(delay) = again {
            Heap::wake_after(&this, delay);
        }
    }
}

impl Heap {
    /// The heap of this name, which is made if need be.
    ///
    /// # Errors
    ///
    /// `EINVAL` for an empty or too long name; `ENOMEM`.
    pub fn named(name: &CStr) -> Result<Arc<Heap>> {
        if name.is_empty() || name.to_bytes_with_nul().len() > NAME_SIZE {
            return Err(EINVAL);
        }
        let mut heaps = HEAPS.lock();
        if let Some(heap) = heaps.iter().find(|heap| heap.name() == name) {
            return Ok(heap.clone());
        }
        heaps.reserve(1, GFP_KERNEL)?;
        // INVARIANT: It is put into `HEAPS` before anybody else gets it.
        let heap = Arc::pin_init(
            try_pin_init!(Heap {
                name: CString::try_from(name)?,
                state <- new_mutex!(State {
                    registered: false,
                    backend: None,
                    files: None,
                }),
                retry <- new_delayed_work!("ringfence_retry"),
                background <- new_delayed_work!("ringfence_background"),
            }),
            GFP_KERNEL,
        )?;
        heaps.push(heap.clone(), GFP_KERNEL)?;
        Ok(heap)
    }

    /// Its name, which is also that of its device.
    pub fn name(&self) -> &CStr {
        &self.name
    }

    /// Puts a backend behind the heap, and registers the heap the first time.
    ///
    /// # Errors
    ///
    /// `EBUSY` when another backend serves it, `EINVAL` when the dma-heap core
    /// has a heap of this name already, `ENOMEM`.
    pub fn attach<B: Backend>(heap: &Arc<Heap>, backend: Arc<B>) -> Result<Attachment> {
        let server = Arc::new(Server(backend), GFP_KERNEL)?;
        Self::attach_server(heap, server, this_module::<B::OwnerModule>())
    }

    fn attach_server(
        heap: &Arc<Heap>,
        backend: Arc<dyn Serve>,
        owner: &'static ThisModule,
    ) -> Result<Attachment> {
        let mut state = heap.state.lock();
        if state.backend.is_some() {
            return Err(EBUSY);
        }
        if !state.registered {
            dma_heap::add(heap.clone())?;
            state.registered = true;
        }
        if state.files.is_none() {
            // A heap without its files in debugfs works as well.
            state.files = Files::new(heap).ok();
        }
        state.backend = Some(Attached { backend, owner });
        Self::wake(heap);
        Ok(Attachment { heap: heap.clone() })
    }

    /// Calls the backend's [`Backend::retry`] after `delay` milliseconds.
    ///
    /// When the backend is gone by then, nothing happens.
    pub fn retry_after(heap: &Arc<Heap>, delay: Msecs) {
        // Refused when it is waiting already, which is as good.
        let _ = workqueue::system_long()
            .enqueue_delayed::<_, RETRY>(heap.clone(), msecs_to_jiffies(delay));
    }

    /// Calls the backend's [`Backend::background`] soon. A new backend is called
    /// without this.
    pub fn wake(heap: &Arc<Heap>) {
        Self::wake_after(heap, 0);
    }

    fn wake_after(heap: &Arc<Heap>, delay: Msecs) {
        if let Some(queue) = QUEUE.as_ref() {
            // Refused when it is waiting already, which is as good.
            let _ = queue.enqueue_delayed::<_, BACKGROUND>(heap.clone(), msecs_to_jiffies(delay));
        }
    }

    /// Waits until the worker does not use a backend that was taken away.
    fn flush(&self) {
        // SAFETY: The work lives as long as the heap, and nobody holds a lock that it wants. It is
        // the `work` of a `delayed_work`, as `DelayedWork` promises.
        unsafe {
            let work = DelayedWork::raw_as_work(&raw const self.background);
            let work = Work::raw_get(work);
            kernel::bindings::flush_delayed_work(container_of!(
                work,
                kernel::bindings::delayed_work,
                work
            ));
        }
    }

    fn retry_now(&self, why: Retry) {
        if let Ok(entered) = self.enter() {
            entered.backend.retry(why);
        }
    }

    fn enter(&self) -> Result<Entered> {
        let state = self.state.lock();
        let attached = state.backend.as_ref().ok_or(ENODEV)?;
        let module = ModuleReference::get(attached.owner).ok_or(ENODEV)?;
        Ok(Entered {
            backend: attached.backend.clone(),
            _module: module,
        })
    }

    /// Allocates for the dma-heap core.
    ///
    /// # Errors
    ///
    /// `ENODEV` without a backend, and those of [`Backend::allocate`].
    pub(crate) fn allocate(&self, size: usize, fd_flags: u32) -> Result<DmaBuf> {
        self.enter()?.backend.allocate(&Request { size, fd_flags })
    }

    /// What the heap is now; nothing but zeros without a backend.
    pub(crate) fn info(&self) -> HeapInfo {
        match self.enter() {
            Ok(entered) => entered.backend.info(),
            Err(_) => HeapInfo::default(),
        }
    }

    fn show_ranges(heap: &Arc<Heap>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ok(entered) = heap.enter() else {
            return Ok(());
        };
        let Ok(ranges) = entered.backend.ranges() else {
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
        writeln!(f, "size {}", info.size)?;
        writeln!(f, "free {}", info.free)?;
        writeln!(f, "clean {}", info.clean)?;
        writeln!(f, "dirty {}", info.dirty)?;
        writeln!(f, "largest_free {}", info.largest_free)?;
        writeln!(f, "quarantined {}", info.quarantined)?;
        writeln!(f, "protected {}", info.protected_bytes)?;
        writeln!(f, "buffers {}", info.buffers)
    }

    fn write_retry(heap: &Arc<Heap>, _reader: &mut UserSliceReader) -> Result {
        heap.retry_now(Retry::Request);
        Ok(())
    }
}

impl Files {
    fn new(heap: &Arc<Heap>) -> Result<Self> {
        let dir = debugfs_root().ok_or(ENOENT)?.subdir(heap.name());
        Ok(Self {
            _ranges: KBox::pin_init(
                dir.read_callback_file(c"ranges", heap.clone(), &Heap::show_ranges),
                GFP_KERNEL,
            )?,
            _stats: KBox::pin_init(
                dir.read_callback_file(c"stats", heap.clone(), &Heap::show_stats),
                GFP_KERNEL,
            )?,
            _retry: KBox::pin_init(
                dir.write_callback_file(c"retry", heap.clone(), &Heap::write_retry),
                GFP_KERNEL,
            )?,
        })
    }
}

/// The `index`th heap that was ever registered, if there are so many.
pub(crate) fn nth(index: usize) -> Option<Arc<Heap>> {
    HEAPS
        .lock()
        .iter()
        .filter(|heap| heap.state.lock().registered)
        .nth(index)
        .cloned()
}

/// A backend's place behind its heap, which it leaves on drop.
pub struct Attachment {
    heap: Arc<Heap>,
}

impl Drop for Attachment {
    fn drop(&mut self) {
        let attached = self.heap.state.lock().backend.take();
        self.heap.flush();
        // Outside of the lock: this may be the backend's end.
        drop(attached);
    }
}
