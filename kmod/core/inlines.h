/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Inline functions and macros of the kernel that bindgen can't see, one thin
 * function each.
 */
#ifndef RINGFENCE_INLINES_H
#define RINGFENCE_INLINES_H

#include <linux/cgroup_dmem.h>
#include <linux/cma.h>
#include <linux/device.h>
#include <linux/dma-buf.h>
#include <linux/dma-direction.h>
#include <linux/dma-mapping.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/scatterlist.h>
#include <linux/types.h>
#include <linux/workqueue.h>

/* Binary logarithm of the alignment beyond which CMA does not go by itself, in pages. */
#ifdef CONFIG_CMA_ALIGNMENT
#define RINGFENCE_CMA_ALIGNMENT CONFIG_CMA_ALIGNMENT
#endif

void ringfence_module_get(struct module *module);
bool ringfence_fatal_signal_pending(void);
void ringfence_cond_resched(void);
struct workqueue_struct *ringfence_workqueue(void);
void ringfence_current(int *tgid, char *comm);
void *ringfence_kmalloc(size_t size);

struct cma *ringfence_default_cma_area(void);
void ringfence_cma_figures(struct cma *area, unsigned long *pages,
			   unsigned long *free, unsigned long *longest);

u64 ringfence_dma_buf_inode(struct dma_buf *buffer);

struct dmem_cgroup_region *ringfence_dmem_register(const char *name, u64 size);
void ringfence_dmem_unregister(struct dmem_cgroup_region *region);
int ringfence_dmem_try_charge(struct dmem_cgroup_region *region, u64 size,
			      struct dmem_cgroup_pool_state **pool);

void ringfence_sg_set_dma(struct scatterlist *sg, dma_addr_t addr, unsigned int len);
dma_addr_t ringfence_sg_dma_address(struct scatterlist *sg);
bool ringfence_dma_is_translated(struct device *dev);
bool ringfence_dma_reaches(struct device *dev, phys_addr_t phys, size_t size, bool cached);
bool ringfence_dma_is_coherent(struct device *dev);
bool ringfence_iova_alloc(struct device *dev, struct dma_iova_state *state,
			  phys_addr_t phys, size_t size);
int ringfence_iova_link(struct device *dev, struct dma_iova_state *state,
			phys_addr_t phys, size_t offset, size_t size,
			enum dma_data_direction dir, unsigned long attrs);
int ringfence_iova_sync(struct device *dev, struct dma_iova_state *state, size_t size);
void ringfence_iova_destroy(struct device *dev, struct dma_iova_state *state,
			    size_t linked, enum dma_data_direction dir,
			    unsigned long attrs);
bool ringfence_has_cache_maintenance(void);
void ringfence_write_back(void *addr, size_t size);
void ringfence_invalidate(void *addr, size_t size);
int ringfence_dma_mapping_error(struct device *dev, dma_addr_t addr);

bool ringfence_request_mem_region(phys_addr_t start, phys_addr_t size, const char *name);
void ringfence_release_mem_region(phys_addr_t start, phys_addr_t size);
bool ringfence_is_mapped_memory(phys_addr_t phys);

struct page *ringfence_page_at(phys_addr_t phys);
phys_addr_t ringfence_page_to_phys(struct page *page);
void ringfence_clear_pages(struct page *page, unsigned long count);
bool ringfence_page_is_reusable(struct page *page);
void *ringfence_linear_address(struct page *page);
void *ringfence_vmap(struct page **pages, unsigned int count);
unsigned long ringfence_totalram_pages(void);
unsigned long ringfence_obtainable_pages(void);

int ringfence_map_pages(struct vm_area_struct *vma, unsigned long addr,
			struct page *page, unsigned long count);
bool ringfence_prepare_faults(struct vm_area_struct *vma);
vm_fault_t ringfence_insert_pages(struct vm_fault *vmf, struct page *page,
				  unsigned long count);
vm_fault_t ringfence_insert_frame(struct vm_area_struct *vma, unsigned long addr,
				  phys_addr_t phys);
vm_fault_t ringfence_insert_block(struct vm_fault *vmf, phys_addr_t phys);

void ringfence_invalidate_vmap(void *addr, size_t size);
void ringfence_flush_vmap(void *addr, size_t size);
int ringfence_wait_for_fences(struct dma_buf *buf, enum dma_data_direction dir);
void ringfence_sync_table_for_cpu(struct device *dev, struct sg_table *table,
				  enum dma_data_direction dir);
void ringfence_sync_table_for_device(struct device *dev, struct sg_table *table,
				     enum dma_data_direction dir);
void ringfence_sync_for_cpu(struct device *dev, dma_addr_t addr, size_t size,
			    enum dma_data_direction dir);
void ringfence_sync_for_device(struct device *dev, dma_addr_t addr, size_t size,
			       enum dma_data_direction dir);

#endif /* RINGFENCE_INLINES_H */
