// SPDX-License-Identifier: GPL-2.0

#include <linux/cgroup_dmem.h>
#include <linux/dma-buf.h>
#include <linux/dma-direct.h>
#include <linux/dma-map-ops.h>
#include <linux/dma-mapping.h>
#include <linux/dma-resv.h>
#include <linux/fs.h>
#include <linux/highmem.h>
#include <linux/huge_mm.h>
#include <linux/ioport.h>
#include <linux/iommu-dma.h>
#include <linux/libnvdimm.h>
#include <linux/memory.h>
#include <linux/mm.h>
#include <linux/pfn.h>
#include <linux/sched.h>
#include <linux/sched/signal.h>
#include <linux/sizes.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/swap.h>
#include <linux/swiotlb.h>
#include <linux/vmalloc.h>

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
void ringfence_current(int *tgid, char *comm)
{
	*tgid = task_tgid_nr(current);
	/*
	 * All of it, as the kernel pads it with zeros. Should another thread give
	 * it another name meanwhile, it is something of both.
	 */
	memcpy(comm, current->comm, TASK_COMM_LEN);
	comm[TASK_COMM_LEN - 1] = '\0';
}

/* A size that the compiler knows is allocated faster. */
void *ringfence_kmalloc(size_t size)
{
	return size <= 256 ? kmalloc(256, GFP_KERNEL) : kmalloc(size, GFP_KERNEL);
}

#ifdef CONFIG_DMA_CMA

/*
 * How full an area is, is in a structure that the kernel keeps to itself. Where
 * its whole source is at hand so is the declaration; elsewhere nothing is known.
 */
#if __has_include(<../mm/cma.h>)
#include <../mm/cma.h>
#define HAS_CMA
#endif

struct cma *ringfence_default_cma_area(void)
{
	return dev_get_cma_area(NULL);
}

void ringfence_cma_figures(struct cma *area, unsigned long *pages,
			   unsigned long *free, unsigned long *longest)
{
	*pages = *free = *longest = 0;
#ifdef HAS_CMA
	spin_lock_irq(&area->lock);
	*pages = area->count;
	*free = area->available_count;
	for (int index = 0; index < area->nranges; index++) {
		const struct cma_memrange *range = &area->ranges[index];
		unsigned long count = cma_bitmap_maxno(area, (struct cma_memrange *)range);
		unsigned long start, end;

		for_each_clear_bitrange(start, end, range->bitmap, count)
			*longest = max(*longest, (end - start) << area->order_per_bit);
	}
	spin_unlock_irq(&area->lock);
#endif
}

#endif /* CONFIG_DMA_CMA */

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

/* Whether an IOMMU makes scattered memory contiguous for @dev. */
bool ringfence_dma_is_translated(struct device *dev)
{
	return use_dma_iommu(dev);
}

/*
 * Whether @dev can address the memory. Behind an IOMMU it can address all of
 * it; otherwise dma_map_phys() would find out too, but with a warning, or it
 * would bounce what the CPU sees as memory.
 */
bool ringfence_dma_reaches(struct device *dev, phys_addr_t phys, size_t size, bool cached)
{
	if (!dev->dma_mask)
		return false;
	if (use_dma_iommu(dev) || get_dma_ops(dev))
		return true;
	if (is_swiotlb_force_bounce(dev))
		return false;
	return dma_capable(dev, phys_to_dma(dev, phys), size, cached,
			   cached ? 0 : DMA_ATTR_MMIO);
}

/* Whether @dev sees what the CPU's caches hold. */
bool ringfence_dma_is_coherent(struct device *dev)
{
	return dev_is_dma_coherent(dev);
}

bool ringfence_iova_alloc(struct device *dev, struct dma_iova_state *state,
			  phys_addr_t phys, size_t size)
{
	return dma_iova_try_alloc(dev, state, phys, size);
}

int ringfence_iova_link(struct device *dev, struct dma_iova_state *state,
			phys_addr_t phys, size_t offset, size_t size,
			enum dma_data_direction dir, unsigned long attrs)
{
	return dma_iova_link(dev, state, phys, offset, size, dir, attrs);
}

int ringfence_iova_sync(struct device *dev, struct dma_iova_state *state, size_t size)
{
	return dma_iova_sync(dev, state, 0, size);
}

void ringfence_iova_destroy(struct device *dev, struct dma_iova_state *state,
			    size_t linked, enum dma_data_direction dir,
			    unsigned long attrs)
{
	dma_iova_destroy(dev, state, linked, dir, attrs);
}

/* Whether the next two do something. */
bool ringfence_has_cache_maintenance(void)
{
	return IS_ENABLED(CONFIG_ARCH_HAS_PMEM_API);
}

/* To where devices that do not look into caches see it. */
void ringfence_write_back(void *addr, size_t size)
{
	arch_wb_cache_pmem(addr, size);
}

void ringfence_invalidate(void *addr, size_t size)
{
	arch_invalidate_pmem(addr, size);
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

/* The page's description, if memory at that address has one. */
struct page *ringfence_page_at(phys_addr_t phys)
{
	unsigned long pfn = PHYS_PFN(phys);

	return pfn_valid(pfn) ? pfn_to_page(pfn) : NULL;
}

phys_addr_t ringfence_page_to_phys(struct page *page)
{
	return page_to_phys(page);
}

void ringfence_clear_pages(struct page *page, unsigned long count)
{
	for (; count; count--, page++) {
		clear_highpage_kasan_tagged(page);
		if (!(count % 64))
			cond_resched();
	}
}

/* @page is the first one of its block. */
bool ringfence_page_is_reusable(struct page *page)
{
	return page_count(page) == 1 &&
	       !folio_contain_hwpoisoned_page(page_folio(page));
}

/* Where the kernel has the page anyhow; NULL when it has not. */
void *ringfence_linear_address(struct page *page)
{
	return PageHighMem(page) ? NULL : page_address(page);
}

void *ringfence_vmap(struct page **pages, unsigned int count)
{
	return vmap(pages, count, VM_MAP, PAGE_KERNEL);
}

unsigned long ringfence_totalram_pages(void)
{
	return totalram_pages();
}

unsigned long ringfence_obtainable_pages(void)
{
	return si_mem_available() + get_nr_swap_pages();
}

/*
 * A page that may be written to is dirty from the start. Nobody writes it back,
 * so there is nothing to be learnt from a fault when it is written to first.
 */
static pgprot_t page_prot(struct vm_area_struct *vma)
{
	pgprot_t dirty;

	if ((vma->vm_flags & (VM_SHARED | VM_WRITE)) != (VM_SHARED | VM_WRITE))
		return vma->vm_page_prot;
	dirty = pte_pgprot(pte_mkdirty(pfn_pte(0, vma->vm_page_prot)));
	/* Some architectures can't tell. */
	return pgprot_val(dirty) ? dirty : vma->vm_page_prot;
}

int ringfence_map_pages(struct vm_area_struct *vma, unsigned long addr,
			struct page *page, unsigned long count)
{
	return remap_pfn_range(vma, addr, page_to_pfn(page), count << PAGE_SHIFT,
			       page_prot(vma));
}

/* For ringfence_insert_page(); refused when writes would make copies. */
bool ringfence_prepare_faults(struct vm_area_struct *vma)
{
	if (!(vma->vm_flags & (VM_SHARED | VM_MAYSHARE)))
		return false;
	vm_flags_set(vma, VM_IO | VM_PFNMAP | VM_DONTEXPAND | VM_DONTDUMP);
	return true;
}

/*
 * Inserts @page, and of the @count pages that follow it those that the area has
 * room for: they are likely to be touched next, and a fault costs as much as ten
 * of them.
 */
vm_fault_t ringfence_insert_pages(struct vm_fault *vmf, struct page *page,
				  unsigned long count)
{
	struct vm_area_struct *vma = vmf->vma;
	unsigned long pfn = page_to_pfn(page);
	unsigned long addr = vmf->address;
	pgprot_t prot = page_prot(vma);
	vm_fault_t ret = vmf_insert_pfn_prot(vma, addr, pfn, prot);

	for (; ret == VM_FAULT_NOPAGE && count; count--) {
		addr += PAGE_SIZE;
		/* No further than one table of entries. */
		if (addr >= vma->vm_end || !(addr & ~PMD_MASK))
			break;
		if (vmf_insert_pfn_prot(vma, addr, ++pfn, prot) != VM_FAULT_NOPAGE)
			break;
	}
	return ret;
}

/*
 * Nobody asks whether the page was written to: a CPU that does not take note of
 * that by itself is not to fault once more for it.
 */
vm_fault_t ringfence_insert_frame(struct vm_area_struct *vma, unsigned long addr,
				  phys_addr_t phys)
{
	unsigned long pfn = PHYS_PFN(phys);
	pgprot_t prot = vma->vm_page_prot;

#if defined(CONFIG_ARM64) || defined(CONFIG_X86)
	if (vma->vm_flags & VM_WRITE)
		prot = pte_pgprot(pte_mkdirty(pfn_pte(pfn, prot)));
#endif
	return vmf_insert_pfn_prot(vma, addr, pfn, prot);
}

/* A block of RINGFENCE_BLOCK bytes around the address of the fault. */
vm_fault_t ringfence_insert_block(struct vm_fault *vmf, phys_addr_t phys)
{
#ifdef CONFIG_ARCH_SUPPORTS_PMD_PFNMAP
	return vmf_insert_pfn_pmd(vmf, PHYS_PFN(phys), vmf->flags & FAULT_FLAG_WRITE);
#else
	return VM_FAULT_FALLBACK;
#endif
}

/* These two take the size as an int. */
static int vmap_part(size_t size)
{
	return min_t(size_t, size, SZ_1G);
}

void ringfence_invalidate_vmap(void *addr, size_t size)
{
	for (; size; addr += vmap_part(size), size -= vmap_part(size))
		invalidate_kernel_vmap_range(addr, vmap_part(size));
}

void ringfence_flush_vmap(void *addr, size_t size)
{
	for (; size; addr += vmap_part(size), size -= vmap_part(size))
		flush_kernel_vmap_range(addr, vmap_part(size));
}

/* What the dma-buf core waits for before the CPU accesses a buffer. */
int ringfence_wait_for_fences(struct dma_buf *buf, enum dma_data_direction dir)
{
	bool write = dir == DMA_BIDIRECTIONAL || dir == DMA_TO_DEVICE;
	long ret = dma_resv_wait_timeout(buf->resv, dma_resv_usage_rw(write), true,
					 MAX_SCHEDULE_TIMEOUT);

	return ret < 0 ? ret : 0;
}

void ringfence_sync_table_for_cpu(struct device *dev, struct sg_table *table,
				  enum dma_data_direction dir)
{
	dma_sync_sgtable_for_cpu(dev, table, dir);
}

void ringfence_sync_table_for_device(struct device *dev, struct sg_table *table,
				     enum dma_data_direction dir)
{
	dma_sync_sgtable_for_device(dev, table, dir);
}

void ringfence_sync_for_cpu(struct device *dev, dma_addr_t addr, size_t size,
			    enum dma_data_direction dir)
{
	dma_sync_single_for_cpu(dev, addr, size, dir);
}

void ringfence_sync_for_device(struct device *dev, dma_addr_t addr, size_t size,
			       enum dma_data_direction dir)
{
	dma_sync_single_for_device(dev, addr, size, dir);
}
