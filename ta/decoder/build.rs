// SPDX-License-Identifier: MIT OR Apache-2.0

//! Writes the TA's header and linker script, when the trusted application itself
//! is built (feature `optee`).

/// No flags: each session has an instance, and so an address space, of its own.
/// One session's bitstream can't spoil what another one sees, nor end it, and no
/// lock of OP-TEE's is held while a picture is decoded.
#[cfg(feature = "optee")]
const FLAGS: u32 = 0;

/// Bytes of stack: the codec keeps its tables there.
#[cfg(feature = "optee")]
const STACK_SIZE: u32 = 128 * 1024;

/// Bytes of heap: what a picture takes (`picture::MEMORY`), and some for what
/// libutee and the allocator keep for themselves.
#[cfg(feature = "optee")]
const HEAP_SIZE: u32 = (512 + 64) * 1024;

/// Messages up to this level go to the secure console: errors and information.
#[cfg(feature = "optee")]
const TRACE_LEVEL: i32 = 2;

#[cfg(not(feature = "optee"))]
fn main() {}

#[cfg(feature = "optee")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let config = optee_utee_build::TaConfig::new_default_with_cargo_env(
        ringfence_proto::decoder::DECODER_UUID_TEXT,
    )
    .map_err(|error| format!("TA configuration: {error:?}"))?
    .ta_flags(FLAGS)
    .ta_stack_size(STACK_SIZE)
    .ta_data_size(HEAP_SIZE)
    .trace_level(TRACE_LEVEL)
    .trace_ext_prefix("ringfence-decoder");
    optee_utee_build::build(config)
        .map_err(|error| format!("is TA_DEV_KIT_DIR set to OP-TEE's export-ta_arm64? {error:?}"))?;
    Ok(())
}
