// SPDX-License-Identifier: MIT OR Apache-2.0

//! A device that maps dma-bufs for its DMA: vivid, the V4L2 test driver.
//!
//! Queueing a buffer attaches it to the device and maps it. The stream is
//! never started: then the driver would want a CPU mapping as well, and does
//! not survive not getting one.

use std::fs::{self, File, OpenOptions};
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd};

use anyhow::Context;
use ringfence::buffer::Buffer;
use rustix::io::Errno;
use rustix::ioctl::{ioctl, opcode, Opcode, Updater};

use super::module;

/// `V4L2_BUF_TYPE_VIDEO_CAPTURE`.
const CAPTURE: u32 = 1;
/// `V4L2_MEMORY_DMABUF`.
const DMABUF: u32 = 4;

/// `struct v4l2_requestbuffers`.
#[repr(C)]
struct RequestBuffers {
    count: u32,
    kind: u32,
    memory: u32,
    capabilities: u32,
    flags: u8,
    reserved: [u8; 3],
}

/// `struct v4l2_buffer`.
#[repr(C)]
#[derive(Default)]
struct QueueBuffer {
    index: u32,
    kind: u32,
    bytes_used: u32,
    flags: u32,
    field: u32,
    timestamp: [u64; 2],
    timecode: [u32; 4],
    sequence: u32,
    memory: u32,
    fd: i64,
    length: u32,
    reserved: [u32; 2],
}

const _: () = {
    assert!(size_of::<RequestBuffers>() == 20);
    assert!(size_of::<QueueBuffer>() == 88);
};

/// A capture device with one place for a buffer; closing it gives the buffer
/// back.
pub struct Capture(File);

impl Capture {
    /// Loads the driver and finds its device.
    pub fn open() -> anyhow::Result<Self> {
        module::load_with("vivid", &["n_devs=1", "node_types=0x1", "allocators=1"])?;
        const CLASS: &str = "/sys/class/video4linux";
        for entry in fs::read_dir(CLASS).context(CLASS)? {
            let entry = entry?;
            let name = fs::read_to_string(entry.path().join("name"))?;
            if name.contains("vid-cap") {
                let path = format!("/dev/{}", entry.file_name().to_string_lossy());
                let device = OpenOptions::new().read(true).write(true).open(&path);
                return Self::with_place(device.context(path)?);
            }
        }
        anyhow::bail!("vivid has no capture device")
    }

    fn with_place(device: File) -> anyhow::Result<Self> {
        const REQBUFS: Opcode = opcode::read_write::<RequestBuffers>(b'V', 8);
        let mut request = RequestBuffers {
            count: 1,
            kind: CAPTURE,
            memory: DMABUF,
            capabilities: 0,
            flags: 0,
            reserved: [0; 3],
        };
        // SAFETY: The number carries the structure's size, and the structure is
        // borrowed mutably for the call.
        unsafe { ioctl(&device, Updater::<REQBUFS, _>::new(&mut request)) }.context("REQBUFS")?;
        anyhow::ensure!(request.count >= 1, "no place for a buffer");
        Ok(Self(device))
    }

    /// Queues a buffer, which the device keeps until it is closed.
    pub fn queue(&self, buffer: &Buffer) -> Result<(), Errno> {
        const QBUF: Opcode = opcode::read_write::<QueueBuffer>(b'V', 15);
        let mut queue = QueueBuffer {
            kind: CAPTURE,
            memory: DMABUF,
            fd: buffer.as_fd().as_raw_fd().into(),
            ..Default::default()
        };
        // SAFETY: As above.
        unsafe { ioctl(&self.0, Updater::<QBUF, _>::new(&mut queue)) }
    }
}
