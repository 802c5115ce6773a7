// SPDX-License-Identifier: MIT OR Apache-2.0

//! Why a command is refused.

use core::fmt;

use ringfence_proto::command::result;
use ringfence_proto::message::DecodeError;

/// Why a command is refused; [`Refusal::code`] is what the client sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Parameters of other types than the command has.
    ParameterTypes,
    /// A memory reference does not hold the message that the command takes.
    Message(DecodeError),
    /// The command is for the kernel, and the client is not.
    NotTheKernel,
    /// The command is for the decoder, and the client is not.
    NotTheDecoder,
    /// No such command in this build.
    UnknownCommand,
    /// The handle names no range, or none that may be used.
    UnknownHandle,
    /// The session has not loaded this key.
    UnknownKey,
    /// The range's use case is not open to the command.
    UseCase,
    /// No bytes at all, or some outside the range.
    OutOfBounds,
    /// Content that does not come from the normal world.
    NotShared,
    /// The licence is not sealed with the device key, or the device key not with
    /// the factory key.
    Forged,
    /// There is no device key yet.
    NotProvisioned,
    /// The licence's last second has passed.
    Expired,
    /// Another device key that is no newer than the stored one.
    RolledBack,
    /// No room for another range, key or session.
    Full,
    /// The client's buffer is smaller than this many bytes.
    ShortBuffer(usize),
    /// The random number generator repeats itself.
    Entropy,
    /// The firewall speaks another protocol, or says what cannot be.
    Firewall,
    /// OP-TEE or the firewall refused, with this result.
    Tee(u32),
}

impl Refusal {
    /// The result code for the client
    /// ([`command::result`](ringfence_proto::command::result)).
    pub const fn code(&self) -> u32 {
        match self {
            Self::ParameterTypes | Self::Message(_) | Self::OutOfBounds => result::BAD_PARAMETERS,
            Self::NotTheKernel | Self::NotTheDecoder | Self::UseCase | Self::NotShared => {
                result::ACCESS_DENIED
            }
            Self::UnknownCommand => result::NOT_SUPPORTED,
            Self::UnknownHandle | Self::UnknownKey => result::ITEM_NOT_FOUND,
            Self::Forged => result::MAC_INVALID,
            Self::NotProvisioned => result::NOT_PROVISIONED,
            Self::Expired => result::EXPIRED,
            Self::RolledBack => result::ROLLED_BACK,
            Self::Full => result::OUT_OF_MEMORY,
            Self::ShortBuffer(_) => result::SHORT_BUFFER,
            Self::Entropy | Self::Firewall => result::GENERIC,
            Self::Tee(code) => *code,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ParameterTypes => f.write_str("wrong parameter types"),
            Self::Message(error) => error.fmt(f),
            Self::NotTheKernel => f.write_str("for the kernel only"),
            Self::NotTheDecoder => f.write_str("for the decoder only"),
            Self::UnknownCommand => f.write_str("no such command"),
            Self::UnknownHandle => f.write_str("no such handle"),
            Self::UnknownKey => f.write_str("key not loaded in this session"),
            Self::UseCase => f.write_str("not allowed for this use case"),
            Self::OutOfBounds => f.write_str("no bytes, or bytes outside the range"),
            Self::NotShared => f.write_str("content is not in memory of the normal world"),
            Self::Forged => f.write_str("key does not authenticate"),
            Self::NotProvisioned => f.write_str("no device key"),
            Self::Expired => f.write_str("licence has ended"),
            Self::RolledBack => f.write_str("device key is not newer"),
            Self::Full => f.write_str("no room"),
            Self::ShortBuffer(needed) => write!(f, "buffer too small, {needed} bytes needed"),
            Self::Entropy => f.write_str("random numbers repeat"),
            Self::Firewall => f.write_str("firewall breaks its protocol"),
            Self::Tee(code) => write!(f, "refused with {code:#010x}"),
        }
    }
}

impl core::error::Error for Refusal {}

impl From<DecodeError> for Refusal {
    fn from(error: DecodeError) -> Self {
        Self::Message(error)
    }
}
