// SPDX-License-Identifier: MIT OR Apache-2.0

//! From parameters to the policy, and back.
//!
//! Values are copied when OP-TEE hands them over, and messages before they are
//! read. Ciphertext alone is used where it lies, since every one of its bytes is
//! read once and means nothing by itself.

use optee_utee::{
    raw, ParameterAny as Any, ParameterMemref, ParameterMemrefInput, ParameterMemrefOutput,
    ParameterMemrefRead, ParameterMemrefWrite, ParameterValueRead, ParametersAny,
};
use ringfence_proto::command::{self, split, RangeRecord};
use ringfence_proto::message::{self, encode, Licence, Message, Provision};
use ringfence_ta::entry::{number, read, set};
use ringfence_ta::instance::Session;
use ringfence_ta::refusal::Refusal;
use ringfence_ta::shared::SharedBytes;

use crate::crypto::{self, Aes};
use crate::{storage, Keys, State};

/// Only memory of the normal world will do; an extension of OP-TEE to
/// `TEE_CheckMemoryAccessRights()` (`tee_api_defines_extensions.h`).
const ACCESS_NONSECURE: u32 = 0x1000_0000;

/// Runs one command.
pub fn invoke(
    state: &mut State,
    keys: &mut Keys,
    session: &mut Session,
    command: u32,
    parameters: &mut ParametersAny,
) -> Result<(), Refusal> {
    match command {
        command::HELLO
        | command::PROTECT
        | command::UNPROTECT
        | command::LIST
        | command::NAME
        | command::SCRUB
        | command::ABILITIES => {
            session.client.must_be_kernel()?;
            invoke_kernel(state, session, command, parameters)
        }
        command::PROVISION | command::LOAD_LICENCE => {
            invoke_keys(keys, session, command, parameters)
        }
        #[cfg(feature = "test-commands")]
        command::FORGET => invoke_keys(keys, session, command, parameters),
        command::INFO => info(state, session, parameters),
        command::DECRYPT | command::DECRYPT_SAMPLE => decrypt(state, session, command, parameters),
        command::RESOLVE => {
            session.client.must_be_decoder()?;
            resolve(state, session, parameters)
        }
        #[cfg(feature = "test-commands")]
        command::DIGEST
        | command::PANIC
        | command::INJECT
        | command::DERAIL
        | command::HOLD
        | command::LET_GO
        | command::METER
        | command::FILL
        | command::CIPHER => invoke_test(state, session, command, parameters),
        _ => Err(Refusal::UnknownCommand),
    }
}

/// Runs a command of the kernel.
fn invoke_kernel(
    state: &mut State,
    session: &Session,
    command: u32,
    parameters: &mut ParametersAny,
) -> Result<(), Refusal> {
    match (command, parameters) {
        (command::HELLO, (Any::ValueOutput(out), Any::None, Any::None, Any::None)) => {
            let (version, granule) = state.hello(session)?;
            set(out, (version, granule));
            Ok(())
        }
        (
            command::PROTECT,
            (Any::ValueInput(start), Any::ValueInput(size), Any::ValueOutput(out), Any::None),
        ) => {
            let handle = state.protect(session, number(start), number(size))?;
            set(out, split(handle.raw()));
            Ok(())
        }
        (
            command::NAME,
            (Any::ValueInput(start), Any::ValueInput(size), Any::ValueOutput(out), Any::None),
        ) => {
            let handle = state.name(session, number(start), number(size))?;
            set(out, split(handle.raw()));
            Ok(())
        }
        (command::SCRUB, (Any::ValueInput(start), Any::ValueInput(size), Any::None, Any::None)) => {
            state.scrub(session, number(start), number(size))
        }
        (command::ABILITIES, (Any::ValueOutput(out), Any::None, Any::None, Any::None)) => {
            set(out, state.abilities(session)?);
            Ok(())
        }
        (command::UNPROTECT, (Any::ValueInput(handle), Any::None, Any::None, Any::None)) => {
            state.unprotect(session, number(handle))
        }
        (
            command::LIST,
            (Any::MemrefOutput(out), Any::ValueOutput(count), Any::None, Any::None),
        ) => {
            let handles = state.list(session)?;
            let number = u32::try_from(handles.len()).map_err(|_| Refusal::Full)?;
            set(count, (number, 0));
            reserve(out, handles.len() * RangeRecord::SIZE)?;
            out.set_updated_size(0)?;
            for (index, record) in handles.records().enumerate() {
                out.write_at(index * RangeRecord::SIZE, record.to_le_bytes())?;
            }
            Ok(())
        }
        _ => Err(Refusal::ParameterTypes),
    }
}

/// Runs a command of anybody that is about keys.
fn invoke_keys(
    keys: &mut Keys,
    session: &mut Session,
    command: u32,
    parameters: &mut ParametersAny,
) -> Result<(), Refusal> {
    match (command, parameters) {
        (command::PROVISION, (Any::MemrefInput(provision), Any::None, Any::None, Any::None)) => {
            let provision: Provision = read(provision)?;
            keys.provision(&provision, crypto::unseal_device_key)
        }
        (command::LOAD_LICENCE, (Any::MemrefInput(licence), Any::None, Any::None, Any::None)) => {
            let licence: Licence = read(licence)?;
            session.keys.load(&licence, |licence, key| {
                keys.open(licence, key, storage::clock, crypto::unseal_content_key)
            })
        }
        #[cfg(feature = "test-commands")]
        (command::FORGET, (Any::None, Any::None, Any::None, Any::None)) => {
            *keys = Keys::new(storage::PrivateStorage);
            Ok(())
        }
        _ => Err(Refusal::ParameterTypes),
    }
}

/// INFO.
fn info(
    state: &mut State,
    session: &Session,
    parameters: &mut ParametersAny,
) -> Result<(), Refusal> {
    let (Any::MemrefOutput(out), Any::None, Any::None, Any::None) = parameters else {
        return Err(Refusal::ParameterTypes);
    };
    let info = state.info(session)?;
    let mut buffer = [0; message::Info::MAX_SIZE];
    let bytes = encode(&info, &mut buffer).map_err(|_| Refusal::Full)?;
    reserve(out, bytes.len())?;
    Ok(out.set_output(bytes)?)
}

/// DECRYPT and DECRYPT_SAMPLE, which differ in their message.
fn decrypt(
    state: &mut State,
    session: &Session,
    command: u32,
    parameters: &mut ParametersAny,
) -> Result<(), Refusal> {
    let (
        Any::ValueInput(handle),
        Any::MemrefInput(request),
        Any::MemrefInput(content),
        Any::ValueOutput(out),
    ) = parameters
    else {
        return Err(Refusal::ParameterTypes);
    };
    set(out, (0, 0));
    let handle = number(handle);
    let written = match command {
        command::DECRYPT => {
            let request = read(request)?;
            state.decrypt(session, handle, &request, shared(content)?, Aes::stream)
        }
        _ => {
            let request = read(request)?;
            state.decrypt_sample(session, handle, &request, shared(content)?, Aes::of_scheme)
        }
    }?;
    set(out, split(written));
    Ok(())
}

/// RESOLVE.
fn resolve(
    state: &mut State,
    session: &Session,
    parameters: &mut ParametersAny,
) -> Result<(), Refusal> {
    let (Any::ValueInput(handle), Any::ValueOutput(start), Any::ValueOutput(size), Any::None) =
        parameters
    else {
        return Err(Refusal::ParameterTypes);
    };
    let range = state.resolve(session, number(handle))?;
    set(start, split(range.start()));
    set(size, split(range.size()));
    Ok(())
}

/// Runs a command of test builds.
#[cfg(feature = "test-commands")]
fn invoke_test(
    state: &mut State,
    session: &mut Session,
    command: u32,
    parameters: &mut ParametersAny,
) -> Result<(), Refusal> {
    use crate::crypto::digest::HmacSha256;
    use ringfence_proto::message::DigestRequest;

    match (command, parameters) {
        (
            command::DIGEST,
            (Any::ValueInput(handle), Any::MemrefInput(request), Any::MemrefOutput(out), Any::None),
        ) => {
            let request: DigestRequest = read(request)?;
            reserve(out, command::DIGEST_SIZE)?;
            let mut digest = HmacSha256::new(&request.key)?;
            state.digest(number(handle), &request, &mut digest)?;
            Ok(out.set_output(digest.finish()?)?)
        }
        (command::PANIC, (Any::None, Any::None, Any::None, Any::None)) => panic!("asked to"),
        (command::INJECT, (Any::ValueInput(fault), Any::None, Any::None, Any::None)) => {
            state.inject(fault.get_a(), fault.get_b())
        }
        (command::DERAIL, (Any::ValueInput(what), Any::ValueInput(code), Any::None, Any::None)) => {
            derailment()?.arm(what.get_a(), what.get_b(), code.get_a())
        }
        (
            command::HOLD,
            (Any::ValueInput(handle), Any::ValueInput(offset), Any::ValueInput(length), Any::None),
        ) => state.hold(session, number(handle), number(offset), number(length)),
        (
            command::METER,
            (
                Any::ValueOutput(counts),
                Any::ValueOutput(firmware),
                Any::ValueOutput(scrubbing),
                Any::ValueOutput(zeroing),
            ),
        ) => {
            let costs = state.meter()?;
            set(counts, (costs.calls, costs.scrubs));
            set(firmware, split(costs.firmware));
            set(scrubbing, split(costs.scrubbing));
            set(zeroing, split(costs.zeroing));
            Ok(())
        }
        (command::FILL, (Any::ValueInput(handle), Any::ValueInput(byte), Any::None, Any::None)) => {
            let byte = u8::try_from(byte.get_a()).map_err(|_| Refusal::OutOfBounds)?;
            state.fill(number(handle), byte)
        }
        (command::CIPHER, (Any::ValueInput(length), Any::None, Any::None, Any::None)) => {
            let length = usize::try_from(length.get_a()).map_err(|_| Refusal::OutOfBounds)?;
            crypto::plain::run(length)
        }
        (command::LET_GO, (Any::None, Any::None, Any::None, Any::None)) => state.let_go(session),
        _ => Err(Refusal::ParameterTypes),
    }
}

/// What DERAIL has armed, which all sessions share.
#[cfg(feature = "test-commands")]
struct Armed(core::cell::RefCell<ringfence_ta::derail::Derailment>);

// SAFETY: as for the instance's state in `main`, at most one thread runs inside
// an instance of this TA.
#[cfg(feature = "test-commands")]
unsafe impl Sync for Armed {}

/// What DERAIL has armed, for the time of one use.
#[cfg(feature = "test-commands")]
pub fn derailment() -> Result<core::cell::RefMut<'static, ringfence_ta::derail::Derailment>, Refusal>
{
    static ARMED: Armed = Armed(core::cell::RefCell::new(
        ringfence_ta::derail::Derailment::new(),
    ));
    ARMED
        .0
        .try_borrow_mut()
        .map_err(|_| Refusal::Tee(command::result::BUSY))
}

/// The ciphertext in a memory reference, if the normal world owns it.
///
/// So a client cannot name protected memory, or another TA's, as ciphertext,
/// and have it "decrypted" to where it can be seen.
fn shared<'a>(memref: &'a ParameterMemrefInput) -> Result<SharedBytes<'a>, Refusal> {
    let (pointer, length) = (memref.buffer_ptr(), memref.buffer_len());
    // SAFETY: the call looks at mappings only, and touches no memory.
    let code = unsafe {
        raw::TEE_CheckMemoryAccessRights(
            raw::TEE_MEMORY_ACCESS_READ | raw::TEE_MEMORY_ACCESS_ANY_OWNER | ACCESS_NONSECURE,
            pointer.cast_mut().cast(),
            length,
        )
    };
    if code != raw::TEE_SUCCESS {
        return Err(Refusal::NotShared);
    }
    // SAFETY: OP-TEE maps a memory reference for reading until the command
    // returns, which the parameter's lifetime stands for; just checked as well.
    Ok(unsafe { SharedBytes::new(pointer, length) })
}

/// Refuses an output buffer that is too small, and reports the size it needs.
fn reserve(memref: &mut ParameterMemrefOutput, needed: usize) -> Result<(), Refusal> {
    if needed <= memref.buffer_len() {
        return Ok(());
    }
    // SAFETY: the number is reported and no longer used to bound an access. It
    // exceeds the buffer as the TEE Internal Core API wants it to with
    // TEE_ERROR_SHORT_BUFFER ("Short Buffer" in "Parameter Annotations").
    unsafe { memref.set_updated_size_unchecked(needed) };
    Err(Refusal::ShortBuffer(needed))
}
