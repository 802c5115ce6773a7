// SPDX-License-Identifier: GPL-2.0

//! Fault injection, in test builds (`RINGFENCE_TEST=1`) only.
//!
//! Writing `<point> <n>` to `/sys/kernel/debug/ringfence/inject` makes the nth
//! next pass through that point fail, once; `n` = 0 disarms it. Reading shows
//! what is armed. In other builds [`check`] is nothing.

/// Where a failure can be injected.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Point {
    /// Finding a range in the carveout (ENOMEM).
    Range,
    /// Memory for a range's record (ENOMEM).
    Record,
    /// Zeroing a range that is being allocated (EIO).
    Scrub,
    /// Zeroing a window in the background (EIO).
    Background,
    /// A command to the secure world, before it is sent (EIO).
    Tee,
    /// A command to the secure world, after it was carried out (EIO).
    Answer,
    /// Opening a range, which is said to be in use in the secure world (EBUSY).
    Busy,
    /// A block of pages (ENOMEM).
    Pages,
    /// Exporting the dma-buf (ENOMEM).
    Export,
    /// Mapping for a device (EIO).
    Map,
}

#[cfg(not(RINGFENCE_TEST))]
mod imp {
    use super::Point;
    use kernel::prelude::*;

    /// Passes the point.
    #[inline(always)]
    pub fn check(_point: Point) -> Result {
        Ok(())
    }

    pub(crate) fn init() {}
}

#[cfg(RINGFENCE_TEST)]
mod imp {
    use super::Point;
    use kernel::{
        debugfs::File,
        fmt,
        prelude::*,
        sync::{
            atomic::{
                Atomic,
                Relaxed, //
            },
            SetOnce, //
        },
        uaccess::UserSliceReader, //
    };

    const POINTS: [(&str, Point); 10] = [
        ("range", Point::Range),
        ("record", Point::Record),
        ("scrub", Point::Scrub),
        ("background", Point::Background),
        ("tee", Point::Tee),
        ("answer", Point::Answer),
        ("busy", Point::Busy),
        ("pages", Point::Pages),
        ("export", Point::Export),
        ("map", Point::Map),
    ];

    /// Passes until each point fails; 0 means never.
    static ARMED: [Atomic<i32>; POINTS.len()] = [const { Atomic::new(0) }; POINTS.len()];

    /// Whether any point was ever armed.
    static USED: Atomic<i32> = Atomic::new(0);

    /// Passes the point, unless it is its turn to fail.
    ///
    /// # Errors
    ///
    /// The one that [`Point`] names.
    #[inline(always)]
    pub fn check(point: Point) -> Result {
        // An atomic load is a call, and this is in the way of everything that is measured.
        // SAFETY: The place is valid, and accesses of this size are not torn.
        if unsafe { USED.as_ptr().read_volatile() } == 0 {
            return Ok(());
        }
        pass(point)
    }

    #[cold]
    fn pass(point: Point) -> Result {
        let armed = &ARMED[point as usize];
        loop {
            let left = armed.load(Relaxed);
            if left <= 0 {
                return Ok(());
            }
            if armed.cmpxchg(left, left - 1, Relaxed).is_ok() {
                if left > 1 {
                    return Ok(());
                }
                return Err(match point {
                    Point::Range | Point::Record | Point::Pages | Point::Export => ENOMEM,
                    Point::Busy => EBUSY,
                    Point::Scrub | Point::Background | Point::Tee | Point::Answer | Point::Map => {
                        EIO
                    }
                });
            }
        }
    }

    struct Control;

    /// Never removed, as the module never unloads.
    static FILE: SetOnce<Pin<KBox<File<Control>>>> = SetOnce::new();

    fn show(_: &Control, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, point) in POINTS {
            let left = ARMED[point as usize].load(Relaxed);
            writeln!(f, "{name} {left}")?;
        }
        Ok(())
    }

    fn arm(_: &Control, reader: &mut UserSliceReader) -> Result {
        let mut text = [0; 32];
        let length = reader.len();
        let bytes = text.get_mut(..length).ok_or(EINVAL)?;
        reader.read_slice(bytes)?;
        let line = core::str::from_utf8(bytes).map_err(|_| EINVAL)?;
        let (name, count) = line.trim().split_once(' ').ok_or(EINVAL)?;
        let count: i32 = count.trim().parse().map_err(|_| EINVAL)?;
        let (_, point) = POINTS
            .into_iter()
            .find(|(known, _)| *known == name)
            .ok_or(EINVAL)?;
        if count < 0 {
            return Err(EINVAL);
        }
        ARMED[point as usize].store(count, Relaxed);
        USED.store(1, Relaxed);
        Ok(())
    }

    pub(crate) fn init() {
        let Some(root) = crate::registry::debugfs_root() else {
            return;
        };
        let file: Result<Pin<KBox<File<Control>>>> = KBox::pin_init(
            root.read_write_callback_file(c"inject", Control, &show, &arm),
            GFP_KERNEL,
        );
        match file {
            Ok(file) => {
                FILE.populate(file);
            }
            Err(error) => pr_warn!("no fault injection: {:?}\n", error),
        }
    }
}

pub use imp::check;
pub(crate) use imp::init;
