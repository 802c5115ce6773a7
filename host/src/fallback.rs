// SPDX-License-Identifier: MIT OR Apache-2.0

//! Allocation from the first heap of a list that has room.
//!
//! A camera wants its carveout, and when that is full it goes on with the
//! system heap, and knows that it did. A [`Policy`] says which heaps may serve,
//! in which order, and what a buffer must be like whichever heap it comes from;
//! an [`Allocator`] keeps to it, and tells of every refusal.
//!
//! What is required is never traded away: a heap that does not promise it is
//! passed over, and a buffer that turns out not to have it is given back.

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize, Serializer};

use crate::buffer::{Buffer, BufferInfo};
use crate::control::Control;
use crate::error::{AllocationFailure, Error};
use crate::heap::{Heap, HeapInfo};

/// What a buffer can be required to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Property {
    /// One run of physical addresses.
    Contiguous,
    /// Fenced off from the normal world.
    Protected,
    /// The CPU may map it.
    CpuAccess,
}

impl Property {
    /// Every property.
    pub const ALL: [Self; 3] = [Self::Contiguous, Self::Protected, Self::CpuAccess];

    /// Its name, in profiles and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Contiguous => "contiguous",
            Self::Protected => "protected",
            Self::CpuAccess => "cpu-access",
        }
    }
}

impl fmt::Display for Property {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Property {
    type Err = UnknownProperty;

    fn from_str(text: &str) -> Result<Self, UnknownProperty> {
        Self::ALL
            .into_iter()
            .find(|property| property.name() == text)
            .ok_or_else(|| UnknownProperty(text.to_owned()))
    }
}

/// A word that names no [`Property`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is nothing that a buffer can be required to be: contiguous, protected or cpu-access"
)]
pub struct UnknownProperty(String);

/// The properties that a heap promises, or that a buffer has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Properties {
    contiguous: bool,
    protected: bool,
    cpu_access: bool,
}

impl Properties {
    /// Whether `property` is among them.
    pub fn have(&self, property: Property) -> bool {
        match property {
            Property::Contiguous => self.contiguous,
            Property::Protected => self.protected,
            Property::CpuAccess => self.cpu_access,
        }
    }

    /// The first property of `others` that is missing here.
    fn lack(&self, others: &Self) -> Option<Property> {
        Property::ALL
            .into_iter()
            .find(|&property| others.have(property) && !self.have(property))
    }

    fn any(&self) -> Option<Property> {
        Property::ALL
            .into_iter()
            .find(|&property| self.have(property))
    }
}

impl FromIterator<Property> for Properties {
    fn from_iter<I: IntoIterator<Item = Property>>(all: I) -> Self {
        let mut properties = Self::default();
        for property in all {
            match property {
                Property::Contiguous => properties.contiguous = true,
                Property::Protected => properties.protected = true,
                Property::CpuAccess => properties.cpu_access = true,
            }
        }
        properties
    }
}

impl From<&HeapInfo> for Properties {
    fn from(info: &HeapInfo) -> Self {
        Self {
            contiguous: info.contiguous,
            protected: info.protected,
            cpu_access: info.cpu_access,
        }
    }
}

impl From<&BufferInfo> for Properties {
    fn from(info: &BufferInfo) -> Self {
        Self {
            contiguous: info.contiguous,
            protected: info.protected,
            cpu_access: info.cpu_access,
        }
    }
}

/// Why a list of heaps and requirements makes no policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// No heap is named.
    #[error("no heap is named to allocate from")]
    NoHeaps,
    /// A heap is named twice, so that its second mention can't mean anything.
    #[error("heap {0} is named twice")]
    Twice(String),
    /// No buffer can be both.
    #[error("no buffer is both protected and open to the CPU")]
    ProtectedWithCpuAccess,
}

/// Which heaps may serve, and what is required of a buffer.
///
/// # Invariants
///
/// There is at least one heap, none is named twice, and the requirements don't
/// contradict each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    heaps: Vec<String>,
    required: Properties,
}

impl Policy {
    /// A policy that tries `heaps` in this order.
    pub fn new(
        heaps: impl IntoIterator<Item = impl Into<String>>,
        required: impl IntoIterator<Item = Property>,
    ) -> Result<Self, PolicyError> {
        let heaps: Vec<String> = heaps.into_iter().map(Into::into).collect();
        let required: Properties = required.into_iter().collect();
        if heaps.is_empty() {
            return Err(PolicyError::NoHeaps);
        }
        if let Some(twice) = (1..heaps.len()).find(|&place| heaps[..place].contains(&heaps[place]))
        {
            return Err(PolicyError::Twice(heaps[twice].clone()));
        }
        if required.protected && required.cpu_access {
            return Err(PolicyError::ProtectedWithCpuAccess);
        }
        // INVARIANT: checked above.
        Ok(Self { heaps, required })
    }

    /// The heaps, the wanted one first.
    pub fn heaps(&self) -> &[String] {
        &self.heaps
    }

    /// What is required of a buffer.
    pub fn required(&self) -> Properties {
        self.required
    }
}

/// Why a heap did not serve.
#[derive(Debug)]
pub enum Reason {
    /// Its buffers are not what is required.
    Lacks(Property),
    /// It is another driver's, which does not say what its buffers are like.
    Unknown(Property),
    /// It has no buffer to give.
    Failed(AllocationFailure),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lacks(property) => write!(f, "its buffers are not {property}"),
            Self::Unknown(property) => write!(
                f,
                "another driver's, which does not say whether its buffers are {property}"
            ),
            Self::Failed(failure) => write!(f, "{failure}"),
        }
    }
}

/// A heap that did not serve.
#[derive(Debug, Serialize)]
pub struct Refused {
    /// Its name.
    pub heap: String,
    /// Why.
    #[serde(serialize_with = "as_text")]
    pub reason: Reason,
}

fn as_text<S: Serializer>(reason: &Reason, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(reason)
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.heap, self.reason)
    }
}

/// A buffer, and how it came about.
#[derive(Debug)]
pub struct Allocation<B = Buffer> {
    /// The buffer.
    pub buffer: B,
    /// The heap that served.
    pub heap: String,
    /// Those before it in the list, in order; empty when the wanted heap served.
    pub refused: Vec<Refused>,
}

impl<B> Allocation<B> {
    /// Whether another heap than the wanted one served.
    pub fn is_fallback(&self) -> bool {
        !self.refused.is_empty()
    }
}

/// Where buffers come from: a heap of this system, or a model of one.
pub trait Source {
    /// What it gives.
    type Buffer;

    /// Its heap's name.
    fn name(&self) -> &str;

    /// What the heap promises; `None` when its driver does not say.
    fn promises(&self) -> Result<Option<Properties>, Error>;

    /// Allocates.
    fn allocate(&self, size: u64) -> Result<Self::Buffer, Error>;

    /// What a buffer has; `None` when its driver does not say.
    fn properties(&self, buffer: &Self::Buffer) -> Result<Option<Properties>, Error>;
}

/// A heap of this system.
#[derive(Debug)]
pub struct SystemHeap {
    heap: Heap,
}

impl SystemHeap {
    fn control() -> Result<Option<Control>, Error> {
        match Control::open() {
            Ok(control) => Ok(Some(control)),
            // Without the driver, every heap is somebody else's.
            Err(Error::Open { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

impl Source for SystemHeap {
    type Buffer = Buffer;

    fn name(&self) -> &str {
        self.heap.name()
    }

    fn promises(&self) -> Result<Option<Properties>, Error> {
        let Some(control) = Self::control()? else {
            return Ok(None);
        };
        Ok(control
            .heaps()?
            .iter()
            .find(|info| info.name == self.heap.name())
            .map(Properties::from))
    }

    fn allocate(&self, size: u64) -> Result<Buffer, Error> {
        self.heap.allocate(size)
    }

    fn properties(&self, buffer: &Buffer) -> Result<Option<Properties>, Error> {
        let Some(control) = Self::control()? else {
            return Ok(None);
        };
        match control.buffer(buffer) {
            Ok(info) => Ok(Some(Properties::from(&info))),
            Err(Error::Foreign) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// What an allocator has done since it was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Metrics {
    /// Buffers that each heap has served, in the policy's order.
    pub served: Vec<(String, u64)>,
    /// Buffers that another heap than the wanted one served.
    pub fallbacks: u64,
    /// Requests that no heap served.
    pub failures: u64,
}

/// Called with the allocation when another heap than the wanted one served.
type OnFallback<B> = Box<dyn Fn(&Allocation<B>) + Send + Sync>;

/// Allocates as a policy says.
pub struct Allocator<S: Source = SystemHeap> {
    sources: Vec<S>,
    required: Properties,
    on_fallback: Option<OnFallback<S::Buffer>>,
    served: Vec<AtomicU64>,
    fallbacks: AtomicU64,
    failures: AtomicU64,
}

impl Allocator {
    /// An allocator for the heaps of this system.
    ///
    /// # Errors
    ///
    /// [`Error::NoHeap`] when there is no heap of a name in the list. A heap once
    /// there never goes away, so that this is a mistake and no reason to fall
    /// back.
    pub fn new(policy: &Policy) -> Result<Self, Error> {
        let sources = policy
            .heaps()
            .iter()
            .map(|name| {
                Ok(SystemHeap {
                    heap: Heap::open(name)?,
                })
            })
            .collect::<Result<_, Error>>()?;
        Ok(Self::of(sources, policy.required()))
    }
}

impl<S: Source> Allocator<S> {
    /// An allocator that tries these sources in order.
    pub fn of(sources: Vec<S>, required: Properties) -> Self {
        Self {
            served: sources.iter().map(|_| AtomicU64::new(0)).collect(),
            sources,
            required,
            on_fallback: None,
            fallbacks: AtomicU64::new(0),
            failures: AtomicU64::new(0),
        }
    }

    /// The same, which calls `callback` with every buffer that another heap than
    /// the wanted one serves.
    pub fn on_fallback(
        self,
        callback: impl Fn(&Allocation<S::Buffer>) + Send + Sync + 'static,
    ) -> Self {
        Self {
            on_fallback: Some(Box::new(callback)),
            ..self
        }
    }

    /// Allocates `size` bytes, rounded up to whole pages, from the first heap
    /// that can.
    ///
    /// A heap without room, without its driver, or that the secure world refuses,
    /// is passed over. What the next heap could not mend ends the search: a
    /// malformed size, too many open files, a signal.
    ///
    /// # Errors
    ///
    /// [`Error::NoneServed`] with the reason of each heap.
    pub fn allocate(&self, size: u64) -> Result<Allocation<S::Buffer>, Error> {
        let mut refused = Vec::new();
        for (source, served) in self.sources.iter().zip(&self.served) {
            let reason = match self.attempt(source, size) {
                Ok(Ok(buffer)) => {
                    let allocation = Allocation {
                        buffer,
                        heap: source.name().to_owned(),
                        refused,
                    };
                    served.fetch_add(1, Ordering::Relaxed);
                    self.note(&allocation);
                    return Ok(allocation);
                }
                Ok(Err(reason)) => reason,
                Err(error) => {
                    self.failures.fetch_add(1, Ordering::Relaxed);
                    return Err(error);
                }
            };
            refused.push(Refused {
                heap: source.name().to_owned(),
                reason,
            });
        }
        self.failures.fetch_add(1, Ordering::Relaxed);
        Err(Error::NoneServed { size, refused })
    }

    fn attempt(&self, source: &S, size: u64) -> Result<Result<S::Buffer, Reason>, Error> {
        // A heap's promise spares an allocation in vain, but it is the buffer that counts. A heap
        // that promises nothing may just be offline, and says so when it is asked to allocate.
        let promises = source.promises()?;
        if promises != Some(Properties::default()) {
            if let Some(reason) = self.judge(promises) {
                return Ok(Err(reason));
            }
        }
        let buffer = match source.allocate(size) {
            Ok(buffer) => buffer,
            Err(Error::Allocation { reason, .. }) if is_the_heaps(&reason) => {
                return Ok(Err(Reason::Failed(reason)))
            }
            Err(error) => return Err(error),
        };
        if self.required == Properties::default() {
            return Ok(Ok(buffer));
        }
        Ok(match self.judge(source.properties(&buffer)?) {
            Some(reason) => Err(reason),
            None => Ok(buffer),
        })
    }

    /// Why something with these properties won't do.
    fn judge(&self, properties: Option<Properties>) -> Option<Reason> {
        match properties {
            Some(properties) => properties.lack(&self.required).map(Reason::Lacks),
            None => self.required.any().map(Reason::Unknown),
        }
    }

    fn note(&self, allocation: &Allocation<S::Buffer>) {
        if !allocation.is_fallback() {
            return;
        }
        self.fallbacks.fetch_add(1, Ordering::Relaxed);
        if let Some(callback) = &self.on_fallback {
            callback(allocation);
        }
    }

    /// What it has done so far.
    pub fn metrics(&self) -> Metrics {
        let served = self.sources.iter().zip(&self.served);
        Metrics {
            served: served
                .map(|(source, count)| (source.name().to_owned(), count.load(Ordering::Relaxed)))
                .collect(),
            fallbacks: self.fallbacks.load(Ordering::Relaxed),
            failures: self.failures.load(Ordering::Relaxed),
        }
    }
}

/// Whether another heap may do better.
fn is_the_heaps(failure: &AllocationFailure) -> bool {
    match failure {
        AllocationFailure::NoRoom
        | AllocationFailure::Offline
        | AllocationFailure::SecureWorld
        | AllocationFailure::Unknown
        | AllocationFailure::Unable
        | AllocationFailure::Quota
        | AllocationFailure::NotNow => true,
        AllocationFailure::Malformed | AllocationFailure::Other(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;
    use std::sync::{Arc, Mutex};

    use rustix::io::Errno;

    use super::*;

    /// A buffer of a model, which says when it is gone.
    struct Piece {
        size: u64,
        free: Rc<Cell<u64>>,
        properties: Option<Properties>,
    }

    impl Drop for Piece {
        fn drop(&mut self) {
            self.free.set(self.free.get() + self.size);
        }
    }

    struct Model {
        name: &'static str,
        free: Rc<Cell<u64>>,
        promises: Option<Properties>,
        has: Option<Properties>,
        fails: Option<Errno>,
    }

    fn model(name: &'static str, free: u64, properties: &[Property]) -> Model {
        let properties = Some(properties.iter().copied().collect());
        Model {
            name,
            free: Rc::new(Cell::new(free)),
            promises: properties,
            has: properties,
            fails: None,
        }
    }

    impl Source for Model {
        type Buffer = Piece;

        fn name(&self) -> &str {
            self.name
        }

        fn promises(&self) -> Result<Option<Properties>, Error> {
            Ok(self.promises)
        }

        fn allocate(&self, size: u64) -> Result<Piece, Error> {
            let errno = match self.fails {
                Some(errno) => Some(errno),
                None if size > self.free.get() => Some(Errno::NOMEM),
                None => None,
            };
            if let Some(errno) = errno {
                return Err(Error::Allocation {
                    heap: self.name.to_owned(),
                    size,
                    reason: std::io::Error::from(errno).into(),
                });
            }
            self.free.set(self.free.get() - size);
            Ok(Piece {
                size,
                free: Rc::clone(&self.free),
                properties: self.has,
            })
        }

        fn properties(&self, buffer: &Piece) -> Result<Option<Properties>, Error> {
            Ok(buffer.properties)
        }
    }

    const CAMERA: [Property; 1] = [Property::Contiguous];
    const SYSTEM: [Property; 1] = [Property::CpuAccess];

    fn refusals(outcome: Result<Allocation<Piece>, Error>) -> Vec<String> {
        match outcome {
            Err(Error::NoneServed { refused, .. }) => {
                refused.iter().map(ToString::to_string).collect()
            }
            Err(other) => panic!("{other}"),
            Ok(allocation) => panic!("{} served", allocation.heap),
        }
    }

    #[test]
    fn the_wanted_heap_serves_while_it_has_room_and_the_next_one_after() {
        let told = Arc::new(Mutex::new(Vec::new()));
        let hears = Arc::clone(&told);
        let allocator = Allocator::of(
            vec![model("camera", 2, &CAMERA), model("system", 9, &SYSTEM)],
            Properties::default(),
        )
        .on_fallback(move |allocation| {
            let text = format!("{} for {}", allocation.heap, allocation.refused[0].heap);
            hears.lock().unwrap().push(text);
        });
        let buffers: Vec<_> = (0..3).map(|_| allocator.allocate(1).unwrap()).collect();
        let heaps: Vec<_> = buffers.iter().map(|one| one.heap.as_str()).collect();
        assert_eq!(heaps, ["camera", "camera", "system"]);
        assert!(!buffers[1].is_fallback() && buffers[2].is_fallback());
        assert_eq!(*told.lock().unwrap(), ["system for camera"]);
        let metrics = allocator.metrics();
        assert_eq!(
            metrics.served,
            [("camera".to_owned(), 2), ("system".to_owned(), 1)]
        );
        assert_eq!((metrics.fallbacks, metrics.failures), (1, 0));
    }

    #[test]
    fn what_is_required_is_never_traded_away() {
        let allocator = Allocator::of(
            vec![model("camera", 1, &CAMERA), model("system", 9, &SYSTEM)],
            Properties::from_iter([Property::Contiguous]),
        );
        let _all = allocator.allocate(1).unwrap();
        let refused = refusals(allocator.allocate(1));
        assert!(refused[0].starts_with("camera: no free run"), "{refused:?}");
        assert_eq!(refused[1], "system: its buffers are not contiguous");
        assert_eq!(allocator.sources[1].free.get(), 9);
        assert_eq!(allocator.metrics().failures, 1);
    }

    #[test]
    fn a_buffer_that_is_not_what_its_heap_promised_is_given_back() {
        let mut liar = model("liar", 5, &CAMERA);
        liar.has = Some(Properties::default());
        let allocator = Allocator::of(vec![liar], Properties::from_iter(CAMERA));
        assert_eq!(
            refusals(allocator.allocate(1)),
            ["liar: its buffers are not contiguous"]
        );
        assert_eq!(allocator.sources[0].free.get(), 5);
    }

    #[test]
    fn another_drivers_heap_serves_only_when_nothing_is_required() {
        let foreign = || Model {
            promises: None,
            has: None,
            ..model("foreign", 5, &[])
        };
        let anything = Allocator::of(vec![foreign()], Properties::default());
        assert!(anything.allocate(1).is_ok());
        let contiguous = Allocator::of(vec![foreign()], Properties::from_iter(CAMERA));
        assert!(refusals(contiguous.allocate(1))[0].contains("does not say"));
    }

    #[test]
    fn an_offline_heap_is_said_to_be_offline() {
        let offline = Model {
            fails: Some(Errno::NODEV),
            ..model("camera", 5, &[])
        };
        let allocator = Allocator::of(vec![offline], Properties::from_iter(CAMERA));
        assert!(refusals(allocator.allocate(1))[0].contains("absent"));
    }

    #[test]
    fn what_another_heap_could_not_mend_ends_the_search() {
        for errno in [Errno::INVAL, Errno::MFILE, Errno::INTR] {
            let broken = Model {
                fails: Some(errno),
                ..model("camera", 5, &CAMERA)
            };
            let allocator = Allocator::of(
                vec![broken, model("system", 5, &SYSTEM)],
                Properties::default(),
            );
            assert!(matches!(
                allocator.allocate(1),
                Err(Error::Allocation { .. })
            ));
            assert_eq!(allocator.metrics().failures, 1);
        }
    }

    #[test]
    fn a_policy_that_makes_no_sense_is_refused() {
        let none: [&str; 0] = [];
        assert_eq!(Policy::new(none, []), Err(PolicyError::NoHeaps));
        assert_eq!(
            Policy::new(["a", "b", "a"], []),
            Err(PolicyError::Twice("a".into()))
        );
        assert_eq!(
            Policy::new(["a"], [Property::Protected, Property::CpuAccess]),
            Err(PolicyError::ProtectedWithCpuAccess)
        );
        assert!(Policy::new(["a", "b"], [Property::Protected]).is_ok());
    }

    #[test]
    fn properties_are_known_by_name() {
        for property in Property::ALL {
            assert_eq!(property.name().parse(), Ok(property));
        }
        assert!("contigous".parse::<Property>().is_err());
    }
}
