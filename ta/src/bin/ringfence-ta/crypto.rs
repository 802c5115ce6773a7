// SPDX-License-Identifier: MIT OR Apache-2.0

//! Cryptography, by the TEE's own API: key material lives in core's objects
//! while it is used, and core zeroes them.

use core::ptr::NonNull;

use optee_utee::{
    raw, AlgorithmId, AttributeId, AttributeMemref, Cipher, OpHandle, OperationMode, Random,
    TransientObject, TransientObjectType, AE,
};
use ringfence_proto::command::result;
use ringfence_proto::message::{Licence, CONTENT_KEY_SIZE};
use ringfence_ta::instance::Decryptor;
use ringfence_ta::keys::ContentKey;
use ringfence_ta::refusal::Refusal;
use ringfence_ta::shared::SharedBytes;

use crate::firewall_session::tee;

/// The key that licences are sealed with, given when the TA is built.
static PROVISIONING_KEY: [u8; 32] = *include_bytes!(env!("RINGFENCE_PROVISIONING_KEY_FILE"));

/// A random number, good enough for secrets.
pub fn random() -> u64 {
    let mut bytes = [0; 8];
    Random::generate(&mut bytes);
    u64::from_ne_bytes(bytes)
}

/// A key as an object of the TEE.
fn key_object(kind: TransientObjectType, key: &[u8]) -> Result<TransientObject, Refusal> {
    let mut object = TransientObject::allocate(kind, key.len() * 8).map_err(tee)?;
    object
        .populate(&[AttributeMemref::from_ref(AttributeId::SecretValue, key).into()])
        .map_err(tee)?;
    Ok(object)
}

/// Opens a licence: AES-256-GCM under the provisioning key, with the key id as
/// additional authenticated data.
///
/// # Errors
///
/// [`Refusal::Forged`] if it does not authenticate.
pub fn unwrap(licence: &Licence, key: &mut [u8; CONTENT_KEY_SIZE]) -> Result<(), Refusal> {
    let operation = AE::allocate(
        AlgorithmId::AesGcm,
        OperationMode::Decrypt,
        PROVISIONING_KEY.len() * 8,
    )
    .map_err(tee)?;
    operation
        .set_key(&key_object(TransientObjectType::Aes, &PROVISIONING_KEY)?)
        .map_err(tee)?;
    operation
        .init(
            &licence.nonce,
            licence.tag.len() * 8,
            licence.key_id.len(),
            licence.wrapped_key.len(),
        )
        .map_err(tee)?;
    operation.update_aad(&licence.key_id);
    let written = operation
        .decrypt_final(&licence.wrapped_key, key, &licence.tag)
        .map_err(|error| match error.raw_code() {
            result::MAC_INVALID => Refusal::Forged,
            code => Refusal::Tee(code),
        })?;
    match written {
        CONTENT_KEY_SIZE => Ok(()),
        _ => Err(Refusal::Tee(result::GENERIC)),
    }
}

/// AES-128-CTR. The counter block goes on from piece to piece, whatever their
/// sizes.
pub struct AesCtr(Cipher);

impl AesCtr {
    /// A cipher that begins with this counter block.
    ///
    /// # Errors
    ///
    /// [`Refusal::Tee`] when the TEE has no room for it.
    pub fn new(key: &ContentKey, counter: &[u8; 16]) -> Result<Self, Refusal> {
        let cipher = Cipher::allocate(
            AlgorithmId::AesCtr,
            OperationMode::Decrypt,
            key.bytes().len() * 8,
        )
        .map_err(tee)?;
        cipher
            .set_key(&key_object(TransientObjectType::Aes, key.bytes())?)
            .map_err(tee)?;
        cipher.init(counter);
        Ok(Self(cipher))
    }
}

impl Decryptor for AesCtr {
    /// Core decrypts from the shared memory straight into the window: for
    /// AES-CTR libutee keeps no buffer between, and core reads each byte once.
    unsafe fn decrypt(
        &mut self,
        ciphertext: SharedBytes<'_>,
        plaintext: NonNull<[u8]>,
    ) -> Result<(), Refusal> {
        if ciphertext.len() != plaintext.len() {
            return Err(Refusal::OutOfBounds);
        }
        let mut written = plaintext.len();
        // SAFETY: `ciphertext` is readable by its type, `plaintext` writable by
        // this function's contract, and both are of the lengths given. Core
        // checks both against this TA's mappings once more.
        let code = unsafe {
            raw::TEE_CipherUpdate(
                self.0.handle(),
                ciphertext.as_ptr().cast(),
                ciphertext.len(),
                plaintext.cast::<core::ffi::c_void>().as_ptr(),
                &mut written,
            )
        };
        match code {
            raw::TEE_SUCCESS if written == plaintext.len() => Ok(()),
            raw::TEE_SUCCESS => Err(Refusal::Tee(result::GENERIC)),
            code => Err(Refusal::Tee(code)),
        }
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
    use crate::firewall_session::tee;

    /// A digest in the making.
    pub struct HmacSha256(Mac);

    impl HmacSha256 {
        /// A digest of nothing yet.
        ///
        /// # Errors
        ///
        /// [`Refusal::Tee`] when the TEE has no room for it.
        pub fn new(key: &[u8; 32]) -> Result<Self, Refusal> {
            let mac = Mac::allocate(AlgorithmId::HmacSha256, key.len() * 8).map_err(tee)?;
            mac.set_key(&key_object(TransientObjectType::HmacSha256, key)?)
                .map_err(tee)?;
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
            match self.0.compute_final(&[], &mut digest).map_err(tee)? {
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
