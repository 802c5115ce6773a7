/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * /dev/ringfence-display: the screen of QEMU's trusted display, for tests only.
 *
 * One picture is on the screen. The buffer that holds it is kept until another is
 * shown, until the file that showed it is closed, or until the device is gone; then
 * the screen is black before the buffer is let go of.
 */
#ifndef RINGFENCE_DISPLAY_H
#define RINGFENCE_DISPLAY_H

#include <linux/ioctl.h>
#include <linux/types.h>

/*
 * A picture in a dma-buf.
 *
 * Errors: EINVAL for a size of less than 16 or more than 16000 by 12000 pixels,
 * another format, a stride that is too small or no multiple of 4, an offset that is
 * none, flags, or a file that is no dma-buf; EBADF for no file at all; EACCES when
 * the display may not have the buffer; EIO when it can't reach it; EOPNOTSUPP when
 * the display sees it in several pieces; ERANGE when the picture does not lie
 * within it; ENODEV when the display is gone.
 */
struct ringfence_display_show {
	__s32 fd;
	__u32 width;	/* pixels */
	__u32 height;	/* lines */
	__u32 stride;	/* bytes from one line to the next */
	__u32 format;	/* DRM_FORMAT_XRGB8888, "XR24" */
	__u32 flags;	/* 0 */
	__u64 offset;	/* bytes from the buffer's start to the first line */
};

#define RINGFENCE_DISPLAY_IOCTL_SHOW	_IOW(0xB7, 0, struct ringfence_display_show)

#endif
