// SPDX-License-Identifier: MIT OR Apache-2.0
//! The virtio-serial ports between this process and the guest.

/// A port of the guest, at `/dev/virtio-ports/ringfence.<id>` there.
#[derive(Debug, Clone, Copy)]
pub enum Port {
    /// The command's standard output.
    Output,
    /// The command's standard error.
    Error,
    /// Lines about the run itself, from the guest's first process.
    Status,
    /// Questions to the host, one line of JSON each way.
    Host,
    /// Sizes of the terminal, `rows columns`.
    Resize,
}

impl Port {
    /// Name of the port's backend within QEMU.
    pub fn id(self) -> &'static str {
        match self {
            Self::Output => "stdout",
            Self::Error => "stderr",
            Self::Status => "status",
            Self::Host => "host",
            Self::Resize => "resize",
        }
    }

    /// Name of the port in the guest.
    pub fn name(self) -> String {
        format!("ringfence.{}", self.id())
    }
}
