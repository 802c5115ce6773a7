// SPDX-License-Identifier: MIT OR Apache-2.0

//! Derives the secure world's view of the carveouts from Linux' devicetree.
//!
//! `dts/qemu-virt.dtso`, merged over the machine's own tree, is the one
//! declaration of the carveouts. From it come the devicetree that OP-TEE
//! embeds and the header from which EL3 takes its bounds, so that the three
//! can't disagree by accident. At run time none of them trusts another:
//! each checks a request against its own copy.

use std::fmt::Write as _;

use dtoolkit::{
    error::StandardError,
    fdt::{Fdt, FdtNode},
    Node, Property,
};

/// The heap binding whose regions the secure world guards.
const PROTECTED_HEAP: &str = "ringfence,protected-heap";
/// The heap binding of regions that stay in the normal world.
const CARVEOUT_HEAP: &str = "ringfence,carveout-heap";
/// What the secure world knows as use cases; see `ta/proto`.
const USE_CASES: [&str; 3] = ["secure-video", "trusted-ui", "secure-video-record"];
/// What of a region is fenced; the first one is the binding's default.
const PROTECTIONS: [&str; 2] = ["buffer", "region"];
/// Page size of Linux and granule of the GPT, in bytes.
const GRANULE: u64 = 4096;

/// Why a devicetree can't be used.
#[derive(Debug, thiserror::Error)]
pub enum CarveoutError {
    /// Not a flattened devicetree.
    #[error("the merged devicetree can't be read: {0}")]
    Unreadable(#[from] dtoolkit::error::FdtParseError),
    /// A property has the wrong form.
    #[error("{node}: {property}: {source}")]
    Property {
        /// Name of the node.
        node: String,
        /// Name of the property.
        property: &'static str,
        /// What is wrong with it.
        source: StandardError,
    },
    /// A node breaks a rule of the binding.
    #[error("{node}: {problem}")]
    Invalid {
        /// Name of the node.
        node: String,
        /// What is wrong, and what would be right.
        problem: String,
    },
    /// There is nothing to guard.
    #[error("no `{PROTECTED_HEAP}` node: add one to the overlay in dts/")]
    Nothing,
}

/// A reserved-memory region that a heap node names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Region {
    /// Full node name, with the unit address.
    pub node: String,
    /// Physical address of the first byte.
    pub base: u64,
    /// Length in bytes.
    pub size: u64,
    /// For a protected heap, its use case.
    pub use_case: Option<String>,
    /// What of it is fenced at once.
    pub protection: &'static str,
}

/// Everything that is derived from one merged devicetree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Derived {
    /// Source of the devicetree that OP-TEE embeds.
    pub secure_dts: String,
    /// Content of `ringfence_carveouts.h` for EL3.
    pub el3_header: String,
}

/// Derives the secure world's declarations from a merged devicetree blob.
pub fn derive(merged_dtb: &[u8]) -> Result<Derived, CarveoutError> {
    let regions = regions(&Fdt::new(merged_dtb)?)?;
    let protected: Vec<_> = regions.iter().filter(|r| r.use_case.is_some()).collect();
    if protected.is_empty() {
        return Err(CarveoutError::Nothing);
    }
    Ok(Derived {
        secure_dts: secure_dts(&protected),
        el3_header: el3_header(&protected),
    })
}

/// The regions of all heap nodes, in the order of the tree, checked.
pub fn regions(fdt: &Fdt<'_>) -> Result<Vec<Region>, CarveoutError> {
    let root = fdt.root();
    let mut found: Vec<Region> = Vec::new();
    for heap in root.children() {
        let Some(mut compatible) = heap.compatible() else {
            continue;
        };
        let Some(kind) = compatible.find(|c| [PROTECTED_HEAP, CARVEOUT_HEAP].contains(c)) else {
            continue;
        };
        let region = region_of(fdt, &heap, kind == PROTECTED_HEAP)?;
        if let Some(other) = found
            .iter()
            .find(|o| o.base < region.base + region.size && region.base < o.base + o.size)
        {
            return invalid(
                &heap,
                format!("its region {} overlaps {}", region.node, other.node),
            );
        }
        found.push(region);
    }
    Ok(found)
}

fn region_of(fdt: &Fdt<'_>, heap: &FdtNode<'_>, protected: bool) -> Result<Region, CarveoutError> {
    let phandle: u32 = required(heap, "memory-region")?;
    let reserved = fdt.root().child("reserved-memory");
    let node = reserved.as_ref().and_then(|r| {
        r.children()
            .find(|n| matches!(read::<u32>(n, "phandle"), Ok(Some(p)) if p == phandle))
    });
    let Some(node) = node else {
        return invalid(
            heap,
            "`memory-region` names no node of /reserved-memory".into(),
        );
    };
    if node.property("no-map").is_none() || node.property("reusable").is_some() {
        return invalid(
            &node,
            "a heap's region must be `no-map` and not `reusable`".into(),
        );
    }
    let mut reg = node
        .reg()
        .map_err(|source| property_error(&node, "reg", source))?
        .into_iter()
        .flatten();
    let (Some(first), None) = (reg.next(), reg.next()) else {
        return invalid(&node, "`reg` must hold exactly one range".into());
    };
    let base: u64 = first
        .address()
        .map_err(|source| property_error(&node, "reg", source))?;
    let size: u64 = first
        .size()
        .map_err(|source| property_error(&node, "reg", source))?;
    if size == 0 || !(base | size).is_multiple_of(GRANULE) || base.checked_add(size).is_none() {
        return invalid(
            &node,
            format!("{base:#x}+{size:#x} is empty, wraps or is not a multiple of {GRANULE} bytes"),
        );
    }
    let use_case = match (protected, read::<&str>(heap, "ringfence,use-case")?) {
        (true, Some(name)) if USE_CASES.contains(&name) => Some(name.to_owned()),
        (true, given) => {
            return invalid(
                heap,
                format!(
                    "`ringfence,use-case` is {given:?}, must be one of {}",
                    USE_CASES.join(", ")
                ),
            )
        }
        (false, None) => None,
        (false, Some(_)) => {
            return invalid(
                heap,
                format!("`ringfence,use-case` belongs to a `{PROTECTED_HEAP}`"),
            )
        }
    };
    Ok(Region {
        node: node.name().to_owned(),
        base,
        size,
        use_case,
        protection: protection_of(heap, protected)?,
    })
}

fn protection_of(heap: &FdtNode<'_>, protected: bool) -> Result<&'static str, CarveoutError> {
    match (protected, read::<&str>(heap, "ringfence,protection")?) {
        (_, None) => Ok(PROTECTIONS[0]),
        (false, Some(_)) => invalid(
            heap,
            format!("`ringfence,protection` belongs to a `{PROTECTED_HEAP}`"),
        ),
        (true, Some(given)) => PROTECTIONS
            .into_iter()
            .find(|known| *known == given)
            .map_or_else(
                || {
                    invalid(
                        heap,
                        format!(
                            "`ringfence,protection` is {given:?}, must be one of {}",
                            PROTECTIONS.join(", ")
                        ),
                    )
                },
                Ok,
            ),
    }
}

fn secure_dts(regions: &[&Region]) -> String {
    let mut dts = String::from(
        "/* Generated from the devicetree of the normal world; do not edit. */\n\
         /dts-v1/;\n\n/ {\n\t#address-cells = <2>;\n\t#size-cells = <2>;\n\n\
         \treserved-memory {\n\t\t#address-cells = <2>;\n\t\t#size-cells = <2>;\n\t\tranges;\n",
    );
    for region in regions {
        let cells = |v: u64| format!("{:#x} {:#x}", v >> 32, v & 0xffff_ffff);
        write!(
            dts,
            "\n\t\t{} {{\n\
             \t\t\tcompatible = \"ringfence,carveout\", \"linaro,secure-heap\";\n\
             \t\t\treg = <{} {}>;\n\t\t\tno-map;\n\
             \t\t\tringfence,use-case = \"{}\";\n\
             \t\t\tringfence,protection = \"{}\";\n\t\t}};\n",
            region.node,
            cells(region.base),
            cells(region.size),
            region.use_case.as_deref().unwrap_or_default(),
            region.protection,
        )
        .expect("writing to a String succeeds");
    }
    dts.push_str("\t};\n};\n");
    dts
}

fn el3_header(regions: &[&Region]) -> String {
    let entries: Vec<_> = regions
        .iter()
        .map(|r| format!("\t{{ {:#x}ULL, {:#x}ULL }}", r.base, r.size))
        .collect();
    format!(
        "/* Generated from the devicetree of the normal world; do not edit. */\n\
         #ifndef RINGFENCE_CARVEOUTS_H\n#define RINGFENCE_CARVEOUTS_H\n\n\
         /* {{ base, size }} in bytes of every range that may change worlds. */\n\
         #define RINGFENCE_CARVEOUTS {{ \\\n{} \\\n}}\n\n#endif\n",
        entries.join(", \\\n")
    )
}

fn read<'a, T: dtoolkit::FromPropertyValue<'a>>(
    node: &FdtNode<'a>,
    property: &'static str,
) -> Result<Option<T>, CarveoutError> {
    node.property(property)
        .map(|p| p.value_as::<T>())
        .transpose()
        .map_err(|source| property_error(node, property, source))
}

fn required<'a, T: dtoolkit::FromPropertyValue<'a>>(
    node: &FdtNode<'a>,
    property: &'static str,
) -> Result<T, CarveoutError> {
    match read(node, property)? {
        Some(value) => Ok(value),
        None => invalid(node, format!("`{property}` is missing")),
    }
}

fn property_error(
    node: &FdtNode<'_>,
    property: &'static str,
    source: impl Into<StandardError>,
) -> CarveoutError {
    CarveoutError::Property {
        node: node.name().to_owned(),
        property,
        source: source.into(),
    }
}

fn invalid<T>(node: &FdtNode<'_>, problem: String) -> Result<T, CarveoutError> {
    Err(CarveoutError::Invalid {
        node: node.name().to_owned(),
        problem,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use dtoolkit::model::{DeviceTree, DeviceTreeNode, DeviceTreeProperty};

    struct Carveout {
        name: &'static str,
        base: u64,
        size: u64,
        compatible: &'static str,
        use_case: Option<&'static str>,
        protection: Option<&'static str>,
        no_map: bool,
    }

    const VIDEO: Carveout = Carveout {
        name: "video",
        base: 0x1_8000_0000,
        size: 0x40_0000,
        compatible: PROTECTED_HEAP,
        use_case: Some("secure-video"),
        protection: None,
        no_map: true,
    };

    fn property(name: &str, value: impl Into<Vec<u8>>) -> DeviceTreeProperty {
        DeviceTreeProperty::new(name, value.into()).expect("valid property name")
    }

    fn text(name: &str, value: &str) -> DeviceTreeProperty {
        property(name, [value.as_bytes(), b"\0"].concat())
    }

    fn cell(name: &str, value: u32) -> DeviceTreeProperty {
        property(name, value.to_be_bytes())
    }

    fn dtb(carveouts: &[Carveout]) -> Vec<u8> {
        let mut tree = DeviceTree::new();
        let mut reserved = DeviceTreeNode::builder("reserved-memory")
            .expect("valid node name")
            .property(cell("#address-cells", 2))
            .property(cell("#size-cells", 2))
            .property(property("ranges", []))
            .build();
        for (i, c) in carveouts.iter().enumerate() {
            let phandle = i as u32 + 1;
            let reg = [c.base.to_be_bytes(), c.size.to_be_bytes()].concat();
            let mut region = DeviceTreeNode::builder(format!("{}@{:x}", c.name, c.base))
                .expect("valid node name")
                .property(property("reg", reg))
                .property(cell("phandle", phandle));
            if c.no_map {
                region = region.property(property("no-map", []));
            }
            reserved.add_child(region.build());
            let mut heap = DeviceTreeNode::builder(format!("heap-{}", c.name))
                .expect("valid node name")
                .property(text("compatible", c.compatible))
                .property(cell("memory-region", phandle));
            if let Some(use_case) = c.use_case {
                heap = heap.property(text("ringfence,use-case", use_case));
            }
            if let Some(protection) = c.protection {
                heap = heap.property(text("ringfence,protection", protection));
            }
            tree.root.add_child(heap.build());
        }
        tree.root.add_child(reserved);
        tree.to_dtb()
    }

    fn refusal(carveouts: &[Carveout]) -> String {
        derive(&dtb(carveouts))
            .expect_err("must be refused")
            .to_string()
    }

    #[test]
    fn protected_regions_reach_the_secure_world_and_plain_ones_do_not() {
        let camera = Carveout {
            name: "camera",
            base: 0x9000_0000,
            compatible: CARVEOUT_HEAP,
            use_case: None,
            ..VIDEO
        };
        let derived = derive(&dtb(&[VIDEO, camera])).expect("valid tree");
        assert!(derived
            .secure_dts
            .contains("reg = <0x1 0x80000000 0x0 0x400000>;"));
        assert!(derived
            .secure_dts
            .contains("ringfence,use-case = \"secure-video\";"));
        assert!(derived
            .el3_header
            .contains("{ 0x180000000ULL, 0x400000ULL }"));
        for text in [&derived.secure_dts, &derived.el3_header] {
            assert!(!text.contains("camera") && !text.contains("0x90000000"));
        }
    }

    #[test]
    fn a_region_that_linux_maps_is_refused() {
        let mapped = Carveout {
            no_map: false,
            ..VIDEO
        };
        assert!(refusal(&[mapped]).contains("must be `no-map`"));
    }

    #[test]
    fn overlapping_regions_are_refused() {
        let second = Carveout {
            name: "second",
            base: VIDEO.base + VIDEO.size - GRANULE,
            ..VIDEO
        };
        assert!(refusal(&[VIDEO, second]).contains("overlaps video@"));
    }

    #[test]
    fn empty_wrapping_and_misaligned_regions_are_refused() {
        for (base, size) in [
            (0x8000_0000, 0),
            (u64::MAX - 0xfff, 0x2000),
            (0x8000_0800, 0x1000),
            (0x8000_0000, 0x1800),
        ] {
            let bad = Carveout {
                base,
                size,
                ..VIDEO
            };
            assert!(refusal(&[bad]).contains("is empty, wraps or is not"));
        }
    }

    #[test]
    fn unknown_missing_and_misplaced_use_cases_are_refused() {
        for use_case in [None, Some("secure-vide0")] {
            let bad = Carveout { use_case, ..VIDEO };
            assert!(refusal(&[bad]).contains("must be one of secure-video"));
        }
        let plain = Carveout {
            compatible: CARVEOUT_HEAP,
            ..VIDEO
        };
        assert!(refusal(&[plain]).contains("belongs to a"));
    }

    #[test]
    fn the_protection_reaches_the_secure_world() {
        for (given, derived) in [
            (None, "buffer"),
            (Some("buffer"), "buffer"),
            (Some("region"), "region"),
        ] {
            let carveout = Carveout {
                protection: given,
                ..VIDEO
            };
            let dts = derive(&dtb(&[carveout])).expect("valid tree").secure_dts;
            assert!(dts.contains(&format!("ringfence,protection = \"{derived}\";")));
        }
        let unknown = Carveout {
            protection: Some("regions"),
            ..VIDEO
        };
        assert!(refusal(&[unknown]).contains("must be one of buffer, region"));
        let plain = Carveout {
            compatible: CARVEOUT_HEAP,
            use_case: None,
            protection: Some("buffer"),
            ..VIDEO
        };
        assert!(refusal(&[plain]).contains("`ringfence,protection` belongs to a"));
    }

    #[test]
    fn a_tree_without_protected_heaps_is_refused() {
        assert!(matches!(derive(&dtb(&[])), Err(CarveoutError::Nothing)));
        assert!(matches!(derive(b"?"), Err(CarveoutError::Unreadable(_))));
    }
}
