/* internal.h - what the files of the signer share. The promises are in gw_sas.h. */
#ifndef GW_INTERNAL_H
#define GW_INTERNAL_H

#include "ct.h"
#include "gw_sas.h"

enum {
    SHA_BLOCK = 64,
    SHA_DIGEST = 32,
    SIG_CHARS = 44,     /* base64 of a digest: 43 characters and '=' */
    COPY_STEP = 32,     /* texts are copied in whole steps, so each is followed by COPY_PAD readable bytes */
    COPY_PAD = 64,
    PREFIX_LEN = 25,    /* "SharedAccessSignature sr=" */
    SLOT_BITS = 20,
    GENERATION_MAX = (1 << (32 - SLOT_BITS)) - 1
};

/* One key: all that is secret about a device, one cache line. Words are host-endian. */
typedef struct {
    uint32_t inner[8];
    uint32_t outer[8];
} gw_key;

/* One way to compute. `compress` runs n blocks through one state; `compress2` runs n blocks through each of two
 * independent states, which lets the hash unit of one core work on both. `base64` writes 48 bytes whose first 43 are
 * the digest's base64 and whose 44th is '=', and returns bit i set where character i is '+' or '/'. */
typedef struct {
    const char *name;
    int (*available)(void);
    void (*compress)(uint32_t state[8], const uint8_t *blocks, size_t n);
    void (*compress2)(uint32_t a[8], const uint8_t *pa, uint32_t b[8], const uint8_t *pb, size_t n);
    uint64_t (*base64)(char out[48], const uint32_t digest[8]);
} gw_engine;

/* The public half of a slot. text = prefix, audience, "&sig=", then "&skn=" and policy when there is one. */
typedef struct {
    char *text; /* NULL in a free slot */
    uint32_t generation;
    uint16_t audience_len;
    uint16_t trailer_len; /* "&skn=" and policy, or 0 */
    uint32_t next_free;
} gw_slot;

/* The secret half, in its own mapping. The canary is the first thing that fork wipes. */
typedef struct {
    uint64_t canary;
    uint64_t forks; /* the fork count of the process that made the block */
    uint8_t pad[48];
    gw_key keys[];
} gw_block;

struct gw_table {
    gw_block *block;
    gw_slot *slots;
    uint32_t capacity;
    uint32_t flags;
    uint32_t free_head; /* capacity when no slot is free */
    size_t token_max;   /* the longest token any key filed so far can make, '\n' included */
};

extern const uint32_t gw_sha256_k[64];
extern const uint32_t gw_sha256_iv[8];
extern const gw_engine gw_engine_portable;
extern const gw_engine gw_engine_shani;
extern const gw_engine gw_engine_armv8;

/* engine.c: the chosen engine, NULL before gw_init; and whether an engine gives its known answers. */
const gw_engine *gw_engine_now(void);
int gw_engine_is_right(const gw_engine *engine);

/* sha256_portable.c */
uint64_t gw_base64_portable(char out[48], const uint32_t digest[8]);

/* hmac.c. gw_key_init takes 0 to 64 key bytes; gw_hmac any message. Both wipe what they put on the stack. */
void gw_key_init(const gw_engine *engine, gw_key *key, const uint8_t *raw, size_t raw_len);
void gw_hmac(const gw_engine *engine, const gw_key *key, const uint8_t *message, size_t len, uint8_t mac[SHA_DIGEST]);

/* base64.c: decode padded base64 of at most 88 characters; the tail's unused bits are not looked at, as in every SDK.
 * GW_ERR_KEY_TEXT or GW_ERR_KEY_LENGTH on failure. `out` holds 66 bytes and is secret, all of it. */
enum { BASE64_MAX = 88, BASE64_BYTES = 66 };
GW_MUST_USE int gw_base64_decode(uint8_t out[BASE64_BYTES], size_t *out_len, const uint8_t *text, size_t len);

/* wipe.c: overwrite the stack below the caller, where the engine's frames were. */
void gw_wipe_stack(void);

/* block.c: the mapping. `flags` says what was granted. */
gw_block *gw_block_new(uint32_t capacity, uint32_t *flags);
void gw_block_free(gw_block *block, uint32_t capacity);
void gw_block_lock_again(gw_block *block, uint32_t capacity, uint32_t *flags);
int gw_block_alive(const gw_block *block);

/* sign.c: gw_sign without its checks. */
GW_MUST_USE int gw_sign_with(const gw_engine *engine, const gw_table *table, const uint32_t *handles, size_t count,
                             uint64_t expiry, char *arena, uint32_t *offsets, size_t *failed);

/* table.c: the slot a handle names, or NULL. */
const gw_slot *gw_table_slot(const gw_table *table, uint32_t handle);
static inline uint32_t gw_slot_index(uint32_t handle) {
    return handle & ((1u << SLOT_BITS) - 1u);
}

static inline void gw_store_be32(uint8_t *p, uint32_t v) {
    p[0] = (uint8_t)(v >> 24);
    p[1] = (uint8_t)(v >> 16);
    p[2] = (uint8_t)(v >> 8);
    p[3] = (uint8_t)v;
}

static inline void gw_store_be64(uint8_t *p, uint64_t v) {
    gw_store_be32(p, (uint32_t)(v >> 32));
    gw_store_be32(p + 4, (uint32_t)v);
}

#endif
