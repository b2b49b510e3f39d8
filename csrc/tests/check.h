/* check.h - the little a C test needs: a check that goes on, a chance that is the same every time, every engine. */
#ifndef GW_CHECK_H
#define GW_CHECK_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "internal.h"
#include "oracle.h"

static int checks, failures;

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        checks++;                                                                                                      \
        if (!(condition)) {                                                                                            \
            failures++;                                                                                                \
            printf("%s:%d: [%s] not true: %s\n", __FILE__, __LINE__, gw_engine_name(), #condition);                    \
        }                                                                                                              \
    } while (0)

static inline int check_report(const char *name) {
    printf("%-14s %d checks, %d failures\n", name, checks, failures);
    return failures != 0 || checks == 0;
}

/* xorshift64*: any good-enough generator with a seed will do. */
static inline uint64_t chance(void) {
    static uint64_t x = 0x9e3779b97f4a7c15;
    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    return x * 0x2545f4914f6cdd1d;
}

static inline void chance_bytes(uint8_t *p, size_t n) {
    while (n--)
        *p++ = (uint8_t)(chance() >> 56);
}

/* Bytes that repeat with period 251, a prime: blocks taken in the wrong order show. */
static inline void cycle_bytes(uint8_t *p, size_t n) {
    for (size_t i = 0; i < n; i++)
        p[i] = (uint8_t)(i % 251);
}

/* Run `body` under every engine of this machine, and say which could not be run. The engine gw_init chose must be the
 * first that is there. */
static inline void each_engine(void (*body)(const gw_engine *engine)) {
    CHECK(gw_init() == GW_OK);
    char first[32];
    snprintf(first, sizeof first, "%s", gw_engine_name());
    int ran = 0;
    for (uint32_t i = 0; gw_engine_list(i); i++) {
        if (!gw_engine_available(gw_engine_list(i))) {
            CHECK(gw_engine_force_for_testing(gw_engine_list(i)) == GW_ERR_ENGINE);
            printf("    %-12s UNAVAILABLE\n", gw_engine_list(i));
            continue;
        }
        if (!ran)
            CHECK(strcmp(first, gw_engine_list(i)) == 0);
        CHECK(gw_engine_force_for_testing(gw_engine_list(i)) == GW_OK);
        CHECK(strcmp(gw_engine_name(), gw_engine_list(i)) == 0);
        body(gw_engine_now());
        ran++;
    }
    CHECK(ran >= 1);
}

/* A table with one key of `raw` bytes; its handle in *handle. */
static inline gw_table *table_with(const uint8_t *raw, size_t raw_len, const char *audience, const char *policy,
                                   uint32_t *handle) {
    char text[96];
    int rc;
    oracle_base64(raw, raw_len, text);
    gw_table *table = gw_table_new(4, &rc);
    CHECK(rc == GW_OK);
    if (!table)
        abort();
    CHECK(gw_table_add(table, (const uint8_t *)text, strlen(text), audience, strlen(audience), policy, strlen(policy),
                       handle) == GW_OK);
    return table;
}

#endif
