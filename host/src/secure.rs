// SPDX-License-Identifier: MIT OR Apache-2.0

//! Client of the trusted application.
//!
//! A session knows the content keys whose licences were loaded in it, and
//! forgets them when it is dropped. Content goes one way: ciphertext in, and
//! plaintext into a protected buffer that only the secure world can read.

use std::io::Read;

use optee_teec::{
    Context, Operation, Param, ParamNone, ParamTmpRef, ParamType, ParamValue, Session, Uuid,
};
use ringfence_proto::command::{self, join, result, split};
use ringfence_proto::message::{self, DecryptSample, Info, KeyId, Licence, Message, Provision};

use crate::buffer::Handle;
use crate::content::{Pieces, BLOCK, DEFAULT_PIECE};
use crate::error::Error;
use crate::play::player::Decrypt;

/// An open session to the trusted application.
pub struct SecureSession {
    // The session keeps the context alive.
    session: Session,
}

/// How a piece of content is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Encryption {
    /// Names the content key; its licence must have been loaded.
    pub key_id: KeyId,
    /// AES-CTR counter block of the first byte.
    pub counter: [u8; BLOCK],
}

impl SecureSession {
    /// Opens a session. The trusted application is part of OP-TEE's image, so
    /// tee-supplicant is not needed.
    ///
    /// # Errors
    ///
    /// [`Error::NoSecureWorld`] if there is no TEE or no trusted application.
    pub fn open() -> Result<Self, Error> {
        let refused = |error: optee_teec::Error| match error.raw_code() {
            result::ITEM_NOT_FOUND => Error::NoSecureWorld,
            code => Error::Secure {
                what: "open a session",
                refusal: code.into(),
            },
        };
        let mut context = Context::new().map_err(refused)?;
        let session = context
            .open_session(Uuid::from_bytes(command::TA_UUID))
            .map_err(refused)?;
        Ok(Self { session })
    }

    fn invoke<A: Param, B: Param, C: Param, D: Param>(
        &mut self,
        what: &'static str,
        command: u32,
        operation: &mut Operation<A, B, C, D>,
    ) -> Result<(), Error> {
        self.session
            .invoke_command(command, operation)
            .map_err(|error| Error::Secure {
                what,
                refusal: error.raw_code().into(),
            })
    }

    /// What the trusted application is, and how it stands.
    pub fn info(&mut self) -> Result<Info, Error> {
        let mut answer = [0; Info::MAX_SIZE];
        let mut operation = Operation::new(
            0,
            ParamTmpRef::new_output(&mut answer),
            ParamNone,
            ParamNone,
            ParamNone,
        );
        self.invoke("describe itself", command::INFO, &mut operation)?;
        let length = operation.parameters().0.updated_size();
        let answer = answer
            .get(..length)
            .ok_or(Error::Answer("more bytes than there is room for"))?;
        message::decode(answer).map_err(|_| Error::Answer("no Info message"))
    }

    /// Brings the device key, which the trusted application keeps.
    ///
    /// # Errors
    ///
    /// [`Refusal::WrongLicence`](crate::error::Refusal::WrongLicence) if it is damaged
    /// or for another device,
    /// [`Refusal::RolledBack`](crate::error::Refusal::RolledBack) if the trusted
    /// application has another one that is no older.
    pub fn provision(&mut self, provision: &Provision) -> Result<(), Error> {
        self.send("take the device key", command::PROVISION, provision)
    }

    /// Loads a content key into this session.
    ///
    /// # Errors
    ///
    /// [`Refusal::NotProvisioned`](crate::error::Refusal::NotProvisioned) without a
    /// device key, [`Refusal::Expired`](crate::error::Refusal::Expired) after the
    /// licence's end, and
    /// [`Refusal::WrongLicence`](crate::error::Refusal::WrongLicence) if it is damaged
    /// or for another device.
    pub fn load_licence(&mut self, licence: &Licence) -> Result<(), Error> {
        self.send("load the licence", command::LOAD_LICENCE, licence)
    }

    /// Decrypts content into a protected buffer, `offset` bytes from its
    /// start, and returns the number of bytes written.
    ///
    /// The ciphertext is read and handed over in bounded pieces; when one is
    /// refused, those before it are in the buffer.
    pub fn decrypt(
        &mut self,
        handle: Handle,
        offset: u64,
        encryption: Encryption,
        ciphertext: impl Read,
    ) -> Result<u64, Error> {
        self.decrypt_in_pieces(handle, offset, encryption, ciphertext, DEFAULT_PIECE)
    }

    /// As [`decrypt`](Self::decrypt), with pieces of `piece` bytes.
    pub fn decrypt_in_pieces(
        &mut self,
        handle: Handle,
        offset: u64,
        encryption: Encryption,
        ciphertext: impl Read,
        piece: usize,
    ) -> Result<u64, Error> {
        let mut pieces = Pieces::new(ciphertext, encryption.counter, piece);
        let mut total = 0;
        while let Some(piece) = pieces.next_piece().map_err(Error::Ciphertext)? {
            // An offset that wraps around can't be right: the largest one is
            // as far outside any buffer.
            let request = message::Decrypt {
                key_id: encryption.key_id,
                counter: piece.counter,
                offset: offset.saturating_add(piece.offset),
            };
            let (command, content) = (command::DECRYPT, piece.ciphertext);
            let written = self.write("decrypt", command, handle, &request, content)?;
            if written != content.len() as u64 {
                return Err(Error::Answer("not every byte was written"));
            }
            total += written;
        }
        Ok(total)
    }

    /// Sends a message.
    fn send(
        &mut self,
        what: &'static str,
        command: u32,
        message: &impl Message,
    ) -> Result<(), Error> {
        let mut buffer = [0; message::LARGEST];
        let mut operation = Operation::new(
            0,
            ParamTmpRef::new_input(encode(message, &mut buffer)),
            ParamNone,
            ParamNone,
            ParamNone,
        );
        self.invoke(what, command, &mut operation)
    }

    /// Has content written to a protected buffer, as a message says; returns the
    /// number of bytes written.
    fn write(
        &mut self,
        what: &'static str,
        command: u32,
        handle: Handle,
        message: &impl Message,
        content: &[u8],
    ) -> Result<u64, Error> {
        let mut buffer = [0; message::LARGEST];
        let (high, low) = split(handle.raw());
        let mut operation = Operation::new(
            0,
            ParamValue::new(high, low, ParamType::ValueInput),
            ParamTmpRef::new_input(encode(message, &mut buffer)),
            ParamTmpRef::new_input(content),
            ParamValue::new(0, 0, ParamType::ValueOutput),
        );
        self.invoke(what, command, &mut operation)?;
        let written = operation.parameters().3;
        Ok(join(written.a(), written.b()))
    }
}

impl Decrypt for SecureSession {
    fn decrypt_sample(
        &mut self,
        handle: Handle,
        request: &DecryptSample,
        sample: &[u8],
    ) -> Result<u64, Error> {
        let command = command::DECRYPT_SAMPLE;
        self.write("decrypt a sample", command, handle, request, sample)
    }
}

/// Encodes a message that a client sends.
fn encode<'b>(message: &impl Message, buffer: &'b mut [u8; message::LARGEST]) -> &'b [u8] {
    message::encode(message, buffer).expect("as many bytes suffice for every message")
}
