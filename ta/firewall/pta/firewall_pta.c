// SPDX-License-Identifier: BSD-2-Clause
/*
 * The firewall pseudo-TA: the shim between OP-TEE's core and the ledger, which
 * is Rust (../src). It says who calls, holds the lock, declares the carveouts
 * at boot, and lends the ledger OP-TEE's services. It decides nothing about
 * callers and ranges.
 */

#include <arm64.h>
#include <initcall.h>
#include <kernel/dt.h>
#include <kernel/mutex.h>
#include <kernel/panic.h>
#include <kernel/pseudo_ta.h>
#include <kernel/tee_misc.h>
#include <kernel/thread_arch.h>
#include <kernel/tlb_helpers.h>
#include <kernel/ts_manager.h>
#include <kernel/user_access.h>
#include <kernel/user_mode_ctx.h>
#include <kernel/user_ta.h>
#include <libfdt.h>
#include <mm/core_mmu.h>
#include <mm/mobj.h>
#include <mm/vm.h>
#include <string.h>
#include <tee/uuid.h>
#include <util.h>

/* ringfence_proto::firewall::FIREWALL_UUID */
#define FIREWALL_UUID { 0x3f61b2a8, 0x0c4e, 0x4b9d, \
	{ 0x8e, 0x27, 0x71, 0xd5, 0xa6, 0xc0, 0xf9, 0x48 } }

/* The ledger; see ../src/optee.rs */
uint32_t ringfence_firewall_declare(uint64_t start, uint64_t size,
				    const char *use_case, size_t use_case_len,
				    const char *protection,
				    size_t protection_len);
uint32_t ringfence_firewall_open(const uint8_t uuid[sizeof(TEE_UUID)],
				 uint64_t *session);
void ringfence_firewall_close(uint64_t session);
uint32_t ringfence_firewall_invoke(const uint8_t uuid[sizeof(TEE_UUID)],
				   uint64_t session, uint32_t cmd,
				   uint32_t types,
				   TEE_Param params[TEE_NUM_PARAMS]);

bool ringfence_firewall_is_test_build(void);

/* The shim's services to it */
uint64_t ringfence_shim_smc(uint32_t function, uint64_t start, uint64_t size);
void *ringfence_shim_window_open(uint64_t start, uint64_t size);
void ringfence_shim_window_zero(void *window, uint64_t size);
void ringfence_shim_window_close(uint64_t size);
void *ringfence_shim_object(uint64_t start, uint64_t size);
void ringfence_shim_object_put(void *object);
bool ringfence_shim_is_mapped(void *object);
uint32_t ringfence_shim_map(void *object, uint64_t offset, uint64_t size,
			    uint64_t *va);
uint32_t ringfence_shim_physical(uint64_t va, uint64_t size, uint64_t *pa);
uint32_t ringfence_shim_unmap(void *object, uint64_t va, uint64_t size);
uint32_t ringfence_shim_copy_out(void *to, const void *from, size_t size);
void __noreturn ringfence_shim_panic(void);

/* DCZID_EL0: DC ZVA is prohibited; log2 of the words that one zeroes */
#define DCZID_EL0_DZP		BIT(4)
#define DCZID_EL0_BS_MASK	0xf

/* Serialises every command: the ledger has no lock of its own. */
static struct mutex ledger_mutex = MUTEX_INITIALIZER;

/* A pseudo-TA runs on the address space of the TA that calls it. */
static struct user_mode_ctx *caller_context(void)
{
	return to_user_mode_ctx(ts_get_calling_session()->ctx);
}

/* The UUID of the TA that calls, in RFC 4122's byte order */
static TEE_Result caller_uuid(uint8_t uuid[sizeof(TEE_UUID)])
{
	struct ts_session *session = ts_get_calling_session();

	/* No session: the normal world calls. */
	if (!session || !is_user_ta_ctx(session->ctx))
		return TEE_ERROR_ACCESS_DENIED;

	tee_uuid_to_octets(uuid, &session->ctx->uuid);

	return TEE_SUCCESS;
}

uint64_t ringfence_shim_smc(uint32_t function, uint64_t start, uint64_t size)
{
	struct thread_smc_args args = {
		.a0 = function, .a1 = start, .a2 = size,
	};

	thread_smccc(&args);

	return args.a0;
}

/*
 * The window through which memory is zeroed: two translation table entries'
 * worth of the core's own address space, reserved at boot. The core keeps no
 * mapping of a carveout, and a window shows what is being zeroed and nothing
 * else: a whole block by one entry, a part of a block page by page.
 *
 * Nothing is allocated, so that scrubbing does not fail for want of memory. The
 * ledger's mutex makes sure that there is one user at a time; foreign interrupts
 * stay enabled, and the thread may continue on another CPU.
 */
#define WINDOW_SIZE	CORE_MMU_PGDIR_SIZE

static struct {
	/* One entry that can map a block */
	vaddr_t block;
	/* A table of entries that can map a page each */
	vaddr_t pages;
} window;

static const uint32_t window_attr = TEE_MATTR_VALID_BLOCK | TEE_MATTR_SECURE |
	TEE_MATTR_PRW | (TEE_MATTR_MEM_TYPE_CACHED << TEE_MATTR_MEM_TYPE_SHIFT);

static bool find_entry(vaddr_t va, struct core_mmu_table_info *ti,
		       unsigned int *idx)
{
	if (!core_mmu_find_table(NULL, va, UINT_MAX, ti))
		return false;
	*idx = core_mmu_va2idx(ti, va);

	return true;
}

/*
 * Takes two blocks off the end of the address space that the core reserves for
 * late mappings. Runs while the core boots, when nobody else uses that.
 */
static bool reserve_window(void)
{
	struct core_mmu_table_info ti = { };
	struct tee_mmap_region *map = NULL;
	unsigned int idx = 0;
	vaddr_t va = 0;

	map = core_mmu_find_mapping_exclusive(MEM_AREA_RES_VASPACE,
					      3 * WINDOW_SIZE);
	if (!map)
		return false;
	va = ROUNDDOWN(map->va + map->size, WINDOW_SIZE) - 2 * WINDOW_SIZE;
	map->size = va - map->va;

	if (!find_entry(va, &ti, &idx) || BIT(ti.shift) != WINDOW_SIZE ||
	    !find_entry(va + WINDOW_SIZE, &ti, &idx) ||
	    BIT(ti.shift) != WINDOW_SIZE ||
	    !core_mmu_entry_to_finer_grained(&ti, idx, true) ||
	    !find_entry(va + WINDOW_SIZE, &ti, &idx) ||
	    ti.shift != SMALL_PAGE_SHIFT || idx)
		return false;

	window.block = va;
	window.pages = va + WINDOW_SIZE;

	return true;
}

void *ringfence_shim_window_open(uint64_t start, uint64_t size)
{
	vaddr_t va = size == WINDOW_SIZE ? window.block : window.pages;
	struct core_mmu_table_info ti = { };
	uint64_t *table = NULL;
	unsigned int idx = 0;
	size_t n = 0;

	if (!va || !size || size > WINDOW_SIZE || !find_entry(va, &ti, &idx))
		return NULL;

	core_mmu_set_entry(&ti, idx, start, window_attr);
	/* The other pages' entries are the first one's, with their addresses. */
	table = ti.table;
	if (va == window.pages)
		for (n = 1; n < size / SMALL_PAGE_SIZE; n++)
			table[n] = table[0] + n * SMALL_PAGE_SIZE;
	/* No translation of it is cached: it was not valid. */
	dsb_ishst();
	isb();

	return (void *)va;
}

/* Whole pages of normal memory, by cache line: several times memset()'s speed */
void ringfence_shim_window_zero(void *buf, uint64_t size)
{
	uint8_t *end = (uint8_t *)buf + size;
	uint64_t dczid = 0;
	uint8_t *p = buf;
	size_t line = 0;

	asm ("mrs %0, dczid_el0" : "=r" (dczid));
	if (dczid & DCZID_EL0_DZP) {
		memset(buf, 0, size);
	} else {
		line = sizeof(uint32_t) << (dczid & DCZID_EL0_BS_MASK);
		for (; p < end; p += line)
			asm volatile ("dc zva, %0" : : "r" (p) : "memory");
	}
	dsb_ish();
}

void ringfence_shim_window_close(uint64_t size)
{
	vaddr_t va = size == WINDOW_SIZE ? window.block : window.pages;
	struct core_mmu_table_info ti = { };
	uint64_t *table = NULL;
	unsigned int idx = 0;
	size_t count = 1;
	size_t n = 0;

	if (va == window.pages)
		count = size / SMALL_PAGE_SIZE;
	/* As when it was opened */
	if (!find_entry(va, &ti, &idx))
		panic("the window's table");

	table = ti.table;
	memset(table + idx, 0, count * sizeof(*table));
	dsb_ishst();
	for (n = 0; n < count; n++)
		tlbi_va_allasid_nosync(va + n * SMALL_PAGE_SIZE);
	dsb_ish();
	isb();
}

void *ringfence_shim_object(uint64_t start, uint64_t size)
{
	return mobj_phys_alloc(start, size, TEE_MATTR_MEM_TYPE_CACHED,
			       CORE_MEM_SDP_MEM);
}

void ringfence_shim_object_put(void *object)
{
	mobj_put(object);
}

/* Each mapped window holds a reference, until it is unmapped or its TA dies. */
bool ringfence_shim_is_mapped(void *object)
{
	struct mobj *mobj = object;

	return refcount_val(&mobj->refc) > 1;
}

uint32_t ringfence_shim_map(void *object, uint64_t offset, uint64_t size,
			    uint64_t *va)
{
	TEE_Result res = TEE_SUCCESS;
	vaddr_t v = 0;

	res = vm_map(caller_context(), &v, size, TEE_MATTR_URW | TEE_MATTR_PRW,
		     0, object, offset);
	if (!res)
		*va = v;

	return res;
}

/* The memory object, with a reference, that fills all of the caller's range */
static struct mobj *get_mobj(uint64_t va, uint64_t size, size_t *offset)
{
	struct mobj *mobj = NULL;
	uint16_t prot = 0;
	size_t len = size;

	mobj = vm_get_mobj(caller_context(), va, &len, &prot, offset);
	if (mobj && len != size) {
		mobj_put(mobj);
		return NULL;
	}

	return mobj;
}

uint32_t ringfence_shim_physical(uint64_t va, uint64_t size, uint64_t *pa)
{
	TEE_Result res = TEE_SUCCESS;
	struct mobj *mobj = NULL;
	size_t offset = 0;
	paddr_t p = 0;

	mobj = get_mobj(va, size, &offset);
	if (!mobj)
		return TEE_ERROR_ITEM_NOT_FOUND;

	res = mobj_get_pa(mobj, offset, 0, &p);
	mobj_put(mobj);
	if (!res)
		*pa = p;

	return res;
}

uint32_t ringfence_shim_unmap(void *object, uint64_t va, uint64_t size)
{
	struct mobj *mobj = NULL;
	size_t offset = 0;

	mobj = get_mobj(va, size, &offset);
	/* Only compared from here on: the window itself keeps it alive. */
	mobj_put(mobj);
	if (!mobj || mobj != object)
		return TEE_ERROR_ITEM_NOT_FOUND;

	return vm_unmap(caller_context(), va, size);
}

uint32_t ringfence_shim_copy_out(void *to, const void *from, size_t size)
{
	return copy_to_user(to, from, size);
}

void __noreturn ringfence_shim_panic(void)
{
	panic("the ledger");
}

static TEE_Result open_session(uint32_t types __unused,
			       TEE_Param params[TEE_NUM_PARAMS] __unused,
			       void **context)
{
	uint8_t uuid[sizeof(TEE_UUID)] = { };
	TEE_Result res = TEE_SUCCESS;
	uint64_t session = 0;

	res = caller_uuid(uuid);
	if (!res) {
		mutex_lock(&ledger_mutex);
		res = ringfence_firewall_open(uuid, &session);
		mutex_unlock(&ledger_mutex);
	}
	if (res)
		EMSG("Session refused");
	else
		*context = (void *)(uintptr_t)session;

	return res;
}

/* Comes for a session that was refused, too: there is none of number 0. */
static void close_session(void *context)
{
	mutex_lock(&ledger_mutex);
	ringfence_firewall_close((uintptr_t)context);
	mutex_unlock(&ledger_mutex);
}

static TEE_Result invoke(void *context, uint32_t cmd, uint32_t types,
			 TEE_Param params[TEE_NUM_PARAMS])
{
	uint8_t uuid[sizeof(TEE_UUID)] = { };
	TEE_Result res = TEE_SUCCESS;

	res = caller_uuid(uuid);
	if (res)
		return res;

	mutex_lock(&ledger_mutex);
	res = ringfence_firewall_invoke(uuid, (uintptr_t)context, cmd, types,
					params);
	mutex_unlock(&ledger_mutex);

	return res;
}

struct extent {
	paddr_t start;
	size_t size;
};

static bool overlaps(const struct extent *extent, paddr_t pa, size_t size)
{
	return core_is_buffer_intersect(extent->start, extent->size, pa, size);
}

static TEE_Result check_map(struct tee_mmap_region *map, void *extent)
{
	if ((map->attr & TEE_MATTR_VALID_BLOCK) &&
	    overlaps(extent, map->pa, map->size))
		return TEE_ERROR_ACCESS_CONFLICT;

	return TEE_SUCCESS;
}

static TEE_Result check_shm(const struct core_mmu_phys_mem *mem, void *extent)
{
	if (overlaps(extent, mem->addr, mem->size))
		return TEE_ERROR_ACCESS_CONFLICT;

	return TEE_SUCCESS;
}

/* Whether OP-TEE neither uses nor would use, or share, any of it. */
static bool is_free(struct extent *extent)
{
	paddr_size_t size = 0;
	paddr_t base = 0;

	core_mmu_get_secure_memory(&base, &size);

	return !overlaps(extent, base, size) &&
	       !core_mmu_for_each_map(extent, check_map) &&
	       !core_mmu_for_each_nsec_ddr(extent, check_shm);
}

/* Whether the normal world was told to leave exactly this memory alone. */
static bool is_reserved(const void *ns_fdt, const struct extent *extent)
{
	paddr_t start = 0;
	size_t size = 0;
	int parent = 0;
	int node = 0;

	parent = fdt_path_offset(ns_fdt, "/reserved-memory");
	if (parent < 0)
		return false;

	fdt_for_each_subnode(node, ns_fdt, parent)
		if (!fdt_reg_info(ns_fdt, node, &start, &size) &&
		    start == extent->start && size == extent->size &&
		    (fdt_get_status(ns_fdt, node) & DT_STATUS_OK_NSEC) &&
		    fdt_getprop(ns_fdt, node, "no-map", NULL))
			return true;

	return false;
}

static void declare(const void *fdt, const void *ns_fdt, int node)
{
	const char *name __maybe_unused = fdt_get_name(fdt, node, NULL);
	struct extent extent = { };
	const char *protection = NULL;
	const char *use_case = NULL;
	int protection_len = 0;
	int len = 0;

	use_case = fdt_getprop(fdt, node, "ringfence,use-case", &len);
	protection = fdt_getprop(fdt, node, "ringfence,protection",
				 &protection_len);
	if (!use_case || len < 1 || !protection || protection_len < 1 ||
	    fdt_reg_info(fdt, node, &extent.start, &extent.size) ||
	    !extent.size || extent.start + extent.size < extent.start) {
		EMSG("%s: malformed, refused", name);
		return;
	}

	if (!is_free(&extent)) {
		EMSG("%s: OP-TEE uses or shares that memory, refused", name);
		return;
	}

	if (!ns_fdt || !is_reserved(ns_fdt, &extent)) {
		EMSG("%s: not reserved in the normal world's DT, refused",
		     name);
		return;
	}

	/* The properties' terminating NUL is not part of the names. */
	if (ringfence_firewall_declare(extent.start, extent.size, use_case,
				       len - 1, protection,
				       protection_len - 1)) {
		EMSG("%s: refused by ledger or firmware", name);
		return;
	}

	IMSG("%s: carveout %#"PRIxPA" size %#zx", name, extent.start,
	     extent.size);
}

/*
 * The embedded devicetree declares the carveouts. The normal world's can only
 * take away from it; it is gone after boot, so this is done once. A carveout
 * that is refused is unknown from then on, and with it every request for it.
 */
static TEE_Result declare_carveouts(void)
{
	const void *fdt = get_embedded_dt();
	const void *ns_fdt = get_external_dt();
	int node = -1;

	if (!fdt) {
		EMSG("No embedded devicetree: no carveouts");
		return TEE_SUCCESS;
	}

	if (!reserve_window()) {
		EMSG("No address space to scrub through: no carveouts");
		return TEE_SUCCESS;
	}

	if (ringfence_firewall_is_test_build())
		EMSG("TEST BUILD: the TA can make this firewall fail");

	while (true) {
		node = fdt_node_offset_by_compatible(fdt, node,
						     "ringfence,carveout");
		if (node < 0)
			break;
		declare(fdt, ns_fdt, node);
	}

	return TEE_SUCCESS;
}

service_init(declare_carveouts);

pseudo_ta_register(.uuid = FIREWALL_UUID, .name = "ringfence.firewall",
		   .flags = PTA_DEFAULT_FLAGS | TA_FLAG_CONCURRENT,
		   .open_session_entry_point = open_session,
		   .close_session_entry_point = close_session,
		   .invoke_command_entry_point = invoke);
