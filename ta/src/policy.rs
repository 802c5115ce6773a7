// SPDX-License-Identifier: MIT OR Apache-2.0

//! Who may ask for what: clients, use cases and content commands.

use ringfence_proto::command::{UseCase, LOGIN_REE_KERNEL, LOGIN_TRUSTED_APP};
use ringfence_proto::decoder::DECODER_UUID;

use crate::refusal::Refusal;

/// Who opened a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Client {
    /// The Linux kernel. The TEE driver refuses this login to user space.
    Kernel,
    /// The decoder. Only OP-TEE's core gives an application's login, and with it
    /// goes the UUID of that application.
    Decoder,
    /// Anybody else.
    #[default]
    Public,
}

impl Client {
    /// The client with this login and UUID, as OP-TEE's core reports them in
    /// `gpd.client.identity`.
    pub fn of(login: u32, uuid: &[u8; 16]) -> Self {
        match login {
            LOGIN_REE_KERNEL => Self::Kernel,
            LOGIN_TRUSTED_APP if *uuid == DECODER_UUID => Self::Decoder,
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
            Self::Decoder | Self::Public => Err(Refusal::NotTheKernel),
        }
    }

    /// Refuses everybody but the decoder.
    ///
    /// # Errors
    ///
    /// [`Refusal::NotTheDecoder`].
    pub const fn must_be_decoder(self) -> Result<(), Refusal> {
        match self {
            Self::Decoder => Ok(()),
            Self::Kernel | Self::Public => Err(Refusal::NotTheDecoder),
        }
    }
}

/// A command that touches the content of a protected range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// Writes decrypted content.
    Decrypt,
    /// Lets the decoder read and write it.
    Decode,
    /// Reads it for a keyed digest; in test builds only.
    Digest,
    /// Keeps a part of it mapped, or fills it; in test builds only.
    Hold,
}

impl Content {
    /// Refuses the command on ranges whose use case it is not meant for.
    ///
    /// Decryption and decoding are for video that is on its way to a display; a
    /// range for a trusted user interface, for recorded video, or of unknown
    /// purpose takes none. What exists in test builds only, such as the digest,
    /// must reach every range.
    ///
    /// # Errors
    ///
    /// [`Refusal::UseCase`].
    pub const fn must_be_open_to(self, use_case: Option<UseCase>) -> Result<(), Refusal> {
        match (self, use_case) {
            (Self::Decrypt | Self::Decode, Some(UseCase::SecureVideo))
            | (Self::Digest | Self::Hold, _) => Ok(()),
            (Self::Decrypt | Self::Decode, _) => Err(Refusal::UseCase),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_kernels_login_is_the_kernel() {
        assert_eq!(Client::of(0x8000_0000, &[0; 16]), Client::Kernel);
        for login in [0, 1, 2, 4, 5, 6, 0x7fff_ffff, 0x8000_0001, 0xf000_0000, !0] {
            assert_eq!(Client::of(login, &[0; 16]), Client::Public);
        }
        assert_eq!(Client::Kernel.must_be_kernel(), Ok(()));
        for other in [Client::Decoder, Client::default()] {
            assert_eq!(other.must_be_kernel(), Err(Refusal::NotTheKernel));
        }
    }

    #[test]
    fn only_an_application_with_the_decoders_uuid_is_the_decoder() {
        let client = |login| Client::of(login, &DECODER_UUID);
        assert_eq!(client(0xf000_0000), Client::Decoder);
        assert_eq!(client(0x8000_0000), Client::Kernel);
        for login in [0, 1, 2, 4, 5, 6, 0xefff_ffff, 0xf000_0001, !0] {
            assert_eq!(client(login), Client::Public);
        }
        for bit in 0..128 {
            let mut uuid = DECODER_UUID;
            uuid[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Client::of(0xf000_0000, &uuid), Client::Public);
        }
        assert_eq!(Client::Decoder.must_be_decoder(), Ok(()));
        for other in [Client::Kernel, Client::Public] {
            assert_eq!(other.must_be_decoder(), Err(Refusal::NotTheDecoder));
        }
    }

    #[test]
    fn decryption_and_decoding_are_for_secure_video() {
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
            assert_eq!(Content::Decode.must_be_open_to(use_case), outcome);
            assert_eq!(Content::Digest.must_be_open_to(use_case), Ok(()));
        }
    }
}
