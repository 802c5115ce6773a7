// SPDX-License-Identifier: GPL-2.0

#include <linux/cgroup_dmem.h>
#include <linux/dma-buf.h>
#include <linux/dma-direct.h>
#include <linux/dma-mapping.h>
#include <linux/fs.h>
#include <linux/ioport.h>
#include <linux/iommu.h>
#include <linux/memory.h>
#include <linux/pfn.h>
#include <linux/sched.h>
#include <linux/sched/signal.h>
#include <linux/string.h>

#include "inlines.h"

void ringfence_module_get(struct module *module)
{
	__module_get(module);
}

bool ringfence_fatal_signal_pending(void)
{
	return fatal_signal_pending(current);
}

void ringfence_cond_resched(void)
{
	cond_resched();
}

struct workqueue_struct *ringfence_workqueue(void)
{
	return alloc_workqueue("ringfence", WQ_UNBOUND | WQ_FREEZABLE | WQ_SYSFS, 0);
}

/*
 * Not by way of bindgen's task_struct: where a member is an empty structure with
 * an alignment (sched_statistics without CONFIG_SCHEDSTATS), what follows it lies
 * elsewhere there.
 */
int ringfence_current_tgid(void)
{
	return task_tgid_nr(current);
}

/* @comm has TASK_COMM_LEN bytes. */
void ringfence_current_comm(char *comm)
{
	strscpy_pad(comm, current->comm, TASK_COMM_LEN);
}

void ringfence_list_init(struct list_head *head)
{
	INIT_LIST_HEAD(head);
}

void ringfence_list_append(struct list_head *entry, struct list_head *head)
{
	list_add_tail(entry, head);
}

void ringfence_list_remove(struct list_head *entry)
{
	list_del(entry);
}

u64 ringfence_dma_buf_inode(struct dma_buf *buffer)
{
	return file_inode(buffer->file)->i_ino;
}

/* The controller's functions are inline, and do nothing, without CONFIG_CGROUP_DMEM. */

struct dmem_cgroup_region *ringfence_dmem_register(const char *name, u64 size)
{
	const struct dmem_cgroup_init init = { .size = size };

	return dmem_cgroup_register_region(&init, "ringfence/%s", name);
}

void ringfence_dmem_unregister(struct dmem_cgroup_region *region)
{
	dmem_cgroup_unregister_region(region);
}

int ringfence_dmem_try_charge(struct dmem_cgroup_region *region, u64 size,
			      struct dmem_cgroup_pool_state **pool)
{
	return dmem_cgroup_try_charge(region, size, pool, NULL);
}

void ringfence_dmem_uncharge(struct dmem_cgroup_pool_state *pool, u64 size)
{
	dmem_cgroup_uncharge(pool, size);
}

void ringfence_sg_set_dma(struct scatterlist *sg, dma_addr_t addr, unsigned int len)
{
	/* No CPU side: an importer that looks for pages finds none. */
	sg_set_page(sg, NULL, 0, 0);
	sg_dma_address(sg) = addr;
	sg_dma_len(sg) = len;
}

dma_addr_t ringfence_sg_dma_address(struct scatterlist *sg)
{
	return sg_dma_address(sg);
}

/*
 * Whether @dev can address the memory. Behind an IOMMU it can address all of
 * it; otherwise dma_map_phys() would find out too, but with a warning.
 */
bool ringfence_dma_reaches(struct device *dev, phys_addr_t phys, size_t size)
{
	if (!dev->dma_mask)
		return false;
	if (device_iommu_mapped(dev))
		return true;
	return dma_capable(dev, phys_to_dma(dev, phys), size, false, DMA_ATTR_MMIO);
}

int ringfence_dma_mapping_error(struct device *dev, dma_addr_t addr)
{
	return dma_mapping_error(dev, addr);
}

bool ringfence_request_mem_region(phys_addr_t start, phys_addr_t size, const char *name)
{
	return request_mem_region(start, size, name);
}

void ringfence_release_mem_region(phys_addr_t start, phys_addr_t size)
{
	release_mem_region(start, size);
}

/* Whether the kernel maps this memory for its own use. */
bool ringfence_is_mapped_memory(phys_addr_t phys)
{
#ifdef CONFIG_ARM64
	return pfn_is_map_memory(PHYS_PFN(phys));
#else
	return page_is_ram(PHYS_PFN(phys));
#endif
}
