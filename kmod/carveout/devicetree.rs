// SPDX-License-Identifier: GPL-2.0

//! The properties of a heap's node.
//!
//! What is wrong with them is said in the kernel log, and the heap does not come
//! up: a typing error must not weaken a protection that somebody relies on.

use kernel::{
    device::{
        property::FwNode,
        Device, //
    },
    page::PAGE_SIZE,
    prelude::*,
    str::CString, //
};
use ringfence_core::firmware_node::Node;

use crate::command::{
    Protection as Unit,
    UseCase, //
};

const ALIGNMENT: &CStr = c"ringfence,alignment";
const USE_CASE: &CStr = c"ringfence,use-case";
const PROTECTION: &CStr = c"ringfence,protection";
const CONSUMERS: &CStr = c"ringfence,consumers";
const CPU_ACCESS: &CStr = c"ringfence,cpu-access";
const CHUNK_SIZE: &CStr = c"ringfence,chunk-size";

/// The largest alignment in bytes, as the binding says.
const MAX_ALIGNMENT: u32 = 0x4000_0000;

/// The kind of a heap, by its compatible.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `ringfence,carveout-heap`.
    Plain,
    /// `ringfence,protected-heap`.
    Protected,
}

/// What the node of a protected heap adds.
pub(crate) struct Protection {
    /// Not [`UseCase::None`].
    pub(crate) use_case: UseCase,
    /// What is fenced at once.
    pub(crate) unit: Unit,
    /// The devices that may attach. Without the property the firewall itself
    /// admits every device, and the driver does not know better.
    consumers: Option<KVec<Node>>,
}

/// A heap's node.
pub(crate) struct Settings {
    /// Bytes; a power of two, at least a page.
    pub(crate) alignment: u64,
    /// Of a protected heap only.
    pub(crate) protection: Option<Protection>,
    /// Whether the CPU may map buffers; not of a protected heap.
    pub(crate) cpu_access: bool,
    /// Bytes of which buffers are put together, wherever they lie: a power of two, at
    /// least the alignment; not of a protected heap.
    pub(crate) chunk: Option<u64>,
}

impl Settings {
    /// Reads the node of `device`.
    ///
    /// # Errors
    ///
    /// `EINVAL`, with the reason in the log; `ENOMEM`.
    pub(crate) fn read(device: &Device, kind: Kind) -> Result<Self> {
        let node = device.fwnode().ok_or(EINVAL)?;
        let protection = match kind {
            Kind::Protected => {
                for property in [CPU_ACCESS, CHUNK_SIZE] {
                    if node.property_present(property) {
                        dev_err!(device, "{} needs a heap without protection\n", property);
                        return Err(EINVAL);
                    }
                }
                Some(Protection::read(device, node)?)
            }
            Kind::Plain => {
                for property in [USE_CASE, PROTECTION, CONSUMERS] {
                    if node.property_present(property) {
                        dev_err!(device, "{} needs a protected heap\n", property);
                        return Err(EINVAL);
                    }
                }
                None
            }
        };
        let alignment = alignment(device, node)?;
        Ok(Self {
            alignment,
            protection,
            cpu_access: node.property_read_bool(CPU_ACCESS),
            chunk: chunk(device, node, alignment)?,
        })
    }
}

impl PartialEq for Settings {
    fn eq(&self, other: &Self) -> bool {
        self.alignment == other.alignment
            && self.protection == other.protection
            && self.cpu_access == other.cpu_access
            && self.chunk == other.chunk
    }
}

impl Protection {
    fn read(device: &Device, node: &FwNode) -> Result<Self> {
        let Some(name) = node.property_read::<CString>(USE_CASE).optional() else {
            dev_err!(device, "a protected heap needs {}\n", USE_CASE);
            return Err(EINVAL);
        };
        let use_case = name.to_str().ok().and_then(UseCase::from_name);
        let Some(use_case) = use_case.filter(|&use_case| use_case != UseCase::None) else {
            dev_err!(device, "{}: unknown use case '{}'\n", USE_CASE, &*name);
            return Err(EINVAL);
        };
        Ok(Self {
            use_case,
            unit: unit(device, node)?,
            consumers: consumers(device, node)?,
        })
    }

    /// Tells whether `device` may attach to a buffer.
    pub(crate) fn admits(&self, device: &Device) -> bool {
        match &self.consumers {
            None => true,
            Some(consumers) => consumers.iter().any(|consumer| consumer.is_of(device)),
        }
    }
}

impl PartialEq for Protection {
    fn eq(&self, other: &Self) -> bool {
        let same_consumers = match (&self.consumers, &other.consumers) {
            (None, None) => true,
            (Some(ours), Some(theirs)) => ours.iter().eq(theirs.iter()),
            _ => false,
        };
        self.use_case == other.use_case && self.unit == other.unit && same_consumers
    }
}

fn unit(device: &Device, node: &FwNode) -> Result<Unit> {
    if !node.property_present(PROTECTION) {
        return Ok(Unit::Buffer);
    }
    let name = node.property_read::<CString>(PROTECTION).optional();
    let unit = name
        .as_ref()
        .and_then(|name| name.to_str().ok())
        .and_then(Unit::from_name);
    unit.ok_or_else(|| {
        dev_err!(device, "{} is neither buffer nor region\n", PROTECTION);
        EINVAL
    })
}

fn alignment(device: &Device, node: &FwNode) -> Result<u64> {
    Ok(bytes_of(device, node, ALIGNMENT)?.unwrap_or(PAGE_SIZE as u64))
}

fn chunk(device: &Device, node: &FwNode, alignment: u64) -> Result<Option<u64>> {
    let chunk = bytes_of(device, node, CHUNK_SIZE)?;
    if chunk.is_some_and(|chunk| chunk < alignment) {
        dev_err!(device, "{} is less than {}\n", CHUNK_SIZE, ALIGNMENT);
        return Err(EINVAL);
    }
    Ok(chunk)
}

/// A property that is a power of two of bytes, if it is there.
fn bytes_of(device: &Device, node: &FwNode, property: &CStr) -> Result<Option<u64>> {
    if !node.property_present(property) {
        return Ok(None);
    }
    let bytes = node.property_read::<u32>(property).optional().unwrap_or(0);
    if !bytes.is_power_of_two() || bytes > MAX_ALIGNMENT || (bytes as usize) < PAGE_SIZE {
        dev_err!(
            device,
            "{}: {:#x} is not a power of two from a page to 1 GiB\n",
            property,
            bytes
        );
        return Err(EINVAL);
    }
    Ok(Some(bytes.into()))
}

fn consumers(device: &Device, node: &FwNode) -> Result<Option<KVec<Node>>> {
    if !node.property_present(CONSUMERS) {
        return Ok(None);
    }
    let mut consumers = KVec::new();
    for index in 0.. {
        match Node::referenced_by(node, CONSUMERS, index) {
            Ok(consumer) => consumers.push(consumer, GFP_KERNEL)?,
            Err(error) if error == ENOENT && index > 0 => break,
            Err(_) => {
                dev_err!(device, "{}: entry {} is no phandle\n", CONSUMERS, index);
                return Err(EINVAL);
            }
        }
    }
    Ok(Some(consumers))
}
