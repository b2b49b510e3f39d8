/* gw_sas.h - SAS tokens for Azure IoT Hub, signed from keys kept as SHA-256 midstates.
 *
 * A key is decoded once into two midstates (the hash states after the inner and the outer padded key block of
 * HMAC, RFC 2104 section 4). After that neither the base64 text nor the key bytes are needed, and the caller wipes
 * them. Midstates do not give the key back, but they sign like it: they are as secret as the key.
 *
 * Secret: key text, key bytes, midstates, inner digests, and a signature until it is handed out. Public: every length,
 * audiences, policy names, expiries, handles, and the class of an error. Time taken depends on public things only.
 *
 * Ownership: a table owns its memory. All other buffers belong to the caller, each is followed by its size, and
 * no pointer is kept after a call returns. On failure the outputs are zeroed.
 *
 * Threads: gw_init first, once. Then any number of threads may sign and verify with one table at the same time, as
 * long as no thread changes it (add, share, derive, replace, remove, reserve, free) meanwhile. Nothing here locks.
 *
 * Declarations between the two cffi marks are the Python surface; cffi_build.py cuts them out.
 */
#ifndef GW_SAS_H
#define GW_SAS_H

#include <stddef.h>
#include <stdint.h>

#define GW_MUST_USE __attribute__((warn_unused_result))

/* cffi: begin */
enum {
    GW_OK = 0,
    GW_ERR_ARGUMENT = -1,      /* a length or value outside what the function's comment allows */
    GW_ERR_MEMORY = -2,        /* the system gave no memory */
    GW_ERR_KEY_TEXT = -3,      /* the key text is not padded base64 */
    GW_ERR_KEY_LENGTH = -4,    /* the key is not 16 to 64 bytes long */
    GW_ERR_HANDLE = -5,        /* the handle holds no key, or its key has nothing to sign for */
    GW_ERR_FULL = -6,          /* every slot is taken: reserve more */
    GW_ERR_SPACE = -7,         /* the output buffer is too small */
    GW_ERR_FORKED = -8,        /* the key block was wiped by fork: this process may not sign */
    GW_ERR_ENGINE = -9,        /* no such engine on this machine, or gw_init was not called */
    GW_ERR_SELFTEST = -10,     /* an engine gave a wrong known answer */
    GW_ERR_TOKEN_SCHEME = -11, /* the token does not begin with "SharedAccessSignature " */
    GW_ERR_TOKEN_FIELD = -12,  /* a field is unknown, repeated, missing, empty or not visible ASCII */
    GW_ERR_TOKEN_EXPIRY = -13, /* se is not a decimal number below 2^63 */
    GW_ERR_TOKEN_MAC = -14,    /* sig is not 32 bytes of percent-encoded base64 */
    GW_ERR_TOKEN_LENGTH = -15  /* the token is longer than GW_TOKEN_MAX */
};

enum {
    GW_KEY_MIN = 16,          /* IoT Hub takes symmetric keys of 16 to 64 bytes */
    GW_KEY_MAX = 64,
    GW_AUDIENCE_MAX = 2048,   /* percent-encoded; host 253, two ids of 128 at three bytes each, and room */
    GW_POLICY_MAX = 128,
    GW_ID_MAX = 1024,         /* a registration id for derivation */
    GW_TOKEN_MAX = 4096,      /* the longest token gw_verify reads */
    GW_SLOTS_MAX = 1048576,   /* 20 bits of a handle; the other 12 count how often a slot was used */
    GW_DERIVED_TEXT = 44      /* base64 of a derived key */
};

enum {
    GW_LOCKED = 1,         /* the whole key block is locked in memory: it never reaches swap */
    GW_DUMP_EXCLUDED = 2,  /* the key block is left out of core dumps */
    GW_WIPED_ON_FORK = 4   /* a child process sees zeros; without it only a fork handler tells a child apart */
};

typedef struct gw_table gw_table;

/* What a token says. Offsets count from the token's first byte; resource is sr exactly as it stands there. */
typedef struct {
    uint64_t expiry;
    uint32_t resource_offset;
    uint32_t resource_len;
    uint32_t policy_offset;
    uint32_t policy_len;
    uint32_t authentic; /* 1 when sig is the MAC of sr and se under the key, else 0 */
} gw_claims;

/* Choose the fastest engine of this machine after its known answers came out right. Call before anything else.
 * GW_ERR_SELFTEST when they did not: the machine computes wrong, and there is no quieter engine to hide it. */
int gw_init(void);

/* The engine in use: "sha-ni x2", "armv8-ce x2" or "portable"; "" before gw_init. */
const char *gw_engine_name(void);

/* The i-th engine of this build, or NULL past the last; and whether this machine can run it. */
const char *gw_engine_list(uint32_t i);
int gw_engine_available(const char *name);

/* Tests and benchmarks only: use the named engine from now on, after its known answers. GW_ERR_ENGINE when this
 * machine or build lacks it; then the engine in use stays. */
int gw_engine_force_for_testing(const char *name);

/* A sentence for a code, without secrets. Never NULL. */
const char *gw_error_text(int code);

/* Clear memory in a way no compiler leaves out. */
void gw_wipe(void *p, size_t len);

/* A table with room for `capacity` keys (1 to GW_SLOTS_MAX), in one mapping between two guard pages. Locking, dump
 * exclusion and wiping on fork are asked for, and what was granted is in gw_table_flags. NULL, with *rc set, on failure. */
gw_table *gw_table_new(uint32_t capacity, int *rc);

/* Wipe every key and give the memory back. NULL is allowed. */
void gw_table_free(gw_table *table);

/* Make room for `capacity` keys: a new block is made, the keys are copied, the old block is wiped and unmapped.
 * Handles stay valid. A smaller capacity than now changes nothing. */
int gw_table_reserve(gw_table *table, uint32_t capacity);

uint32_t gw_table_capacity(const gw_table *table);
uint32_t gw_table_flags(const gw_table *table);

/* Bytes of output that `count` tokens of this table can need at most, gw_sign's slack included. */
size_t gw_table_arena(const gw_table *table, size_t count);

/* Decode a key and file it. `audience` is percent-encoded already and may be empty: such a key signs nothing, it
 * verifies, derives and is shared. `policy` becomes skn and may be empty. The caller wipes `text`, whatever is returned.
 * Every byte of `text` is looked at; time depends on text_len and on the padding. */
int gw_table_add(gw_table *table, const uint8_t *text, size_t text_len, const char *audience, size_t audience_len,
                 const char *policy, size_t policy_len, uint32_t *handle);

/* File a copy of the key under `source` for another audience: one policy key, many devices. */
int gw_table_share(gw_table *table, uint32_t source, const char *audience, size_t audience_len, const char *policy,
                   size_t policy_len, uint32_t *handle);

/* File the key HMAC-SHA256(group key, id): a device key of a DPS enrollment group. The derived key never leaves C. */
int gw_table_derive(gw_table *table, uint32_t group, const char *id, size_t id_len, const char *audience,
                    size_t audience_len, const char *policy, size_t policy_len, uint32_t *handle);

/* For tools: write the same derived key as base64, GW_DERIVED_TEXT bytes without a terminator. */
int gw_table_export_derived(const gw_table *table, uint32_t group, const char *id, size_t id_len, uint8_t *out,
                            size_t out_size);

/* Put another key under a handle; its audience stays. On failure the old key stays. The caller wipes `text`. */
int gw_table_replace(gw_table *table, uint32_t handle, const uint8_t *text, size_t text_len);

/* Wipe the key and forget the handle for good: a slot's next user gets another handle. */
int gw_table_remove(gw_table *table, uint32_t handle);

/* Write one token per handle into `out`, each followed by '\n'. offsets[i] is where token i begins and offsets[count]
 * is one past the last '\n', so offsets holds count + 1. out_size must be gw_table_arena(table, count) or more; what
 * lies behind the last token is overwritten too. On failure *failed is the position in `handles` that was refused. */
int gw_sign(const gw_table *table, const uint32_t *handles, size_t count, uint64_t expiry, char *out, size_t out_size,
            uint32_t *offsets, size_t *failed);

/* Read a token, its fields in any order, and check its MAC over sr and se exactly as they stand in it. A token that
 * breaks the grammar is an error; a well-formed token with a wrong MAC is GW_OK with authentic = 0. The compare takes
 * the same time wherever the difference is. Whom the token speaks for, and until when, is for the caller to judge. */
int gw_verify(const gw_table *table, uint32_t handle, const char *token, size_t token_len, gw_claims *claims);
/* cffi: end */

#endif
