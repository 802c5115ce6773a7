// SPDX-License-Identifier: MIT OR Apache-2.0

//! Allocation through `/dev/ringfence`: wishes are fulfilled to the letter or
//! refused, heaps are asked in order, and no answer leaks a file.

use std::fs::{self, File};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

use ringfence::buffer::Buffer;
use ringfence::control::Control;
use ringfence::error::{AllocationFailure, Error};
use ringfence::fallback::Reason;
use ringfence::request::Request;
use ringfence::uapi;
use ringfence_tests::guest::allocation::{
    self, ioctl_null, ioctl_sized, ordinary_flags, ReadOnlyPage,
};
use ringfence_tests::guest::{deadline, debug, expect_errno, heap_info, open_files};
use rustix::io::Errno;
use rustix::ioctl::{ioctl, Updater};

use super::region::{self, CAMERA, DECLARED, FIRMWARE, UI, VIDEO};
use super::{settled, Test};

pub const TESTS: &[Test] = &[
    ("the_first_heap_that_can_serves", the_first_that_can),
    ("what_came_of_each_heap_is_told", outcomes_are_told),
    ("the_wanted_heap_decides_the_errno", errno_of_the_first),
    (
        "a_missing_property_is_never_traded",
        properties_are_not_traded,
    ),
    ("alignment_is_kept", alignment_is_kept),
    ("top_down_takes_the_upper_end", top_down),
    ("no_wait_does_not_wait", no_wait),
    ("malformed_requests_are_refused", malformed),
    (
        "an_answer_that_can_not_be_written_leaks_nothing",
        unwritable_answers,
    ),
    ("a_process_without_a_free_fd_leaks_nothing", no_free_fd),
    ("the_heap_query_tells_what_can_be_asked", heap_query),
];

const PAGE: u64 = 4096;

/// Names as the driver takes them.
fn names(heaps: &[&str]) -> Vec<[u8; uapi::NAME_SIZE]> {
    heaps
        .iter()
        .map(|heap| uapi::encode_name(heap).expect("a short name"))
        .collect()
}

/// A call that is well formed; `names` and `outcomes` must outlive it.
fn call(names: &[[u8; uapi::NAME_SIZE]], outcomes: &mut [i32]) -> uapi::Alloc {
    uapi::Alloc {
        size: PAGE,
        heaps: names.as_ptr() as u64,
        outcomes: outcomes.as_mut_ptr() as u64,
        heap_count: names.len() as u32,
        fd_flags: ordinary_flags(),
        ..Default::default()
    }
}

fn raw(control: &File, argument: &mut uapi::Alloc) -> Result<Buffer, Errno> {
    // SAFETY: The number carries the structure's size, and the structure is
    // borrowed mutably for the call. Addresses in it are those of live memory of
    // the callers, or such as the kernel must refuse.
    unsafe { ioctl(control, Updater::<{ uapi::ALLOC }, _>::new(argument)) }?;
    // SAFETY: The call has succeeded, so this is a new fd that nobody else owns.
    Ok(Buffer::from(unsafe { OwnedFd::from_raw_fd(argument.fd) }))
}

fn control() -> anyhow::Result<File> {
    Ok(File::open(uapi::CONTROL_PATH)?)
}

fn the_first_that_can() -> anyhow::Result<()> {
    let control = Control::open()?;
    let allocated = control.allocate(&Request::new(PAGE).from(CAMERA).or_from(VIDEO))?;
    anyhow::ensure!(allocated.heap == CAMERA && allocated.refused.is_empty());
    anyhow::ensure!(control.buffer(&allocated.buffer)?.heap == CAMERA);

    // Too large for one, so the other one serves.
    let size = heap_info(UI)?.size + PAGE;
    let allocated = control.allocate(&Request::new(size).from(UI).or_from(CAMERA))?;
    anyhow::ensure!(allocated.heap == CAMERA, "{}", allocated.heap);
    anyhow::ensure!(
        allocated.refused.len() == 1 && allocated.refused[0].heap == UI,
        "{:?}",
        allocated.refused
    );
    let info = control.buffer(&allocated.buffer)?;
    anyhow::ensure!(info.heap == CAMERA && info.size == size, "{info:?}");
    Ok(())
}

fn outcomes_are_told() -> anyhow::Result<()> {
    let control = control()?;
    let names = names(&["no-such-heap", UI, CAMERA, VIDEO]);
    let mut outcomes = [77; 4];
    let mut argument = call(&names, &mut outcomes);
    argument.size = heap_info(UI)?.size + PAGE;
    drop(raw(&control, &mut argument)?);
    anyhow::ensure!(argument.index == 2, "heap {} served", argument.index);
    let expected = [
        Errno::NOENT.raw_os_error(),
        Errno::NOMEM.raw_os_error(),
        0,
        uapi::NOT_TRIED,
    ];
    anyhow::ensure!(outcomes == expected, "{outcomes:?}");

    // Nobody has to ask for them.
    let mut argument = call(&names[2..], &mut []);
    argument.outcomes = 0;
    drop(raw(&control, &mut argument)?);
    Ok(())
}

fn errno_of_the_first() -> anyhow::Result<()> {
    let control = control()?;
    let huge = heap_info(CAMERA)?.size + PAGE;
    for (heaps, errno, expected) in [
        (
            ["nothing", CAMERA],
            Errno::NOENT,
            [Errno::NOENT, Errno::NOMEM],
        ),
        (
            [CAMERA, "nothing"],
            Errno::NOMEM,
            [Errno::NOMEM, Errno::NOENT],
        ),
    ] {
        let names = names(&heaps);
        let mut outcomes = [77; 2];
        let mut argument = call(&names, &mut outcomes);
        argument.size = huge;
        expect_errno(raw(&control, &mut argument), errno, "two refusals")?;
        anyhow::ensure!(
            outcomes == expected.map(Errno::raw_os_error),
            "{outcomes:?}"
        );
    }
    let request = Request::new(huge).from(CAMERA).or_from("nothing");
    match Control::open()?.allocate(&request) {
        Err(Error::NoneServed { refused, .. }) => {
            anyhow::ensure!(refused.len() == 2, "{refused:?}");
            anyhow::ensure!(
                matches!(refused[0].reason, Reason::Failed(AllocationFailure::NoRoom)),
                "{refused:?}"
            );
        }
        other => anyhow::bail!("{other:?}"),
    }
    Ok(())
}

fn properties_are_not_traded() -> anyhow::Result<()> {
    let control = Control::open()?;
    let served = |request: Request| control.allocate(&request.from(FIRMWARE).or_from(VIDEO));
    let plain = Request::new(PAGE);
    anyhow::ensure!(served(plain.clone().contiguous())?.heap == FIRMWARE);
    let protected = served(plain.clone().contiguous().protected())?;
    anyhow::ensure!(protected.heap == VIDEO);
    anyhow::ensure!(control.buffer(&protected.buffer)?.protected);
    for request in [
        plain.clone().cpu_access(),
        plain.clone().protected().cpu_access(),
        plain.protected().no_wait(),
    ] {
        match served(request.clone()) {
            Err(Error::NoneServed { refused, .. }) => anyhow::ensure!(
                refused.iter().any(|refused| matches!(
                    refused.reason,
                    Reason::Failed(AllocationFailure::Unable)
                )),
                "{refused:?}"
            ),
            other => anyhow::bail!("{request:?}: {other:?}"),
        }
    }
    Ok(())
}

fn alignment_is_kept() -> anyhow::Result<()> {
    let control = Control::open()?;
    for heap in [CAMERA, VIDEO] {
        // The first page is taken, so that no alignment is there by chance.
        let (_first, _) = region::allocate(heap, PAGE)?;
        for shift in 0..=25 {
            let alignment = 1 << shift;
            let request = Request::new(3 * PAGE).from(heap).aligned_to(alignment);
            let (_buffer, range) = debug::locate(heap, || Ok(control.allocate(&request)?.buffer))?;
            anyhow::ensure!(
                range.start % alignment.max(PAGE) == 0,
                "{heap}: {range:x?} is not aligned to {alignment:#x}"
            );
        }
    }
    // Nothing in the region is aligned like that.
    let camera = region::of(CAMERA)?;
    let alignment = 1 << 30;
    anyhow::ensure!(camera.start % alignment != 0);
    let too_much = [
        (alignment, AllocationFailure::NoRoom),
        (alignment << 1, AllocationFailure::Unable),
    ];
    for (alignment, expected) in too_much {
        let request = Request::new(PAGE).from(CAMERA).aligned_to(alignment);
        match control.allocate(&request) {
            Err(Error::NoneServed { refused, .. }) => {
                let reason = refused[0].reason.to_string();
                anyhow::ensure!(
                    reason == Reason::Failed(expected).to_string(),
                    "{alignment:#x}: {reason}"
                );
            }
            other => anyhow::bail!("{alignment:#x}: {other:?}"),
        }
    }
    Ok(())
}

fn top_down() -> anyhow::Result<()> {
    let control = Control::open()?;
    let camera = region::of(CAMERA)?;
    let request = Request::new(3 * PAGE).from(CAMERA).top_down();
    let top = || debug::locate(CAMERA, || Ok(control.allocate(&request)?.buffer));
    let (upper, range) = top()?;
    anyhow::ensure!(range.end() == camera.end(), "{range:x?}");
    let (_lower, below) = top()?;
    anyhow::ensure!(below.end() == range.start, "{below:x?} under {range:x?}");
    let aligned = request.clone().aligned_to(1 << 20);
    let (_aligned, range) = debug::locate(CAMERA, || Ok(control.allocate(&aligned)?.buffer))?;
    anyhow::ensure!(range.start == camera.end() - (1 << 20), "{range:x?}");
    drop((upper, _lower, _aligned));

    // Also of memory that is not zeroed yet.
    let before = Control::open()?.heaps()?;
    drop(region::allocate(CAMERA, camera.size)?);
    let (_upper, range) = top()?;
    anyhow::ensure!(range.end() == camera.end(), "{range:x?}");
    drop(_upper);
    settled(&before)
}

fn no_wait() -> anyhow::Result<()> {
    let control = Control::open()?;
    let size = heap_info(CAMERA)?.size;
    let request = Request::new(size).from(CAMERA).no_wait();
    let refusal = |request: &Request| match control.allocate(request) {
        Ok(_) => None,
        Err(error) => Some(error.to_string()),
    };
    drop(region::allocate(CAMERA, size)?);
    // All of it is free, and none of it is clean.
    let said = refusal(&request);
    anyhow::ensure!(
        said.as_ref()
            .is_some_and(|said| said.contains("not without waiting")),
        "{said:?}"
    );
    deadline::until(Duration::from_secs(60), "clean memory", || {
        Ok(control.allocate(&request).ok().map(drop))
    })?;
    // What never fits is no matter of time.
    let said = refusal(&Request::new(size + PAGE).from(CAMERA).no_wait());
    anyhow::ensure!(
        said.as_ref()
            .is_some_and(|said| said.contains("no free run")),
        "{said:?}"
    );
    deadline::until(Duration::from_secs(60), "the scrubber", || {
        Ok((debug::figure(CAMERA, "dirty")? == 0).then_some(()))
    })
}

fn malformed() -> anyhow::Result<()> {
    let control = control()?;
    let camera = names(&[CAMERA]);
    let mut outcomes = [77; 1];
    let good = call(&camera, &mut outcomes);
    drop(raw(&control, &mut good.clone())?);

    type Change = fn(&mut uapi::Alloc);
    let cases: [(&str, Change, Errno); 17] = [
        ("no size", |call| call.size = 0, Errno::INVAL),
        (
            "the largest size",
            |call| call.size = u64::MAX,
            Errno::INVAL,
        ),
        ("no heap", |call| call.heap_count = 0, Errno::INVAL),
        ("17 heaps", |call| call.heap_count = 17, Errno::INVAL),
        (
            "4 billion heaps",
            |call| call.heap_count = u32::MAX,
            Errno::INVAL,
        ),
        ("alignment 3", |call| call.alignment = 3, Errno::INVAL),
        (
            "alignment of all ones",
            |call| call.alignment = u64::MAX,
            Errno::INVAL,
        ),
        (
            "the last alignment",
            |call| call.alignment = 1 << 63,
            Errno::OPNOTSUPP,
        ),
        ("an unknown flag", |call| call.flags = 0x40000, Errno::INVAL),
        ("online", |call| call.flags = uapi::ONLINE, Errno::INVAL),
        (
            "an unknown fd flag",
            |call| call.fd_flags |= 0o4000,
            Errno::INVAL,
        ),
        ("an fd", |call| call.fd = 1, Errno::INVAL),
        ("an index", |call| call.index = 1, Errno::INVAL),
        ("a pad", |call| call.pad = 1, Errno::INVAL),
        ("names at 0", |call| call.heaps = 0, Errno::FAULT),
        (
            "names of the kernel",
            |call| call.heaps = u64::MAX - 4095,
            Errno::FAULT,
        ),
        (
            "a size that nothing has",
            |call| call.size = 1 << 63,
            Errno::NOMEM,
        ),
    ];
    for (what, change, errno) in cases {
        let mut argument = good;
        change(&mut argument);
        expect_errno(raw(&control, &mut argument), errno, what)?;
    }

    let endless = [[b'x'; uapi::NAME_SIZE]];
    let nameless = [[0; uapi::NAME_SIZE]];
    for (what, names) in [("a name without end", &endless), ("no name", &nameless)] {
        let mut argument = call(names, &mut outcomes);
        expect_errno(raw(&control, &mut argument), Errno::INVAL, what)?;
    }

    // The name's end must be known, and the fd's place: no shorter structure will do.
    for number in [2, 3] {
        for length in [0, 4, 16, 23] {
            let mut bytes = vec![0; length];
            let outcome = ioctl_sized(&control, uapi::MAGIC, number, &mut bytes);
            expect_errno(
                outcome,
                Errno::INVAL,
                &format!("{length} bytes of {number}"),
            )?;
        }
    }
    let size = size_of::<uapi::Alloc>();
    for (longer, tail, errno) in [(8, 0, None), (8, 1, Some(Errno::TOOBIG))] {
        let mut bytes = vec![0; size + longer];
        // SAFETY: The structure has no padding, so all its bytes are initialised.
        let known = unsafe { std::slice::from_raw_parts((&raw const good).cast::<u8>(), size) };
        bytes[..size].copy_from_slice(known);
        bytes[size] = tail;
        let outcome = ioctl_sized(&control, uapi::MAGIC, 2, &mut bytes);
        match errno {
            Some(errno) => expect_errno(outcome, errno, "a newer question")?,
            None => {
                outcome?;
                let at = std::mem::offset_of!(uapi::Alloc, fd);
                let fd = i32::from_ne_bytes(bytes[at..at + 4].try_into()?);
                // SAFETY: The call has succeeded, so this is a new fd of ours.
                drop(unsafe { OwnedFd::from_raw_fd(fd) });
            }
        }
    }
    Ok(())
}

fn open_fds() -> anyhow::Result<usize> {
    Ok(fs::read_dir("/proc/self/fd")?.count())
}

fn unwritable_answers() -> anyhow::Result<()> {
    let control = control()?;
    for declared in &DECLARED {
        let names = names(&[declared.name]);
        let mut outcomes = [77; 1];
        let before = (heap_info(declared.name)?, open_fds()?);
        let good = call(&names, &mut outcomes);
        // The structure itself, then the outcomes.
        let words = {
            let mut words = [0; size_of::<uapi::Alloc>() / 8];
            // SAFETY: Both have the same size, and any bytes make numbers.
            unsafe {
                std::ptr::copy_nonoverlapping(
                    (&raw const good).cast::<u64>(),
                    words.as_mut_ptr(),
                    words.len(),
                );
            }
            words
        };
        let page = ReadOnlyPage::new(&words)?;
        for _ in 0..10 {
            let outcome = page.ioctl(&control, uapi::ALLOC);
            expect_errno(outcome, Errno::FAULT, "an answer into read-only memory")?;
            for address in [8, u64::MAX - 4095, 1 << 47] {
                let mut argument = good;
                argument.outcomes = address;
                let outcome = raw(&control, &mut argument);
                expect_errno(outcome, Errno::FAULT, "outcomes into nothing")?;
            }
        }
        expect_errno(ioctl_null(&control, uapi::ALLOC), Errno::FAULT, "nothing")?;
        let after = (heap_info(declared.name)?, open_fds()?);
        if declared.use_case == 0 {
            // What was allocated is to be zeroed again.
            deadline::until(Duration::from_secs(10), "the scrubber", || {
                Ok((debug::figure(declared.name, "dirty")? == 0).then_some(()))
            })?;
        }
        anyhow::ensure!(after == before, "{after:?}, not {before:?}");
    }
    Ok(())
}

fn no_free_fd() -> anyhow::Result<()> {
    let control = control()?;
    let names = names(&[CAMERA]);
    let mut outcomes = [77; 1];
    let before = heap_info(CAMERA)?;
    let next = control.try_clone()?.as_raw_fd();
    let limit = open_files::Limit::set(next.try_into()?)?;
    let outcome = raw(&control, &mut call(&names, &mut outcomes));
    drop(limit);
    expect_errno(outcome, Errno::MFILE, "no free fd")?;
    let after = heap_info(CAMERA)?;
    anyhow::ensure!(after == before, "{after:?}, not {before:?}");
    Ok(())
}

fn heap_query() -> anyhow::Result<()> {
    for declared in &DECLARED {
        let info = heap_info(declared.name)?;
        anyhow::ensure!(info.granule == PAGE, "{info:?}");
        anyhow::ensure!(info.max_alignment == 1 << 30, "{info:?}");
        anyhow::ensure!(info.top_down, "{info:?}");
        // The secure world zeroes what it fences, and that is a wait.
        anyhow::ensure!(info.no_wait != info.protected, "{info:?}");
        let device = allocation::open(declared.name)?;
        let buffer = allocation::allocate_size(&device, 5 * PAGE)?;
        let during = heap_info(declared.name)?;
        anyhow::ensure!(during.used == info.used + 5 * PAGE, "{during:?}");
        drop(buffer);
    }
    Ok(())
}
