/* What is left on the stack: keys are loaded and used on a stack of our own, which is then searched.
 *
 * Searched for: key text, key, both padded key blocks, both midstates (in order, and as the x86 instructions hold
 * them), the inner digest. A control leaves a key behind on purpose and must be found. */
#define _GNU_SOURCE 1
#include <sys/mman.h>
#include <ucontext.h>

#include "check.h"

enum { STACK = 1 << 18 };
static uint8_t *stack;
static uint8_t key[64];
static char key_text[96], bad_text[96];
static gw_table *table;
static volatile int result;
static const char audience[] = "hub%2Fdevices%2Fwith-a-name-that-takes-two-blocks-of-the-message";

static void careless(void) {
    volatile uint8_t copy[4096];
    for (size_t i = 0; i < sizeof key; i++)
        copy[1024 + i] = key[i];
    result = copy[1024];
}

static uint32_t handle, derived, spare;
static char out[8192];
static uint32_t offsets[18];

static void add(void) {
    result = gw_table_add(table, (const uint8_t *)key_text, strlen(key_text), audience, strlen(audience), "", 0, &handle);
}

static void add_malformed(void) {
    uint32_t none;
    result = gw_table_add(table, (const uint8_t *)bad_text, strlen(bad_text), "a", 1, "", 0, &none) != GW_ERR_KEY_TEXT;
}

static void derive(void) {
    result = gw_table_derive(table, handle, "id", 2, "a", 1, "", 0, &derived);
}

static void replace(void) {
    result = gw_table_replace(table, handle, (const uint8_t *)key_text, strlen(key_text));
}

static void share(void) {
    result = gw_table_share(table, handle, "b", 1, "", 0, &spare);
}

static void sign_one(void) {
    size_t failed;
    result = gw_sign(table, &handle, 1, 1767225600, out, sizeof out, offsets, &failed);
}

static void sign_many(void) {
    uint32_t many[17];
    size_t failed;
    for (size_t i = 0; i < 17; i++)
        many[i] = handle;
    result = gw_sign(table, many, 17, 1767225600, out, sizeof out, offsets, &failed);
}

static void verify(void) {
    gw_claims claims;
    result = gw_verify(table, handle, out, offsets[1] - 1, &claims) || !claims.authentic;
}

static void grow(void) {
    result = gw_table_reserve(table, gw_table_capacity(table) + 1);
}

/* A context of its own rather than a thread: nothing else runs on its stack before or after the body. */
static int run(void (*body)(void)) {
    ucontext_t here, there;
    memset(stack, 0xa5, STACK);
    CHECK(getcontext(&there) == 0);
    there.uc_stack.ss_sp = stack;
    there.uc_stack.ss_size = STACK;
    there.uc_link = &here;
    makecontext(&there, body, 0);
    CHECK(swapcontext(&here, &there) == 0);
    return result;
}

static int on_stack(const void *secret, size_t len) {
    for (size_t i = 0; i + len <= STACK; i++)
        if (memcmp(stack + i, secret, len) == 0)
            return 1;
    return 0;
}

/* Sixteen bytes are one vector register: what a spill leaves behind. */
static void nothing_of(const void *secret, size_t len, const char *what) {
    for (size_t i = 0; i + 16 <= len; i += 16) {
        int found = on_stack((const uint8_t *)secret + i, 16);
        if (found)
            printf("    found: %s, bytes %zu to %zu\n", what, i, i + 15);
        CHECK(!found);
    }
}

static void midstate(const uint32_t *s, const char *what) {
    const uint32_t abef[4] = {s[5], s[4], s[1], s[0]}, cdgh[4] = {s[7], s[6], s[3], s[2]};
    nothing_of(s, 32, what);
    nothing_of(abef, 16, what);
    nothing_of(cdgh, 16, what);
}

/* Everything that is secret about the key, looked for after each verb alone: the next would overwrite the traces. */
static void after(const gw_engine *engine, void (*body)(void), const char *verb) {
    uint8_t ipad[64], opad[64], inside[256], digest[32], child[32];
    uint32_t words[8];
    gw_key mid;
    int before = failures;
    CHECK(run(body) == 0);
    for (size_t i = 0; i < 64; i++) {
        ipad[i] = key[i] ^ 0x36;
        opad[i] = key[i] ^ 0x5c;
    }
    gw_key_init(engine, &mid, key, sizeof key);
    size_t n = 64 + (size_t)sprintf((char *)inside + 64, "%s\n1767225600", audience);
    memcpy(inside, ipad, 64);
    oracle_sha256(inside, n, digest);
    for (size_t i = 0; i < 8; i++)
        words[i] = (uint32_t)digest[4 * i] << 24 | (uint32_t)digest[4 * i + 1] << 16 |
                   (uint32_t)digest[4 * i + 2] << 8 | digest[4 * i + 3];
    nothing_of(key_text, strlen(key_text), "key text");
    nothing_of(key, sizeof key, "key");
    nothing_of(ipad, sizeof ipad, "inner padded key");
    nothing_of(opad, sizeof opad, "outer padded key");
    nothing_of(digest, sizeof digest, "inner digest");
    midstate(words, "inner digest words");
    midstate(mid.inner, "inner midstate");
    midstate(mid.outer, "outer midstate");
    oracle_hmac(key, sizeof key, (const uint8_t *)"id", 2, child);
    nothing_of(child, sizeof child, "derived key");
    for (size_t i = 0; i < 8; i++)
        words[i] = (uint32_t)child[4 * i] << 24 | (uint32_t)child[4 * i + 1] << 16 | (uint32_t)child[4 * i + 2] << 8 |
                   child[4 * i + 3];
    midstate(words, "derived key words");
    gw_key_init(engine, &mid, child, sizeof child);
    midstate(mid.inner, "derived inner midstate");
    midstate(mid.outer, "derived outer midstate");
    if (failures != before)
        printf("    after: %s\n", verb);
}

static void all(const gw_engine *engine) {
    after(engine, add, "add");
    after(engine, add_malformed, "add malformed");
    after(engine, derive, "derive");
    after(engine, replace, "replace");
    after(engine, share, "share");
    after(engine, sign_one, "sign one");
    after(engine, sign_many, "sign many");
    after(engine, verify, "verify");
    after(engine, grow, "grow");
}

int main(void) {
    int rc;
    stack = mmap(NULL, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(stack != MAP_FAILED && gw_init() == GW_OK);
    chance_bytes(key, sizeof key);
    oracle_base64(key, sizeof key, key_text);
    memcpy(bad_text, key_text, sizeof bad_text);
    bad_text[80] = '!';
    table = gw_table_new(64, &rc);
    run(careless);
    CHECK(on_stack(key, sizeof key)); /* the control */
    each_engine(all);
    gw_table_free(table);

    uint8_t buffer[100];
    memset(buffer, 0xee, sizeof buffer);
    gw_wipe(buffer + 1, 98);
    CHECK(buffer[0] == 0xee && buffer[99] == 0xee && buffer[1] == 0 && buffer[98] == 0);
    gw_wipe(NULL, 0);
    return check_report("wipe");
}
