/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the hostile module needs of the kernel and can't have from Rust: inline
 * functions, and structures that the kernel crate does not know.
 */
#ifndef RINGFENCE_HOSTILE_INLINES_H
#define RINGFENCE_HOSTILE_INLINES_H

#include <linux/types.h>

struct hostile_importer;

/* What an importer sees of a mapped buffer. */
struct hostile_view {
	u64 address;		/* for the device, of the first entry */
	u64 size;		/* bytes of all entries */
	u32 entries;		/* for the device */
	u32 pages;		/* entries with a page for the CPU */
};

/* Ways to map physical memory: see hostile_touch(). */
enum hostile_mapping {
	HOSTILE_WB,		/* memremap(), write-back */
	HOSTILE_WC,		/* memremap(), write-combining */
	HOSTILE_IO,		/* ioremap() */
	HOSTILE_VMAP,		/* vmap() of the struct page, if it has one */
};

/* What is done through the mapping. */
enum hostile_touch {
	HOSTILE_NOTHING,
	HOSTILE_READ,
	HOSTILE_NOFAULT,	/* a read that takes a fault for an error */
	HOSTILE_WRITE,
};

int hostile_touch(phys_addr_t phys, int mapping, int touch, u64 *value);
u64 hostile_smc(u64 function, u64 x1, u64 x2);
int hostile_import(int fd, const char *node, u64 mask, struct hostile_importer **out);
int hostile_map(struct hostile_importer *importer, struct hostile_view *view);
void hostile_release(struct hostile_importer *importer);
int hostile_vmap(int fd);
int hostile_cpu_access(int fd);
int hostile_keep_awake(bool awake);
int hostile_dma(phys_addr_t phys);

#endif
