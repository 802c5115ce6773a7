// SPDX-License-Identifier: GPL-2.0
/*
 * For tests only: a device on the PCI bus that copies within a dma-buf by DMA.
 *
 * It is QEMU's "edu" device, which reads and writes at the addresses that it is
 * told, through the IOMMU if there is one in front of it. It has 4 KiB of its
 * own: a copy goes there and back.
 */

#include <linux/dma-buf.h>
#include <linux/dma-mapping.h>
#include <linux/fs.h>
#include <linux/io-64-nonatomic-lo-hi.h>
#include <linux/iopoll.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/pci.h>
#include <linux/scatterlist.h>
#include <linux/uaccess.h>

#define EDU_VENDOR	0x1234
#define EDU_DEVICE	0x11e8

/* Registers in the first BAR. */
#define EDU_DMA_SOURCE	0x80
#define EDU_DMA_DEST	0x88
#define EDU_DMA_COUNT	0x90
#define EDU_DMA_COMMAND	0x98
#define EDU_DMA_START	BIT(0)
#define EDU_DMA_TO_RAM	BIT(1)

/* Where its own memory is, for its DMA. */
#define EDU_MEMORY	0x40000
#define EDU_SIZE	4096

/* It takes a tenth of a second for a copy. */
#define TIMEOUT_US	5000000

struct copier_copy {
	__s32 fd;
	__u32 length;	/* bytes, EDU_SIZE at most; 0 to map it only */
	__u64 from;	/* offset in the buffer */
	__u64 to;	/* offset in the buffer */
	__u32 entries;	/* out: of the table that is mapped for the device */
	__u32 pad;
};

#define COPIER_COPY	_IOWR(0xB7, 16, struct copier_copy)

struct copier {
	struct mutex lock;
	struct pci_dev *pci;
	void __iomem *registers;
};

/* There is one device at most. */
static struct copier copier = { .lock = __MUTEX_INITIALIZER(copier.lock) };

static int transfer(u64 from, u64 to, u32 length, u32 direction)
{
	u32 command;

	writeq(from, copier.registers + EDU_DMA_SOURCE);
	writeq(to, copier.registers + EDU_DMA_DEST);
	writeq(length, copier.registers + EDU_DMA_COUNT);
	writel(EDU_DMA_START | direction, copier.registers + EDU_DMA_COMMAND);
	return readl_poll_timeout(copier.registers + EDU_DMA_COMMAND, command,
				  !(command & EDU_DMA_START), 1000, TIMEOUT_US);
}

/* Copies where the buffer is one run of addresses for the device. */
static int copy_mapped(struct dma_buf *buf, struct sg_table *table, struct copier_copy *arg)
{
	dma_addr_t start = sg_dma_address(table->sgl);
	int ret;

	arg->entries = table->nents;
	if (table->nents != 1 || sg_dma_len(table->sgl) < buf->size)
		return -EMSGSIZE;
	if (!arg->length)
		return 0;
	ret = transfer(start + arg->from, EDU_MEMORY, arg->length, 0);
	if (ret)
		return ret;
	return transfer(EDU_MEMORY, start + arg->to, arg->length, EDU_DMA_TO_RAM);
}

static bool is_inside(struct dma_buf *buf, u64 offset, u32 length)
{
	return length <= buf->size && offset <= buf->size - length;
}

static int copy(struct copier_copy *arg)
{
	struct dma_buf_attachment *attachment;
	struct sg_table *table;
	struct dma_buf *buf;
	int ret = -EINVAL;

	if (!copier.pci)
		return -ENODEV;
	buf = dma_buf_get(arg->fd);
	if (IS_ERR(buf))
		return PTR_ERR(buf);
	if (arg->length > EDU_SIZE || !is_inside(buf, arg->from, arg->length) ||
	    !is_inside(buf, arg->to, arg->length))
		goto put;
	attachment = dma_buf_attach(buf, &copier.pci->dev);
	if (IS_ERR(attachment)) {
		ret = PTR_ERR(attachment);
		goto put;
	}
	table = dma_buf_map_attachment_unlocked(attachment, DMA_BIDIRECTIONAL);
	if (IS_ERR(table)) {
		ret = PTR_ERR(table);
		goto detach;
	}
	ret = copy_mapped(buf, table, arg);
	dma_buf_unmap_attachment_unlocked(attachment, table, DMA_BIDIRECTIONAL);
detach:
	dma_buf_detach(buf, attachment);
put:
	dma_buf_put(buf);
	return ret;
}

static long copier_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	void __user *user = (void __user *)arg;
	struct copier_copy request;
	int ret;

	if (cmd != COPIER_COPY)
		return -ENOTTY;
	if (copy_from_user(&request, user, sizeof(request)))
		return -EFAULT;
	mutex_lock(&copier.lock);
	ret = copy(&request);
	mutex_unlock(&copier.lock);
	if (!ret && copy_to_user(user, &request, sizeof(request)))
		ret = -EFAULT;
	return ret;
}

static const struct file_operations copier_fops = {
	.owner = THIS_MODULE,
	.unlocked_ioctl = copier_ioctl,
};

static struct miscdevice copier_misc = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "ringfence-copier",
	.fops = &copier_fops,
};

static int copier_probe(struct pci_dev *pci, const struct pci_device_id *id)
{
	int ret;

	ret = pcim_enable_device(pci);
	if (ret)
		return ret;
	copier.registers = pcim_iomap_region(pci, 0, "ringfence-copier");
	if (IS_ERR(copier.registers))
		return PTR_ERR(copier.registers);
	ret = dma_set_mask_and_coherent(&pci->dev, DMA_BIT_MASK(64));
	if (ret)
		return ret;
	dma_set_max_seg_size(&pci->dev, UINT_MAX);
	pci_set_master(pci);
	mutex_lock(&copier.lock);
	copier.pci = pci;
	mutex_unlock(&copier.lock);
	return 0;
}

static void copier_remove(struct pci_dev *pci)
{
	mutex_lock(&copier.lock);
	copier.pci = NULL;
	mutex_unlock(&copier.lock);
}

static const struct pci_device_id copier_ids[] = {
	{ PCI_DEVICE(EDU_VENDOR, EDU_DEVICE) },
	{ }
};

static struct pci_driver copier_driver = {
	.name = "ringfence-copier",
	.id_table = copier_ids,
	.probe = copier_probe,
	.remove = copier_remove,
};

static int __init copier_init(void)
{
	int ret = pci_register_driver(&copier_driver);

	if (ret)
		return ret;
	ret = misc_register(&copier_misc);
	if (ret)
		pci_unregister_driver(&copier_driver);
	return ret;
}
module_init(copier_init);

static void __exit copier_exit(void)
{
	misc_deregister(&copier_misc);
	pci_unregister_driver(&copier_driver);
}
module_exit(copier_exit);

MODULE_DESCRIPTION("Copies within dma-bufs by the DMA of a PCI device, for tests of exporters");
MODULE_LICENSE("GPL");
MODULE_IMPORT_NS("DMA_BUF");
