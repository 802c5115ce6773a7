// SPDX-License-Identifier: GPL-2.0

//! Client of a trusted application, from inside the kernel.
//!
//! C header: [`include/linux/tee_drv.h`](srctree/include/linux/tee_drv.h)

use core::{
    mem::MaybeUninit,
    ptr::NonNull, //
};

use crate::{
    bindings,
    inject, //
};
use kernel::{
    error::{
        from_err_ptr,
        to_result, //
    },
    prelude::*, //
};

/// `TEEC_ERROR_COMMUNICATION`: the driver lost the answer.
const COMMUNICATION: u32 = 0xffff_000e;

/// `TEEC_ORIGIN_COMMS`: the driver, not the secure world, made up the answer.
const ORIGIN_COMMS: u32 = 2;

/// Parameters of a command.
const PARAMETERS: usize = 4;

/// A UUID, in the byte order of RFC 4122.
pub type Uuid = [u8; 16];

/// Why a command did not succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The command or its answer got lost on the way: whether it was carried
    /// out is unknown.
    Transport(Error),
    /// The trusted application, or OP-TEE in its place, answered with this
    /// result code.
    Answer(u32),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Transport(error)
    }
}

impl From<Failure> for Error {
    /// `EIO` for an answer, whatever it says: what it means is up to the caller.
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Transport(error) => error,
            Failure::Answer(_) => EIO,
        }
    }
}

/// A parameter of a command.
pub enum Param<'a> {
    /// Not used.
    None,
    /// Two numbers for the trusted application.
    ValueIn(u32, u32),
    /// Two numbers from it.
    ValueOut(u32, u32),
    /// Bytes from it, and how many: as many as fit when called, as many as it
    /// wrote, or would have, afterwards.
    MemoryOut(&'a SharedMemory, usize),
}

/// A connection to the TEE.
///
/// # Invariants
///
/// The pointer is an open context, which is ours alone.
struct Context(NonNull<bindings::tee_context>);

// SAFETY: The TEE subsystem does not bind a context to a thread, and locks what it shares.
unsafe impl Send for Context {}
// SAFETY: As above.
unsafe impl Sync for Context {}

impl Context {
    fn open() -> Result<Self> {
        /// # Safety
        ///
        /// Called by the TEE subsystem only, with a valid `version`.
        unsafe extern "C" fn is_optee(
            version: *mut bindings::tee_ioctl_version_data,
            _data: *const c_void,
        ) -> c_int {
            // SAFETY: By the function's contract the pointer is valid.
            (unsafe { (*version).impl_id } == bindings::TEE_IMPL_ID_OPTEE).into()
        }

        // SAFETY: The function pointer has the contract that is wanted; null is allowed elsewhere.
        let raw = from_err_ptr(unsafe {
            bindings::tee_client_open_context(
                core::ptr::null_mut(),
                Some(is_optee),
                core::ptr::null(),
                core::ptr::null_mut(),
            )
        })?;
        // INVARIANT: The function opened it for us.
        Ok(Self(NonNull::new(raw).ok_or(ENODEV)?))
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: By the type invariants the context is open, and ours to close.
        unsafe { bindings::tee_client_close_context(self.0.as_ptr()) };
    }
}

/// An open session with a trusted application.
///
/// As long as one is open, the TEE driver can't go: whoever keeps a session must
/// close it when the trusted application's device is [removed].
///
/// [removed]: crate::tee_bus::Driver::remove
///
/// # Invariants
///
/// `id` names an open session of `context`.
pub struct Session {
    context: Context,
    id: u32,
}

impl Session {
    /// Opens a session with `application`, with the login that only the kernel
    /// has.
    ///
    /// # Errors
    ///
    /// The TEE driver's, and the answer when the application refuses.
    pub fn open(application: &Uuid) -> Result<Self, Failure> {
        let context = Context::open()?;
        let mut argument: bindings::tee_ioctl_open_session_arg = pin_init::zeroed();
        argument.uuid = *application;
        argument.clnt_login = bindings::TEE_IOCTL_LOGIN_REE_KERNEL;
        // SAFETY: The context is open, and there are no parameters.
        to_result(unsafe {
            bindings::tee_client_open_session(
                context.0.as_ptr(),
                &mut argument,
                core::ptr::null_mut(),
            )
        })?;
        check(argument.ret, argument.ret_origin)?;
        // INVARIANT: The session was opened.
        Ok(Self {
            context,
            id: argument.session,
        })
    }

    /// Calls a command and waits for its answer.
    ///
    /// # Errors
    ///
    /// See [`Failure`]. The sizes of [`Param::MemoryOut`] are updated also when
    /// the application answers with a failure.
    pub fn invoke(
        &self,
        command: u32,
        params: &mut [Param<'_>; PARAMETERS],
    ) -> Result<(), Failure> {
        inject::check(inject::Point::Tee)?;

        let mut argument: bindings::tee_ioctl_invoke_arg = pin_init::zeroed();
        argument.func = command;
        argument.session = self.id;
        argument.num_params = PARAMETERS as u32;
        let mut raw: [bindings::tee_param; PARAMETERS] = [const { pin_init::zeroed() }; PARAMETERS];
        for (raw, param) in raw.iter_mut().zip(params.iter()) {
            fill(raw, param);
        }

        // SAFETY: The context is open, and there are as many parameters as announced. Their memory
        // is borrowed until the end of this function.
        to_result(unsafe {
            bindings::tee_client_invoke_func(
                self.context.0.as_ptr(),
                &mut argument,
                raw.as_mut_ptr(),
            )
        })?;
        for (raw, param) in raw.iter().zip(params.iter_mut()) {
            update(raw, param);
        }
        check(argument.ret, argument.ret_origin)?;
        inject::check(inject::Point::Answer)?;
        Ok(())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // SAFETY: By the type invariants the session is open.
        unsafe { bindings::tee_client_close_session(self.context.0.as_ptr(), self.id) };
    }
}

fn check(code: u32, origin: u32) -> Result<(), Failure> {
    match code {
        0 => Ok(()),
        COMMUNICATION if origin == ORIGIN_COMMS => Err(Failure::Transport(EIO)),
        _ => Err(Failure::Answer(code)),
    }
}

fn fill(raw: &mut bindings::tee_param, param: &Param<'_>) {
    match *param {
        Param::None => raw.attr = u64::from(bindings::TEE_IOCTL_PARAM_ATTR_TYPE_NONE),
        Param::ValueIn(a, b) => {
            raw.attr = u64::from(bindings::TEE_IOCTL_PARAM_ATTR_TYPE_VALUE_INPUT);
            raw.u.value = bindings::tee_param_value {
                a: a.into(),
                b: b.into(),
                c: 0,
            };
        }
        Param::ValueOut(..) => {
            raw.attr = u64::from(bindings::TEE_IOCTL_PARAM_ATTR_TYPE_VALUE_OUTPUT);
        }
        Param::MemoryOut(memory, size) => {
            raw.attr = u64::from(bindings::TEE_IOCTL_PARAM_ATTR_TYPE_MEMREF_OUTPUT);
            raw.u.memref = bindings::tee_param_memref {
                shm_offs: 0,
                size: size.min(memory.size),
                shm: memory.shm.as_ptr(),
            };
        }
    }
}

fn update(raw: &bindings::tee_param, param: &mut Param<'_>) {
    match param {
        Param::ValueOut(a, b) => {
            // SAFETY: The parameter was sent as a value, and no bit pattern is invalid.
            let value = unsafe { raw.u.value };
            // CAST: The trusted application's parameters are 32 bits wide.
            (*a, *b) = (value.a as u32, value.b as u32);
        }
        Param::MemoryOut(_, size) => {
            // SAFETY: The parameter was sent as memory, and no size is invalid.
            *size = unsafe { raw.u.memref.size };
        }
        Param::None | Param::ValueIn(..) => {}
    }
}

/// Memory that the secure world can write.
///
/// # Invariants
///
/// `shm` is live and ours, and has `size` bytes at `data`.
pub struct SharedMemory {
    shm: NonNull<bindings::tee_shm>,
    data: NonNull<u8>,
    size: usize,
}

impl SharedMemory {
    /// Shares `size` new bytes.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, and what else the TEE driver answers.
    pub fn new(session: &Session, size: usize) -> Result<Self> {
        // SAFETY: By the type invariants of `Session` its context is open.
        let raw = from_err_ptr(unsafe {
            bindings::tee_shm_alloc_kernel_buf(session.context.0.as_ptr(), size)
        })?;
        let shm = NonNull::new(raw).ok_or(ENOMEM)?;
        // SAFETY: `raw` is live.
        match from_err_ptr(unsafe { bindings::tee_shm_get_va(raw, 0) }) {
            // INVARIANT: The memory was made with this size.
            Ok(data) => Ok(Self {
                shm,
                data: NonNull::new(data.cast()).ok_or(ENOMEM)?,
                size,
            }),
            Err(error) => {
                // SAFETY: It was made above, and nobody else knows it.
                unsafe { bindings::tee_shm_free(raw) };
                Err(error)
            }
        }
    }

    /// Copies the first `size` bytes.
    ///
    /// The secure world may go on writing: the copy is what there is to look at.
    ///
    /// # Errors
    ///
    /// `EINVAL` when there are fewer bytes; `ENOMEM`.
    pub fn copy(&self, size: usize) -> Result<KVVec<u8>> {
        if size > self.size {
            return Err(EINVAL);
        }
        let mut bytes = KVVec::with_capacity(size, GFP_KERNEL)?;
        let spare: &mut [MaybeUninit<u8>] = bytes.spare_capacity_mut();
        for (offset, byte) in spare.iter_mut().take(size).enumerate() {
            // SAFETY: By the type invariants there are `size` bytes, and the loop stays within
            // them. The secure world may change them, so the read is volatile.
            byte.write(unsafe { self.data.add(offset).read_volatile() });
        }
        // SAFETY: The capacity is at least `size`, and so many bytes were written.
        unsafe { bytes.inc_len(size) };
        Ok(bytes)
    }
}

impl Drop for SharedMemory {
    fn drop(&mut self) {
        // SAFETY: By the type invariants the memory is live and ours.
        unsafe { bindings::tee_shm_free(self.shm.as_ptr()) };
    }
}
