/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Inline functions and macros of the kernel that bindgen can't see, one thin
 * function each.
 */
#ifndef RINGFENCE_INLINES_H
#define RINGFENCE_INLINES_H

#include <linux/cgroup_dmem.h>
#include <linux/device.h>
#include <linux/dma-buf.h>
#include <linux/list.h>
#include <linux/module.h>
#include <linux/scatterlist.h>
#include <linux/types.h>
#include <linux/workqueue.h>

void ringfence_module_get(struct module *module);
bool ringfence_fatal_signal_pending(void);
void ringfence_cond_resched(void);
struct workqueue_struct *ringfence_workqueue(void);
int ringfence_current_tgid(void);
void ringfence_current_comm(char *comm);

void ringfence_list_init(struct list_head *head);
void ringfence_list_append(struct list_head *entry, struct list_head *head);
void ringfence_list_remove(struct list_head *entry);

u64 ringfence_dma_buf_inode(struct dma_buf *buffer);

struct dmem_cgroup_region *ringfence_dmem_register(const char *name, u64 size);
void ringfence_dmem_unregister(struct dmem_cgroup_region *region);
int ringfence_dmem_try_charge(struct dmem_cgroup_region *region, u64 size,
			      struct dmem_cgroup_pool_state **pool);
void ringfence_dmem_uncharge(struct dmem_cgroup_pool_state *pool, u64 size);

void ringfence_sg_set_dma(struct scatterlist *sg, dma_addr_t addr, unsigned int len);
dma_addr_t ringfence_sg_dma_address(struct scatterlist *sg);
bool ringfence_dma_reaches(struct device *dev, phys_addr_t phys, size_t size);
int ringfence_dma_mapping_error(struct device *dev, dma_addr_t addr);

bool ringfence_request_mem_region(phys_addr_t start, phys_addr_t size, const char *name);
void ringfence_release_mem_region(phys_addr_t start, phys_addr_t size);
bool ringfence_is_mapped_memory(phys_addr_t phys);

#endif /* RINGFENCE_INLINES_H */
