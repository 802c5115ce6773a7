// SPDX-License-Identifier: MIT OR Apache-2.0

//! A firewall over a piece of ordinary memory, which can be told to fail, and
//! ciphers that show what they were given.

use std::cell::RefCell;
use std::ptr::NonNull;
use std::rc::Rc;

use ringfence_proto::command::{result, RangeKind, RangeState, UseCase};
use ringfence_proto::firewall::{self, LedgerRecord};
use ringfence_proto::message::{Licence, CONTENT_KEY_SIZE};
use ringfence_ta::firewall::{Firewall, FirewallInfo};
use ringfence_ta::instance::{Decryptor, Digester, Instance, Session};
use ringfence_ta::policy::Client;
use ringfence_ta::refusal::Refusal;
use ringfence_ta::shared::SharedBytes;
use ringfence_ta::windows::Range;

/// Where the model's memory lies.
pub const BASE: u64 = 0x8000_0000;
/// Bytes of memory: a carveout for video, one for the user interface, and one
/// for video that is fenced as a whole.
pub const SIZE: u64 = 0x10_0000;
/// Where the carveout for the user interface begins.
pub const UI: u64 = BASE + SIZE / 2;
/// Where the carveout begins that is fenced as a whole.
pub const WHOLE: u64 = BASE + SIZE / 4 * 3;
/// Bytes in it.
pub const WHOLE_SIZE: u64 = SIZE / 4;
/// Largest window, so small that a buffer takes several.
pub const WINDOW: u64 = 0x4000;

/// A call that can be made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    Info,
    Protect,
    Unprotect,
    Name,
    Forget,
    Scrub,
    Map,
    Unmap,
    List,
}

/// What the model knows; shared with the test that watches.
pub struct Model {
    memory: Vec<u64>,
    pub ledger: Vec<LedgerRecord>,
    /// Windows that are mapped: address and bytes.
    pub mapped: Vec<(usize, u64)>,
    /// All windows that ever were: physical address and bytes.
    pub windows: Vec<(u64, u64)>,
    /// Calls that fail from now on, after so many that succeed.
    pub failing: Vec<(Call, usize)>,
    pub calls: Vec<Call>,
    pub protocol: u32,
}

/// The firewall that an instance owns.
#[derive(Clone)]
pub struct ModelFirewall(pub Rc<RefCell<Model>>);

impl ModelFirewall {
    pub fn new() -> Self {
        Self(Rc::new(RefCell::new(Model {
            memory: vec![0; SIZE as usize / 8],
            ledger: Vec::new(),
            mapped: Vec::new(),
            windows: Vec::new(),
            failing: Vec::new(),
            calls: Vec::new(),
            protocol: firewall::PROTOCOL_VERSION,
        })))
    }

    /// Makes the call fail until [`heal`](Self::heal), after `good` more that
    /// succeed.
    pub fn fail(&self, call: Call, good: usize) {
        self.0.borrow_mut().failing.push((call, good));
    }

    pub fn heal(&self) {
        self.0.borrow_mut().failing.clear();
    }

    pub fn calls(&self, call: Call) -> usize {
        let model = self.0.borrow();
        model.calls.iter().filter(|made| **made == call).count()
    }

    /// The bytes at a physical address.
    pub fn bytes(&self, start: u64, length: u64) -> Vec<u8> {
        let model = self.0.borrow();
        let skip = (start - BASE) as usize;
        let words = &model.memory[skip / 8..];
        let all = words.iter().flat_map(|word| word.to_ne_bytes());
        all.skip(skip % 8).take(length as usize).collect()
    }

    /// Where the byte at a physical address is.
    pub fn address(&self, start: u64) -> *const u8 {
        let model = self.0.borrow();
        model
            .memory
            .as_ptr()
            .cast::<u8>()
            .wrapping_add((start - BASE) as usize)
    }

    /// Sets a range's state behind the instance's back.
    pub fn set_state(&self, start: u64, state: RangeState) {
        let mut model = self.0.borrow_mut();
        let record = model.ledger.iter_mut().find(|record| record.start == start);
        record.expect("in the ledger").state = state.raw();
    }

    /// Checks that a stretch of the carveout that is fenced as a whole is fenced,
    /// and that no part is known in it.
    fn check_inside(&self, stretch: Range) -> Result<(), Refusal> {
        let model = self.0.borrow();
        let (start, end) = (stretch.start(), stretch.start() + stretch.size());
        let of_kind = |kind: RangeKind| {
            model
                .ledger
                .iter()
                .filter(move |record| record.kind == kind.raw())
        };
        let overlaps = |other: &LedgerRecord| start < other.start + other.size && other.start < end;
        if !of_kind(RangeKind::Region).any(overlaps) {
            return Err(Refusal::Tee(result::ITEM_NOT_FOUND));
        }
        match of_kind(RangeKind::Part).any(overlaps) {
            true => Err(Refusal::Tee(result::ACCESS_CONFLICT)),
            false => Ok(()),
        }
    }

    fn remove(&self, range: Range, kind: RangeKind) -> Result<(), Refusal> {
        let mut model = self.0.borrow_mut();
        if !model.mapped.is_empty() {
            return Err(Refusal::Tee(result::BUSY));
        }
        let wanted = (range.start(), range.size(), kind.raw());
        let place = model
            .ledger
            .iter()
            .position(|record| (record.start, record.size, record.kind) == wanted)
            .ok_or(Refusal::Tee(result::ITEM_NOT_FOUND))?;
        model.ledger.remove(place);
        Ok(())
    }

    fn enter(&self, call: Call) -> Result<(), Refusal> {
        let mut model = self.0.borrow_mut();
        model.calls.push(call);
        for (failing, good) in &mut model.failing {
            if *failing == call {
                match good.checked_sub(1) {
                    Some(fewer) => *good = fewer,
                    None => return Err(Refusal::Tee(result::GENERIC)),
                }
            }
        }
        Ok(())
    }
}

// SAFETY: windows point into `memory`, which nobody resizes or borrows while
// one is mapped.
unsafe impl Firewall for ModelFirewall {
    fn info(&mut self) -> Result<FirewallInfo, Refusal> {
        self.enter(Call::Info)?;
        Ok(FirewallInfo {
            granule: 4096,
            window: WINDOW as u32,
            protocol: self.0.borrow().protocol,
            regions: 3,
            windows: 7,
        })
    }

    fn protect(&mut self, range: Range) -> Result<(u32, u32), Refusal> {
        self.enter(Call::Protect)?;
        let (start, end) = (range.start(), range.start() + range.size());
        if start < BASE || end > BASE + SIZE {
            return Err(Refusal::Tee(result::ACCESS_DENIED));
        }
        let mut model = self.0.borrow_mut();
        let overlaps = |other: &LedgerRecord| start < other.start + other.size && other.start < end;
        if model.ledger.iter().any(overlaps) {
            return Err(Refusal::Tee(result::ACCESS_CONFLICT));
        }
        let (use_case, kind) = match start {
            ..UI => (UseCase::SecureVideo, RangeKind::Range),
            UI..WHOLE => (UseCase::TrustedUi, RangeKind::Range),
            _ => (UseCase::SecureVideo, RangeKind::Region),
        };
        model.ledger.push(LedgerRecord {
            start,
            size: range.size(),
            use_case: use_case.raw(),
            state: RangeState::Protected.raw(),
            kind: kind.raw(),
        });
        Ok((use_case.raw(), kind.raw()))
    }

    fn name(&mut self, part: Range) -> Result<u32, Refusal> {
        self.enter(Call::Name)?;
        self.check_inside(part)?;
        self.0.borrow_mut().ledger.push(LedgerRecord {
            start: part.start(),
            size: part.size(),
            use_case: UseCase::SecureVideo.raw(),
            state: RangeState::Protected.raw(),
            kind: RangeKind::Part.raw(),
        });
        Ok(UseCase::SecureVideo.raw())
    }

    fn forget(&mut self, part: Range) -> Result<(), Refusal> {
        self.enter(Call::Forget)?;
        self.remove(part, RangeKind::Part)
    }

    fn scrub(&mut self, stretch: Range) -> Result<(), Refusal> {
        self.enter(Call::Scrub)?;
        self.check_inside(stretch)
    }

    fn unprotect(&mut self, range: Range) -> Result<(), Refusal> {
        self.enter(Call::Unprotect)?;
        let kind = match range.start() {
            ..WHOLE => RangeKind::Range,
            _ => RangeKind::Region,
        };
        self.remove(range, kind)
    }

    fn map(&mut self, start: u64, size: u64) -> Result<NonNull<u8>, Refusal> {
        self.enter(Call::Map)?;
        let mut model = self.0.borrow_mut();
        assert!(size <= WINDOW && size.is_multiple_of(4096) && start.is_multiple_of(4096));
        assert!(model.ledger.iter().any(|record| record.start <= start
            && start + size <= record.start + record.size
            && record.kind != RangeKind::Region.raw()
            && record.state == RangeState::Protected.raw()));
        let memory = model.memory.as_mut_ptr().cast::<u8>();
        let address = memory.wrapping_add((start - BASE) as usize);
        model.mapped.push((address as usize, size));
        model.windows.push((start, size));
        Ok(NonNull::new(address).expect("not null"))
    }

    unsafe fn unmap(&mut self, address: NonNull<u8>, size: u64) -> Result<(), Refusal> {
        self.enter(Call::Unmap)?;
        let mut model = self.0.borrow_mut();
        let window = (address.as_ptr() as usize, size);
        let place = model.mapped.iter().position(|mapped| *mapped == window);
        model.mapped.remove(place.expect("mapped"));
        Ok(())
    }

    fn list(&mut self, each: &mut dyn FnMut(LedgerRecord)) -> Result<(), Refusal> {
        self.enter(Call::List)?;
        let ledger = self.0.borrow().ledger.clone();
        ledger.into_iter().for_each(each);
        Ok(())
    }

    #[cfg(feature = "test-commands")]
    fn meter(&mut self) -> Result<ringfence_ta::firewall::Costs, Refusal> {
        Err(Refusal::UnknownCommand)
    }

    #[cfg(feature = "test-commands")]
    fn inject(&mut self, _: u32, _: u32) -> Result<(), Refusal> {
        Err(Refusal::UnknownCommand)
    }
}

/// An instance over the model, with room for eight ranges.
pub type TestInstance = Instance<ModelFirewall, Box<dyn FnMut() -> u64>, 8>;

/// A new instance, as after power-on or a panic of the one before. Its handles
/// count up from `first`.
pub fn instance(firewall: &ModelFirewall, first: u64) -> TestInstance {
    let mut next = first;
    let random = move || {
        next += 1;
        next - 1
    };
    Instance::new(firewall.clone(), Box::new(random))
}

/// A session of the kernel.
pub fn kernel(instance: &mut TestInstance) -> Session {
    instance.open(Client::Kernel).expect("admitted")
}

/// A machine just powered on: firewall, the application's first instance, whose
/// handles count up from `first`, and the kernel's session.
pub fn powered_on(first: u64) -> (ModelFirewall, TestInstance, Session) {
    let firewall = ModelFirewall::new();
    let mut instance = instance(&firewall, first);
    let kernel = kernel(&mut instance);
    (firewall, instance, kernel)
}

/// A session of user space.
pub fn public(instance: &mut TestInstance) -> Session {
    instance.open(Client::Public).expect("admitted")
}

/// A session of user space with a key under the name `[1; 16]`, and a range of
/// `size` bytes at `start` that it may decrypt into.
pub fn ready(
    firewall: &ModelFirewall,
    key: [u8; CONTENT_KEY_SIZE],
    start: u64,
    size: u64,
) -> (TestInstance, Session, u64) {
    let mut instance = instance(firewall, 0x4711);
    let kernel = kernel(&mut instance);
    let range = instance.protect(&kernel, start, size).expect("protected");
    let mut session = public(&mut instance);
    let licence = Licence {
        key_id: [1; 16],
        not_after: 0,
        nonce: [0; 12],
        wrapped_key: key,
        tag: [0; 16],
    };
    let loaded = session.keys.load(&licence, |licence, key| {
        *key = licence.wrapped_key;
        Ok(())
    });
    assert_eq!(loaded, Ok(()));
    (instance, session, range.raw())
}

/// A session of the decoder.
pub fn decoder(instance: &mut TestInstance) -> Session {
    instance.open(Client::Decoder).expect("admitted")
}

/// A stream cipher of no security, whose key stream never repeats itself in a
/// test.
pub struct XorCipher {
    key: u8,
    position: usize,
    /// Fails at this byte.
    pub fails_at: usize,
}

/// What the cipher makes of one byte.
pub fn xor(key: u8, position: usize, byte: u8) -> u8 {
    let [a, b, c, ..] = position.to_le_bytes();
    byte ^ key ^ a ^ b.wrapping_mul(3) ^ c.wrapping_mul(5)
}

impl XorCipher {
    pub fn new(key: u8) -> Self {
        Self {
            key,
            position: 0,
            fails_at: usize::MAX,
        }
    }
}

impl Decryptor for XorCipher {
    unsafe fn decrypt(
        &mut self,
        ciphertext: SharedBytes<'_>,
        plaintext: NonNull<[u8]>,
    ) -> Result<(), Refusal> {
        assert_eq!(ciphertext.len(), plaintext.len());
        for index in 0..plaintext.len() {
            if self.position == self.fails_at {
                return Err(Refusal::Tee(result::GENERIC));
            }
            let from = ciphertext.as_ptr().wrapping_add(index);
            let to = plaintext.cast::<u8>().as_ptr().wrapping_add(index);
            // SAFETY: readable by its type, and writable by the contract.
            unsafe { to.write_volatile(xor(self.key, self.position, from.read_volatile())) };
            self.position += 1;
        }
        Ok(())
    }
}

/// Collects what it is given.
#[derive(Default)]
pub struct Collect(pub Vec<u8>);

impl Digester for Collect {
    unsafe fn digest(&mut self, bytes: NonNull<[u8]>) -> Result<(), Refusal> {
        // SAFETY: readable by the contract, and nobody else writes here.
        self.0.extend_from_slice(unsafe { bytes.as_ref() });
        Ok(())
    }
}
