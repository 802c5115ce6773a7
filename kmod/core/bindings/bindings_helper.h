/* SPDX-License-Identifier: GPL-2.0 */
/* What bindgen reads for `bindings.rs`, sorted alphabetically. */
#include <linux/cma.h>
#include <linux/dma-buf.h>
#include <linux/dma-heap.h>
#include <linux/dma-map-ops.h>
#include <linux/dma-mapping.h>
#include <linux/gfp.h>
#include <linux/of_reserved_mem.h>
#include <linux/scatterlist.h>
#include <linux/shrinker.h>
#include <linux/tee.h>
#include <linux/tee_drv.h>
#include <linux/vmalloc.h>
#include <uapi/linux/dma-buf.h>
#include <uapi/ringfence.h>

#include "../inlines.h"

/* Macros that bindgen can't evaluate: it sees constants. */
const gfp_t RINGFENCE_GFP_FREE = (((GFP_HIGHUSER | __GFP_ZERO | __GFP_NOWARN |
				    __GFP_NORETRY) & ~__GFP_RECLAIM) | __GFP_COMP);
const gfp_t RINGFENCE_GFP_RECLAIM = (GFP_HIGHUSER | __GFP_ZERO | __GFP_NOWARN |
				     __GFP_RETRY_MAYFAIL | __GFP_COMP);
const gfp_t RINGFENCE_GFP_ACCOUNT = __GFP_ACCOUNT;

/* What a process's mapping can be made of in one piece. */
const unsigned long RINGFENCE_BLOCK = PMD_SIZE;
