/* Constant time, as valgrind sees it: secrets are marked undefined, and memcheck reports every branch and every address
 * that depends on them. Each part says how many reports it expects: none, or, for the controls, some.
 *
 * What becomes public on the way is marked where it does (GW_PUBLIC): the padding of key text, that a key is malformed,
 * a signature when it is handed out, the verdict on a token. Compiled with GW_CT_CHECK. valgrind knows no SHA-NI, so
 * the compressions are the portable engine's; the vector base64 of the x86 engine is called by name. */
#include <valgrind/valgrind.h>

#include "check.h"

static const char key_text[] = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
static volatile uint32_t sink;

static void secret(void *p, size_t len) {
    (void)VALGRIND_MAKE_MEM_UNDEFINED(p, len);
}

static void expect(const char *what, unsigned before, int some) {
    unsigned reports = (unsigned)VALGRIND_COUNT_ERRORS - before;
    printf("    %-44s %u reports, %s expected\n", what, reports, some ? "some" : "none");
    CHECK(some ? reports > 0 : reports == 0);
}

static void load_sign_verify(void) {
    unsigned before = (unsigned)VALGRIND_COUNT_ERRORS;
    uint8_t text[sizeof key_text - 1];
    uint32_t handle = 0, derived = 0, shared = 0, handles[20], offsets[21];
    char out[8192];
    size_t failed;
    gw_claims claims;
    int rc;
    memcpy(text, key_text, sizeof text);
    secret(text, sizeof text);
    gw_table *table = gw_table_new(8, &rc);
    CHECK(gw_table_add(table, text, sizeof text, "hub%2Fdevices%2Fd", 17, "", 0, &handle) == GW_OK);
    CHECK(gw_table_derive(table, handle, "reg-01", 6, "hub%2Fdevices%2Fe", 17, "p", 1, &derived) == GW_OK);
    CHECK(gw_table_share(table, handle, "hub", 3, "", 0, &shared) == GW_OK);
    CHECK(gw_table_replace(table, shared, text, sizeof text) == GW_OK);
    expect("load, derive, share, replace", before, 0);

    before = (unsigned)VALGRIND_COUNT_ERRORS;
    for (size_t i = 0; i < 20; i++)
        handles[i] = i % 3 == 0 ? handle : i % 3 == 1 ? derived : shared;
    CHECK(gw_sign(table, handles, 20, 1767225600, out, sizeof out, offsets, &failed) == GW_OK);
    expect("sign", before, 0);

    before = (unsigned)VALGRIND_COUNT_ERRORS;
    CHECK(gw_verify(table, handle, out, offsets[1] - 1, &claims) == GW_OK && claims.authentic == 1);
    CHECK(gw_verify(table, derived, out, offsets[1] - 1, &claims) == GW_OK && claims.authentic == 0);
    expect("verify, right and wrong", before, 0);

    before = (unsigned)VALGRIND_COUNT_ERRORS;
    text[20] = '!';
    secret(text, sizeof text);
    CHECK(gw_table_add(table, text, sizeof text, "a", 1, "", 0, &shared) == GW_ERR_KEY_TEXT);
    expect("a malformed key", before, 0);

    before = (unsigned)VALGRIND_COUNT_ERRORS;
    CHECK(gw_table_remove(table, handle) == GW_OK && gw_table_reserve(table, 40) == GW_OK);
    gw_table_free(table);
    expect("remove, grow, free", before, 0);
}

static void compare(void) {
    uint8_t a[32] = {1}, b[32] = {1};
    unsigned before = (unsigned)VALGRIND_COUNT_ERRORS;
    secret(a, sizeof a);
    sink = ct_equal(a, b, sizeof a);
    expect("ct_equal", before, 0);
}

/* The encoders have no GW_PUBLIC in them: what they do with a digest is constant time too. */
static void encoders(void) {
    for (uint32_t i = 0; gw_engine_list(i); i++) {
        const gw_engine *engine = i == 0 ? &gw_engine_shani : i == 1 ? &gw_engine_armv8 : &gw_engine_portable;
        uint32_t digest[8] = {1, 2, 3};
        char out[48];
        if (!engine->base64)
            continue;
        unsigned before = (unsigned)VALGRIND_COUNT_ERRORS;
        secret(digest, sizeof digest);
        uint64_t escapes = engine->base64(out, digest);
        sink = (uint32_t)escapes;
        expect(engine->name, before, 0);
    }
}

static uint32_t early_exit(const uint8_t *a, const uint8_t *b, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (a[i] != b[i])
            return 0;
    return 1;
}

static void controls(void) {
    static const uint8_t table[256] = {1, 2, 3};
    uint8_t a[32] = {0}, b[32] = {0};
    unsigned before = (unsigned)VALGRIND_COUNT_ERRORS;
    secret(a, sizeof a);
    sink = early_exit(a, b, sizeof a);
    expect("control: a compare that stops early", before, 1);
    before = (unsigned)VALGRIND_COUNT_ERRORS;
    sink = table[a[3]];
    expect("control: a table looked up by a secret", before, 1);
}

int main(void) {
    if (!RUNNING_ON_VALGRIND) {
        fputs("ct_poison: run it under valgrind, or it checks nothing\n", stderr);
        return 2;
    }
    CHECK(gw_init() == GW_OK);
    printf("    engine under valgrind: %s\n", gw_engine_name());
    load_sign_verify();
    compare();
    encoders();
    controls();
    return check_report("ct");
}
