// SPDX-License-Identifier: MIT OR Apache-2.0

//! Writes the TA's header and linker script, and takes the factory key in,
//! when the trusted application itself is built (feature `optee`).

#[cfg(feature = "optee")]
use std::{env, error::Error, fs, path::PathBuf};

/// Names a file that holds the factory key.
#[cfg(feature = "optee")]
const KEY_VARIABLE: &str = "RINGFENCE_FACTORY_KEY_FILE";

/// Bytes of the factory key (AES-256).
#[cfg(feature = "optee")]
const KEY_SIZE: usize = 32;

/// Flags of a TA, from OP-TEE's `user_ta_header.h`.
///
/// One instance serves all sessions and lives on without any, because it holds
/// the handles. It is not kept when it crashes: a new instance learns all it
/// needs from the firewall. Linux finds it on the TEE bus.
#[cfg(feature = "optee")]
mod flag {
    pub const SINGLE_INSTANCE: u32 = 1 << 2;
    pub const MULTI_SESSION: u32 = 1 << 3;
    pub const INSTANCE_KEEP_ALIVE: u32 = 1 << 4;
    pub const DEVICE_ENUM: u32 = 1 << 9;
}

/// Bytes of stack: the deepest path is libutee's, below postcard's.
#[cfg(feature = "optee")]
const STACK_SIZE: u32 = 32 * 1024;

/// Bytes of heap: the ledger's records, the sessions, and what libutee keeps
/// for an operation.
#[cfg(feature = "optee")]
const HEAP_SIZE: u32 = 192 * 1024;

/// Messages up to this level go to the secure console: errors and information.
#[cfg(feature = "optee")]
const TRACE_LEVEL: i32 = 2;

#[cfg(not(feature = "optee"))]
fn main() {}

#[cfg(feature = "optee")]
fn main() -> Result<(), Box<dyn Error>> {
    embed_factory_key()?;
    let config = optee_utee_build::TaConfig::new_default_with_cargo_env(
        ringfence_proto::command::TA_UUID_TEXT,
    )
    .map_err(|error| format!("TA configuration: {error:?}"))?
    .ta_flags(
        flag::SINGLE_INSTANCE | flag::MULTI_SESSION | flag::INSTANCE_KEEP_ALIVE | flag::DEVICE_ENUM,
    )
    .ta_stack_size(STACK_SIZE)
    .ta_data_size(HEAP_SIZE)
    .trace_level(TRACE_LEVEL)
    .trace_ext_prefix("ringfence");
    optee_utee_build::build(config)
        .map_err(|error| format!("is TA_DEV_KIT_DIR set to OP-TEE's export-ta_arm64? {error:?}"))?;
    Ok(())
}

/// Checks the factory key, and hands its absolute path to the compiler.
#[cfg(feature = "optee")]
fn embed_factory_key() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-env-changed={KEY_VARIABLE}");
    let path = env::var_os(KEY_VARIABLE)
        .map(PathBuf::from)
        .ok_or_else(|| {
            format!("{KEY_VARIABLE} must name a file with the {KEY_SIZE}-byte factory key")
        })?;
    let path = fs::canonicalize(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    println!("cargo:rerun-if-changed={}", path.display());
    let size = fs::metadata(&path)?.len();
    if size != KEY_SIZE as u64 {
        return Err(format!(
            "{}: {size} bytes, a factory key has {KEY_SIZE}",
            path.display()
        )
        .into());
    }
    println!("cargo:rustc-env={KEY_VARIABLE}={}", path.display());
    Ok(())
}
