// SPDX-License-Identifier: MIT OR Apache-2.0

//! What is attacked: a live protected buffer with decrypted content in it.

use ringfence::buffer::Buffer;
use ringfence_tests::guest::memory::{expect_killed, expect_zero, PhysicalRange};
use ringfence_tests::guest::ta::Ta;

use crate::suites::fixture::Fixture;
use crate::suites::protect::handle;
use crate::suites::region::{self, VIDEO};

/// A protected buffer that holds the clip's first content.
pub struct Prey {
    /// The buffer.
    pub buffer: Buffer,
    /// Where it is.
    pub range: PhysicalRange,
    /// Its handle.
    pub handle: u64,
    /// The clip.
    pub fixture: Fixture,
    /// A session that knows the clip's key.
    pub ta: Ta,
}

impl Prey {
    /// Allocates it and decrypts the content into it.
    pub fn new() -> anyhow::Result<Self> {
        let fixture = Fixture::read()?;
        let (buffer, range) = region::allocate(VIDEO, fixture.ciphertext.len() as u64)?;
        let handle = handle(&buffer)?;
        let mut ta = Ta::open()?;
        fixture.decrypt(&mut ta, handle)?;
        Ok(Self {
            buffer,
            range,
            handle,
            fixture,
            ta,
        })
    }

    /// Bytes, as the kernel's calls want them.
    pub fn length(&self) -> usize {
        self.fixture.ciphertext.len()
    }

    /// Fails unless the content is what it was, under the same name, and fenced.
    pub fn unharmed(&mut self) -> anyhow::Result<()> {
        anyhow::ensure!(handle(&self.buffer)? == self.handle, "another handle");
        self.fixture.expect_content(&mut self.ta, self.handle)?;
        expect_killed(self.range.last_page(), "the last page after the attack")?;
        Ok(())
    }

    /// Releases it; what it was in must be zeros then.
    pub fn release(self) -> anyhow::Result<()> {
        let range = self.range;
        drop(self);
        expect_zero(range, "after release")
    }
}

/// Runs an attack on a live protected buffer. The content must come through it
/// unharmed, and leave nothing behind.
pub fn attacked(attack: impl FnOnce(&mut Prey) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let mut prey = Prey::new()?;
    attack(&mut prey)?;
    prey.unharmed()?;
    prey.release()
}
