/* SPDX-License-Identifier: GPL-2.0 */
/* What bindgen reads for `bindings.rs`, sorted alphabetically. */
#include <linux/dma-buf.h>
#include <linux/dma-heap.h>
#include <linux/dma-mapping.h>
#include <linux/of_reserved_mem.h>
#include <linux/scatterlist.h>
#include <linux/tee.h>
#include <linux/tee_drv.h>
#include <uapi/ringfence.h>

#include "../inlines.h"
