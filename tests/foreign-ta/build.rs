// SPDX-License-Identifier: MIT OR Apache-2.0

//! Writes the TA's header and linker script, when the trusted application itself
//! is built (feature `optee`).

#[cfg(feature = "optee")]
#[path = "../src/foreign.rs"]
#[expect(dead_code, reason = "the file is the whole protocol")]
mod foreign;

#[cfg(not(feature = "optee"))]
fn main() {}

#[cfg(feature = "optee")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let config = optee_utee_build::TaConfig::new_default_with_cargo_env(foreign::UUID_TEXT)
        .map_err(|error| format!("TA configuration: {error:?}"))?
        .ta_flags(0)
        .ta_stack_size(8 * 1024)
        .ta_data_size(32 * 1024)
        .trace_level(1)
        .trace_ext_prefix("foreign");
    optee_utee_build::build(config)
        .map_err(|error| format!("is TA_DEV_KIT_DIR set to OP-TEE's export-ta_arm64? {error:?}"))?;
    Ok(())
}
