// SPDX-License-Identifier: MIT OR Apache-2.0

//! Samples of ISO/IEC 23001-7: which bytes are clear, which are encrypted, and in
//! which order they are carried, so that each byte of shared memory is read once
//! and plaintext is in protected memory only.
//!
//! `cenc` is a stream: encrypted bytes are decrypted on their way into the window.
//! `cbcs` is not: a block's ciphertext is needed again for the block after it. So
//! a subsample's encrypted blocks are copied into the window first, one beside the
//! other, decrypted there, and then moved to their places; the clear blocks
//! between them come last.

use core::marker::PhantomData;
use core::ptr::NonNull;

use ringfence_proto::message::{DecryptSample, Scheme, MAX_SAMPLE};
use zeroize::Zeroizing;

use crate::refusal::Refusal;
use crate::shared::SharedBytes;

/// Bytes of a block.
const BLOCK: usize = 16;

/// What decrypts and carries a sample's bytes.
pub trait SampleCipher {
    /// Begins anew, with this counter block or IV.
    ///
    /// # Errors
    ///
    /// Whatever the cryptography answers.
    fn restart(&mut self, iv: &[u8; BLOCK]) -> Result<(), Refusal>;

    /// Decrypts the next bytes of a stream: as many as `plaintext` has, which is as
    /// many as `ciphertext` has. Each byte of `ciphertext` is read once at most.
    ///
    /// # Errors
    ///
    /// Whatever the cryptography answers.
    ///
    /// # Safety
    ///
    /// `plaintext` must be writable.
    unsafe fn decrypt(
        &mut self,
        ciphertext: SharedBytes<'_>,
        plaintext: NonNull<[u8]>,
    ) -> Result<(), Refusal>;

    /// Decrypts the next whole blocks where they are.
    ///
    /// # Errors
    ///
    /// Whatever the cryptography answers.
    ///
    /// # Safety
    ///
    /// `blocks` must be readable and writable.
    unsafe fn decrypt_in_place(&mut self, blocks: NonNull<[u8]>) -> Result<(), Refusal>;

    /// Copies bytes, as many as `to` has, which is as many as `from` has. Each byte
    /// of `from` is read once.
    ///
    /// # Safety
    ///
    /// `to` must be writable.
    unsafe fn copy(&mut self, from: SharedBytes<'_>, to: NonNull<[u8]>);
}

/// Checks that a request makes sense for a sample, or piece, of `length` bytes.
///
/// # Errors
///
/// [`Refusal::OutOfBounds`] if its subsamples do not make up exactly so many
/// bytes, if there are none or more than [`MAX_SAMPLE`], or if the scheme has no
/// such pattern.
pub fn check(request: &DecryptSample, length: usize) -> Result<(), Refusal> {
    let mut sum = 0u64;
    for subsample in &request.subsamples {
        // Neither sum overflows: there are few subsamples, and their parts are of 32 bits.
        sum += u64::from(subsample.clear) + u64::from(subsample.encrypted);
    }
    let pattern = request.pattern;
    let has_scheme = match request.scheme {
        Scheme::Cenc => {
            usize::from(request.used) < BLOCK && pattern.crypt == 0 && pattern.skip == 0
        }
        Scheme::Cbcs => request.used == 0 && (pattern.crypt > 0 || pattern.skip == 0),
    };
    let is_whole = length > 0 && length <= MAX_SAMPLE && u64::try_from(length) == Ok(sum);
    match has_scheme && is_whole {
        true => Ok(()),
        false => Err(Refusal::OutOfBounds),
    }
}

/// Carries a sample into a window, decrypted.
///
/// # Errors
///
/// [`Refusal::OutOfBounds`] as [`check`], also if `window` is of another length, or
/// what the cipher says. The window may hold a part of the sample then.
///
/// # Safety
///
/// `window` must be readable and writable, and `content` must not overlap it.
pub unsafe fn decrypt(
    request: &DecryptSample,
    mut content: SharedBytes<'_>,
    window: NonNull<[u8]>,
    cipher: &mut impl SampleCipher,
) -> Result<(), Refusal> {
    check(request, content.len())?;
    if content.len() != window.len() {
        return Err(Refusal::OutOfBounds);
    }
    // INVARIANT: readable and writable by the contract.
    let mut window = Target {
        bytes: window,
        _memory: PhantomData,
    };
    let mut stream = match request.scheme {
        Scheme::Cenc => Some(Stream::begin(request, cipher)?),
        Scheme::Cbcs => None,
    };
    for subsample in &request.subsamples {
        let clear = length(subsample.clear)?;
        window.take(clear)?.copy(content.take(clear), cipher)?;
        let encrypted = length(subsample.encrypted)?;
        let (from, to) = (content.take(encrypted), window.take(encrypted)?);
        match &mut stream {
            Some(stream) => stream.decrypt(from, to, cipher)?,
            None => decrypt_blocks(request, from, to, cipher)?,
        }
    }
    Ok(())
}

fn length(bytes: u32) -> Result<usize, Refusal> {
    usize::try_from(bytes).map_err(|_| Refusal::OutOfBounds)
}

/// Bytes of the window.
///
/// # Invariants
///
/// They are readable and writable.
struct Target<'w> {
    bytes: NonNull<[u8]>,
    _memory: PhantomData<&'w mut ()>,
}

impl Target<'_> {
    /// The `length` bytes from `offset` on.
    fn part(&self, offset: usize, length: usize) -> Result<NonNull<[u8]>, Refusal> {
        match offset.checked_add(length) {
            Some(end) if end <= self.bytes.len() => {}
            _ => return Err(Refusal::OutOfBounds),
        }
        // SAFETY: within the bytes, by the check.
        let start = unsafe { self.bytes.cast::<u8>().add(offset) };
        Ok(NonNull::slice_from_raw_parts(start, length))
    }

    /// Takes the next `length` bytes.
    fn take(&mut self, length: usize) -> Result<Self, Refusal> {
        let taken = self.part(0, length)?;
        self.bytes = self.part(length, self.bytes.len() - length)?;
        // INVARIANT: both are parts of what was readable and writable.
        Ok(Self {
            bytes: taken,
            _memory: PhantomData,
        })
    }

    /// Fills all of it.
    fn copy(&self, from: SharedBytes<'_>, cipher: &mut impl SampleCipher) -> Result<(), Refusal> {
        self.copy_to(0, from, cipher)
    }

    /// Copies to the bytes from `offset` on.
    fn copy_to(
        &self,
        offset: usize,
        from: SharedBytes<'_>,
        cipher: &mut impl SampleCipher,
    ) -> Result<(), Refusal> {
        if from.is_empty() {
            return Ok(());
        }
        let to = self.part(offset, from.len())?;
        // SAFETY: writable, by the type invariant.
        unsafe { cipher.copy(from, to) };
        Ok(())
    }

    /// Moves `length` bytes within it.
    fn shift(&self, from: usize, to: usize, length: usize) -> Result<(), Refusal> {
        let (from, to) = (self.part(from, length)?, self.part(to, length)?);
        // SAFETY: readable and writable, by the type invariant; they may overlap.
        unsafe { to.cast::<u8>().copy_from(from.cast::<u8>(), length) };
        Ok(())
    }
}

/// `cenc`: one stream of key bytes over all encrypted bytes of a sample.
struct Stream {
    /// The counter block when its counting half has wrapped around.
    wrapped: [u8; BLOCK],
    /// Bytes until then.
    left: u128,
}

impl Stream {
    fn begin(request: &DecryptSample, cipher: &mut impl SampleCipher) -> Result<Self, Refusal> {
        let counter = u128::from_be_bytes(request.iv);
        let blocks = (1 << 64) - (counter & u128::from(u64::MAX));
        let used = usize::from(request.used);
        cipher.restart(&request.iv)?;
        if used > 0 {
            let zeros = [0; BLOCK];
            let mut key_stream = Zeroizing::new([0; BLOCK]);
            let waste = key_stream.get_mut(..used).ok_or(Refusal::OutOfBounds)?;
            // SAFETY: readable until the end of this block; `check` has seen that
            // `used` is less than a block.
            let from = unsafe { SharedBytes::new(zeros.as_ptr(), waste.len()) };
            // SAFETY: writable: a local variable.
            unsafe { cipher.decrypt(from, NonNull::from(waste))? };
        }
        Ok(Self {
            wrapped: (counter & !u128::from(u64::MAX)).to_be_bytes(),
            left: blocks * BLOCK as u128 - used as u128,
        })
    }

    fn decrypt(
        &mut self,
        mut from: SharedBytes<'_>,
        mut to: Target<'_>,
        cipher: &mut impl SampleCipher,
    ) -> Result<(), Refusal> {
        while !from.is_empty() {
            if self.left == 0 {
                // The half that counts wraps around alone; the cipher's does not.
                cipher.restart(&self.wrapped)?;
                self.left = u128::MAX;
            }
            let length = usize::try_from(self.left)
                .unwrap_or(usize::MAX)
                .min(from.len());
            let (piece, window) = (from.take(length), to.take(length)?);
            // SAFETY: writable, by the type invariant.
            unsafe { cipher.decrypt(piece, window.bytes)? };
            self.left -= length as u128;
        }
        Ok(())
    }
}

/// `cbcs`: the blocks that the pattern picks, beginning with the request's IV.
fn decrypt_blocks(
    request: &DecryptSample,
    mut from: SharedBytes<'_>,
    window: Target<'_>,
    cipher: &mut impl SampleCipher,
) -> Result<(), Refusal> {
    let total = from.len();
    let (run, gap) = match request.pattern.crypt {
        0 => (total - total % BLOCK, 0),
        crypt => (
            usize::from(crypt) * BLOCK,
            usize::from(request.pattern.skip) * BLOCK,
        ),
    };
    // An incomplete run at the end is clear.
    let rest = match run + gap {
        0 => total,
        period if total % period < run => total % period,
        _ => 0,
    };
    let picked = from.take(total - rest);
    let runs = match run {
        0 => 0,
        run => (picked.len() + gap) / (run + gap),
    };
    if runs > 0 {
        let (encrypted, clear) = picked.alternate(run, gap);
        for (index, piece) in encrypted.enumerate() {
            window.copy_to(index * run, piece, cipher)?;
        }
        cipher.restart(&request.iv)?;
        let blocks = window.part(0, runs * run)?;
        // SAFETY: readable and writable, by the type invariant.
        unsafe { cipher.decrypt_in_place(blocks)? };
        // From the last to the first: none is written over before it is moved.
        for index in (1..runs).rev() {
            window.shift(index * run, index * (run + gap), run)?;
        }
        for (index, piece) in clear.enumerate() {
            window.copy_to(index * (run + gap) + run, piece, cipher)?;
        }
    }
    window.copy_to(total - rest, from, cipher)
}
