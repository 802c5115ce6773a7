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
mod tests;
