// SPDX-License-Identifier: MIT OR Apache-2.0

//! The fuzz target's seeds: written from typed operations, run as they are, and
//! run with a number of mutations that are the same every time.
//!
//! With `RINGFENCE_WRITE_SEEDS=1` in the environment the seeds are written
//! instead of compared.

mod simulation;

#[path = "../../proto/fuzz/seeds.rs"]
mod stored;

use std::collections::BTreeMap;
use std::path::PathBuf;

use ringfence_firewall::extent::{BLOCK, GRANULE};
use simulation::{address, Faults, Operation, World, RECORD, UI, VIDEO};
use stored::Numbers;

/// Mutated runs of each seed.
const MUTATIONS: usize = 60;

/// Name and content of every seed: the machine, then operations.
fn seeds() -> BTreeMap<&'static str, Vec<u8>> {
    use Operation::*;

    let page = |first: u64, n: u64| address(first + n);
    let life = [
        Protect {
            start: page(VIDEO, 500),
            size: 3 * BLOCK / 2,
        },
        MapListed {
            index: 0,
            offset: GRANULE,
            size: 4 * GRANULE,
        },
        TaWrites,
        ReleaseListed { index: 0 },
        UnmapWindow { index: 0 },
        ReleaseListed { index: 0 },
        NormalWorldWrites { page: VIDEO + 500 },
    ];
    let region = [
        ProtectRegion,
        Name {
            start: page(RECORD, 3),
            size: 5 * GRANULE,
        },
        DeviceWrites { page: RECORD + 4 },
        MapListed {
            index: 1,
            offset: 0,
            size: GRANULE,
        },
        TaWrites,
        TaDies,
        Scrub {
            start: page(RECORD, 8),
            size: 16 * GRANULE,
        },
        Forget {
            start: page(RECORD, 3),
            size: 5 * GRANULE,
        },
        ReleaseListed { index: 0 },
    ];
    let two = [
        Protect {
            start: page(VIDEO, 20),
            size: 8 * GRANULE,
        },
        Switch { application: 1 },
        MapListed {
            index: 0,
            offset: 0,
            size: GRANULE,
        },
        Switch { application: 2 },
        MapListed {
            index: 0,
            offset: 2 * GRANULE,
            size: GRANULE,
        },
        Switch { application: 0 },
        ReleaseListed { index: 0 },
        Switch { application: 1 },
        TaDies,
        Switch { application: 2 },
        MapListed {
            index: 0,
            offset: 2 * GRANULE,
            size: GRANULE,
        },
        Reopen,
        UnmapWindow { index: 0 },
        MapListed {
            index: 0,
            offset: 3 * GRANULE,
            size: GRANULE,
        },
        TaDies,
        ReleaseListed { index: 0 },
    ];
    let neighbours = [VIDEO, VIDEO + 2, VIDEO + 1, UI - 1, UI].map(|first| Protect {
        start: address(first),
        size: GRANULE,
    });
    let mut faults = Vec::new();
    for n in 0..4 {
        faults.push(Fail {
            faults: Faults::Two(n, n + 1),
        });
        faults.push(Protect {
            start: page(UI, 100 * n),
            size: 90 * GRANULE,
        });
        faults.push(ReleaseListed { index: 0 });
    }
    let spell = |machine: u8, operations: &[Operation]| {
        let mut bytes = vec![machine];
        for operation in operations {
            operation.encode(&mut bytes);
        }
        bytes
    };
    BTreeMap::from([
        ("faults-table", spell(0, &faults)),
        ("faults-windows", spell(3, &faults)),
        ("life-table", spell(0, &life)),
        ("life-windows", spell(1, &life)),
        ("neighbours-windows", spell(2, &neighbours)),
        ("owners-table", spell(0, &two)),
        ("region-table", spell(0, &region)),
        ("region-windows", spell(1, &region)),
    ])
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds/ledger")
}

#[test]
fn seeds_are_what_the_operations_say() {
    let seeds = seeds();
    assert_eq!(stored::check(&folder(), &seeds).len(), seeds.len());
}

#[test]
fn operations_are_read_as_they_were_written() {
    for (name, bytes) in seeds() {
        let read: Vec<_> = Operation::decode(&bytes[1..]).collect();
        let mut again = vec![bytes[0]];
        for operation in &read {
            operation.encode(&mut again);
        }
        assert_eq!(again, bytes, "{name}: {read:x?}");
    }
}

#[test]
fn seeds_and_what_is_near_them_hold_the_invariants() {
    let seeds: Vec<_> = seeds().into_values().collect();
    let mut numbers = Numbers::new();
    for seed in &seeds {
        World::run(seed);
        for _ in 0..MUTATIONS {
            let mut bytes = seed.clone();
            for _ in 0..=numbers.below(4) {
                let at = numbers.below(bytes.len());
                match numbers.below(4) {
                    0 => bytes[at] ^= 1 << numbers.below(8),
                    1 => bytes[at] = numbers.below(256) as u8,
                    2 => bytes.truncate(at.max(1)),
                    _ => {
                        let other = &seeds[numbers.below(seeds.len())];
                        bytes.extend_from_slice(&other[1 + numbers.below(other.len() - 1)..]);
                    }
                }
            }
            World::run(&bytes);
        }
    }
}
