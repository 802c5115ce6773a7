// SPDX-License-Identifier: GPL-2.0

#include "inlines.h"

#include <linux/io.h>
#include <linux/mm.h>
#include <linux/pgtable.h>

/* The kernel's page of zeros, which is never freed and never written. */
phys_addr_t display_zeros(void)
{
	return page_to_phys(ZERO_PAGE(0));
}
