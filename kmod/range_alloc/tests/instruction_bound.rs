// SPDX-License-Identifier: GPL-2.0

//! The gate: no call runs more instructions than `instruction_bounds.json` says.
//!
//! Skipped, and says so, where callgrind is not installed, or where the crate is not compiled as
//! in the kernel (`opt-level = 2`, one codegen unit, no debug assertions).

mod instructions;

use std::io::Write;

use instructions::{workload::Workload, Measured};
use serde_json::Value;

const REGIONS: [u64; 4] = [64 << 20, 1 << 30, 16 << 30, 64 << 30];

#[test]
#[ignore = "started by the_bounds_hold, under callgrind"]
fn child() {
    let other = |name: &str, _, _| panic!("unknown subject {name}");
    instructions::child(other).expect("a job from the parent");
}

fn measure(workload: Workload, region: u64, subject: &str) -> Measured {
    let arguments = ["--exact", "child", "--ignored", "--test-threads=1"];
    instructions::measure(&arguments, workload, region, subject).expect("callgrind works")
}

#[test]
#[cfg_attr(miri, ignore = "runs callgrind")]
fn the_bounds_hold() {
    let skip = if cfg!(debug_assertions) {
        Some("the crate is compiled with debug assertions")
    } else if !instructions::available() {
        Some("valgrind is not installed")
    } else {
        None
    };
    if let Some(reason) = skip {
        // Not by the macro, whose output a passing test loses.
        let _ = writeln!(std::io::stderr(), "SKIPPED the_bounds_hold: {reason}");
        return;
    }

    let bounds: Value =
        serde_json::from_str(include_str!("../instruction_bounds.json")).expect("valid JSON");
    let bound = |name: &str| bounds[name].as_f64().expect("a bound");
    let mut worst = Vec::new();
    for region in REGIONS {
        let (mut alloc, mut free) = (0, 0);
        for workload in [
            Workload::Empty,
            Workload::Camera,
            Workload::Video(95),
            Workload::Adversarial,
        ] {
            let measured = measure(workload, region, "ringfence");
            let name = workload.name();
            for (call, counts) in [("alloc", measured.alloc), ("free", measured.free)] {
                assert!(counts.calls > 100, "{call}, {name}, {region}: {counts:?}");
                let ratio = counts.max as f64 / counts.median as f64;
                assert!(
                    counts.max as f64 <= bound(call),
                    "{call}, {name}, {region}: {counts:?}"
                );
                assert!(
                    ratio <= bound("max_over_median"),
                    "{call}, {name}, {region}: {counts:?}"
                );
            }
            alloc = alloc.max(measured.alloc.max.max(measured.refused.max));
            free = free.max(measured.free.max);
        }
        worst.push((alloc, free));
    }

    let (Some(&smallest), Some(&largest)) = (worst.first(), worst.last()) else {
        unreachable!("there are regions");
    };
    let growth = [
        largest.0 as f64 / smallest.0 as f64,
        largest.1 as f64 / smallest.1 as f64,
    ];
    assert!(
        growth
            .iter()
            .all(|&g| g <= bound("largest_region_over_smallest")),
        "{worst:?}"
    );

    let gen_pool = measure(Workload::Checkerboard, 1 << 30, "gen_pool")
        .alloc
        .max;
    let ratio = gen_pool as f64 / worst[1].0 as f64;
    assert!(
        ratio >= bound("gen_pool_over_ours_at_1_gib"),
        "{gen_pool} over {}",
        worst[1].0
    );
    let _ = writeln!(
        std::io::stderr(),
        "worst alloc and free of {REGIONS:?}: {worst:?}, gen_pool {gen_pool}"
    );
}
