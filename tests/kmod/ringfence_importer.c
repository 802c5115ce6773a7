// SPDX-License-Identifier: GPL-2.0
/*
 * For tests only: a device that is not coherent with the CPU's caches, and maps
 * any dma-buf for as long as a file of /dev/ringfence-importer is open.
 *
 * The platform device has no node in the devicetree, so nothing says that it is
 * coherent: every sync for it is cache maintenance, byte by byte.
 */

#include <linux/device.h>
#include <linux/dma-buf.h>
#include <linux/dma-map-ops.h>
#include <linux/dma-mapping.h>
#include <linux/fs.h>
#include <linux/ioctl.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/platform_device.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

/* Maps the dma-buf of this file descriptor for both directions. */
#define IMPORTER_MAP	_IOW('r', 0, __s32)

struct import {
	struct dma_buf_attachment *attachment;
	struct sg_table *table;
};

static struct platform_device *importer;

static int importer_open(struct inode *inode, struct file *file)
{
	file->private_data = kzalloc(sizeof(struct import), GFP_KERNEL);
	return file->private_data ? 0 : -ENOMEM;
}

static long importer_ioctl(struct file *file, unsigned int command, unsigned long argument)
{
	struct import *import = file->private_data;
	struct dma_buf_attachment *attachment;
	struct dma_buf *buffer;
	struct sg_table *table;
	int error;
	__s32 fd;

	if (command != IMPORTER_MAP)
		return -ENOTTY;
	if (copy_from_user(&fd, (void __user *)argument, sizeof(fd)))
		return -EFAULT;
	if (import->table)
		return -EBUSY;
	buffer = dma_buf_get(fd);
	if (IS_ERR(buffer))
		return PTR_ERR(buffer);
	attachment = dma_buf_attach(buffer, &importer->dev);
	if (IS_ERR(attachment)) {
		error = PTR_ERR(attachment);
		goto put;
	}
	table = dma_buf_map_attachment_unlocked(attachment, DMA_BIDIRECTIONAL);
	if (IS_ERR(table)) {
		error = PTR_ERR(table);
		goto detach;
	}
	import->attachment = attachment;
	import->table = table;
	return 0;

detach:
	dma_buf_detach(buffer, attachment);
put:
	dma_buf_put(buffer);
	return error;
}

static int importer_release(struct inode *inode, struct file *file)
{
	struct import *import = file->private_data;

	if (import->table) {
		struct dma_buf *buffer = import->attachment->dmabuf;

		dma_buf_unmap_attachment_unlocked(import->attachment, import->table,
						  DMA_BIDIRECTIONAL);
		dma_buf_detach(buffer, import->attachment);
		dma_buf_put(buffer);
	}
	kfree(import);
	return 0;
}

static const struct file_operations importer_operations = {
	.owner = THIS_MODULE,
	.open = importer_open,
	.unlocked_ioctl = importer_ioctl,
	.release = importer_release,
};

static struct miscdevice importer_misc = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "ringfence-importer",
	.fops = &importer_operations,
};

static int __init importer_init(void)
{
	int error;

	importer = platform_device_register_simple("ringfence-importer", PLATFORM_DEVID_NONE,
						   NULL, 0);
	if (IS_ERR(importer))
		return PTR_ERR(importer);
	error = dma_coerce_mask_and_coherent(&importer->dev, DMA_BIT_MASK(64));
	if (!error && dev_is_dma_coherent(&importer->dev))
		error = -ENODEV;
	if (!error)
		error = misc_register(&importer_misc);
	if (error)
		platform_device_unregister(importer);
	return error;
}

static void __exit importer_exit(void)
{
	misc_deregister(&importer_misc);
	platform_device_unregister(importer);
}

module_init(importer_init);
module_exit(importer_exit);
MODULE_AUTHOR("Ringfence");
MODULE_DESCRIPTION("A device without cache coherence that imports dma-bufs, for tests");
MODULE_LICENSE("GPL");
MODULE_IMPORT_NS("DMA_BUF");
