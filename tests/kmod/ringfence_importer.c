// SPDX-License-Identifier: GPL-2.0
/*
 * For tests and measurements only: an importer of dma-bufs, as drivers of
 * devices are. Its device is not cache-coherent and reaches all memory.
 *
 * An open file of /dev/ringfence-importer holds one dma-buf at most: attached,
 * or also mapped for the device. What the calls cost is measured here, so that
 * nothing else is in the figures.
 */

#include <linux/dma-buf.h>
#include <linux/dma-mapping.h>
#include <linux/fs.h>
#include <linux/iosys-map.h>
#include <linux/kernel_stat.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/platform_device.h>
#include <linux/slab.h>
#include <linux/timex.h>
#include <linux/uaccess.h>

/* What the calls of one import cost, in steps of the CPU's counter. */
struct importer_costs {
	__s32 fd;
	__u32 pad;
	__u64 attach;
	__u64 map;
	__u64 begin;
	__u64 end;
	__u64 unmap;
	__u64 detach;
	__u64 vmap;
	__u64 vunmap;
};

/* Holds a dma-buf: attached only, or also mapped, in a dma_data_direction. */
struct importer_hold {
	__s32 fd;
	__u32 mapped;
	__u32 direction;
	__u32 entries;	/* out: entries of the mapped table */
};

#define IMPORTER_MEASURE	_IOWR(0xB7, 0, struct importer_costs)
#define IMPORTER_HOLD		_IOWR(0xB7, 1, struct importer_hold)
#define IMPORTER_RELEASE	_IO(0xB7, 2)
/* Interrupts that the calling processor has had; for measurements in time. */
#define IMPORTER_INTERRUPTS	_IOR(0xB7, 3, __u64)

struct importer {
	struct mutex lock;
	struct dma_buf *buf;
	struct dma_buf_attachment *attachment;
	struct sg_table *table;
	enum dma_data_direction direction;
};

static struct platform_device *device;

#define COST(cost, call) ({			\
	cycles_t start = get_cycles();		\
	typeof(call) answer = (call);		\
						\
	(cost) = get_cycles() - start;		\
	answer;					\
})

static int measure_vmap(struct dma_buf *buf, struct importer_costs *costs)
{
	struct iosys_map map;
	cycles_t start;
	int ret;

	ret = COST(costs->vmap, dma_buf_vmap_unlocked(buf, &map));
	if (ret)
		return ret;
	start = get_cycles();
	dma_buf_vunmap_unlocked(buf, &map);
	costs->vunmap = get_cycles() - start;
	return 0;
}

static int measure_map(struct dma_buf *buf, struct importer_costs *costs)
{
	struct dma_buf_attachment *attachment;
	struct sg_table *table;
	cycles_t start;
	int ret = 0;

	attachment = COST(costs->attach, dma_buf_attach(buf, &device->dev));
	if (IS_ERR(attachment))
		return PTR_ERR(attachment);
	table = COST(costs->map,
		     dma_buf_map_attachment_unlocked(attachment, DMA_BIDIRECTIONAL));
	if (IS_ERR(table)) {
		ret = PTR_ERR(table);
		goto detach;
	}
	ret = COST(costs->begin, dma_buf_begin_cpu_access(buf, DMA_BIDIRECTIONAL));
	if (!ret)
		ret = COST(costs->end, dma_buf_end_cpu_access(buf, DMA_BIDIRECTIONAL));
	start = get_cycles();
	dma_buf_unmap_attachment_unlocked(attachment, table, DMA_BIDIRECTIONAL);
	costs->unmap = get_cycles() - start;
detach:
	start = get_cycles();
	dma_buf_detach(buf, attachment);
	costs->detach = get_cycles() - start;
	return ret;
}

static int measure(struct importer_costs *costs)
{
	struct dma_buf *buf = dma_buf_get(costs->fd);
	int ret;

	if (IS_ERR(buf))
		return PTR_ERR(buf);
	ret = measure_map(buf, costs);
	if (!ret)
		ret = measure_vmap(buf, costs);
	dma_buf_put(buf);
	return ret;
}

static void release(struct importer *importer)
{
	if (!importer->buf)
		return;
	if (importer->table)
		dma_buf_unmap_attachment_unlocked(importer->attachment, importer->table,
						  importer->direction);
	dma_buf_detach(importer->buf, importer->attachment);
	dma_buf_put(importer->buf);
	importer->table = NULL;
	importer->buf = NULL;
}

static int hold(struct importer *importer, struct importer_hold *arg)
{
	struct dma_buf_attachment *attachment;
	struct dma_buf *buf;
	int ret;

	if (importer->buf)
		return -EBUSY;
	if (!valid_dma_direction(arg->direction))
		return -EINVAL;
	buf = dma_buf_get(arg->fd);
	if (IS_ERR(buf))
		return PTR_ERR(buf);
	attachment = dma_buf_attach(buf, &device->dev);
	if (IS_ERR(attachment)) {
		ret = PTR_ERR(attachment);
		goto put;
	}
	arg->entries = 0;
	if (arg->mapped) {
		struct sg_table *table;

		table = dma_buf_map_attachment_unlocked(attachment, arg->direction);
		if (IS_ERR(table)) {
			ret = PTR_ERR(table);
			goto detach;
		}
		importer->table = table;
		importer->direction = arg->direction;
		arg->entries = table->nents;
	}
	importer->buf = buf;
	importer->attachment = attachment;
	return 0;
detach:
	dma_buf_detach(buf, attachment);
put:
	dma_buf_put(buf);
	return ret;
}

static int importer_open(struct inode *inode, struct file *file)
{
	struct importer *importer = kzalloc(sizeof(*importer), GFP_KERNEL);

	if (!importer)
		return -ENOMEM;
	mutex_init(&importer->lock);
	file->private_data = importer;
	return 0;
}

static int importer_close(struct inode *inode, struct file *file)
{
	struct importer *importer = file->private_data;

	release(importer);
	kfree(importer);
	return 0;
}

static long importer_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	struct importer *importer = file->private_data;
	void __user *user = (void __user *)arg;
	struct importer_costs costs;
	struct importer_hold held;
	__u64 interrupts;
	int ret;

	switch (cmd) {
	case IMPORTER_INTERRUPTS:
		interrupts = kstat_cpu_irqs_sum(raw_smp_processor_id());
		return copy_to_user(user, &interrupts, sizeof(interrupts)) ? -EFAULT : 0;
	case IMPORTER_MEASURE:
		if (copy_from_user(&costs, user, sizeof(costs)))
			return -EFAULT;
		ret = measure(&costs);
		if (!ret && copy_to_user(user, &costs, sizeof(costs)))
			ret = -EFAULT;
		return ret;
	case IMPORTER_HOLD:
		if (copy_from_user(&held, user, sizeof(held)))
			return -EFAULT;
		mutex_lock(&importer->lock);
		ret = hold(importer, &held);
		mutex_unlock(&importer->lock);
		if (!ret && copy_to_user(user, &held, sizeof(held)))
			ret = -EFAULT;
		return ret;
	case IMPORTER_RELEASE:
		mutex_lock(&importer->lock);
		release(importer);
		mutex_unlock(&importer->lock);
		return 0;
	default:
		return -ENOTTY;
	}
}

static const struct file_operations importer_fops = {
	.owner = THIS_MODULE,
	.open = importer_open,
	.release = importer_close,
	.unlocked_ioctl = importer_ioctl,
};

static struct miscdevice importer_misc = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "ringfence-importer",
	.fops = &importer_fops,
};

static int __init importer_init(void)
{
	int ret;

	device = platform_device_register_simple("ringfence-importer", PLATFORM_DEVID_NONE,
						 NULL, 0);
	if (IS_ERR(device))
		return PTR_ERR(device);
	/* Pieces of any length, as through an IOMMU. */
	dma_set_max_seg_size(&device->dev, UINT_MAX);
	ret = dma_set_mask_and_coherent(&device->dev, DMA_BIT_MASK(64));
	if (!ret)
		ret = misc_register(&importer_misc);
	if (ret)
		platform_device_unregister(device);
	return ret;
}
module_init(importer_init);

static void __exit importer_exit(void)
{
	misc_deregister(&importer_misc);
	platform_device_unregister(device);
}
module_exit(importer_exit);

MODULE_DESCRIPTION("Imports dma-bufs, for tests of exporters");
MODULE_LICENSE("GPL");
MODULE_IMPORT_NS("DMA_BUF");
