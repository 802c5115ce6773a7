// SPDX-License-Identifier: MIT OR Apache-2.0

//! Who may ask for what: clients, use cases and content commands.

use ringfence_proto::command::{UseCase, LOGIN_REE_KERNEL};

use crate::refusal::Refusal;

/// Who opened a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Client {
    /// The Linux kernel. The TEE driver refuses this login to user space.
    Kernel,
    /// Anybody else.
    #[default]
    Public,
}

impl Client {
    /// The client with this login, as OP-TEE's core reports it in
    /// `gpd.client.identity`.
    pub const fn from_login(login: u32) -> Self {
        match login {
            LOGIN_REE_KERNEL => Self::Kernel,
            _ => Self::Public,
        }
    }

    /// Refuses everybody but the kernel.
    ///
    /// # Errors
    ///
    /// [`Refusal::NotTheKernel`].
    pub const fn must_be_kernel(self) -> Result<(), Refusal> {
        match self {
            Self::Kernel => Ok(()),
            Self::Public => Err(Refusal::NotTheKernel),
        }
    }
}

/// A command that touches the content of a protected range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// Writes decrypted content.
    Decrypt,
    /// Reads it for a keyed digest; in test builds only.
    Digest,
    /// Keeps a part of it mapped, or fills it; in test builds only.
    Hold,
}

impl Content {
    /// Refuses the command on ranges whose use case it is not meant for.
    ///
    /// Decryption is for video that is on its way to a decoder or a display;
    /// a range for a trusted user interface, for recorded video, or of unknown
    /// purpose takes none. What exists in test builds only, such as the digest,
    /// must reach every range.
    ///
    /// # Errors
    ///
    /// [`Refusal::UseCase`].
    pub const fn must_be_open_to(self, use_case: Option<UseCase>) -> Result<(), Refusal> {
        match (self, use_case) {
            (Self::Decrypt, Some(UseCase::SecureVideo)) | (Self::Digest | Self::Hold, _) => Ok(()),
            (Self::Decrypt, _) => Err(Refusal::UseCase),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_kernels_login_is_the_kernel() {
        assert_eq!(Client::from_login(0x8000_0000), Client::Kernel);
        for login in [0, 1, 2, 4, 5, 6, 0x7fff_ffff, 0x8000_0001, 0xf000_0000, !0] {
            assert_eq!(Client::from_login(login), Client::Public);
        }
        assert_eq!(Client::Kernel.must_be_kernel(), Ok(()));
        assert_eq!(
            Client::default().must_be_kernel(),
            Err(Refusal::NotTheKernel)
        );
    }

    #[test]
    fn decryption_is_for_secure_video() {
        let refused = Err(Refusal::UseCase);
        let expected = [
            (Some(UseCase::None), refused),
            (Some(UseCase::SecureVideo), Ok(())),
            (Some(UseCase::TrustedUi), refused),
            (Some(UseCase::SecureVideoRecord), refused),
            (None, refused),
        ];
        for (use_case, outcome) in expected {
            assert_eq!(Content::Decrypt.must_be_open_to(use_case), outcome);
            assert_eq!(Content::Digest.must_be_open_to(use_case), Ok(()));
        }
    }
}
