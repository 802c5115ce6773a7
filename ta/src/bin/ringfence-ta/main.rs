// SPDX-License-Identifier: MIT OR Apache-2.0

//! The Ringfence trusted application: entry points of OP-TEE's TA framework
//! around the policy in the library.

#![no_std]
#![no_main]
#![expect(
    missing_docs,
    reason = "the entry points that optee-utee's attributes generate have none"
)]

extern crate alloc;

mod crypto;
mod dispatch;
mod firewall_session;
mod storage;

use core::cell::{RefCell, RefMut};

use optee_utee::property::{ClientIdentity, PropertyKey};
use optee_utee::{
    ta_close_session, ta_create, ta_destroy, ta_invoke_command, ta_open_session, trace_println,
    Error, ParametersAny, ParametersNone, Result, Uuid,
};
use ringfence_proto::command::result;
use ringfence_proto::firewall::MAX_RANGES;
use ringfence_ta::instance::{Instance, Session};
use ringfence_ta::ladder::Ladder;
use ringfence_ta::policy::Client;
use ringfence_ta::refusal::Refusal;

use firewall_session::FirewallSession;
use storage::PrivateStorage;

/// The one instance's state.
type State = Instance<FirewallSession, fn() -> u64, MAX_RANGES>;

/// The one instance's keys.
type Keys = Ladder<PrivateStorage>;

/// What all sessions share, made in place: it is larger than the stack.
struct Shared {
    state: RefCell<State>,
    keys: RefCell<Keys>,
}

// SAFETY: OP-TEE runs at most one thread inside an instance of a user TA: the
// core marks the instance busy for the whole of each entry, and the TA has no
// threads of its own.
unsafe impl Sync for Shared {}

static SHARED: Shared = Shared {
    state: RefCell::new(Instance::new(FirewallSession::new(), crypto::random)),
    keys: RefCell::new(Ladder::new(PrivateStorage)),
};

/// The shared state, for the time of one entry.
fn shared() -> core::result::Result<RefMut<'static, State>, Refusal> {
    borrow(&SHARED.state)
}

fn borrow<T>(of: &RefCell<T>) -> core::result::Result<RefMut<'_, T>, Refusal> {
    of.try_borrow_mut().map_err(|_| Refusal::Tee(result::BUSY))
}

/// The error that tells the client of a refusal.
fn error(refusal: Refusal) -> Error {
    Error::from_raw_error(refusal.code())
}

/// A new instance learns from the firewall which ranges are protected. If it
/// cannot, the first command that needs to know tries again.
#[ta_create]
fn create() -> Result<()> {
    if let Err(refusal) = shared().and_then(|mut state| state.synchronise()) {
        trace_println!("ledger not read yet: {}", refusal);
    }
    Ok(())
}

#[ta_destroy]
fn destroy() {}

#[ta_open_session]
fn open_session(_: &mut ParametersNone, session: &mut Session) -> Result<()> {
    let identity = ClientIdentity.get()?;
    let client = Client::of(identity.login_type().into(), &octets(&identity.uuid()));
    *session = shared()
        .and_then(|mut state| state.open(client))
        .map_err(error)?;
    Ok(())
}

/// A UUID in the byte order of RFC 4122.
fn octets(uuid: &Uuid) -> [u8; 16] {
    // SAFETY: the pointer is to the value's own UUID.
    let uuid = unsafe { *uuid.as_raw_ptr() };
    let mut octets = [0; 16];
    octets[..4].copy_from_slice(&uuid.timeLow.to_be_bytes());
    octets[4..6].copy_from_slice(&uuid.timeMid.to_be_bytes());
    octets[6..8].copy_from_slice(&uuid.timeHiAndVersion.to_be_bytes());
    octets[8..].copy_from_slice(&uuid.clockSeqAndNode);
    octets
}

#[ta_close_session]
fn close_session(session: &mut Session) {
    if let Ok(mut state) = shared() {
        state.close(session);
    }
}

#[ta_invoke_command]
fn invoke_command(
    session: &mut Session,
    command: u32,
    parameters: &mut ParametersAny,
) -> Result<()> {
    derailed(command, || {
        let (mut state, mut keys) = (shared()?, borrow(&SHARED.keys)?);
        dispatch::invoke(&mut state, &mut keys, session, command, parameters)
    })
    .map_err(error)
}

/// Runs a command, which goes wrong if DERAIL has asked for it.
#[cfg(feature = "test-commands")]
fn derailed(
    command: u32,
    run: impl FnOnce() -> core::result::Result<(), Refusal>,
) -> core::result::Result<(), Refusal> {
    let ending = dispatch::derailment()?.begin(command)?;
    ending.answer(run())
}

/// Runs a command.
#[cfg(not(feature = "test-commands"))]
fn derailed(
    _: u32,
    run: impl FnOnce() -> core::result::Result<(), Refusal>,
) -> core::result::Result<(), Refusal> {
    run()
}

/// What `optee-utee-build` writes: the TA's head, properties and heap.
mod header {
    #![expect(clippy::undocumented_unsafe_blocks, reason = "generated")]

    include!(concat!(env!("OUT_DIR"), "/user_ta_header.rs"));
}
