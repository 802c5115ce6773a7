// SPDX-License-Identifier: GPL-2.0

#include "inlines.h"

#include <linux/arm-smccc.h>
#include <linux/device.h>
#include <linux/dma-buf.h>
#include <linux/err.h>
#include <linux/io.h>
#include <linux/iopoll.h>
#include <linux/iosys-map.h>
#include <linux/mm.h>
#include <linux/of.h>
#include <linux/of_address.h>
#include <linux/of_platform.h>
#include <linux/pci.h>
#include <linux/platform_device.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/vmalloc.h>

static void *map(phys_addr_t phys, int mapping)
{
	struct page *page;

	switch (mapping) {
	case HOSTILE_WB:
		return memremap(phys, PAGE_SIZE, MEMREMAP_WB);
	case HOSTILE_WC:
		return memremap(phys, PAGE_SIZE, MEMREMAP_WC);
	case HOSTILE_IO:
		return (void __force *)ioremap(phys, PAGE_SIZE);
	case HOSTILE_VMAP:
		if (!pfn_valid(PHYS_PFN(phys)))
			return NULL;
		page = pfn_to_page(PHYS_PFN(phys));
		return vmap(&page, 1, VM_MAP, PAGE_KERNEL);
	default:
		return NULL;
	}
}

static void unmap(void *mapped, int mapping)
{
	switch (mapping) {
	case HOSTILE_IO:
		iounmap((void __iomem __force *)mapped);
		break;
	case HOSTILE_VMAP:
		vunmap(mapped);
		break;
	default:
		memunmap(mapped);
	}
}

/*
 * Maps the page at @phys for the kernel, and touches its first word. A protected
 * page ends the kernel there.
 */
int hostile_touch(phys_addr_t phys, int mapping, int touch, u64 *value)
{
	volatile u64 *word;
	int ret = 0;

	word = map(phys & PAGE_MASK, mapping);
	if (!word)
		return -ENXIO;

	switch (touch) {
	case HOSTILE_READ:
		*value = *word;
		break;
	case HOSTILE_NOFAULT:
		ret = copy_from_kernel_nofault(value, (void *)word, sizeof(*value));
		break;
	case HOSTILE_WRITE:
		*word = *value;
		break;
	}
	unmap((void *)word, mapping);

	return ret;
}

/* What the firmware answers to a call of the kernel. */
u64 hostile_smc(u64 function, u64 x1, u64 x2)
{
	struct arm_smccc_res res;

	arm_smccc_smc(function, x1, x2, 0, 0, 0, 0, 0, &res);

	return res.a0;
}

/* A device that takes a dma-buf, and what it has of it. */
struct hostile_importer {
	struct platform_device *own;	/* made for this importer */
	struct device *dev;		/* holds a reference */
	struct dma_buf *buffer;
	struct dma_buf_attachment *attachment;
	struct sg_table *table;
};

/* The device of a node in the devicetree, with a reference. */
static struct device *device_of(const char *path)
{
	struct platform_device *device;
	struct device_node *node;

	node = of_find_node_by_path(path);
	if (!node)
		return ERR_PTR(-ENOENT);
	device = of_find_device_by_node(node);
	of_node_put(node);

	return device ? &device->dev : ERR_PTR(-ENODEV);
}

/* A device of our own that can address @mask, with a reference. */
static struct device *own_device(struct hostile_importer *importer, u64 mask)
{
	const struct platform_device_info info = {
		.name = "ringfence-hostile",
		.id = PLATFORM_DEVID_AUTO,
		.dma_mask = mask,
	};

	importer->own = platform_device_register_full(&info);
	if (IS_ERR(importer->own)) {
		struct device *error = ERR_CAST(importer->own);

		importer->own = NULL;
		return error;
	}

	return get_device(&importer->own->dev);
}

/*
 * Attaches the buffer behind @fd to the device of the devicetree's @node, or to
 * one made for it when that is NULL.
 */
int hostile_import(int fd, const char *node, u64 mask, struct hostile_importer **out)
{
	struct hostile_importer *importer;
	int ret;

	importer = kzalloc(sizeof(*importer), GFP_KERNEL);
	if (!importer)
		return -ENOMEM;

	importer->buffer = dma_buf_get(fd);
	if (IS_ERR(importer->buffer)) {
		ret = PTR_ERR(importer->buffer);
		importer->buffer = NULL;
		goto fail;
	}
	importer->dev = node ? device_of(node) : own_device(importer, mask);
	if (IS_ERR(importer->dev)) {
		ret = PTR_ERR(importer->dev);
		importer->dev = NULL;
		goto fail;
	}
	importer->attachment = dma_buf_attach(importer->buffer, importer->dev);
	if (IS_ERR(importer->attachment)) {
		ret = PTR_ERR(importer->attachment);
		importer->attachment = NULL;
		goto fail;
	}
	*out = importer;

	return 0;

fail:
	hostile_release(importer);
	return ret;
}

/* Maps an attached buffer for the device's DMA, once. */
int hostile_map(struct hostile_importer *importer, struct hostile_view *view)
{
	struct scatterlist *entry;
	struct sg_table *table;
	unsigned int i;

	table = dma_buf_map_attachment_unlocked(importer->attachment, DMA_BIDIRECTIONAL);
	if (IS_ERR(table))
		return PTR_ERR(table);
	importer->table = table;

	*view = (struct hostile_view) { .address = sg_dma_address(table->sgl) };
	for_each_sgtable_dma_sg(table, entry, i) {
		view->entries++;
		view->size += sg_dma_len(entry);
		if (sg_page(entry))
			view->pages++;
	}

	return 0;
}

/* Gives back all that an importer has. */
void hostile_release(struct hostile_importer *importer)
{
	if (importer->table)
		dma_buf_unmap_attachment_unlocked(importer->attachment, importer->table,
						  DMA_BIDIRECTIONAL);
	if (importer->attachment)
		dma_buf_detach(importer->buffer, importer->attachment);
	if (importer->buffer)
		dma_buf_put(importer->buffer);
	put_device(importer->dev);
	platform_device_unregister(importer->own);
	kfree(importer);
}

/* Wants the buffer in the kernel's address space. */
int hostile_vmap(int fd)
{
	struct dma_buf *buffer = dma_buf_get(fd);
	struct iosys_map map;
	int ret;

	if (IS_ERR(buffer))
		return PTR_ERR(buffer);
	ret = dma_buf_vmap_unlocked(buffer, &map);
	if (!ret)
		dma_buf_vunmap_unlocked(buffer, &map);
	dma_buf_put(buffer);

	return ret;
}

/* Wants to access the buffer by the CPU, as an importer does. */
int hostile_cpu_access(int fd)
{
	struct dma_buf *buffer = dma_buf_get(fd);
	int ret;

	if (IS_ERR(buffer))
		return PTR_ERR(buffer);
	ret = dma_buf_begin_cpu_access(buffer, DMA_BIDIRECTIONAL);
	if (!ret)
		dma_buf_end_cpu_access(buffer, DMA_BIDIRECTIONAL);
	dma_buf_put(buffer);

	return ret;
}

static int keep_awake(struct device *dev, void *awake)
{
	dev_pm_syscore_device(dev, *(bool *)awake);

	return device_for_each_child(dev, awake, keep_awake);
}

/*
 * Leaves the devices on PCI, by which the tests talk to their host, out of the
 * suspends to come: virtio's console and file system do not live through one.
 */
int hostile_keep_awake(bool awake)
{
	return bus_for_each_dev(&pci_bus_type, NULL, &awake, keep_awake);
}

/* fw_cfg of QEMU: the address of a request, and a request ("FW CFG DMA"). */
#define FW_CFG_DMA		16
#define FW_CFG_DMA_ERROR	BIT(0)
#define FW_CFG_DMA_READ		BIT(1)
#define FW_CFG_DMA_SELECT	BIT(3)
#define FW_CFG_SIGNATURE	0

struct fw_cfg_request {
	__be32 control;
	__be32 length;
	__be64 address;
};

/*
 * Has a device that is told nothing but an address, QEMU's fw_cfg, write its
 * signature there: four bytes.
 */
int hostile_dma(phys_addr_t phys)
{
	struct fw_cfg_request *request;
	struct device_node *node;
	void __iomem *device;
	u32 control;
	u64 where;
	int ret;

	node = of_find_compatible_node(NULL, NULL, "qemu,fw-cfg-mmio");
	device = of_iomap(node, 0);
	of_node_put(node);
	if (!device)
		return -ENODEV;
	request = kmalloc(sizeof(*request), GFP_KERNEL);
	if (!request) {
		iounmap(device);
		return -ENOMEM;
	}

	control = FW_CFG_SIGNATURE << 16 | FW_CFG_DMA_SELECT | FW_CFG_DMA_READ;
	request->control = cpu_to_be32(control);
	request->length = cpu_to_be32(4);
	request->address = cpu_to_be64(phys);
	where = virt_to_phys(request);
	iowrite32be(upper_32_bits(where), device + FW_CFG_DMA);
	iowrite32be(lower_32_bits(where), device + FW_CFG_DMA + 4);
	ret = read_poll_timeout(be32_to_cpu, control,
				!(control & ~FW_CFG_DMA_ERROR), 100, 1000000, false,
				READ_ONCE(request->control));
	if (!ret && control)
		ret = -EIO;
	iounmap(device);
	/* A request that is still under way keeps its memory. */
	if (ret != -ETIMEDOUT)
		kfree(request);

	return ret;
}
