// SPDX-License-Identifier: MIT OR Apache-2.0

//! The other side of ISO/IEC 23001-7: encryption, written from the standard over
//! crates that the secure world has no part of.

use aes::cipher::{BlockCipherEncrypt, BlockModeEncrypt, KeyInit, KeyIvInit};
use aes::Aes128;
use ringfence::proto::message::{DecryptSample, Scheme};

/// Encrypts what a request says is encrypted.
///
/// # Panics
///
/// If its subsamples are more than the plaintext.
pub fn encrypt(request: &DecryptSample, key: &[u8; 16], plaintext: &[u8]) -> Vec<u8> {
    let mut sample = plaintext.to_vec();
    let mut rest = sample.as_mut_slice();
    let mut key_stream = KeyStream::new(request, key);
    for subsample in &request.subsamples {
        let (_, after) = rest.split_at_mut(subsample.clear as usize);
        let (encrypted, after) = after.split_at_mut(subsample.encrypted as usize);
        rest = after;
        match request.scheme {
            Scheme::Cenc => encrypted
                .iter_mut()
                .for_each(|byte| *byte ^= key_stream.next_byte()),
            Scheme::Cbcs => encrypt_blocks(request, key, encrypted),
        }
    }
    sample
}

/// AES-CTR whose counter is the second half of its block.
struct KeyStream {
    cipher: Aes128,
    counter: [u8; 16],
    block: [u8; 16],
    used: usize,
}

impl KeyStream {
    fn new(request: &DecryptSample, key: &[u8; 16]) -> Self {
        let mut stream = Self {
            cipher: Aes128::new(key.into()),
            counter: request.iv,
            block: [0; 16],
            used: 16,
        };
        for _ in 0..request.used {
            stream.next_byte();
        }
        stream
    }

    fn next_byte(&mut self) -> u8 {
        if self.used == self.block.len() {
            let mut block = self.counter.into();
            self.cipher.encrypt_block(&mut block);
            self.block = block.into();
            self.used = 0;
            let (_, low) = self.counter.split_at_mut(8);
            for byte in low.iter_mut().rev() {
                let (sum, carries) = byte.overflowing_add(1);
                *byte = sum;
                if !carries {
                    break;
                }
            }
        }
        self.used += 1;
        self.block[self.used - 1]
    }
}

/// AES-CBC over the blocks that the pattern picks.
fn encrypt_blocks(request: &DecryptSample, key: &[u8; 16], bytes: &mut [u8]) {
    let mut cipher = cbc::Encryptor::<Aes128>::new(key.into(), &request.iv.into());
    let (crypt, skip) = match request.pattern.crypt {
        0 => (1, 0),
        crypt => (usize::from(crypt), usize::from(request.pattern.skip)),
    };
    for stretch in bytes.chunks_mut((crypt + skip) * 16) {
        let run = stretch.get_mut(..crypt * 16).unwrap_or_default();
        for block in run.chunks_exact_mut(16) {
            let mut one = [0; 16];
            one.copy_from_slice(block);
            cipher.encrypt_block((&mut one).into());
            block.copy_from_slice(&one);
        }
    }
}
