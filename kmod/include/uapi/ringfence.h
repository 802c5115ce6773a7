/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * /dev/ringfence: what a buffer is, which heaps there are, and what the ioctl
 * of /dev/dma_heap can't be asked for.
 *
 * Whoever may open the device may allocate from every heap.
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

/* Take the upper end of the memory that fits. */
#define RINGFENCE_ALLOC_TOP_DOWN	0x10000
/* Rather fail than take longer for a larger buffer, by zeroing or migration. */
#define RINGFENCE_ALLOC_NO_WAIT		0x20000

/* Heaps that one allocation may name. */
#define RINGFENCE_ALLOC_MAX_HEAPS	16

/* What came of a heap that was not asked, as another one served. */
#define RINGFENCE_NOT_TRIED		(-1)

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
 * @used: out: bytes of live buffers
 * @high_water: out: the most that @used ever was
 * @allocations: out: buffers that were ever made
 * @failures: out: allocations that were refused
 * @granule: out: bytes, the unit in which memory is taken
 * @max_alignment: out: bytes, the largest alignment that can be asked for
 * @alloc_flags: out: RINGFENCE_ALLOC_* that can be asked for
 * @pad2: must be 0
 *
 * A heap without RINGFENCE_ONLINE whose driver is gone reports its name, and
 * from @used to @failures, only.
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
	__u64 used;
	__u64 high_water;
	__u64 allocations;
	__u64 failures;
	__u64 granule;
	__u64 max_alignment;
	__u32 alloc_flags;
	__u32 pad2;
};

/**
 * struct ringfence_alloc - an allocation with wishes, from the first heap that
 *	can fulfil all of them
 * @size: in: bytes, rounded up to whole pages
 * @alignment: in: bytes to which the start of the buffer is aligned, a power of
 *	two; 0 for what the heap does anyhow
 * @heaps: in: address of @heap_count names of RINGFENCE_NAME_SIZE bytes, each
 *	NUL-terminated, in order of preference
 * @outcomes: in: 0, or address of @heap_count __s32. There the kernel writes
 *	what came of each heap: 0 if it served, RINGFENCE_NOT_TRIED, or the
 *	positive errno of its refusal. When the call fails with another errno
 *	than a heap's, nothing is written.
 * @heap_count: in: 1 to RINGFENCE_ALLOC_MAX_HEAPS
 * @flags: in: RINGFENCE_ALLOC_*, and of RINGFENCE_PROTECTED,
 *	RINGFENCE_CPU_ACCESS and RINGFENCE_CONTIGUOUS those that the buffer must
 *	have
 * @fd_flags: in: O_CLOEXEC and O_RDONLY, O_WRONLY or O_RDWR
 * @index: out: which of the heaps served
 * @fd: in: 0; out: the dma-buf
 * @pad: must be 0
 */
struct ringfence_alloc {
	__u64 size;
	__u64 alignment;
	__u64 heaps;
	__u64 outcomes;
	__u32 heap_count;
	__u32 flags;
	__u32 fd_flags;
	__u32 index;
	__s32 fd;
	__u32 pad;
};

/**
 * struct ringfence_sync - the CPU begins or ends an access to a part of a buffer
 * @fd: in: the dma-buf
 * @flags: in: DMA_BUF_SYNC_* of <linux/dma-buf.h>
 * @offset: in: bytes from the start of the buffer
 * @length: in: bytes, not 0
 *
 * As DMA_BUF_IOCTL_SYNC, which syncs the whole buffer: waits for pending DMA,
 * and does the cache maintenance that the devices need which have the buffer
 * mapped. Every byte of a cache line that is touched by the range is synced.
 */
struct ringfence_sync {
	__s32 fd;
	__u32 flags;
	__u64 offset;
	__u64 length;
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

/*
 * When every heap refuses, the errno is that of the first, which is the one
 * that was wanted:
 *
 * ENOENT: no heap has this name; ENODEV: its driver is not there;
 * EOPNOTSUPP: its buffers are not of the kind, or it can't do what the flags or
 * the alignment ask for; ENOMEM: no room; EDQUOT: a control group's limit;
 * EAGAIN: not without waiting; EIO: the secure world refused.
 *
 * Other heaps are not tried after EINTR (a fatal signal is pending).
 *
 * Before any heap is asked: EINVAL: malformed; EFAULT: an address that can't be
 * read. After one has served: EMFILE: too many open files; EFAULT: an address
 * that can't be written. Then the buffer is gone, and no file is open.
 */
#define RINGFENCE_IOCTL_ALLOC		_IOWR(RINGFENCE_IOC_MAGIC, 2, \
					      struct ringfence_alloc)

/*
 * EINVAL: unknown flags, or a range that is empty or not inside the buffer; or
 * not a dma-buf, or not one of Ringfence's; EBADF: no such file; EACCES: the
 * buffer is protected; EPERM: the CPU can't map the buffer.
 */
#define RINGFENCE_IOCTL_SYNC		_IOWR(RINGFENCE_IOC_MAGIC, 3, \
					      struct ringfence_sync)

#endif /* _UAPI_RINGFENCE_H */
