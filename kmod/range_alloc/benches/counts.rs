// SPDX-License-Identifier: GPL-2.0

//! Instructions per call, of this allocator and of its peers, on the same calls.
//!
//! `cargo bench --bench counts [-- --json FILE]` prints a table, and writes all figures as JSON.
//! Needs valgrind.

#[path = "../tests/instructions/mod.rs"]
mod instructions;

use std::{env, error::Error, fs, process::ExitCode};

use instructions::{
    subject::{Subject, GRANULE},
    workload::Workload,
    Counts, Measured,
};
use offset_allocator::{Allocation, Allocator};
use ringfence_range_alloc::Request;
use serde_json::{json, Value};

const REGIONS: [u64; 4] = [64 << 20, 1 << 30, 16 << 30, 64 << 30];
const SUBJECTS: [&str; 3] = ["ringfence", "gen_pool", "offset-allocator"];

/// The crate `offset-allocator`, which knows no alignment: a request is padded by it.
struct OffsetAllocator(Allocator);

impl Subject for OffsetAllocator {
    type Token = Allocation;

    fn new(region: u64, max_live: usize) -> Self {
        let granules = (region / GRANULE) as u32;
        Self(Allocator::with_max_allocs(
            granules,
            2 * max_live as u32 + 2,
        ))
    }

    fn alloc(&mut self, request: Request) -> Option<Allocation> {
        let padding = request.align.div_ceil(GRANULE) - 1;
        self.0
            .allocate((request.size.div_ceil(GRANULE) + padding) as u32)
    }

    fn free(&mut self, token: Allocation) {
        self.0.free(token);
    }

    fn hold(&mut self, _start: u64, _granules: u64) -> Option<Allocation> {
        None
    }
}

fn main() -> ExitCode {
    let other = |name: &str, workload, region| match name {
        "offset-allocator" => instructions::run::<OffsetAllocator>(workload, region),
        _ => panic!("unknown subject {name}"),
    };
    if instructions::child(other).is_some() {
        return ExitCode::SUCCESS;
    }
    match report() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("counts: {error}");
            ExitCode::FAILURE
        }
    }
}

fn report() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let mut json_file = None;
    let mut wanted = false;
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--json" => json_file = Some(arguments.next().ok_or("--json needs a file")?),
            "--bench" => wanted = true,
            _ => return Err(format!("unknown argument {argument}").into()),
        }
    }
    if !wanted {
        println!("counts: run by `cargo bench`");
        return Ok(());
    }
    if !instructions::available() {
        return Err("valgrind is not installed".into());
    }
    let mut rows = Vec::new();
    println!("region     workload      subject             alloc max   median   free max   median  refused");
    for region in REGIONS {
        for workload in Workload::ALL {
            for subject in SUBJECTS {
                if !is_measured(workload, region, subject) {
                    continue;
                }
                let measured = instructions::measure(&[], workload, region, subject)?;
                let Measured {
                    alloc,
                    refused,
                    free,
                } = measured;
                println!(
                    "{:6} MiB {:13} {:18} {:10} {:8} {:10} {:8} {:8}",
                    region >> 20,
                    workload.name(),
                    subject,
                    alloc.max,
                    alloc.median,
                    free.max,
                    free.median,
                    refused.calls,
                );
                rows.push(json!({
                    "region": region,
                    "workload": workload.name(),
                    "subject": subject,
                    "alloc": counts(alloc),
                    "refused": counts(refused),
                    "free": counts(free),
                }));
            }
        }
    }
    if let Some(file) = json_file {
        let report = json!({
            "unit": "instructions of one call, by callgrind",
            "granule": GRANULE,
            "results": rows,
        });
        fs::write(file, format!("{report:#}\n"))?;
    }
    Ok(())
}

/// The adversarial states are made for one subject only; and gen_pool takes minutes to fill the
/// largest region, whose checkerboard says enough.
fn is_measured(workload: Workload, region: u64, subject: &str) -> bool {
    match (subject, workload) {
        ("ringfence", _) => true,
        (_, Workload::Adversarial) => false,
        ("gen_pool", Workload::Camera | Workload::Video(_)) => region <= 1 << 30,
        _ => true,
    }
}

fn counts(counts: Counts) -> Value {
    json!({ "calls": counts.calls, "max": counts.max, "median": counts.median })
}
