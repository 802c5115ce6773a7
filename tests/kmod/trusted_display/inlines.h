/* SPDX-License-Identifier: GPL-2.0 */
/* What the display's driver needs of the kernel and can't have from Rust. */
#ifndef RINGFENCE_TRUSTED_DISPLAY_INLINES_H
#define RINGFENCE_TRUSTED_DISPLAY_INLINES_H

#include <linux/types.h>

phys_addr_t display_zeros(void);

#endif
