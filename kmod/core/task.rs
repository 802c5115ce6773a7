// SPDX-License-Identifier: GPL-2.0

//! The task on whose behalf something is done.

use crate::bindings;
use kernel::prelude::*;

/// Bytes of a task's name, its NUL included.
const COMM_SIZE: usize = kernel::bindings::TASK_COMM_LEN as usize;

/// Who allocated a buffer.
#[derive(Clone, Copy)]
pub struct Origin {
    /// Process, as the initial PID namespace numbers it.
    pub pid: i32,
    comm: [u8; COMM_SIZE],
}

impl Origin {
    /// The current process.
    pub fn current() -> Self {
        let mut origin = Self {
            pid: 0,
            comm: [0; COMM_SIZE],
        };
        // SAFETY: `comm` has `TASK_COMM_LEN` bytes, as the function wants.
        unsafe { bindings::ringfence_current(&mut origin.pid, origin.comm.as_mut_ptr()) };
        origin
    }

    /// What the kernel itself holds, such as ranges of an earlier life.
    pub const fn kernel() -> Self {
        let mut comm = [0; COMM_SIZE];
        comm[0] = b'-';
        Self { pid: 0, comm }
    }

    /// The task's name; bytes that are not UTF-8 make it `?`.
    pub fn comm(&self) -> &str {
        CStr::from_bytes_until_nul(&self.comm)
            .ok()
            .and_then(|comm| comm.to_str().ok())
            .unwrap_or("?")
    }
}

/// Lets others run, and tells whether the current task is being killed.
///
/// Long loops call this between two bounded steps.
///
/// # Errors
///
/// `EINTR` when a fatal signal is pending.
pub(crate) fn pause() -> Result {
    // SAFETY: Called from process context without locks held that forbid sleeping, as callers do.
    unsafe { bindings::ringfence_cond_resched() };
    if is_killed() {
        return Err(EINTR);
    }
    Ok(())
}

/// Whether the current task is being killed.
pub fn is_killed() -> bool {
    // SAFETY: Looks at the current task only.
    unsafe { bindings::ringfence_fatal_signal_pending() }
}
