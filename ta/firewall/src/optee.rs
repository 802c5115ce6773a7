// SPDX-License-Identifier: MIT OR Apache-2.0

//! The border to OP-TEE's core, which is C: entry points that the shim calls,
//! and the shim's services as a [`Platform`].
//!
//! `pta/firewall_pta.c` is the other side, and declares the same functions.

use crate::caller::{Caller, CallerId, Callers};
use crate::extent::Extent;
use crate::ledger::{Ledger, MAX_WINDOW};
use crate::meter::Meter;
use crate::platform::{Abilities, Barrier, Platform, Refused};
use core::cell::UnsafeCell;
use core::ffi::c_void;
use core::ptr::NonNull;
use ringfence_proto::command::{join, result, split, Protection, UseCase};
use ringfence_proto::firewall::{self, fail_point, LedgerRecord};

/// Function ids of the firmware's service (SiP, 64-bit fast calls).
mod smc {
    pub const PROTECT: u32 = 0xc200_0110;
    pub const UNPROTECT: u32 = 0xc200_0111;
    pub const VERSION: u32 = 0xc200_0112;
    /// Major version (high half of the answer to [`VERSION`]) spoken here.
    pub const MAJOR: u64 = 1;
    /// The one answer that says that it was done.
    pub const DONE: u64 = 0;
}

extern "C" {
    fn ringfence_shim_smc(function: u32, start: u64, size: u64) -> u64;
    fn ringfence_shim_window_open(start: u64, size: u64) -> Option<NonNull<c_void>>;
    fn ringfence_shim_window_zero(window: NonNull<c_void>, size: u64);
    fn ringfence_shim_window_close(size: u64);
    fn ringfence_shim_object(start: u64, size: u64) -> Option<NonNull<c_void>>;
    fn ringfence_shim_object_put(object: NonNull<c_void>);
    fn ringfence_shim_is_mapped(object: NonNull<c_void>) -> bool;
    fn ringfence_shim_map(object: NonNull<c_void>, offset: u64, size: u64, va: &mut u64) -> u32;
    fn ringfence_shim_physical(va: u64, size: u64, pa: &mut u64) -> u32;
    fn ringfence_shim_unmap(object: NonNull<c_void>, va: u64, size: u64) -> u32;
    fn ringfence_shim_copy_out(to: *mut c_void, from: *const u8, size: usize) -> u32;
    #[cfg(target_os = "none")]
    fn ringfence_shim_panic() -> !;
}

fn done(code: u32) -> Result<(), Refused> {
    match code {
        result::SUCCESS => Ok(()),
        _ => Err(Refused),
    }
}

/// A reference to a `struct mobj`.
///
/// # Invariants
/// The pointer comes from `ringfence_shim_object()`, and this value owns the
/// one reference that came with it.
struct Object(NonNull<c_void>);

impl Drop for Object {
    fn drop(&mut self) {
        // SAFETY: by the type invariant the object is alive and the reference
        // is ours to give back; nobody has this value afterwards.
        unsafe { ringfence_shim_object_put(self.0) }
    }
}

/// The firmware, which has a granule protection table.
struct Firmware;

impl Firmware {
    fn call(function: u32, block: Extent) -> Result<(), Refused> {
        // SAFETY: the call has no precondition; the firmware checks the numbers.
        match unsafe { ringfence_shim_smc(function, block.start(), block.size()) } {
            smc::DONE => Ok(()),
            _ => Err(Refused),
        }
    }
}

impl Barrier for Firmware {
    fn abilities(&self) -> Abilities {
        Abilities::TABLE
    }

    fn fence(&mut self, block: Extent) -> Result<(), Refused> {
        Self::call(smc::PROTECT, block)
    }

    fn open(&mut self, block: Extent) -> Result<(), Refused> {
        Self::call(smc::UNPROTECT, block)
    }
}

/// The barrier of this board, and the shim's services.
struct Shim {
    barrier: Firmware,
    meter: Meter,
    #[cfg(feature = "test-injection")]
    armed: Injection,
}

/// What INJECT asked for.
#[cfg(feature = "test-injection")]
struct Injection {
    /// One of [`fail_point`].
    point: u32,
    /// Which next pass of it fails; none if 0.
    nth: u32,
    /// Windows that the barrier pretends to have.
    windows: Option<core::num::NonZeroU32>,
}

impl Shim {
    const fn new() -> Self {
        Self {
            barrier: Firmware,
            meter: Meter::new(),
            #[cfg(feature = "test-injection")]
            armed: Injection {
                point: 0,
                nth: 0,
                windows: None,
            },
        }
    }

    /// Passes a point, unless INJECT made this pass fail.
    #[cfg(feature = "test-injection")]
    fn pass(&mut self, point: u32) -> Result<(), Refused> {
        let meant = self.armed.point == point || self.armed.point == fail_point::ANY;
        if self.armed.nth == 0 || !meant {
            return Ok(());
        }
        self.armed.nth -= 1;
        match self.armed.nth {
            0 => Err(Refused),
            _ => Ok(()),
        }
    }

    #[cfg(not(feature = "test-injection"))]
    fn pass(&mut self, _point: u32) -> Result<(), Refused> {
        Ok(())
    }

    /// INJECT.
    #[cfg(feature = "test-injection")]
    fn inject(&mut self, point: u32, nth: u32) {
        if point == fail_point::WINDOWS {
            self.armed.windows = core::num::NonZeroU32::new(nth);
        } else {
            self.armed.point = point;
            self.armed.nth = nth;
        }
    }

    /// Windows of the barrier, or those that it pretends to have.
    fn windows(&self) -> Option<core::num::NonZeroU32> {
        #[cfg(feature = "test-injection")]
        if self.armed.windows.is_some() {
            return self.armed.windows;
        }
        self.barrier.abilities().windows
    }
}

impl Platform for Shim {
    type Object = Object;

    fn abilities(&self) -> Abilities {
        Abilities {
            windows: self.windows(),
            ..self.barrier.abilities()
        }
    }

    fn fence(&mut self, piece: Extent) -> Result<(), Refused> {
        self.pass(fail_point::FENCE)?;
        let barrier = &mut self.barrier;
        self.meter.firmware(|| barrier.fence(piece))
    }

    fn open(&mut self, piece: Extent) -> Result<(), Refused> {
        self.pass(fail_point::OPEN)?;
        let barrier = &mut self.barrier;
        self.meter.firmware(|| barrier.open(piece))
    }

    fn scrub(&mut self, block: Extent) -> Result<(), Refused> {
        self.pass(fail_point::SCRUB)?;
        self.meter.scrub(|meter| {
            // SAFETY: the ledger scrubs only blocks of declared carveouts that
            // it has fenced. Those hold no memory of OP-TEE's (`declare` is
            // called for no other), and no Rust value lives there. The shim's
            // mutex is held, and the window closed before it is opened again.
            let window = unsafe { ringfence_shim_window_open(block.start(), block.size()) };
            let window = window.ok_or(Refused)?;
            // SAFETY: the window shows these bytes, which are nobody's.
            meter.bare(|| unsafe { ringfence_shim_window_zero(window, block.size()) });
            // SAFETY: the window is open, at this size, and not used any more.
            unsafe { ringfence_shim_window_close(block.size()) };
            Ok(())
        })
    }

    fn object(&mut self, range: Extent) -> Result<Object, Refused> {
        self.pass(fail_point::OBJECT)?;
        // SAFETY: making an object of a range touches no memory in it.
        let object = unsafe { ringfence_shim_object(range.start(), range.size()) };
        // INVARIANT: a fresh object comes with one reference.
        object.map(Object).ok_or(Refused)
    }

    fn is_mapped(&self, object: &Object) -> bool {
        // SAFETY: the object is alive by its type invariant.
        unsafe { ringfence_shim_is_mapped(object.0) }
    }

    fn map(&mut self, object: &Object, offset: u64, size: u64) -> Result<u64, Refused> {
        self.pass(fail_point::MAP)?;
        let mut va = 0;
        // SAFETY: the object is alive by its type invariant, and OP-TEE checks
        // that the window lies in it. `va` is writable.
        done(unsafe { ringfence_shim_map(object.0, offset, size, &mut va) })?;
        Ok(va)
    }

    fn physical(&mut self, va: u64, size: u64) -> Option<u64> {
        let mut pa = 0;
        // SAFETY: only looks the addresses up. `pa` is writable.
        done(unsafe { ringfence_shim_physical(va, size, &mut pa) }).ok()?;
        Some(pa)
    }

    fn unmap(&mut self, object: &Object, va: u64, size: u64) -> Result<(), Refused> {
        self.pass(fail_point::UNMAP)?;
        // SAFETY: the object is alive by its type invariant; the shim unmaps
        // only when the caller's window at `va` is one of this object.
        done(unsafe { ringfence_shim_unmap(object.0, va, size) })
    }
}

/// All that the firewall knows.
struct State {
    ledger: Ledger<Shim>,
    callers: Callers,
}

/// The state, and why it can be shared: see [`with_state`].
struct Shared(UnsafeCell<State>);

// SAFETY: `with_state` is the only access, and its callers hold the shim's
// mutex.
unsafe impl Sync for Shared {}

static STATE: Shared = Shared(UnsafeCell::new(State {
    ledger: Ledger::new(Shim::new()),
    callers: Callers::new(),
}));

/// Runs `f` on the state.
///
/// # Safety
/// The caller holds the shim's mutex, and `f` does not come back here.
unsafe fn with_state<T>(f: impl FnOnce(&mut State) -> T) -> T {
    // SAFETY: the mutex keeps others out, and by contract this is not nested:
    // there is no other reference to the state.
    f(unsafe { &mut *STATE.0.get() })
}

/// `TEE_Param` of the TEE Internal Core API.
#[repr(C)]
#[derive(Clone, Copy)]
union Param {
    memref: Memref,
    value: Value,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Memref {
    buffer: *mut c_void,
    size: usize,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Value {
    a: u32,
    b: u32,
}

/// Types of a parameter, as `TEE_PARAM_TYPE_*` numbers them.
mod kind {
    pub const NONE: u32 = 0;
    pub const VALUE_IN: u32 = 1;
    pub const VALUE_OUT: u32 = 2;
    pub const MEMREF_OUT: u32 = 6;
}

/// A command's parameters, after their types were seen to be the right ones.
struct Params<'a>(&'a mut [Param; 4]);

impl<'a> Params<'a> {
    /// The parameters, if they are of these types; the fourth is of none.
    fn check(actual: u32, params: &'a mut [Param; 4], kinds: [u32; 3]) -> Result<Self, u32> {
        Self::check_all(actual, params, [kinds[0], kinds[1], kinds[2], kind::NONE])
    }

    /// The parameters, if they are of these types.
    fn check_all(actual: u32, params: &'a mut [Param; 4], kinds: [u32; 4]) -> Result<Self, u32> {
        let expected = kinds[0] | kinds[1] << 4 | kinds[2] << 8 | kinds[3] << 12;
        if actual != expected {
            return Err(result::BAD_PARAMETERS);
        }
        Ok(Self(params))
    }

    fn value(&self, index: usize) -> u64 {
        // SAFETY: OP-TEE initialises all of a parameter, whatever its type, and
        // two `u32` are valid with any bits.
        let value = unsafe { self.0[index].value };
        join(value.a, value.b)
    }

    fn set(&mut self, index: usize, a: u32, b: u32) {
        self.0[index].value = Value { a, b };
    }

    fn set_value(&mut self, index: usize, value: u64) {
        let (a, b) = split(value);
        self.set(index, a, b);
    }

    fn memref(&self, index: usize) -> Memref {
        // SAFETY: OP-TEE initialises all of a parameter, whatever its type, and
        // a raw pointer and a size are valid with any bits.
        unsafe { self.0[index].memref }
    }
}

fn list(ledger: &mut Ledger<Shim>, params: &mut Params<'_>) -> Result<(), u32> {
    let copied = ledger.platform_mut().pass(fail_point::COPY);
    let out = params.memref(0);
    let needed = ledger.len() * LedgerRecord::SIZE;
    params.0[0].memref.size = needed;
    // CAST: at most `MAX_RANGES`.
    params.set(1, ledger.len() as u32, ledger.quarantined() as u32);
    if out.size < needed {
        return Err(result::SHORT_BUFFER);
    }
    copied.map_err(|Refused| result::GENERIC)?;
    for (index, record) in ledger.records().enumerate() {
        let bytes = record.to_le_bytes();
        let to = out.buffer.wrapping_byte_add(index * LedgerRecord::SIZE);
        // SAFETY: the source is `bytes`; the shim checks that the destination
        // is the calling TA's to write.
        let code = unsafe { ringfence_shim_copy_out(to, bytes.as_ptr(), bytes.len()) };
        if code != result::SUCCESS {
            return Err(code);
        }
    }
    Ok(())
}

fn dispatch(
    ledger: &mut Ledger<Shim>,
    caller: Caller,
    command: u32,
    types: u32,
    params: &mut [Param; 4],
) -> Result<(), u32> {
    use kind::{MEMREF_OUT, NONE, VALUE_IN, VALUE_OUT};

    match command {
        firewall::PROTECT => {
            let mut params = Params::check(types, params, [VALUE_IN, VALUE_IN, VALUE_OUT])?;
            let (start, size) = (params.value(0), params.value(1));
            let use_case = ledger.protect(start, size).map_err(|error| error.code())?;
            let range = Extent::new(start, size).ok_or(result::GENERIC)?;
            params.set(2, use_case.raw(), ledger.kind_of(&range).raw());
            Ok(())
        }
        firewall::UNPROTECT => {
            let params = Params::check(types, params, [VALUE_IN, VALUE_IN, NONE])?;
            ledger
                .unprotect(params.value(0), params.value(1))
                .map_err(|error| error.code())
        }
        firewall::MAP => {
            let mut params = Params::check(types, params, [VALUE_IN, VALUE_IN, VALUE_OUT])?;
            let va = ledger
                .map(caller, params.value(0), params.value(1))
                .map_err(|error| error.code())?;
            params.set_value(2, va);
            Ok(())
        }
        firewall::UNMAP => {
            let params = Params::check(types, params, [VALUE_IN, VALUE_IN, NONE])?;
            ledger
                .unmap(caller, params.value(0), params.value(1))
                .map_err(|error| error.code())
        }
        firewall::LIST => {
            let mut params = Params::check(types, params, [MEMREF_OUT, VALUE_OUT, NONE])?;
            list(ledger, &mut params)
        }
        firewall::INFO => {
            let mut params = Params::check(types, params, [VALUE_OUT, VALUE_OUT, VALUE_OUT])?;
            let abilities = ledger.abilities();
            // CAST: a granule and a window are far below 4 GiB, regions are few.
            params.set(0, abilities.granule as u32, MAX_WINDOW as u32);
            params.set(1, firewall::PROTOCOL_VERSION, ledger.regions() as u32);
            params.set(2, abilities.windows.map_or(0, |windows| windows.get()), 0);
            Ok(())
        }
        firewall::NAME => {
            let mut params = Params::check(types, params, [VALUE_IN, VALUE_IN, VALUE_OUT])?;
            let use_case = ledger
                .name(params.value(0), params.value(1))
                .map_err(|error| error.code())?;
            params.set(2, use_case.raw(), 0);
            Ok(())
        }
        firewall::FORGET => {
            let params = Params::check(types, params, [VALUE_IN, VALUE_IN, NONE])?;
            ledger
                .forget(params.value(0), params.value(1))
                .map_err(|error| error.code())
        }
        firewall::SCRUB => {
            let params = Params::check(types, params, [VALUE_IN, VALUE_IN, NONE])?;
            ledger
                .scrub(params.value(0), params.value(1))
                .map_err(|error| error.code())
        }
        #[cfg(feature = "test-injection")]
        firewall::METER => {
            let kinds = [VALUE_OUT, VALUE_OUT, VALUE_OUT, VALUE_OUT];
            let mut params = Params::check_all(types, params, kinds)?;
            let meter = ledger.platform_mut().meter.take();
            params.set(0, meter.calls, meter.scrubs);
            params.set_value(1, meter.firmware);
            params.set_value(2, meter.scrubbing);
            params.set_value(3, meter.zeroing);
            Ok(())
        }
        #[cfg(feature = "test-injection")]
        firewall::INJECT => {
            let params = Params::check(types, params, [VALUE_IN, NONE, NONE])?;
            let (point, nth) = split(params.value(0));
            ledger.platform_mut().inject(point, nth);
            Ok(())
        }
        _ => Err(result::NOT_SUPPORTED),
    }
}

/// Whether the TA can make this firewall fail.
#[no_mangle]
extern "C" fn ringfence_firewall_is_test_build() -> bool {
    cfg!(feature = "test-injection")
}

/// Declares a carveout whose use case and protection are named by the bytes at
/// `use_case` and `protection`. Refused also when the firmware has no service
/// that can fence it.
///
/// # Safety
/// The shim's mutex is held, or nothing else runs yet. Both names can be read.
/// The carveout is memory that neither OP-TEE nor anything else of the secure
/// world uses.
#[no_mangle]
unsafe extern "C" fn ringfence_firewall_declare(
    start: u64,
    size: u64,
    use_case: *const u8,
    use_case_len: usize,
    protection: *const u8,
    protection_len: usize,
) -> u32 {
    // SAFETY: the call has no precondition.
    let version = unsafe { ringfence_shim_smc(smc::VERSION, 0, 0) };
    if version >> 16 != smc::MAJOR {
        return result::NOT_SUPPORTED;
    }
    // SAFETY: readable by the caller's promise, and bytes are valid with any
    // bits.
    let (use_case, protection) = unsafe {
        (
            core::slice::from_raw_parts(use_case, use_case_len),
            core::slice::from_raw_parts(protection, protection_len),
        )
    };
    let use_case = core::str::from_utf8(use_case)
        .ok()
        .and_then(UseCase::from_name);
    let protection = core::str::from_utf8(protection)
        .ok()
        .and_then(Protection::from_name);
    let (Some(use_case), Some(protection)) = (use_case, protection) else {
        return result::BAD_PARAMETERS;
    };
    // SAFETY: the mutex is held by the caller's promise; `declare` calls
    // nothing outside the ledger.
    let declared =
        unsafe { with_state(|state| state.ledger.declare(start, size, use_case, protection)) };
    match declared {
        Ok(()) => result::SUCCESS,
        Err(_) => result::BAD_PARAMETERS,
    }
}

/// Opens a session for the trusted application with this UUID (RFC 4122's byte
/// order), and numbers it.
///
/// # Safety
/// The shim's mutex is held.
#[no_mangle]
unsafe extern "C" fn ringfence_firewall_open(uuid: &[u8; 16], session: &mut u64) -> u32 {
    // SAFETY: the mutex is held by the caller's promise.
    match unsafe { with_state(|state| state.callers.open(uuid)) } {
        Ok(caller) => {
            *session = caller.id.raw();
            result::SUCCESS
        }
        Err(error) => error.code(),
    }
}

/// Closes a session; nothing happens if there is none of that number.
///
/// # Safety
/// The shim's mutex is held.
#[no_mangle]
unsafe extern "C" fn ringfence_firewall_close(session: u64) {
    // SAFETY: the mutex is held by the caller's promise.
    unsafe { with_state(|state| state.callers.close(CallerId::from_raw(session))) }
}

/// Runs a command of the protocol (`ringfence_proto::firewall`) for a session of
/// the trusted application with this UUID, whose address space is the current
/// one.
///
/// # Safety
/// The shim's mutex is held. `params` points to the four parameters, all
/// initialised, that OP-TEE made for a command with these `types`, and nothing
/// else uses them meanwhile.
#[no_mangle]
unsafe extern "C" fn ringfence_firewall_invoke(
    uuid: &[u8; 16],
    session: u64,
    command: u32,
    types: u32,
    params: *mut [Param; 4],
) -> u32 {
    // SAFETY: by the caller's promise they are there, initialised, and ours.
    let params = unsafe { &mut *params };
    // SAFETY: the mutex is held by the caller's promise, and the shim's
    // services do not call back.
    let outcome = unsafe {
        with_state(|state| {
            let caller = state
                .callers
                .check(CallerId::from_raw(session), uuid, command)
                .map_err(|error| error.code())?;
            dispatch(&mut state.ledger, caller, command, types, params)
        })
    };
    match outcome {
        Ok(()) => result::SUCCESS,
        Err(code) => code,
    }
}

#[cfg(target_os = "none")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // SAFETY: the call has no precondition and does not return.
    unsafe { ringfence_shim_panic() }
}
