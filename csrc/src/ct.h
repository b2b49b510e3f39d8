/* ct.h - arithmetic on secrets without a branch, an index or an early exit that depends on them.
 *
 * A mask is 0 or 0xffffffff. Everything is unsigned: shifts and wrap-around are defined, and no compiler may reason
 * from overflow. */
#ifndef GW_CT_H
#define GW_CT_H

#include <stddef.h>
#include <stdint.h>

#ifdef GW_CT_CHECK
/* Under `make ct` a secret is memory that valgrind calls undefined; these say what becomes public, and where. */
#include <valgrind/memcheck.h>
#define GW_PUBLIC(p, len) ((void)VALGRIND_MAKE_MEM_DEFINED((p), (len)))
#else
#define GW_PUBLIC(p, len) ((void)(p), (void)(len))
#endif

/* Mask of lo <= c && c <= hi, for c, lo, hi below 2^31 and lo >= 1.
 * lo - 1 - c wraps (top bit set) exactly when c > lo - 1; c - hi - 1 wraps exactly when c < hi + 1. */
static inline uint32_t ct_within(uint32_t c, uint32_t lo, uint32_t hi) {
    return 0u - (((lo - 1u - c) & (c - hi - 1u)) >> 31);
}

/* 1 when x is 0, else 0: x | -x has its top bit set for every x but 0. */
static inline uint32_t ct_is_zero(uint32_t x) {
    return 1u ^ ((x | (0u - x)) >> 31);
}

/* 1 when both have the same `len` bytes, else 0. */
static inline uint32_t ct_equal(const uint8_t *a, const uint8_t *b, size_t len) {
    uint32_t differ = 0;
    for (size_t i = 0; i < len; i++)
        differ |= (uint32_t)(a[i] ^ b[i]);
    return ct_is_zero(differ);
}

#endif
