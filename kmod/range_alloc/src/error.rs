// SPDX-License-Identifier: GPL-2.0

//! Why a call was refused. A refused call has changed nothing.

use core::{
    error::Error,
    fmt, //
};

/// Why a region can't be managed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum GeometryError {
    /// The granule is not a power of two from 4 KiB to 1 GiB.
    Granule,
    /// The base or the size is not a multiple of the granule.
    Unaligned,
    /// The region is empty.
    Empty,
    /// The region ends past the last 64-bit address.
    Wraps,
    /// The region has more than [`MAX_GRANULES`](super::MAX_GRANULES) granules.
    TooLarge,
    /// No live range was asked for.
    NoLive,
    /// A slice is not as long as [`Geometry::metadata_size`](super::Geometry::metadata_size) says.
    Metadata,
}

impl fmt::Display for GeometryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Granule => "the granule is not a power of two from 4 KiB to 1 GiB",
            Self::Unaligned => "the region is not aligned to the granule",
            Self::Empty => "the region is empty",
            Self::Wraps => "the region ends past the last address",
            Self::TooLarge => "the region has too many granules",
            Self::NoLive => "the number of live ranges is zero",
            Self::Metadata => "the metadata is not of the size that the region needs",
        })
    }
}

impl Error for GeometryError {}

/// Why a range was not allocated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AllocError {
    /// Caller's fault: the size is zero.
    ZeroSize,
    /// Caller's fault: the alignment is not a power of two, or above
    /// [`MAX_ALIGN`](super::MAX_ALIGN).
    Alignment,
    /// Caller's fault: the start or the size given to
    /// [`alloc_at`](super::RangeAllocator::alloc_at) is not a multiple of the granule.
    Unaligned,
    /// Caller's fault: the range is not inside the region, or larger than it.
    OutOfBounds,
    /// The range given to [`alloc_at`](super::RangeAllocator::alloc_at) is not free.
    Occupied,
    /// No free run fits.
    NoSpace,
    /// As many ranges are live as the metadata was made for.
    NoRecord,
}

impl fmt::Display for AllocError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ZeroSize => "the size is zero",
            Self::Alignment => "the alignment is not a power of two up to 1 GiB",
            Self::Unaligned => "the range is not aligned to the granule",
            Self::OutOfBounds => "the range is not inside the region",
            Self::Occupied => "the range is not free",
            Self::NoSpace => "no free run fits",
            Self::NoRecord => "too many ranges are live",
        })
    }
}

impl Error for AllocError {}

/// Why a handle was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FreeError {
    /// This allocator never issued the handle.
    Foreign,
    /// The range that the handle named is gone: freed before.
    Stale,
}

impl fmt::Display for FreeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Foreign => "the handle belongs to another allocator",
            Self::Stale => "the range was freed before",
        })
    }
}

impl Error for FreeError {}
