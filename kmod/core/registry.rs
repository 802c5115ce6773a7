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
    dmem, //
};
use kernel::{
    container_of,
    debugfs::Dir,
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
    workqueue::{
        self,
        DelayedWork,
        Queue,
        Work,
        WorkItem, //
    }, //
};

mod backend;
mod books;
mod files;

pub use self::backend::{
    Abilities,
    Backend,
    HeapInfo,
    RangeLine,
    Request,
    Retry,
    CONTIGUOUS,
    CPU_ACCESS,
    ONLINE,
    PROTECTED,
    WHOLE_REGION, //
};
pub(crate) use self::{
    backend::PROPERTIES,
    books::{
        Account,
        Entry, //
    }, //
};
use self::{
    backend::{
        Serve,
        Server, //
    },
    books::Books,
    files::Files, //
};

/// Bytes of a heap's name, with its NUL, that the UAPI has room for.
pub const NAME_SIZE: usize = bindings::RINGFENCE_NAME_SIZE as usize;

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
    attached: Arc<Attached>,
    _module: ModuleReference,
}

impl Entered {
    fn allocate(&self, request: &Request, required: u32) -> Result<DmaBuf> {
        let Attached {
            backend,
            abilities,
            dmem,
            ..
        } = &*self.attached;
        abilities.allow(request, required)?;
        let charge = match dmem {
            Some(region) => {
                // CAST: Widening. No room for it is another matter than no right to it.
                let size = (request.size as u64)
                    .checked_next_multiple_of(abilities.granule)
                    .filter(|&size| size <= region.size())
                    .ok_or(ENOMEM)?;
                Some(region.charge(size)?)
            }
            None => None,
        };
        let buffer = backend.allocate(request)?;
        if let Some(charge) = charge {
            buffer.hold(charge);
        }
        Ok(buffer)
    }
}

struct Attached {
    backend: Arc<dyn Serve>,
    abilities: Abilities,
    /// What control groups can limit.
    dmem: Option<Arc<dmem::Region>>,
    owner: &'static ThisModule,
}

struct State {
    /// Whether the dma-heap core knows the heap.
    registered: bool,
    backend: Option<Arc<Attached>>,
    files: Option<Files>,
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
    books: Books,
    #[pin]
    retry: DelayedWork<Heap, RETRY>,
    #[pin]
    background: DelayedWork<Heap, BACKGROUND>,
}

/// Milliseconds until the next tick of the timer, at most.
const TICK: Msecs = 1;

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
                books <- Books::new(),
                retry <- new_delayed_work!("ringfence_retry"),
                background <- new_delayed_work!("ringfence_background"),
            }),
            GFP_KERNEL,
        )?;
        heaps.push(heap.clone(), GFP_KERNEL)?;
        Ok(heap)
    }

    /// How many of its buffers live.
    pub fn buffers(&self) -> u32 {
        self.account().buffers
    }

    /// Bytes of live buffers, also of earlier backends.
    pub fn used(&self) -> u64 {
        self.books.account().used
    }

    /// Its name, which is also that of its device.
    pub fn name(&self) -> &CStr {
        &self.name
    }

    /// The same, without the reference.
    pub(crate) fn for_ever(&self) -> &'static Heap {
        // SAFETY: By the type invariants a heap is in `HEAPS`, which keeps it for ever.
        unsafe { &*core::ptr::from_ref(self) }
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
        let abilities = backend.abilities();
        let dmem = if abilities.properties & CONTIGUOUS != 0 {
            dmem::region(backend.memory().unwrap_or(heap.name()), backend.info().size)?
        } else {
            None
        };
        let attached = Attached {
            backend,
            abilities,
            dmem,
            owner,
        };
        let attached = Arc::new(attached, GFP_KERNEL)?;
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
        state.backend = Some(attached);
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
    ///
    /// That is with the next tick: to wake a worker costs as much as all of a buffer's
    /// release, and one wait serves many of them.
    pub fn wake(heap: &Arc<Heap>) {
        Self::wake_after(heap, TICK);
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
            entered.attached.backend.retry(why);
        }
    }

    fn enter(&self) -> Result<Entered> {
        let state = self.state.lock();
        let attached = state.backend.as_ref().ok_or(ENODEV)?;
        let module = ModuleReference::get(attached.owner).ok_or(ENODEV)?;
        Ok(Entered {
            attached: attached.clone(),
            _module: module,
        })
    }

    /// Allocates a buffer, and charges it to the current process's control group.
    ///
    /// `required` are the properties without which the buffer is of no use.
    ///
    /// # Errors
    ///
    /// - `ENODEV` without a backend.
    /// - `EOPNOTSUPP` when the backend's [`Abilities`] do not allow the request.
    /// - `ENOMEM` when the request is larger than the heap.
    /// - `EDQUOT` when a control group's limit is in the way.
    /// - Those of [`Backend::allocate`].
    pub(crate) fn allocate(&self, request: &Request, required: u32) -> Result<DmaBuf> {
        self.enter()
            .and_then(|entered| entered.allocate(request, required))
            .inspect_err(|_| self.books.fail())
    }

    /// Sums over its buffers, also of earlier backends.
    pub(crate) fn account(&self) -> Account {
        self.books.account()
    }

    /// What can be asked of the heap; `None` without a backend.
    pub(crate) fn abilities(&self) -> Option<Abilities> {
        let state = self.state.lock();
        state.backend.as_ref().map(|attached| attached.abilities)
    }

    /// What the heap is now; nothing but zeros without a backend.
    pub(crate) fn info(&self) -> HeapInfo {
        match self.enter() {
            Ok(entered) => entered.attached.backend.info(),
            Err(_) => HeapInfo::default(),
        }
    }
}

/// The registered heap of this name.
pub(crate) fn find(name: &CStr) -> Option<Arc<Heap>> {
    HEAPS
        .lock()
        .iter()
        .find(|heap| heap.name() == name && heap.state.lock().registered)
        .cloned()
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
