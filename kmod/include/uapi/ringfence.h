/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * /dev/ringfence: what a buffer is, and which heaps there are.
 *
 * The structures may grow at their end. The size in the command number tells
 * the kernel which one the caller knows: fields that an older program does not
 * know are taken as zero, and fields that an older kernel does not know must
 * be zero (E2BIG otherwise). A structure too short for its inputs is EINVAL.
 */
#ifndef _UAPI_RINGFENCE_H
#define _UAPI_RINGFENCE_H

#include <linux/ioctl.h>
#include <linux/types.h>

#define RINGFENCE_NAME_SIZE		64

/* The secure world keeps the whole normal world out of the buffers. */
#define RINGFENCE_PROTECTED		0x001
/* The CPU may map the buffers. */
#define RINGFENCE_CPU_ACCESS		0x002
/* Each buffer is one run of physical addresses. */
#define RINGFENCE_CONTIGUOUS		0x004
/* The heap can serve allocations now. */
#define RINGFENCE_ONLINE		0x100
/* Of a heap: all of its region is fenced while any buffer lives in it. */
#define RINGFENCE_WHOLE_REGION		0x200

#define RINGFENCE_USE_CASE_NONE			0
#define RINGFENCE_USE_CASE_SECURE_VIDEO		1
#define RINGFENCE_USE_CASE_TRUSTED_UI		2
#define RINGFENCE_USE_CASE_SECURE_VIDEO_RECORD	3

/**
 * struct ringfence_buffer_info - what a dma-buf is
 * @fd: in: the dma-buf
 * @flags: out: RINGFENCE_PROTECTED, RINGFENCE_CPU_ACCESS, RINGFENCE_CONTIGUOUS
 * @size: out: bytes
 * @handle: out: the secure world's name of the buffer, 0 when not protected
 * @use_case: out: RINGFENCE_USE_CASE_*
 * @pad: must be 0
 * @heap: out: name of its heap, NUL-terminated
 */
struct ringfence_buffer_info {
	__s32 fd;
	__u32 flags;
	__u64 size;
	__u64 handle;
	__u32 use_case;
	__u32 pad;
	char heap[RINGFENCE_NAME_SIZE];
};

/**
 * struct ringfence_heap_info - what a heap is, and how full
 * @index: in: number of the heap, from 0
 * @flags: out: RINGFENCE_*
 * @size: out: bytes that the heap has
 * @free: out: bytes not allocated, whether they are zeroed already or will be
 *	when they are handed out
 * @largest_free: out: bytes of the longest run of these
 * @quarantined: out: bytes not handed out again, because the secure world
 *	could not, or could not yet, open them
 * @protected_bytes: out: bytes that are fenced now
 * @buffers: out: live buffers
 * @use_case: out: RINGFENCE_USE_CASE_*
 * @alignment: out: bytes to which the start of every buffer is aligned
 * @pad: must be 0
 * @name: out: name of the heap, NUL-terminated
 *
 * A heap without RINGFENCE_ONLINE whose driver is gone reports its name only.
 */
struct ringfence_heap_info {
	__u32 index;
	__u32 flags;
	__u64 size;
	__u64 free;
	__u64 largest_free;
	__u64 quarantined;
	__u64 protected_bytes;
	__u32 buffers;
	__u32 use_case;
	__u32 alignment;
	__u32 pad;
	char name[RINGFENCE_NAME_SIZE];
};

#define RINGFENCE_IOC_MAGIC		0xB6

/*
 * EINVAL: not a dma-buf, or not one of Ringfence's; EBADF: no such file;
 * EIO: the secure world has lost the buffer; ENODEV, ENOMEM: a buffer of a heap
 * with RINGFENCE_WHOLE_REGION is made known to the secure world when this is
 * first asked, which can't be done now.
 */
#define RINGFENCE_IOCTL_BUFFER_INFO	_IOWR(RINGFENCE_IOC_MAGIC, 0, \
					      struct ringfence_buffer_info)

/* ENOENT: no heap has this index. */
#define RINGFENCE_IOCTL_HEAP_INFO	_IOWR(RINGFENCE_IOC_MAGIC, 1, \
					      struct ringfence_heap_info)

#endif /* _UAPI_RINGFENCE_H */
