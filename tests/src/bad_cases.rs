// SPDX-License-Identifier: MIT OR Apache-2.0

//! What heaps like these get wrong elsewhere, and the tests that it is right
//! here.

/// Something that has gone wrong elsewhere.
#[derive(Debug, Clone, Copy)]
pub struct BadCase {
    /// Its number.
    pub number: u32,
    /// What goes wrong.
    pub what: &'static str,
    /// The guest's tests of it.
    pub tests: &'static [&'static str],
}

const fn case(number: u32, what: &'static str, tests: &'static [&'static str]) -> BadCase {
    BadCase {
        number,
        what,
        tests,
    }
}

/// All of them.
pub const BAD_CASES: &[BadCase] = &[
    case(
        1,
        "protection fails open: an unknown answer is taken for success",
        &[
            "faults::an_application_that_refuses_any_command",
            "faults::a_firmware_that_fails_at_any_step_of_protect",
        ],
    ),
    case(
        2,
        "an error path answers nothing, or a positive number",
        &[
            "faults::a_driver_that_fails_at_any_step",
            "faults::memory_runs_out_at_any_step_of_allocation",
        ],
    ),
    case(
        3,
        "a scatter list or an export that fails loses the range",
        &[
            "faults::a_driver_that_fails_at_any_step",
            "faults::memory_runs_out_at_any_step_of_a_device",
            "inject::a_map_that_fails_leaves_the_buffer_whole",
        ],
    ),
    case(
        4,
        "the last release races the first allocation",
        &["lifecycle::release_beside_allocation"],
    ),
    case(
        5,
        "a range that can't be opened is used again",
        &[
            "inject::a_range_that_does_not_open_is_kept_until_asked_for",
            "faults::a_firmware_that_fails_at_any_step_of_release",
        ],
    ),
    case(
        6,
        "stale data: the next owner sees the last one's",
        &[
            "attacks::release_and_allocate",
            "stale::under_pressure_without_a_scrubber_nothing_is_stale",
            "protect::old_content_is_gone_before_the_fence_is_up",
        ],
    ),
    case(
        7,
        "a closed buffer makes no room yet",
        &["lifecycle::a_closed_buffer_makes_room_at_once"],
    ),
    case(
        8,
        "a foreign dma-buf is taken for one of ours",
        &["heaps::the_control_device_refuses_what_is_no_buffer_of_ours"],
    ),
    case(
        9,
        "mmap with offsets and in part, vmap, importers",
        &[
            "attacks::mmap",
            "attacks::vmap",
            "attacks::pages_of_a_mapping",
        ],
    ),
    case(
        10,
        "modules unload, drivers unbind under live buffers",
        &[
            "attacks::module_unload",
            "attacks::unbound_heap",
            "attacks::unbound_application",
            "lifecycle::the_tees_driver_goes_and_comes",
        ],
    ),
    case(
        11,
        "arguments that can't be written to, flags, sizes",
        &[
            "fuzz::arguments_at_the_edge_of_memory",
            "fuzz::arguments_that_change_meanwhile",
            "fuzz::ioctls_of_heaps",
        ],
    ),
    case(
        12,
        "memory references out of bounds, buffers closed before use",
        &[
            "fuzz::memory_references_out_of_bounds",
            "access::protected_memory_is_no_input",
        ],
    ),
    case(
        13,
        "bounce buffers, devices that don't reach the carveout",
        &["swiotlb::forced_bounce_buffers", "attacks::narrow_device"],
    ),
];
