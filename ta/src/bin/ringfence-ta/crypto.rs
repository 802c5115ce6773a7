// SPDX-License-Identifier: MIT OR Apache-2.0

//! Cryptography, by the TEE's own API: key material lives in core's objects
//! while it is used, and core zeroes them.

use core::ptr::NonNull;

use optee_utee::{
    raw, AlgorithmId, AttributeId, AttributeMemref, Cipher, OpHandle, OperationMode, Random,
    TransientObject, TransientObjectType, AE,
};
use ringfence_proto::command::result;
use ringfence_proto::message::{Licence, Provision, Scheme, CONTENT_KEY_SIZE, DEVICE_KEY_SIZE};
use ringfence_ta::instance::Decryptor;
use ringfence_ta::keys::ContentKey;
use ringfence_ta::ladder::DeviceKey;
use ringfence_ta::refusal::Refusal;
use ringfence_ta::sample::SampleCipher;
use ringfence_ta::shared::SharedBytes;

/// The key that device keys are sealed with, given when the TA is built.
static FACTORY_KEY: [u8; DEVICE_KEY_SIZE] = *include_bytes!(env!("RINGFENCE_FACTORY_KEY_FILE"));

/// A random number, good enough for secrets.
pub fn random() -> u64 {
    let mut bytes = [0; 8];
    Random::generate(&mut bytes);
    u64::from_ne_bytes(bytes)
}

/// A key as an object of the TEE.
fn key_object(kind: TransientObjectType, key: &[u8]) -> Result<TransientObject, Refusal> {
    let mut object = TransientObject::allocate(kind, key.len() * 8)?;
    object.populate(&[AttributeMemref::from_ref(AttributeId::SecretValue, key).into()])?;
    Ok(object)
}

/// Opens a sealed key: AES-256-GCM.
fn unseal(
    under: &[u8; DEVICE_KEY_SIZE],
    nonce: &[u8; 12],
    aad: &[u8],
    sealed: &[u8],
    tag: &[u8; 16],
    key: &mut [u8],
) -> Result<(), Refusal> {
    let operation = AE::allocate(AlgorithmId::AesGcm, OperationMode::Decrypt, under.len() * 8)?;
    operation.set_key(&key_object(TransientObjectType::Aes, under)?)?;
    operation.init(nonce, tag.len() * 8, aad.len(), sealed.len())?;
    operation.update_aad(aad);
    let written =
        operation
            .decrypt_final(sealed, key, tag)
            .map_err(|error| match error.raw_code() {
                result::MAC_INVALID => Refusal::Forged,
                code => Refusal::Tee(code),
            })?;
    match written == sealed.len() {
        true => Ok(()),
        false => Err(Refusal::Tee(result::GENERIC)),
    }
}

/// Opens a device key, which is sealed under the factory key.
///
/// # Errors
///
/// [`Refusal::Forged`] if it does not authenticate.
pub fn unseal_device_key(
    provision: &Provision,
    key: &mut [u8; DEVICE_KEY_SIZE],
) -> Result<(), Refusal> {
    unseal(
        &FACTORY_KEY,
        &provision.nonce,
        &provision.aad(),
        &provision.wrapped_key,
        &provision.tag,
        key,
    )
}

/// Opens a content key, which is sealed under the device key.
///
/// # Errors
///
/// [`Refusal::Forged`] if it does not authenticate.
pub fn unseal_content_key(
    device_key: &DeviceKey,
    licence: &Licence,
    key: &mut [u8; CONTENT_KEY_SIZE],
) -> Result<(), Refusal> {
    unseal(
        device_key.bytes(),
        &licence.nonce,
        &licence.aad(),
        &licence.wrapped_key,
        &licence.tag,
        key,
    )
}

/// AES-128, as a stream (CTR) or in blocks (CBC). It goes on from piece to piece.
pub struct Aes(Cipher);

impl Aes {
    fn new(key: &[u8], algorithm: AlgorithmId) -> Result<Self, Refusal> {
        let cipher = Cipher::allocate(algorithm, OperationMode::Decrypt, key.len() * 8)?;
        cipher.set_key(&key_object(TransientObjectType::Aes, key)?)?;
        Ok(Self(cipher))
    }

    /// AES-CTR that begins with this counter block.
    ///
    /// # Errors
    ///
    /// [`Refusal::Tee`] when the TEE has no room for it.
    pub fn stream(key: &ContentKey, counter: &[u8; 16]) -> Result<Self, Refusal> {
        let aes = Self::new(key.bytes(), AlgorithmId::AesCtr)?;
        aes.0.init(counter);
        Ok(aes)
    }

    /// What a scheme's samples take; it begins with
    /// [`restart`](SampleCipher::restart).
    ///
    /// # Errors
    ///
    /// [`Refusal::Tee`] when the TEE has no room for it.
    pub fn of_scheme(key: &ContentKey, scheme: Scheme) -> Result<Self, Refusal> {
        let algorithm = match scheme {
            Scheme::Cenc => AlgorithmId::AesCtr,
            Scheme::Cbcs => AlgorithmId::AesCbcNopad,
        };
        Self::new(key.bytes(), algorithm)
    }

    /// Decrypts `length` bytes. For AES-CTR, and for whole blocks of AES-CBC,
    /// libutee keeps no buffer between: core decrypts from the one place into the
    /// other.
    ///
    /// # Safety
    ///
    /// `from` must be readable, `to` writable, for so many bytes; they may be the
    /// same.
    unsafe fn update(
        &mut self,
        from: *const u8,
        to: *mut u8,
        length: usize,
    ) -> Result<(), Refusal> {
        let mut written = length;
        // SAFETY: by the contract. Core checks both against this TA's mappings once
        // more.
        let code = unsafe {
            raw::TEE_CipherUpdate(
                self.0.handle(),
                from.cast(),
                length,
                to.cast(),
                &mut written,
            )
        };
        match code {
            raw::TEE_SUCCESS if written == length => Ok(()),
            raw::TEE_SUCCESS => Err(Refusal::Tee(result::GENERIC)),
            code => Err(Refusal::Tee(code)),
        }
    }
}

impl Decryptor for Aes {
    /// Core decrypts from the shared memory straight into the window, and reads each
    /// byte once, for AES-CTR.
    unsafe fn decrypt(
        &mut self,
        ciphertext: SharedBytes<'_>,
        plaintext: NonNull<[u8]>,
    ) -> Result<(), Refusal> {
        if ciphertext.len() != plaintext.len() {
            return Err(Refusal::OutOfBounds);
        }
        // SAFETY: `ciphertext` is readable by its type, `plaintext` writable by this
        // function's contract, and both are of the same length.
        unsafe {
            self.update(
                ciphertext.as_ptr(),
                plaintext.cast().as_ptr(),
                plaintext.len(),
            )
        }
    }
}

impl SampleCipher for Aes {
    fn restart(&mut self, iv: &[u8; 16]) -> Result<(), Refusal> {
        self.0.init(iv);
        Ok(())
    }

    unsafe fn decrypt(
        &mut self,
        ciphertext: SharedBytes<'_>,
        plaintext: NonNull<[u8]>,
    ) -> Result<(), Refusal> {
        // SAFETY: the same contract.
        unsafe { Decryptor::decrypt(self, ciphertext, plaintext) }
    }

    unsafe fn decrypt_in_place(&mut self, blocks: NonNull<[u8]>) -> Result<(), Refusal> {
        let bytes = blocks.cast::<u8>().as_ptr();
        // SAFETY: readable and writable by the contract.
        unsafe { self.update(bytes, bytes, blocks.len()) }
    }

    /// libutee copies: the compiler knows nothing of the other side's writes.
    unsafe fn copy(&mut self, from: SharedBytes<'_>, to: NonNull<[u8]>) {
        let length = from.len().min(to.len());
        // SAFETY: `from` is readable by its type, `to` writable by the contract.
        unsafe { raw::TEE_MemMove(to.cast().as_ptr(), from.as_ptr().cast(), length) };
    }
}

/// Measures what decryption costs by itself.
#[cfg(feature = "test-commands")]
pub mod plain {
    use alloc::vec::Vec;

    use super::{Aes, AlgorithmId, Refusal};

    /// Bytes of the TA's own memory that are worked on at once.
    const PIECE: usize = 64 << 10;

    /// Runs AES-CTR over `length` bytes of this TA's own memory.
    ///
    /// # Errors
    ///
    /// [`Refusal::Full`] when there is no memory, or what the TEE says.
    pub fn run(length: usize) -> Result<(), Refusal> {
        let mut memory = Vec::new();
        memory.try_reserve_exact(PIECE).map_err(|_| Refusal::Full)?;
        memory.resize(PIECE, 0u8);
        let mut aes = Aes::new(&[0x42; 16], AlgorithmId::AesCtr)?;
        aes.0.init(&[0; 16]);
        let mut left = length;
        while left > 0 {
            let piece = left.min(PIECE);
            let bytes = memory.as_mut_ptr();
            // SAFETY: `memory` has `PIECE` bytes, which nobody else looks at.
            unsafe { aes.update(bytes, bytes, piece)? };
            left -= piece;
        }
        Ok(())
    }
}

/// HMAC-SHA256 over protected content.
#[cfg(feature = "test-commands")]
pub mod digest {
    use core::ptr::NonNull;

    use optee_utee::{raw, AlgorithmId, Mac, OpHandle, TransientObjectType};
    use ringfence_proto::command::{result, DIGEST_SIZE};
    use ringfence_ta::instance::Digester;
    use ringfence_ta::refusal::Refusal;

    use super::key_object;

    /// A digest in the making.
    pub struct HmacSha256(Mac);

    impl HmacSha256 {
        /// A digest of nothing yet.
        ///
        /// # Errors
        ///
        /// [`Refusal::Tee`] when the TEE has no room for it.
        pub fn new(key: &[u8; 32]) -> Result<Self, Refusal> {
            let mac = Mac::allocate(AlgorithmId::HmacSha256, key.len() * 8)?;
            mac.set_key(&key_object(TransientObjectType::HmacSha256, key)?)?;
            mac.init(&[]);
            Ok(Self(mac))
        }

        /// The digest of all that was taken in.
        ///
        /// # Errors
        ///
        /// [`Refusal::Tee`] when the TEE fails.
        pub fn finish(self) -> Result<[u8; DIGEST_SIZE], Refusal> {
            let mut digest = [0; DIGEST_SIZE];
            match self.0.compute_final(&[], &mut digest)? {
                DIGEST_SIZE => Ok(digest),
                _ => Err(Refusal::Tee(result::GENERIC)),
            }
        }
    }

    impl Digester for HmacSha256 {
        unsafe fn digest(&mut self, bytes: NonNull<[u8]>) -> Result<(), Refusal> {
            // SAFETY: the bytes are readable by this function's contract.
            unsafe {
                raw::TEE_MACUpdate(self.0.handle(), bytes.cast().as_ptr(), bytes.len());
            }
            Ok(())
        }
    }
}
