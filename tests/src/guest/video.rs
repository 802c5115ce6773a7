// SPDX-License-Identifier: MIT OR Apache-2.0

//! A device that maps dma-bufs for its DMA: vivid, the V4L2 test driver.
//!
//! Queueing a buffer attaches it to the device and maps it. A stream is started
//! for buffers with CPU access only: the driver wants a CPU mapping then as well,
//! and does not survive not getting one.

use std::fs::{self, File, OpenOptions};
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd};

use anyhow::Context;
use ringfence::buffer::Buffer;
use rustix::io::Errno;
use rustix::ioctl::{ioctl, opcode, Opcode, Setter, Updater};

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

/// `struct v4l2_format` of a single plane.
#[repr(C)]
struct Format {
    kind: u32,
    pad: u32,
    width: u32,
    height: u32,
    pixel_format: u32,
    field: u32,
    bytes_per_line: u32,
    size_image: u32,
    reserved: [u32; 44],
}

const _: () = {
    assert!(size_of::<RequestBuffers>() == 20);
    assert!(size_of::<QueueBuffer>() == 88);
    assert!(size_of::<Format>() == 208);
};

/// A capture device with one place for a buffer; closing it gives the buffer
/// back.
pub struct Capture(File);

impl Capture {
    /// Loads the driver and finds its device.
    pub fn open() -> anyhow::Result<Self> {
        Self::with_places(find()?, 1)
    }

    fn with_places(device: File, count: u32) -> anyhow::Result<Self> {
        const REQBUFS: Opcode = opcode::read_write::<RequestBuffers>(b'V', 8);
        let mut request = RequestBuffers {
            count,
            kind: CAPTURE,
            memory: DMABUF,
            capabilities: 0,
            flags: 0,
            reserved: [0; 3],
        };
        // SAFETY: The number carries the structure's size, and the structure is
        // borrowed mutably for the call.
        unsafe { ioctl(&device, Updater::<REQBUFS, _>::new(&mut request)) }.context("REQBUFS")?;
        anyhow::ensure!(request.count >= count, "no place for a buffer");
        Ok(Self(device))
    }

    /// Queues a buffer, which the device keeps until it is closed.
    pub fn queue(&self, buffer: &Buffer) -> Result<(), Errno> {
        self.queue_at(0, buffer)
    }

    fn queue_at(&self, index: u32, buffer: &Buffer) -> Result<(), Errno> {
        const QBUF: Opcode = opcode::read_write::<QueueBuffer>(b'V', 15);
        let mut queue = QueueBuffer {
            index,
            kind: CAPTURE,
            memory: DMABUF,
            fd: buffer.as_fd().as_raw_fd().into(),
            ..Default::default()
        };
        // SAFETY: As above.
        unsafe { ioctl(&self.0, Updater::<QBUF, _>::new(&mut queue)) }
    }
}

/// A capture device that films into buffers.
pub struct Stream {
    device: Capture,
    buffers: Vec<Buffer>,
}

impl Stream {
    /// How many buffers a stream has.
    const BUFFERS: u32 = 4;

    /// Queues buffers as large as a frame, which `allocate` makes, and starts.
    pub fn start(mut allocate: impl FnMut(u64) -> Result<Buffer, Errno>) -> anyhow::Result<Self> {
        const STREAMON: Opcode = opcode::write::<i32>(b'V', 18);
        let device = find()?;
        let size = small_frames(&device)?;
        let device = Capture::with_places(device, Self::BUFFERS)?;
        let mut buffers = Vec::new();
        for index in 0..Self::BUFFERS {
            let buffer = allocate(size.into()).context("a buffer for a frame")?;
            device.queue_at(index, &buffer).context("QBUF")?;
            buffers.push(buffer);
        }
        // SAFETY: The kind is an `int`, which is only read.
        unsafe { ioctl(&device.0, Setter::<STREAMON, i32>::new(CAPTURE as i32)) }
            .context("STREAMON")?;
        Ok(Self { device, buffers })
    }

    /// Waits for a frame, has it looked at, and queues its buffer again.
    pub fn frame(
        &self,
        look: impl FnOnce(&Buffer, usize) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        const DQBUF: Opcode = opcode::read_write::<QueueBuffer>(b'V', 17);
        let mut queue = QueueBuffer {
            kind: CAPTURE,
            memory: DMABUF,
            ..Default::default()
        };
        // SAFETY: The number carries the structure's size, and the structure is
        // borrowed mutably for the call.
        unsafe { ioctl(&self.device.0, Updater::<DQBUF, _>::new(&mut queue)) }.context("DQBUF")?;
        /// `V4L2_BUF_FLAG_ERROR`.
        const ERROR: u32 = 0x40;
        anyhow::ensure!(queue.flags & ERROR == 0, "a frame went wrong");
        let buffer = &self.buffers[queue.index as usize];
        look(buffer, queue.bytes_used as usize)?;
        Ok(self.device.queue_at(queue.index, buffer)?)
    }
}

/// Chooses small frames, and answers how many bytes they have.
///
/// The device does not say that it can take more than 64 KiB in one piece, which is
/// what the kernel takes for the limit then, and reports where it looks for errors.
fn small_frames(device: &File) -> anyhow::Result<u32> {
    const S_FMT: Opcode = opcode::read_write::<Format>(b'V', 5);
    let mut format = Format {
        kind: CAPTURE,
        pad: 0,
        width: 320,
        height: 180,
        pixel_format: u32::from_le_bytes(*b"GREY"),
        field: 0,
        bytes_per_line: 0,
        size_image: 0,
        reserved: [0; 44],
    };
    // SAFETY: The number carries the structure's size, and the structure is
    // borrowed mutably for the call.
    unsafe { ioctl(device, Updater::<S_FMT, _>::new(&mut format)) }.context("S_FMT")?;
    anyhow::ensure!(
        format.size_image <= 1 << 16,
        "a frame of {} bytes",
        format.size_image
    );
    Ok(format.size_image)
}

/// Loads the driver and finds its device.
fn find() -> anyhow::Result<File> {
    module::load_with("vivid", &["n_devs=1", "node_types=0x1", "allocators=1"])?;
    const CLASS: &str = "/sys/class/video4linux";
    for entry in fs::read_dir(CLASS).context(CLASS)? {
        let entry = entry?;
        let name = fs::read_to_string(entry.path().join("name"))?;
        if name.contains("vid-cap") {
            let path = format!("/dev/{}", entry.file_name().to_string_lossy());
            let device = OpenOptions::new().read(true).write(true).open(&path);
            return device.context(path);
        }
    }
    anyhow::bail!("vivid has no capture device")
}
