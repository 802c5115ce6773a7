// SPDX-License-Identifier: GPL-2.0

//! The shape of a region, and what it costs to manage it.

use super::{
    error::GeometryError,
    index::KEYS,
    index::KEYS_PER_GROUP, //
};

/// Largest alignment of a request, and largest granule, in bytes.
pub const MAX_ALIGN: u64 = 1 << 30;

/// Largest region, in granules: 64 GiB of 4 KiB.
pub const MAX_GRANULES: u64 = 1 << 24;

/// Smallest granule, in bytes.
pub const MIN_GRANULE: u64 = 4 << 10;

/// A region of physical memory, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Physical address of the first byte, a multiple of the granule.
    pub base: u64,
    /// Length, a multiple of the granule, up to [`MAX_GRANULES`] of them.
    pub size: u64,
    /// Unit of allocation: a power of two from [`MIN_GRANULE`] to [`MAX_ALIGN`].
    pub granule: u64,
}

/// Lengths of the slices that [`RangeAllocator::new`](super::RangeAllocator::new) needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MetadataSize {
    /// Number of [`Record`](super::Record)s.
    pub records: usize,
    /// Number of [`Group`](super::Group)s.
    pub groups: usize,
}

impl Geometry {
    /// Returns how much metadata `max_live` ranges live at once need.
    ///
    /// That many live ranges leave at most one more free block than there are live ones, so twice
    /// `max_live` and one records are enough; a region never has more blocks than granules.
    pub const fn metadata_size(&self, max_live: usize) -> Result<MetadataSize, GeometryError> {
        let granules = match self.granules() {
            Ok(granules) => granules as usize,
            Err(error) => return Err(error),
        };
        if max_live == 0 {
            return Err(GeometryError::NoLive);
        }
        let records = max_live.saturating_mul(2).saturating_add(1);
        let keys = if granules < KEYS { granules } else { KEYS };
        Ok(MetadataSize {
            records: if records < granules {
                records
            } else {
                granules
            },
            groups: keys.div_ceil(KEYS_PER_GROUP),
        })
    }

    /// Checks the geometry and returns the number of granules.
    pub(super) const fn granules(&self) -> Result<u32, GeometryError> {
        if !self.granule.is_power_of_two() || self.granule < MIN_GRANULE || self.granule > MAX_ALIGN
        {
            return Err(GeometryError::Granule);
        }
        let within = self.granule.wrapping_sub(1);
        if (self.base | self.size) & within != 0 {
            return Err(GeometryError::Unaligned);
        }
        if self.size == 0 {
            return Err(GeometryError::Empty);
        }
        // The last byte must have an address; the end itself may be 2^64.
        if self.base.checked_add(self.size.wrapping_sub(1)).is_none() {
            return Err(GeometryError::Wraps);
        }
        let granules = self.size >> self.granule.trailing_zeros();
        if granules > MAX_GRANULES {
            return Err(GeometryError::TooLarge);
        }
        Ok(granules as u32)
    }
}
