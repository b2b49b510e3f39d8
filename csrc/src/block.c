/* block.c - the mapping that holds the keys, and the only system calls of the signer. See internal.h.
 *
 * guard page | canary, keys | guard page. The inner pages are locked, left out of core dumps and wiped in a child
 * process, as far as the system grants it. Under AddressSanitizer the block comes from its allocator instead, which puts
 * red zones directly behind the last key; pages would leave the rest of a page unwatched. */
#define _GNU_SOURCE 1
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "internal.h"

#if defined(__SANITIZE_ADDRESS__)
#define GW_HEAP_BLOCK 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define GW_HEAP_BLOCK 1
#endif
#endif

/* "gw-sas-1": anything but zero, which is what a wiped page holds. */
static const uint64_t canary = 0x67772d7361732d31;

/* How often this process's ancestors have forked since the first block was made. Beside the wiped canary, because a
 * kernel may lack MADV_WIPEONFORK, and an emulated one (qemu-user) says yes and does nothing. */
static _Atomic uint64_t forks;
static pthread_once_t watching = PTHREAD_ONCE_INIT;

static void in_child(void) {
    atomic_fetch_add_explicit(&forks, 1, memory_order_relaxed);
}

static void watch_forks(void) {
    pthread_atfork(NULL, NULL, in_child);
}

static size_t used_bytes(uint32_t capacity) {
    return sizeof(gw_block) + (size_t)capacity * sizeof(gw_key);
}

#ifdef GW_HEAP_BLOCK

static gw_block *map(uint32_t capacity, uint32_t *flags) {
    gw_block *block = aligned_alloc(sizeof(gw_key), used_bytes(capacity));
    *flags = 0;
    if (block)
        gw_wipe(block, used_bytes(capacity));
    return block;
}

static void unmap(gw_block *block, uint32_t capacity) {
    (void)capacity;
    free(block);
}

void gw_block_lock_again(gw_block *block, uint32_t capacity, uint32_t *flags) {
    (void)block, (void)capacity, (void)flags;
}

#else

static size_t page_bytes(void) {
    return (size_t)sysconf(_SC_PAGESIZE);
}

static size_t mapped_bytes(uint32_t capacity) {
    size_t page = page_bytes();
    return (used_bytes(capacity) + page - 1) / page * page;
}

static gw_block *map(uint32_t capacity, uint32_t *flags) {
    size_t page = page_bytes(), inner = mapped_bytes(capacity);
    uint8_t *base = mmap(NULL, inner + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base == MAP_FAILED)
        return NULL;
    void *block = base + page;
    if (mprotect(block, inner, PROT_READ | PROT_WRITE) != 0) {
        munmap(base, inner + 2 * page);
        return NULL;
    }
    *flags = 0;
#ifdef MADV_DONTDUMP
    if (madvise(block, inner, MADV_DONTDUMP) == 0)
        *flags |= GW_DUMP_EXCLUDED;
#endif
#ifdef MADV_WIPEONFORK
    if (madvise(block, inner, MADV_WIPEONFORK) == 0)
        *flags |= GW_WIPED_ON_FORK;
#endif
    gw_block_lock_again(block, capacity, flags);
    return block;
}

static void unmap(gw_block *block, uint32_t capacity) {
    size_t page = page_bytes();
    munmap((uint8_t *)block - page, mapped_bytes(capacity) + 2 * page);
}

void gw_block_lock_again(gw_block *block, uint32_t capacity, uint32_t *flags) {
    if (!(*flags & GW_LOCKED) && mlock(block, mapped_bytes(capacity)) == 0)
        *flags |= GW_LOCKED;
}

#endif

gw_block *gw_block_new(uint32_t capacity, uint32_t *flags) {
    pthread_once(&watching, watch_forks);
    gw_block *block = map(capacity, flags);
    if (block) {
        block->canary = canary;
        block->forks = atomic_load_explicit(&forks, memory_order_relaxed);
    }
    return block;
}

void gw_block_free(gw_block *block, uint32_t capacity) {
    gw_wipe(block, used_bytes(capacity));
    unmap(block, capacity);
}

int gw_block_alive(const gw_block *block) {
    return block->canary == canary && block->forks == atomic_load_explicit(&forks, memory_order_relaxed);
}
