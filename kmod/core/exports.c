// SPDX-License-Identifier: GPL-2.0
/*
 * The core's Rust functions, for the heap modules, as rust/exports.c does it
 * for the kernel crate. A heap module that was built against another core
 * finds other names, and does not load.
 */

#include <linux/export.h>

#define EXPORT_SYMBOL_RUST_GPL(sym) extern int sym; EXPORT_SYMBOL_GPL(sym)

#include "exports_generated.h"
