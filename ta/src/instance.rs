// SPDX-License-Identifier: MIT OR Apache-2.0

//! What each command does.
//!
//! OP-TEE runs one command of the TA at a time, so that an [`Instance`] is
//! plain data without locks.

use core::ptr::NonNull;

use heapless::Vec;
use ringfence_proto::command::{RangeKind, MAX_HELD, PROTOCOL_VERSION};
use ringfence_proto::firewall;
use ringfence_proto::message::{Decrypt, DecryptSample, DigestRequest, Info, Scheme};

use crate::firewall::{Firewall, FirewallInfo, Held, Mapping};
use crate::handles::{Entry, Handle, HandleTable};
use crate::keys::{ContentKey, KeyStore, MAX_KEYS};
use crate::policy::{Client, Content};
use crate::refusal::Refusal;
use crate::sample::{self, SampleCipher};
use crate::shared::SharedBytes;
use crate::windows::Range;

/// Sessions of user space that are open at once, at most. The kernel's do not
/// count, so that user space cannot keep it out.
pub const MAX_PUBLIC_SESSIONS: usize = 64;

/// Decrypts content piece by piece.
pub trait Decryptor {
    /// Decrypts the next bytes: as many as `plaintext` has, which is as many
    /// as `ciphertext` has. Each byte of `ciphertext` is read once at most.
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
}

/// Takes a digest of content piece by piece.
pub trait Digester {
    /// Takes in the next bytes.
    ///
    /// # Errors
    ///
    /// Whatever the cryptography answers.
    ///
    /// # Safety
    ///
    /// `bytes` must be readable.
    unsafe fn digest(&mut self, bytes: NonNull<[u8]>) -> Result<(), Refusal>;
}

/// One session: who opened it, and what was loaded in it.
#[derive(Default)]
pub struct Session {
    /// Who opened it.
    pub client: Client,
    /// The keys that it may use.
    pub keys: KeyStore,
    /// Windows that it keeps mapped; in test builds only.
    held: Vec<Held, MAX_HELD>,
}

/// The state of the TA that all sessions share: at most `N` protected ranges.
pub struct Instance<F, R, const N: usize> {
    firewall: F,
    random: R,
    handles: HandleTable<N>,
    /// What the firewall says about itself, once it has been asked.
    info: Option<FirewallInfo>,
    /// Whether `handles` has followed the ledger since this instance began.
    synchronised: bool,
    public_sessions: usize,
}

impl<F: Firewall, R: FnMut() -> u64, const N: usize> Instance<F, R, N> {
    /// An instance that knows nothing yet, and learns from the firewall when
    /// it is first needed. `random` must be good enough for secrets.
    pub const fn new(firewall: F, random: R) -> Self {
        Self {
            firewall,
            random,
            handles: HandleTable::new(),
            info: None,
            synchronised: false,
            public_sessions: 0,
        }
    }

    /// Admits a session.
    ///
    /// # Errors
    ///
    /// [`Refusal::Full`] when user space has too many open already.
    pub fn open(&mut self, client: Client) -> Result<Session, Refusal> {
        if client == Client::Public {
            if self.public_sessions >= MAX_PUBLIC_SESSIONS {
                return Err(Refusal::Full);
            }
            self.public_sessions += 1;
        }
        Ok(Session {
            client,
            ..Session::default()
        })
    }

    /// Notes that a session, which [`open`](Self::open) admitted, is gone.
    ///
    /// # Panics
    ///
    /// If the firewall does not unmap what the session held, as for a
    /// [`Mapping`].
    pub fn close(&mut self, session: &mut Session) {
        if let Err(refusal) = self.let_go(session) {
            panic!("held window cannot be unmapped: {refusal}");
        }
        if session.client == Client::Public {
            self.public_sessions = self.public_sessions.saturating_sub(1);
        }
    }

    /// What the firewall says about itself; asked once.
    fn firewall_info(&mut self) -> Result<FirewallInfo, Refusal> {
        if let Some(info) = self.info {
            return Ok(info);
        }
        let info = self.firewall.info()?;
        if info.protocol != firewall::PROTOCOL_VERSION {
            return Err(Refusal::Firewall);
        }
        self.info = Some(info);
        Ok(info)
    }

    /// Makes the handles follow the ledger.
    ///
    /// # Errors
    ///
    /// See [`HandleTable::reconcile`].
    pub fn synchronise(&mut self) -> Result<(), Refusal> {
        let mut read = false;
        let outcome = self.handles.reconcile(
            |each| {
                self.firewall.list(each)?;
                read = true;
                Ok(())
            },
            &mut self.random,
        );
        // One range that cannot be named must not keep the others from use.
        self.synchronised |= read;
        outcome
    }

    /// Makes the handles follow the ledger once, before they are first used.
    fn begin(&mut self) -> Result<(), Refusal> {
        match self.synchronised {
            true => Ok(()),
            false => self.synchronise(),
        }
    }

    /// HELLO: protocol version, and granule in bytes.
    ///
    /// # Errors
    ///
    /// [`Refusal::NotTheKernel`]; or the firewall cannot be reached.
    pub fn hello(&mut self, session: &Session) -> Result<(u32, u32), Refusal> {
        session.client.must_be_kernel()?;
        self.begin()?;
        Ok((PROTOCOL_VERSION, self.firewall_info()?.granule))
    }

    /// PROTECT: fences a range off, and names it.
    ///
    /// # Errors
    ///
    /// [`Refusal::NotTheKernel`], [`Refusal::OutOfBounds`] for what is no
    /// range, [`Refusal::Full`], or the firewall's refusal. The range is as it
    /// was, or else the ledger shows it in quarantine.
    pub fn protect(&mut self, session: &Session, start: u64, size: u64) -> Result<Handle, Refusal> {
        session.client.must_be_kernel()?;
        let range = Range::new(start, size).ok_or(Refusal::OutOfBounds)?;
        self.begin()?;
        if self.handles.is_full() {
            return Err(Refusal::Full);
        }
        let (use_case, kind) = self.firewall.protect(range)?;
        let named = RangeKind::from_raw(kind)
            .ok_or(Refusal::Firewall)
            .and_then(|kind| self.handles.insert(range, use_case, kind, &mut self.random));
        if named.is_err() && self.firewall.unprotect(range).is_err() {
            // Fenced without a name: the ledger is read again to give it one.
            self.synchronised = false;
        }
        named
    }

    /// NAME: makes a part of a region known, and names it.
    ///
    /// # Errors
    ///
    /// [`Refusal::NotTheKernel`], [`Refusal::OutOfBounds`] for what is no
    /// range, [`Refusal::Full`], or the firewall's refusal.
    pub fn name(&mut self, session: &Session, start: u64, size: u64) -> Result<Handle, Refusal> {
        session.client.must_be_kernel()?;
        let part = Range::new(start, size).ok_or(Refusal::OutOfBounds)?;
        self.begin()?;
        if self.handles.is_full() {
            return Err(Refusal::Full);
        }
        let use_case = self.firewall.name(part)?;
        let kind = RangeKind::Part;
        let named = self.handles.insert(part, use_case, kind, &mut self.random);
        if named.is_err() && self.firewall.forget(part).is_err() {
            // Known without a handle: the ledger is read again to give it one.
            self.synchronised = false;
        }
        named
    }

    /// SCRUB: zeroes a stretch of a region in which no part is known.
    ///
    /// # Errors
    ///
    /// [`Refusal::NotTheKernel`], [`Refusal::OutOfBounds`] for what is no
    /// range, or the firewall's refusal.
    pub fn scrub(&mut self, session: &Session, start: u64, size: u64) -> Result<(), Refusal> {
        session.client.must_be_kernel()?;
        let stretch = Range::new(start, size).ok_or(Refusal::OutOfBounds)?;
        self.firewall.scrub(stretch)
    }

    /// ABILITIES: granule in bytes, and windows of the firewall, 0 for no limit.
    ///
    /// # Errors
    ///
    /// [`Refusal::NotTheKernel`]; or the firewall cannot be reached.
    pub fn abilities(&mut self, session: &Session) -> Result<(u32, u32), Refusal> {
        session.client.must_be_kernel()?;
        let info = self.firewall_info()?;
        Ok((info.granule, info.windows))
    }

    /// UNPROTECT: scrubs a range and opens it to the normal world; a part of a
    /// region stays fenced.
    ///
    /// # Errors
    ///
    /// [`Refusal::NotTheKernel`], [`Refusal::UnknownHandle`], or the
    /// firewall's refusal: the handle is closed to content commands then, and
    /// stays for another try.
    pub fn unprotect(&mut self, session: &Session, handle: u64) -> Result<(), Refusal> {
        session.client.must_be_kernel()?;
        self.begin()?;
        let handle = Handle::from_raw(handle)?;
        match self.handles.revoke(handle)? {
            (part, RangeKind::Part) => self.firewall.forget(part)?,
            (range, _) => self.firewall.unprotect(range)?,
        }
        self.handles.remove(handle);
        Ok(())
    }

    /// LIST: all ranges of the ledger with their handles.
    ///
    /// # Errors
    ///
    /// [`Refusal::NotTheKernel`]; see [`synchronise`](Self::synchronise).
    pub fn list(&mut self, session: &Session) -> Result<&HandleTable<N>, Refusal> {
        session.client.must_be_kernel()?;
        self.synchronise()?;
        Ok(&self.handles)
    }

    /// INFO: what the TA is and how it stands.
    ///
    /// # Errors
    ///
    /// The firewall cannot be reached.
    pub fn info(&mut self, session: &Session) -> Result<Info, Refusal> {
        self.synchronise()?;
        let firewall = self.firewall_info()?;
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        Ok(Info {
            protocol: PROTOCOL_VERSION,
            test_commands: cfg!(feature = "test-commands"),
            granule: firewall.granule,
            window: firewall.window,
            regions: firewall.regions,
            ranges: count(self.handles.len()),
            quarantined: count(self.handles.quarantined()),
            max_ranges: count(N),
            keys: count(session.keys.len()),
            max_keys: count(MAX_KEYS),
        })
    }

    /// The range whose content a command is to touch.
    fn content(&mut self, handle: u64, command: Content) -> Result<Range, Refusal> {
        self.begin()?;
        let entry: &Entry = self.handles.usable(Handle::from_raw(handle)?)?;
        command.must_be_open_to(entry.use_case())?;
        Ok(entry.range)
    }

    /// RESOLVE: the range that a handle for secure video names.
    ///
    /// # Errors
    ///
    /// [`Refusal::NotTheDecoder`], [`Refusal::UnknownHandle`], also for one that
    /// was released, [`Refusal::UseCase`], or what the firewall says.
    pub fn resolve(&mut self, session: &Session, handle: u64) -> Result<Range, Refusal> {
        session.client.must_be_decoder()?;
        self.content(handle, Content::Decode)
    }

    /// DECRYPT: decrypts content into a range, and returns the bytes written.
    /// `begin` makes the cipher of the session's key, before anything is
    /// mapped.
    ///
    /// # Errors
    ///
    /// [`Refusal::UnknownHandle`], [`Refusal::UseCase`],
    /// [`Refusal::UnknownKey`], [`Refusal::OutOfBounds`],
    /// [`Refusal::NotShared`] for content that lies in the range itself, or what
    /// the firewall or the cipher says. The range may hold a part of the content
    /// then.
    pub fn decrypt<D: Decryptor>(
        &mut self,
        session: &Session,
        handle: u64,
        request: &Decrypt,
        mut ciphertext: SharedBytes<'_>,
        begin: impl FnOnce(&ContentKey, &[u8; 16]) -> Result<D, Refusal>,
    ) -> Result<u64, Refusal> {
        let range = self.content(handle, Content::Decrypt)?;
        let key = session.keys.get(&request.key_id)?;
        let length = u64::try_from(ciphertext.len()).map_err(|_| Refusal::OutOfBounds)?;
        let span = range.span(request.offset, length)?;
        let windows = span.windows(self.firewall_info()?.window.into())?;
        let mut cipher = begin(key, &request.counter)?;
        for window in windows {
            let mut mapping = Mapping::new(&mut self.firewall, window)?;
            let plaintext = mapping.bytes()?;
            // The binary takes no secure memory for input; this does not rely on it.
            if ciphertext.overlaps(plaintext) {
                return Err(Refusal::NotShared);
            }
            // SAFETY: the bytes are mapped, writable, until `mapping` goes.
            unsafe { cipher.decrypt(ciphertext.take(plaintext.len()), plaintext)? };
        }
        Ok(length)
    }

    /// DECRYPT_SAMPLE: carries a sample, or a piece of one, into a range, and
    /// returns the bytes written. `begin` makes the cipher of the session's key,
    /// before anything is mapped.
    ///
    /// # Errors
    ///
    /// As [`decrypt`](Self::decrypt); [`Refusal::OutOfBounds`] also for a request
    /// that [`sample::check`] refuses.
    pub fn decrypt_sample<C: SampleCipher>(
        &mut self,
        session: &Session,
        handle: u64,
        request: &DecryptSample,
        content: SharedBytes<'_>,
        begin: impl FnOnce(&ContentKey, Scheme) -> Result<C, Refusal>,
    ) -> Result<u64, Refusal> {
        let range = self.content(handle, Content::Decrypt)?;
        let key = session.keys.get(&request.key_id)?;
        sample::check(request, content.len())?;
        let length = u64::try_from(content.len()).map_err(|_| Refusal::OutOfBounds)?;
        let span = range.span(request.offset, length)?;
        let window = span.window(self.firewall_info()?.window.into())?;
        let mut cipher = begin(key, request.scheme)?;
        let mut mapping = Mapping::new(&mut self.firewall, window)?;
        let plaintext = mapping.bytes()?;
        // The binary takes no secure memory for input; this does not rely on it.
        if content.overlaps(plaintext) {
            return Err(Refusal::NotShared);
        }
        // SAFETY: the bytes are mapped, readable and writable, until `mapping` goes;
        // just checked that they are others than those of `content`.
        unsafe { sample::decrypt(request, content, plaintext, &mut cipher)? };
        Ok(length)
    }

    /// DIGEST: hands the content of a range to a digest.
    ///
    /// # Errors
    ///
    /// [`Refusal::UnknownHandle`], [`Refusal::OutOfBounds`], or what the
    /// firewall or the digest says.
    pub fn digest(
        &mut self,
        handle: u64,
        request: &DigestRequest,
        digest: &mut impl Digester,
    ) -> Result<(), Refusal> {
        let range = self.content(handle, Content::Digest)?;
        let span = range.span(request.offset, request.length)?;
        for window in span.windows(self.firewall_info()?.window.into())? {
            let mut mapping = Mapping::new(&mut self.firewall, window)?;
            let bytes = mapping.bytes()?;
            // SAFETY: the bytes are mapped, readable, until `mapping` goes.
            unsafe { digest.digest(bytes)? };
        }
        Ok(())
    }

    /// FILL: fills a range with a byte.
    ///
    /// # Errors
    ///
    /// [`Refusal::UnknownHandle`], or what the firewall says.
    pub fn fill(&mut self, handle: u64, byte: u8) -> Result<(), Refusal> {
        let range = self.content(handle, Content::Hold)?;
        let span = range.span(0, range.size())?;
        for window in span.windows(self.firewall_info()?.window.into())? {
            let mut mapping = Mapping::new(&mut self.firewall, window)?;
            let bytes = mapping.bytes()?;
            // SAFETY: the bytes are mapped, writable, until `mapping` goes.
            unsafe { bytes.cast::<u8>().write_bytes(byte, bytes.len()) };
        }
        Ok(())
    }

    /// METER: what the firewall's work has cost since the last METER.
    ///
    /// # Errors
    ///
    /// What the firewall says; it must be a test build as well.
    #[cfg(feature = "test-commands")]
    pub fn meter(&mut self) -> Result<crate::firewall::Costs, Refusal> {
        self.firewall.meter()
    }

    /// HOLD: keeps a part of a range mapped, which must be within one window.
    ///
    /// # Errors
    ///
    /// [`Refusal::UnknownHandle`], [`Refusal::OutOfBounds`], also for what
    /// takes several windows, [`Refusal::Full`], or what the firewall says.
    pub fn hold(
        &mut self,
        session: &mut Session,
        handle: u64,
        offset: u64,
        length: u64,
    ) -> Result<(), Refusal> {
        let range = self.content(handle, Content::Hold)?;
        let span = range.span(offset, length)?;
        let mut windows = span.windows(self.firewall_info()?.window.into())?;
        let (Some(window), None) = (windows.next(), windows.next()) else {
            return Err(Refusal::OutOfBounds);
        };
        if session.held.is_full() {
            return Err(Refusal::Full);
        }
        let held = Mapping::new(&mut self.firewall, window)?.hold();
        session.held.push(held).map_err(|_| Refusal::Full)
    }

    /// LET_GO: unmaps what the session holds.
    ///
    /// # Errors
    ///
    /// What the firewall says; the window in question is forgotten, and stays
    /// mapped as long as this instance lives.
    pub fn let_go(&mut self, session: &mut Session) -> Result<(), Refusal> {
        while let Some(held) = session.held.pop() {
            held.let_go(&mut self.firewall)?;
        }
        Ok(())
    }

    /// INJECT: hands a fault on to the firewall.
    ///
    /// # Errors
    ///
    /// What the firewall says; it must be a test build as well.
    #[cfg(feature = "test-commands")]
    pub fn inject(&mut self, point: u32, nth: u32) -> Result<(), Refusal> {
        self.firewall.inject(point, nth)
    }
}
