// SPDX-License-Identifier: GPL-2.0

//! For tests only: a kernel module that is after protected memory.
//!
//! It takes its orders by `/sys/kernel/debug/ringfence_hostile/order`, one in each
//! write, which fails with the errno that the attack met. What an attack brought
//! home is read from the same file. Numbers are decimal, or hexadecimal with `0x`.
//!
//! | order | does | brings home |
//! |---|---|---|
//! | `touch PHYS MAPPING TOUCH` | maps a page (`wb`, `wc`, `io`, `vmap`) and touches it (`nothing`, `read`, `nofault`, `write`) | the word that was read |
//! | `smc FUNCTION X1 X2` | calls the firmware | its answer |
//! | `attach FD DEVICE` | attaches the buffer to a device | - |
//! | `map FD DEVICE` | attaches it, maps it for DMA, and keeps it so | address, bytes, entries, entries with a page |
//! | `release` | gives back all that `map` keeps | - |
//! | `vmap FD`, `cpu FD` | wants it in the kernel's address space, accesses it by the CPU | - |
//! | `dma PHYS` | has QEMU's fw_cfg write four bytes there | - |
//! | `awake WHETHER` | keeps the devices on PCI awake through suspends (`yes`, `no`) | - |
//! | `protect PHYS BYTES`, `unprotect HANDLE` | asks the trusted application, with the kernel's login | its result code |
//!
//! DEVICE is the width of the DMA mask of a device made for it, in bits, or a path
//! in the devicetree.

use core::{
    ffi::CStr,
    ptr::NonNull, //
};

use kernel::{
    debugfs::{
        Dir,
        File, //
    },
    fmt,
    new_mutex,
    prelude::*,
    str::CString,
    sync::Mutex,
    uaccess::UserSliceReader,
    InPlaceModule, //
};
use ringfence_core::tee::{
    Failure,
    Param,
    Session, //
};

#[path = "../../../ta/proto/src/command.rs"]
#[expect(
    clippy::wrong_self_convention,
    dead_code,
    unreachable_pub,
    reason = "the file is the whole protocol, of which this module needs a part"
)]
mod command;
mod inlines;

use inlines::{
    RawImporter,
    View, //
};

/// The longest order, in bytes.
const LONGEST: usize = 128;

/// A buffer in the hands of a device, until it is dropped.
///
/// # Invariants
///
/// The pointer is what `hostile_import` has made, and ours alone.
struct Importer(NonNull<RawImporter>);

// SAFETY: An importer may be used and released from any thread.
unsafe impl Send for Importer {}

impl Importer {
    /// Attaches the buffer behind a file descriptor of the current process.
    fn attach(fd: i32, device: &str) -> Result<Self> {
        let mut raw = core::ptr::null_mut();
        let path;
        let (node, mask) = if device.starts_with('/') {
            path = CString::try_from_fmt(fmt!("{device}"))?;
            (path.as_char_ptr(), 0)
        } else {
            let bits: u32 = device.parse().map_err(|_| EINVAL)?;
            let unused = u64::BITS.checked_sub(bits).ok_or(EINVAL)?;
            (core::ptr::null(), u64::MAX.checked_shr(unused).unwrap_or(0))
        };
        // SAFETY: `node` is null, or a string that outlives the call.
        kernel::error::to_result(unsafe { inlines::hostile_import(fd, node, mask, &mut raw) })?;
        // INVARIANT: The function has just made it.
        Ok(Self(NonNull::new(raw).ok_or(EINVAL)?))
    }

    /// Maps it for the device's DMA.
    fn map(&mut self) -> Result<View> {
        let mut view = View::default();
        // SAFETY: By the type invariants the importer is live.
        kernel::error::to_result(unsafe { inlines::hostile_map(self.0.as_ptr(), &mut view) })?;
        Ok(view)
    }
}

impl Drop for Importer {
    fn drop(&mut self) {
        // SAFETY: By the type invariants the importer is live, and ours to release.
        unsafe { inlines::hostile_release(self.0.as_ptr()) };
    }
}

/// What an attack has brought home.
enum Loot {
    Nothing,
    Number(u64),
    View(View),
}

struct Inner {
    loot: Loot,
    kept: KVec<Importer>,
}

/// What the orders share.
#[pin_data]
struct State {
    #[pin]
    inner: Mutex<Inner>,
}

fn number(word: Option<&str>) -> Result<u64> {
    let word = word.ok_or(EINVAL)?;
    match word.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => word.parse(),
    }
    .map_err(|_| EINVAL)
}

fn fd(word: Option<&str>) -> Result<i32> {
    word.ok_or(EINVAL)?.parse().map_err(|_| EBADF)
}

/// The position of a word in a list, which is how the C side counts.
fn choice(word: Option<&str>, words: &[&str]) -> Result<c_int> {
    let word = word.ok_or(EINVAL)?;
    let index = words.iter().position(|known| *known == word);
    c_int::try_from(index.ok_or(EINVAL)?).map_err(|_| EINVAL)
}

/// The result code of a command to the trusted application, with the kernel's login.
fn command(code: u32, params: &mut [Param<'_>; 4]) -> Result<Loot> {
    let answer = Session::open(&command::TA_UUID).and_then(|session| session.invoke(code, params));
    match answer {
        Ok(()) => Ok(Loot::Number(command::result::SUCCESS.into())),
        Err(Failure::Answer(code)) => Ok(Loot::Number(code.into())),
        Err(Failure::Transport(error)) => Err(error),
    }
}

fn value(number: u64) -> Param<'static> {
    let (high, low) = command::split(number);
    Param::ValueIn(high, low)
}

/// Carries an order out.
fn obey(inner: &mut Inner, order: &str) -> Result<Loot> {
    let mut words = order.split_whitespace();
    match words.next().ok_or(EINVAL)? {
        "touch" => {
            let phys = number(words.next())?;
            let mapping = choice(words.next(), &["wb", "wc", "io", "vmap"])?;
            let touch = choice(words.next(), &["nothing", "read", "nofault", "write"])?;
            let mut word = u64::MAX;
            // SAFETY: The order is to touch memory that nobody in Linux uses. Where it is not
            // allowed, the CPU stops this kernel: that is what the test is after.
            kernel::error::to_result(unsafe {
                inlines::hostile_touch(phys, mapping, touch, &mut word)
            })?;
            Ok(Loot::Number(word))
        }
        "smc" => {
            let (function, x1, x2) = (
                number(words.next())?,
                number(words.next())?,
                number(words.next())?,
            );
            // SAFETY: The firmware's answer changes no memory of Linux: the service is not for
            // the normal world, which is what the test is after.
            Ok(Loot::Number(unsafe {
                inlines::hostile_smc(function, x1, x2)
            }))
        }
        "attach" => {
            drop(Importer::attach(
                fd(words.next())?,
                words.next().ok_or(EINVAL)?,
            )?);
            Ok(Loot::Nothing)
        }
        "map" => {
            let mut importer = Importer::attach(fd(words.next())?, words.next().ok_or(EINVAL)?)?;
            let view = importer.map()?;
            inner.kept.push(importer, GFP_KERNEL)?;
            Ok(Loot::View(view))
        }
        "release" => {
            inner.kept.clear();
            Ok(Loot::Nothing)
        }
        "vmap" => {
            // SAFETY: Any number may be asked for.
            kernel::error::to_result(unsafe { inlines::hostile_vmap(fd(words.next())?) })?;
            Ok(Loot::Nothing)
        }
        "cpu" => {
            // SAFETY: Any number may be asked for.
            kernel::error::to_result(unsafe { inlines::hostile_cpu_access(fd(words.next())?) })?;
            Ok(Loot::Nothing)
        }
        "dma" => {
            let phys = number(words.next())?;
            // SAFETY: The order is to write to memory that nobody in Linux uses.
            kernel::error::to_result(unsafe { inlines::hostile_dma(phys) })?;
            Ok(Loot::Nothing)
        }
        "awake" => {
            let awake = choice(words.next(), &["no", "yes"])? == 1;
            // SAFETY: Nothing is asked of the caller.
            kernel::error::to_result(unsafe { inlines::hostile_keep_awake(awake) })?;
            Ok(Loot::Nothing)
        }
        "protect" => command(
            command::PROTECT,
            &mut [
                value(number(words.next())?),
                value(number(words.next())?),
                Param::ValueOut(0, 0),
                Param::None,
            ],
        ),
        "unprotect" => command(
            command::UNPROTECT,
            &mut [
                value(number(words.next())?),
                Param::None,
                Param::None,
                Param::None,
            ],
        ),
        _ => Err(EINVAL),
    }
}

fn take_order(state: &State, reader: &mut UserSliceReader) -> Result {
    let mut text = [0; LONGEST];
    let length = reader.len();
    let bytes = text.get_mut(..length).ok_or(E2BIG)?;
    reader.read_slice(bytes)?;
    let order = core::str::from_utf8(bytes).map_err(|_| EINVAL)?;
    let mut inner = state.inner.lock();
    inner.loot = Loot::Nothing;
    inner.loot = obey(&mut inner, order)?;
    Ok(())
}

fn show_loot(state: &State, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match &state.inner.lock().loot {
        Loot::Nothing => writeln!(f),
        Loot::Number(number) => writeln!(f, "{number:#x}"),
        Loot::View(view) => writeln!(
            f,
            "{:#x} {:#x} {:#x} {:#x}",
            view.address, view.size, view.entries, view.pages
        ),
    }
}

#[pin_data]
struct Hostile {
    #[pin]
    orders: File<State>,
}

impl InPlaceModule for Hostile {
    fn init(_module: &'static ThisModule) -> impl PinInit<Self, Error> {
        const NAME: &CStr = c"ringfence_hostile";
        let state = pin_init!(State {
            inner <- new_mutex!(Inner {
                loot: Loot::Nothing,
                kept: KVec::new(),
            }),
        });
        try_pin_init!(Self {
            orders <- Dir::new(NAME).read_write_callback_file(
                c"order",
                state,
                &show_loot,
                &take_order,
            ),
        })
    }
}

module! {
    type: Hostile,
    name: "ringfence_hostile",
    authors: ["Ringfence"],
    description: "Attacks on protected memory from inside the kernel, for tests",
    license: "GPL",
    imports_ns: ["DMA_BUF"],
}
