// SPDX-License-Identifier: MIT OR Apache-2.0

//! A child that shares this process's mappings.

/// Forks, has the child do its work, and answers what it found.
///
/// The work may touch memory only: what else the process has, such as locks, may be
/// in any state in the child.
pub fn run(work: impl FnOnce() -> bool) -> anyhow::Result<bool> {
    // SAFETY: The child touches memory, and ends without running anything else.
    match unsafe { libc::fork() } {
        -1 => Err(std::io::Error::last_os_error().into()),
        0 => {
            let status = i32::from(!work());
            // SAFETY: Ends the child at once.
            unsafe { libc::_exit(status) }
        }
        child => {
            let mut status = 0;
            // SAFETY: The status is written to memory of ours.
            if unsafe { libc::waitpid(child, &mut status, 0) } != child {
                return Err(std::io::Error::last_os_error().into());
            }
            anyhow::ensure!(libc::WIFEXITED(status), "the child was killed: {status:#x}");
            Ok(libc::WEXITSTATUS(status) == 0)
        }
    }
}
