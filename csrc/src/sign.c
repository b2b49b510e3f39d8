/* sign.c - making tokens, sixteen at a time. See gw_sas.h.
 *
 * The work of a batch goes in phases (find the keys and lay out the messages, hash inside, hash outside, encode, write)
 * rather than token by token: what one phase stores in small pieces, the next loads in vectors, and by then the
 * stores have left the store buffer. Texts are copied in steps of 32 bytes with room behind source and target: a
 * copy of a length known to the compiler is two moves, one of a variable length is a call. */
#include <string.h>

#include "internal.h"

enum {
    BATCH = 16,
    SIG_ROOM = 96,     /* 48 bytes may be read from any of the first 48 */
    NUMBER_MAX = 20,   /* digits of 2^64 - 1 */
    ARENA_SLACK = 192, /* what the whole-step copies of the last token may write past it */
    SURE_ESCAPES = 3   /* '=' and two more: 85 % of signatures have no more */
};

typedef struct {
    uint32_t state[BATCH][8];                /* secret: inner, then outer states */
    uint8_t block[BATCH][2 * SHA_BLOCK];     /* message tails, then the secret inner digests as outer blocks */
    const gw_slot *slot[BATCH];
    const gw_key *key[BATCH];
    size_t tail_blocks[BATCH];
    uint64_t escapes[BATCH];
    char sig[BATCH][SIG_ROOM];
} batch;

/* The parts that all tokens of one call share. */
typedef struct {
    uint8_t after_audience[SHA_BLOCK]; /* '\n', expiry, 0x80, zeros: what follows the audience in a message */
    size_t number_len;
    char expiry_field[COPY_STEP]; /* "&se=" and expiry */
} common;

static void common_init(common *c, uint64_t expiry) {
    char digits[NUMBER_MAX];
    size_t n = 0;
    do {
        digits[NUMBER_MAX - ++n] = (char)('0' + expiry % 10);
        expiry /= 10;
    } while (expiry);
    memset(c, 0, sizeof *c);
    c->number_len = n;
    c->after_audience[0] = '\n';
    memcpy(c->after_audience + 1, digits + NUMBER_MAX - n, n);
    c->after_audience[1 + n] = 0x80;
    memcpy(c->expiry_field, "&se=", 4);
    memcpy(c->expiry_field + 4, digits + NUMBER_MAX - n, n);
}

static const char *audience_of(const gw_slot *slot) {
    return slot->text + PREFIX_LEN;
}

/* Returns how many handles were good; fewer than n when one was not. */
static size_t find_keys(batch *b, const gw_table *table, const uint32_t *handles, size_t n) {
    for (size_t i = 0; i < n; i++) {
        const gw_slot *slot = gw_table_slot(table, handles[i]);
        if (!slot || slot->audience_len == 0)
            return i;
        b->slot[i] = slot;
        b->key[i] = &table->block->keys[gw_slot_index(handles[i])];
        __builtin_prefetch(b->key[i]);
        __builtin_prefetch(slot->text);
        __builtin_prefetch(slot->text + 64);
    }
    return n;
}

static void copy64(void *to, const void *from) {
    memcpy(to, from, 32);
    memcpy((char *)to + 32, (const char *)from + 32, 32);
}

static void lay_out(batch *b, const common *c, size_t n) {
    static const uint8_t zeros[SHA_BLOCK];
    for (size_t i = 0; i < n; i++) {
        size_t len = b->slot[i]->audience_len, rest = len % SHA_BLOCK;
        size_t message_len = len + 1 + c->number_len;
        size_t blocks = rest + 1 + c->number_len + 9 <= SHA_BLOCK ? 1 : 2;
        uint8_t *tail = b->block[i];
        copy64(tail, audience_of(b->slot[i]) + (len - rest));
        copy64(tail + SHA_BLOCK, zeros);
        copy64(tail + rest, c->after_audience);
        gw_store_be64(tail + blocks * SHA_BLOCK - 8, ((uint64_t)SHA_BLOCK + message_len) * 8);
        b->tail_blocks[i] = blocks;
        memcpy(b->state[i], b->key[i]->inner, sizeof b->state[i]);
    }
}

/* Neighbours share the engine for as many blocks as both have; what is longer in one goes on alone. */
static void hash_pair(const gw_engine *engine, uint32_t *a, const void *pa, size_t na, uint32_t *b, const void *pb,
                      size_t nb) {
    size_t both = na < nb ? na : nb;
    if (both)
        engine->compress2(a, pa, b, pb, both);
    if (na > both)
        engine->compress(a, (const uint8_t *)pa + both * SHA_BLOCK, na - both);
    if (nb > both)
        engine->compress(b, (const uint8_t *)pb + both * SHA_BLOCK, nb - both);
}

static void hash_inside(const gw_engine *engine, batch *b, size_t n) {
    for (size_t i = 0; i < n; i += 2) {
        size_t j = i + 1;
        size_t whole_i = b->slot[i]->audience_len / SHA_BLOCK;
        size_t whole_j = j < n ? b->slot[j]->audience_len / SHA_BLOCK : 0;
        size_t tail_j = j < n ? b->tail_blocks[j] : 0;
        hash_pair(engine, b->state[i], audience_of(b->slot[i]), whole_i, b->state[j < n ? j : i],
                  audience_of(b->slot[j < n ? j : i]), whole_j);
        hash_pair(engine, b->state[i], b->block[i], b->tail_blocks[i], b->state[j < n ? j : i], b->block[j < n ? j : i],
                  tail_j);
    }
}

static void hash_outside(const gw_engine *engine, batch *b, size_t n) {
    static const uint8_t padding[SHA_BLOCK - SHA_DIGEST] = {
        [0] = 0x80, [SHA_BLOCK - SHA_DIGEST - 2] = (SHA_BLOCK + SHA_DIGEST) * 8 / 256};
    for (size_t i = 0; i < n; i++) {
        for (size_t w = 0; w < 8; w++)
            gw_store_be32(b->block[i] + 4 * w, b->state[i][w]);
        memcpy(b->block[i] + SHA_DIGEST, padding, sizeof padding);
        memcpy(b->state[i], b->key[i]->outer, sizeof b->state[i]);
    }
    for (size_t i = 0; i < n; i += 2)
        hash_pair(engine, b->state[i], b->block[i], 1, b->state[i + 1 < n ? i + 1 : i],
                  b->block[i + 1 < n ? i + 1 : i], i + 1 < n ? 1 : 0);
}

static char *copy_steps(char *out, const char *from, size_t len) {
    for (size_t i = 0; i < len; i += COPY_STEP)
        memcpy(out + i, from + i, COPY_STEP);
    return out + len;
}

/* '+', '/' and '=' are 2B, 2F and 3D: their low digits are letters, all three. */
static void escape(char *out, char c) {
    out[0] = '%';
    out[1] = (char)('0' + (c >> 4));
    out[2] = (char)('A' + (c & 15) - 10);
}

/* Write the signature, each character in `escapes` as %XX. Every escape is put over a copy of the unescaped rest, which
 * it thereby moves. Past the last true one the sure steps fall on bits 44 and 45: behind the text, to be overwritten. */
static char *write_sig(char *out, const char *sig, uint64_t escapes) {
    escapes |= (uint64_t)1 << (SIG_CHARS - 1);
    size_t count = (size_t)__builtin_popcountll(escapes);
    uint64_t left = escapes | (uint64_t)3 << SIG_CHARS;
    memcpy(out, sig, 48);
    for (size_t k = 0; k < SURE_ESCAPES || k < count; k++) {
        size_t at = (size_t)__builtin_ctzll(left);
        left &= left - 1;
        escape(out + at + 2 * k, sig[at]);
        memcpy(out + at + 2 * k + 3, sig + at + 1, 48);
    }
    return out + SIG_CHARS + 2 * count;
}

static char *write_token(char *out, const gw_slot *slot, const common *c, const char *sig, uint64_t escapes) {
    size_t head = PREFIX_LEN + (size_t)slot->audience_len + 5; /* "&sig=" */
    out = copy_steps(out, slot->text, head);
    out = write_sig(out, sig, escapes);
    memcpy(out, c->expiry_field, COPY_STEP);
    out += 4 + c->number_len;
    out = copy_steps(out, slot->text + head, slot->trailer_len);
    *out++ = '\n';
    return out;
}

size_t gw_table_arena(const gw_table *table, size_t count) {
    return count * table->token_max + ARENA_SLACK;
}

int gw_sign_with(const gw_engine *engine, const gw_table *table, const uint32_t *handles, size_t count,
                 uint64_t expiry, char *arena, uint32_t *offsets, size_t *failed) {
    int rc = GW_OK;
    common shared;
    batch b;
    common_init(&shared, expiry);
    size_t used = count < BATCH ? count : BATCH;
    memset(b.sig, 0, used * sizeof b.sig[0]);
    char *out = arena;
    for (size_t done = 0; done < count && rc == GW_OK; done += BATCH) {
        size_t n = count - done < BATCH ? count - done : BATCH;
        size_t good = find_keys(&b, table, handles + done, n);
        if (good < n) {
            *failed = done + good;
            rc = GW_ERR_HANDLE;
            break;
        }
        lay_out(&b, &shared, n);
        hash_inside(engine, &b, n);
        hash_outside(engine, &b, n);
        GW_PUBLIC(b.state, n * sizeof b.state[0]); /* signatures now, about to be handed out */
        for (size_t i = 0; i < n; i++)
            b.escapes[i] = engine->base64(b.sig[i], b.state[i]);
        for (size_t i = 0; i < n; i++) {
            offsets[done + i] = (uint32_t)(out - arena);
            out = write_token(out, b.slot[i], &shared, b.sig[i], b.escapes[i]);
        }
    }
    offsets[count] = (uint32_t)(out - arena);
    gw_wipe(b.state, used * sizeof b.state[0]);
    gw_wipe(b.block, used * sizeof b.block[0]);
    gw_wipe_stack();
    return rc;
}

int gw_sign(const gw_table *table, const uint32_t *handles, size_t count, uint64_t expiry, char *out, size_t out_size,
            uint32_t *offsets, size_t *failed) {
    const gw_engine *engine = gw_engine_now();
    int rc = GW_OK;
    *failed = 0;
    if (!engine)
        rc = GW_ERR_ENGINE;
    else if (!gw_block_alive(table->block))
        rc = GW_ERR_FORKED;
    else if (out_size > UINT32_MAX || count > GW_SLOTS_MAX)
        rc = GW_ERR_ARGUMENT;
    else if (out_size < gw_table_arena(table, count))
        rc = GW_ERR_SPACE;
    if (rc == GW_OK)
        rc = gw_sign_with(engine, table, handles, count, expiry, out, offsets, failed);
    if (rc != GW_OK) {
        gw_wipe(out, out_size);
        for (size_t i = 0; i <= count; i++)
            offsets[i] = 0;
    }
    return rc;
}
