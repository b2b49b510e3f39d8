/* hmac.c - HMAC-SHA256 (RFC 2104) from midstates. See internal.h. */
#include <string.h>

#include "internal.h"

void gw_key_init(const gw_engine *engine, gw_key *key, const uint8_t *raw, size_t raw_len) {
    uint8_t ipad[SHA_BLOCK], opad[SHA_BLOCK];
    for (size_t i = 0; i < SHA_BLOCK; i++) {
        uint8_t k = i < raw_len ? raw[i] : 0;
        ipad[i] = k ^ 0x36;
        opad[i] = k ^ 0x5c;
    }
    memcpy(key->inner, gw_sha256_iv, sizeof key->inner);
    memcpy(key->outer, gw_sha256_iv, sizeof key->outer);
    engine->compress2(key->inner, ipad, key->outer, opad, 1);
    gw_wipe(ipad, sizeof ipad);
    gw_wipe(opad, sizeof opad);
    gw_wipe_stack();
}

static void store_digest(uint8_t out[SHA_DIGEST], const uint32_t state[8]) {
    for (size_t i = 0; i < 8; i++)
        gw_store_be32(out + 4 * i, state[i]);
}

void gw_hmac(const gw_engine *engine, const gw_key *key, const uint8_t *message, size_t len, uint8_t mac[SHA_DIGEST]) {
    uint32_t state[8];
    uint8_t tail[2 * SHA_BLOCK] = {0};
    size_t whole = len / SHA_BLOCK, rest = len % SHA_BLOCK;
    size_t blocks = rest + 9 <= SHA_BLOCK ? 1 : 2;

    memcpy(state, key->inner, sizeof state);
    if (whole)
        engine->compress(state, message, whole);
    if (rest)
        memcpy(tail, message + whole * SHA_BLOCK, rest);
    tail[rest] = 0x80;
    gw_store_be64(tail + blocks * SHA_BLOCK - 8, ((uint64_t)SHA_BLOCK + len) * 8);
    engine->compress(state, tail, blocks);

    memset(tail, 0, sizeof tail);
    store_digest(tail, state);
    tail[SHA_DIGEST] = 0x80;
    gw_store_be64(tail + SHA_BLOCK - 8, (SHA_BLOCK + SHA_DIGEST) * 8);
    memcpy(state, key->outer, sizeof state);
    engine->compress(state, tail, 1);
    store_digest(mac, state);

    gw_wipe(state, sizeof state);
    gw_wipe(tail, sizeof tail);
    gw_wipe_stack();
}
