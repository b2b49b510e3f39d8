/* Tokens: the exact text, at every audience length, every batch size, every number of escapes, and never a byte too far. */
#include "check.h"

enum { GUARD = 64 };

/* Sign with `handles` into a buffer of exactly the promised size between guards, and compare every token. */
static void compare(const gw_table *table, const uint32_t *handles, size_t count, uint64_t expiry, char *const *want) {
    size_t size = gw_table_arena(table, count), failed = 99;
    uint8_t *room = malloc(size + 2 * GUARD);
    uint32_t *offsets = malloc((count + 2) * sizeof *offsets);
    if (!room || !offsets)
        abort();
    memset(room, 0xee, size + 2 * GUARD);
    offsets[count + 1] = 0xeeeeeeee;
    char *out = (char *)room + GUARD;
    CHECK(gw_sign(table, handles, count, expiry, out, size, offsets, &failed) == GW_OK && failed == 0);
    CHECK(offsets[0] == 0 && offsets[count + 1] == 0xeeeeeeee);
    for (size_t i = 0; i < count; i++) {
        size_t len = strlen(want[i]);
        CHECK(offsets[i + 1] - offsets[i] == len + 1 && memcmp(out + offsets[i], want[i], len) == 0);
        CHECK(out[offsets[i + 1] - 1] == '\n');
    }
    for (size_t i = 0; i < GUARD; i++)
        CHECK(room[i] == 0xee && room[GUARD + size + i] == 0xee);
    CHECK(gw_sign(table, handles, count, expiry, out, size - 1, offsets, &failed) == GW_ERR_SPACE);
    CHECK(out[0] == 0 && out[size - 2] == 0 && offsets[count] == 0);
    free(room);
    free(offsets);
}

static const char letters[] = "abcdefghijklmnopqrstuvwxyz0123456789-._~%2F";

/* Mixed lengths in one batch: every one to 300 and the longest, in random order, with and without a policy. */
static void fleet(const gw_engine *engine) {
    enum { N = 303 };
    static char *want[N];
    uint32_t handles[N];
    int rc;
    (void)engine;
    gw_table *table = gw_table_new(N, &rc);
    for (size_t i = 0; i < N; i++) {
        size_t len = i < 300 ? i + 1 : GW_AUDIENCE_MAX - (i - 300), policy_len = i % 3 ? 0 : i % (GW_POLICY_MAX + 1);
        char audience[GW_AUDIENCE_MAX + 1], policy[GW_POLICY_MAX + 1], text[96];
        uint8_t key[64];
        for (size_t j = 0; j < len; j++)
            audience[j] = letters[chance() % (sizeof letters - 1)];
        audience[len] = 0;
        memset(policy, 'p', policy_len);
        policy[policy_len] = 0;
        size_t key_len = GW_KEY_MIN + (size_t)(chance() % (GW_KEY_MAX - GW_KEY_MIN + 1));
        chance_bytes(key, key_len);
        oracle_base64(key, key_len, text);
        CHECK(gw_table_add(table, (const uint8_t *)text, strlen(text), audience, len, policy, policy_len, &handles[i]) ==
              GW_OK);
        want[i] = malloc(GW_TOKEN_MAX);
        if (!want[i])
            abort();
        oracle_token(key, key_len, audience, policy, 1767225600, want[i], GW_TOKEN_MAX);
    }
    for (size_t i = N - 1; i > 0; i--) {
        size_t j = (size_t)(chance() % (i + 1));
        uint32_t h = handles[i];
        char *w = want[i];
        handles[i] = handles[j], want[i] = want[j];
        handles[j] = h, want[j] = w;
    }
    compare(table, handles, N, 1767225600, want);
    for (size_t n = 0; n <= 40; n++)
        compare(table, handles + n, n, 1767225600, want + n);

    /* A bad handle anywhere fails the call, is named, and leaves no token behind. */
    for (size_t at = 0; at < 20; at++) {
        uint32_t mixed[20], offsets[21];
        size_t failed, size = gw_table_arena(table, 20);
        char *out = malloc(size);
        if (!out)
            abort();
        memcpy(mixed, handles, sizeof mixed);
        mixed[at] = at % 2 ? UINT32_MAX : 1u << SLOT_BITS;
        CHECK(gw_sign(table, mixed, 20, 1, out, size, offsets, &failed) == GW_ERR_HANDLE && failed == at);
        for (size_t i = 0; i < size; i++)
            if (out[i])
                CHECK(out[i] == 0);
        free(out);
    }
    for (size_t i = 0; i < N; i++)
        free(want[i]);
    gw_table_free(table);
}

/* One key, many expiries: every digit count, and by sheer number every count of escapes that comes up. */
static void expiries(const gw_engine *engine) {
    static const char audience[] = "contoso-hub.azure-devices.net%2Fdevices%2Fdevice-000123";
    uint8_t key[32];
    uint32_t handle;
    unsigned seen = 0;
    (void)engine;
    chance_bytes(key, sizeof key);
    gw_table *table = table_with(key, sizeof key, audience, "", &handle);
    for (int round = 0; round < 3000; round++) {
        uint64_t expiry = round < 64 ? UINT64_MAX >> round : round < 84 ? (uint64_t)pow(10, round - 64) : chance() >> 30;
        char want[512], *wanted = want, *p = want;
        oracle_token(key, sizeof key, audience, "", expiry, want, sizeof want);
        int escapes = 0;
        for (p = strstr(want, "&sig="); *p && strncmp(p, "&se=", 4) != 0; p++)
            escapes += *p == '%';
        seen |= 1u << escapes;
        compare(table, &handle, 1, expiry, &wanted);
    }
    CHECK((seen & 0x3e) == 0x3e); /* one (the '=') to five */
    gw_table_free(table);
}

/* A digest that is all ones: forty-three escapes and '='. No key is known that makes it, so the engine is a stand-in. */
static uint64_t all_slashes(char out[48], const uint32_t digest[8]) {
    (void)digest;
    memset(out, '/', 43);
    out[43] = '=';
    return ((uint64_t)1 << 43) - 1;
}

static void longest_signature(const gw_engine *engine) {
    gw_engine stand_in = *engine;
    uint8_t key[32] = {7};
    uint32_t handle, handles[3], offsets[4];
    gw_table *table = table_with(key, sizeof key, "a", "p", &handle);
    size_t size = gw_table_arena(table, 3), failed;
    char *out = malloc(size), want[256] = "SharedAccessSignature sr=a&sig=";
    if (!out)
        abort();
    stand_in.base64 = all_slashes;
    handles[0] = handles[1] = handles[2] = handle;
    CHECK(gw_sign_with(&stand_in, table, handles, 3, UINT64_MAX, out, offsets, &failed) == GW_OK);
    for (int i = 0; i < 43; i++)
        strcat(want, "%2F");
    strcat(want, "%3D&se=18446744073709551615&skn=p\n");
    for (size_t i = 0; i < 3; i++)
        CHECK(offsets[i + 1] - offsets[i] == strlen(want) && memcmp(out + offsets[i], want, strlen(want)) == 0);
    CHECK(offsets[3] == 3 * strlen(want) && offsets[3] <= size);
    free(out);
    gw_table_free(table);
}

static void all(const gw_engine *engine) {
    fleet(engine);
    expiries(engine);
    longest_signature(engine);
}

int main(void) {
    each_engine(all);
    return check_report("sign");
}
