// SPDX-License-Identifier: MIT OR Apache-2.0

//! A camera: vivid, the V4L2 test driver, which takes buffers of any exporter.
//!
//! Queueing a buffer attaches it to the device and maps it for its DMA, where the
//! driver works like that; starting the stream maps it for the kernel as well, as
//! the frames are drawn by the CPU. The driver does not survive a buffer that it
//! can't map then, so that only buffers with CPU access may be streamed into.

use std::fs::{self, File, OpenOptions};
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd};

use anyhow::Context;
use ringfence::buffer::Buffer;
use rustix::io::Errno;
use rustix::ioctl::{ioctl, opcode, Opcode, Setter, Updater};

use super::mapping::Mapping;
use super::module;

/// `V4L2_BUF_TYPE_VIDEO_CAPTURE`.
const CAPTURE: u32 = 1;
/// `V4L2_MEMORY_DMABUF`.
const DMABUF: u32 = 4;
/// `V4L2_PIX_FMT_GREY`.
const GREY: u32 = u32::from_le_bytes(*b"GREY");
/// `V4L2_PIX_FMT_RGB24`.
const RGB24: u32 = u32::from_le_bytes(*b"RGB3");
/// Bytes in one of its pixels.
const PIXEL: u32 = 3;

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

/// `struct v4l2_format` with a `struct v4l2_pix_format` in it.
#[repr(C)]
struct SetFormat {
    kind: u32,
    // The union that follows has pointers in it.
    pad: u32,
    width: u32,
    height: u32,
    pixel_format: u32,
    field: u32,
    bytes_per_line: u32,
    size: u32,
    rest: [u32; 44],
}

impl SetFormat {
    fn empty() -> Self {
        Self {
            kind: CAPTURE,
            pad: 0,
            width: 0,
            height: 0,
            pixel_format: 0,
            field: 0,
            bytes_per_line: 0,
            size: 0,
            rest: [0; 44],
        }
    }
}

/// `struct v4l2_control`.
#[repr(C)]
struct SetControl {
    id: u32,
    value: i32,
}

const _: () = {
    assert!(size_of::<RequestBuffers>() == 20);
    assert!(size_of::<QueueBuffer>() == 88);
    assert!(size_of::<SetFormat>() == 208);
};

const S_FMT: Opcode = opcode::read_write::<SetFormat>(b'V', 5);
const REQBUFS: Opcode = opcode::read_write::<RequestBuffers>(b'V', 8);
const QBUF: Opcode = opcode::read_write::<QueueBuffer>(b'V', 15);
const DQBUF: Opcode = opcode::read_write::<QueueBuffer>(b'V', 17);
const STREAMON: Opcode = opcode::write::<u32>(b'V', 18);
const STREAMOFF: Opcode = opcode::write::<u32>(b'V', 19);
const S_CTRL: Opcode = opcode::read_write::<SetControl>(b'V', 28);

/// `VIVID_CID_OSD_TEXT_MODE`, and its value for no text.
const OSD_TEXT_MODE: u32 = 0x00f0_f001;
const NO_TEXT: i32 = 2;
/// `V4L2_BUF_FLAG_ERROR`.
const FLAG_ERROR: u32 = 0x40;

/// How a device sees buffers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum View {
    /// Through DMA: each must be contiguous for it.
    Dma,
    /// Through the kernel's own mapping only.
    Kernel,
}

/// The size of a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// Pixels in a line.
    pub width: u32,
    /// Lines.
    pub height: u32,
    /// Bytes from one line to the next.
    pub stride: u32,
}

impl Geometry {
    /// Bytes of a picture.
    pub fn size(&self) -> u64 {
        u64::from(self.stride) * u64::from(self.height)
    }
}

/// A frame that has arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    /// The place of its buffer.
    pub place: u32,
    /// Its number.
    pub sequence: u32,
    /// Bytes of it.
    pub size: u32,
}

/// A capture device with places for buffers; closing it gives the buffers back.
pub struct Capture(File);

impl Capture {
    /// Loads the driver, and opens a device that sees buffers through DMA, with one
    /// place.
    pub fn open() -> anyhow::Result<Self> {
        let this = Self::with_view(View::Dma)?;
        this.make_places(1)?;
        Ok(this)
    }

    /// Opens a device that draws colour bars of this size, and makes places for
    /// buffers.
    pub fn stream(
        view: View,
        width: u32,
        height: u32,
        places: u32,
    ) -> anyhow::Result<(Self, Geometry)> {
        let this = Self::with_view(view)?;
        let mut control = SetControl {
            id: OSD_TEXT_MODE,
            value: NO_TEXT,
        };
        // SAFETY: The number carries the structure's size, and the structure is
        // borrowed mutably for the call.
        unsafe { ioctl(&this.0, Updater::<S_CTRL, _>::new(&mut control)) }.context("S_CTRL")?;
        let mut format = SetFormat {
            width,
            height,
            pixel_format: RGB24,
            field: 1, // V4L2_FIELD_NONE
            ..SetFormat::empty()
        };
        // SAFETY: As above.
        unsafe { ioctl(&this.0, Updater::<S_FMT, _>::new(&mut format)) }.context("S_FMT")?;
        anyhow::ensure!(
            (format.width, format.height, format.pixel_format) == (width, height, RGB24),
            "the camera has no {width} x {height} RGB"
        );
        let geometry = Geometry {
            width,
            height,
            stride: format.bytes_per_line,
        };
        anyhow::ensure!(u64::from(format.size) == geometry.size(), "{geometry:?}");
        this.make_places(places)?;
        Ok((this, geometry))
    }

    /// Loads the driver and finds the device with this view.
    fn with_view(view: View) -> anyhow::Result<Self> {
        module::load_with(
            "vivid",
            &["n_devs=2", "node_types=0x1,0x1", "allocators=1,0"],
        )?;
        let wanted = match view {
            View::Dma => "vivid-000-vid-cap",
            View::Kernel => "vivid-001-vid-cap",
        };
        const CLASS: &str = "/sys/class/video4linux";
        for entry in fs::read_dir(CLASS).context(CLASS)? {
            let entry = entry?;
            let name = fs::read_to_string(entry.path().join("name"))?;
            if name.trim() == wanted {
                let path = format!("/dev/{}", entry.file_name().to_string_lossy());
                let device = OpenOptions::new().read(true).write(true).open(&path);
                return Ok(Self(device.context(path)?));
            }
        }
        anyhow::bail!("there is no {wanted}")
    }

    /// Chooses small frames, and answers how many bytes they have.
    ///
    /// The device does not say that it can take more than 64 KiB of pages in one piece,
    /// which is what the kernel takes for the limit then, and reports where it looks for
    /// errors.
    fn choose_small_frames(&self) -> anyhow::Result<u32> {
        let mut format = SetFormat {
            width: 320,
            height: 180,
            pixel_format: GREY,
            ..SetFormat::empty()
        };
        // SAFETY: As above.
        unsafe { ioctl(&self.0, Updater::<S_FMT, _>::new(&mut format)) }.context("S_FMT")?;
        anyhow::ensure!(format.size <= 1 << 16, "a frame of {} bytes", format.size);
        Ok(format.size)
    }

    fn make_places(&self, count: u32) -> anyhow::Result<()> {
        let mut request = RequestBuffers {
            count,
            kind: CAPTURE,
            memory: DMABUF,
            capabilities: 0,
            flags: 0,
            reserved: [0; 3],
        };
        // SAFETY: As above.
        unsafe { ioctl(&self.0, Updater::<REQBUFS, _>::new(&mut request)) }.context("REQBUFS")?;
        anyhow::ensure!(request.count >= count, "{} places", request.count);
        Ok(())
    }

    /// Queues a buffer at the first place, which the device keeps until it is closed.
    pub fn queue(&self, buffer: &Buffer) -> Result<(), Errno> {
        self.queue_at(0, buffer)
    }

    /// Queues a buffer at a place.
    pub fn queue_at(&self, place: u32, buffer: &Buffer) -> Result<(), Errno> {
        let mut queue = QueueBuffer {
            index: place,
            kind: CAPTURE,
            memory: DMABUF,
            fd: buffer.as_fd().as_raw_fd().into(),
            ..Default::default()
        };
        // SAFETY: As above.
        unsafe { ioctl(&self.0, Updater::<QBUF, _>::new(&mut queue)) }
    }

    /// Lets frames come.
    pub fn start(&self) -> Result<(), Errno> {
        // SAFETY: The number carries the argument's size; it is only read.
        unsafe { ioctl(&self.0, Setter::<STREAMON, u32>::new(CAPTURE)) }
    }

    /// Waits for a frame.
    pub fn dequeue(&self) -> anyhow::Result<Frame> {
        let mut queue = QueueBuffer {
            kind: CAPTURE,
            memory: DMABUF,
            ..Default::default()
        };
        // SAFETY: As above.
        unsafe { ioctl(&self.0, Updater::<DQBUF, _>::new(&mut queue)) }.context("DQBUF")?;
        anyhow::ensure!(queue.flags & FLAG_ERROR == 0, "a frame with an error");
        Ok(Frame {
            place: queue.index,
            sequence: queue.sequence,
            size: queue.bytes_used,
        })
    }

    /// Lets no more frames come, and gives all buffers back.
    pub fn stop(&self) -> Result<(), Errno> {
        // SAFETY: As above.
        unsafe { ioctl(&self.0, Setter::<STREAMOFF, u32>::new(CAPTURE)) }
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
        let device = Capture::with_view(View::Dma)?;
        let size = device.choose_small_frames()?;
        device.make_places(Self::BUFFERS)?;
        let mut buffers = Vec::new();
        for place in 0..Self::BUFFERS {
            let buffer = allocate(size.into()).context("a buffer for a frame")?;
            device.queue_at(place, &buffer).context("QBUF")?;
            buffers.push(buffer);
        }
        device.start().context("STREAMON")?;
        Ok(Self { device, buffers })
    }

    /// Waits for a frame, has it looked at, and queues its buffer again.
    pub fn frame(
        &self,
        look: impl FnOnce(&Buffer, usize) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let frame = self.device.dequeue()?;
        let buffer = &self.buffers[frame.place as usize];
        look(buffer, frame.size as usize)?;
        Ok(self.device.queue_at(frame.place, buffer)?)
    }
}

/// What vivid draws: eight bars of 75 % colours, each line like the other.
pub struct Bars {
    geometry: Geometry,
    line: Option<Vec<u8>>,
}

impl Bars {
    /// Red, green and blue of each bar.
    const COLOURS: [[u8; 3]; 8] = [
        [191, 191, 191],
        [191, 191, 0],
        [0, 191, 191],
        [0, 191, 0],
        [191, 0, 191],
        [191, 0, 0],
        [0, 0, 191],
        [0, 0, 0],
    ];

    /// How far a colour may be off, by the rounding of conversions.
    const TOLERANCE: u8 = 2;

    /// Pictures of this size.
    pub fn new(geometry: Geometry) -> Self {
        Self {
            geometry,
            line: None,
        }
    }

    /// Fails unless a mapped buffer begins with a picture of the bars, to the last byte
    /// the same in each line of each picture that this has seen.
    pub fn check(&mut self, mapping: &Mapping) -> anyhow::Result<()> {
        let stride = self.geometry.stride as usize;
        let used = (self.geometry.width * PIXEL) as usize;
        let mut bytes = vec![0; usize::try_from(self.geometry.size())?];
        mapping.read(0, &mut bytes);
        let line = match &self.line {
            Some(line) => line,
            None => {
                self.judge(&bytes[..used])?;
                self.line.insert(bytes[..used].to_vec())
            }
        };
        for (number, other) in bytes.chunks(stride).enumerate() {
            if other[..used] != line[..] {
                let at = (0..used).find(|&at| other[at] != line[at]).unwrap_or(0);
                anyhow::bail!(
                    "line {number}, byte {at} is {:#04x}, not {:#04x}",
                    other[at],
                    line[at]
                );
            }
        }
        Ok(())
    }

    /// Compares the middle of each bar with what is computed.
    fn judge(&self, line: &[u8]) -> anyhow::Result<()> {
        let width = self.geometry.width as usize;
        for (number, expected) in Self::COLOURS.iter().enumerate() {
            let middle = (2 * number + 1) * width / 16 * PIXEL as usize;
            let seen = &line[middle..middle + PIXEL as usize];
            anyhow::ensure!(
                seen.iter()
                    .zip(expected)
                    .all(|(seen, expected)| seen.abs_diff(*expected) <= Self::TOLERANCE),
                "bar {number} is {seen:?}, not {expected:?}"
            );
        }
        Ok(())
    }
}
