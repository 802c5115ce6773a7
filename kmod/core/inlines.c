// SPDX-License-Identifier: GPL-2.0

#include <linux/dma-direct.h>
#include <linux/dma-mapping.h>
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
