/* Filing keys: handles, growth, replacing, sharing, deriving, and what removal leaves behind. */
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

static const uint8_t raw[32] = {1, 2, 3, 250};
static const char audience[] = "hub%2Fdevices%2Fd";

static int sign_one(const gw_table *table, uint32_t handle, char *out, size_t size) {
    uint32_t offsets[2];
    size_t failed;
    int rc = gw_sign(table, &handle, 1, 1767225600, out, size, offsets, &failed);
    if (rc == GW_OK)
        out[offsets[1] - 1] = 0;
    return rc;
}

static int same_token(const gw_table *table, uint32_t handle, const uint8_t *key, size_t key_len, const char *aud,
                      const char *policy) {
    char got[2048], want[2048];
    oracle_token(key, key_len, aud, policy, 1767225600, want, sizeof want);
    return sign_one(table, handle, got, sizeof got) == GW_OK && strcmp(got, want) == 0;
}

static int add(gw_table *table, const uint8_t *key, size_t len, uint32_t *handle) {
    char text[96];
    oracle_base64(key, len, text);
    return gw_table_add(table, (const uint8_t *)text, strlen(text), audience, strlen(audience), "", 0, handle);
}

static void key_lengths(void) {
    uint8_t key[66];
    chance_bytes(key, sizeof key);
    for (size_t len = 1; len <= 66; len++) {
        int rc;
        uint32_t handle = 77;
        gw_table *table = gw_table_new(1, &rc);
        int added = add(table, key, len, &handle);
        if (len >= GW_KEY_MIN && len <= GW_KEY_MAX) {
            CHECK(added == GW_OK && same_token(table, handle, key, len, audience, ""));
        } else {
            CHECK(added == GW_ERR_KEY_LENGTH && handle == 0);
        }
        gw_table_free(table);
    }
}

static void growth_keeps_every_key(void) {
    int rc;
    uint32_t handle[40];
    uint8_t keys[40][32];
    chance_bytes((uint8_t *)keys, sizeof keys);
    gw_table *table = gw_table_new(3, &rc);
    for (size_t i = 0; i < 40; i++) {
        rc = add(table, keys[i], 32, &handle[i]);
        if (rc == GW_ERR_FULL) {
            CHECK(gw_table_reserve(table, gw_table_capacity(table) + 5) == GW_OK);
            rc = add(table, keys[i], 32, &handle[i]);
        }
        CHECK(rc == GW_OK && handle[i] == i);
    }
    for (size_t i = 0; i < 40; i++)
        CHECK(same_token(table, handle[i], keys[i], 32, audience, ""));
    CHECK(gw_table_reserve(table, 1) == GW_OK && gw_table_capacity(table) == 43);
    CHECK(gw_table_reserve(table, GW_SLOTS_MAX + 1u) == GW_ERR_ARGUMENT);
    gw_table_free(table);
    CHECK(gw_table_new(0, &rc) == NULL && rc == GW_ERR_ARGUMENT);
    CHECK(gw_table_new(GW_SLOTS_MAX + 1u, &rc) == NULL && rc == GW_ERR_ARGUMENT);
    gw_table_free(NULL);
}

static void a_removed_handle_never_comes_back(void) {
    uint32_t first, second;
    char out[2048];
    gw_table *table = table_with(raw, sizeof raw, audience, "", &first);
    CHECK(gw_table_remove(table, first) == GW_OK);
    for (size_t i = 0; i < sizeof(gw_key) / 4; i++)
        CHECK(((const uint32_t *)table->block->keys)[i] == 0);
    CHECK(sign_one(table, first, out, sizeof out) == GW_ERR_HANDLE);
    CHECK(gw_table_remove(table, first) == GW_ERR_HANDLE);
    CHECK(gw_table_replace(table, first, (const uint8_t *)"AA==", 4) == GW_ERR_HANDLE);
    CHECK(add(table, raw, 32, &second) == GW_OK && second != first);
    CHECK(gw_slot_index(second) == gw_slot_index(first));
    CHECK(sign_one(table, first, out, sizeof out) == GW_ERR_HANDLE);
    CHECK(same_token(table, second, raw, 32, audience, ""));
    gw_table_free(table);
}

static void a_used_up_slot_is_retired(void) {
    int rc;
    uint32_t handle, last = 0;
    gw_table *table = gw_table_new(1, &rc);
    for (uint32_t use = 0; use <= GENERATION_MAX; use++) {
        CHECK(add(table, raw, 32, &handle) == GW_OK && (use == 0 || handle > last));
        last = handle;
        CHECK(gw_table_remove(table, handle) == GW_OK);
    }
    CHECK(add(table, raw, 32, &handle) == GW_ERR_FULL);
    CHECK(gw_table_reserve(table, 2) == GW_OK);
    CHECK(add(table, raw, 32, &handle) == GW_OK && handle == 1);
    gw_table_free(table);
}

static void sharing_and_deriving(void) {
    uint32_t policy, device, derived;
    uint8_t device_key[32], text[GW_DERIVED_TEXT];
    char want[64];
    gw_table *table = table_with(raw, sizeof raw, "", "", &policy);
    char out[2048];
    CHECK(sign_one(table, policy, out, sizeof out) == GW_ERR_HANDLE); /* no audience: signs nothing */
    CHECK(gw_table_share(table, policy, "a%2Fb", 5, "device", 6, &device) == GW_OK);
    CHECK(same_token(table, device, raw, 32, "a%2Fb", "device"));
    CHECK(gw_table_derive(table, policy, "reg-01", 6, "s%2Freg-01", 10, "registration", 12, &derived) == GW_OK);
    oracle_hmac(raw, 32, (const uint8_t *)"reg-01", 6, device_key);
    CHECK(same_token(table, derived, device_key, 32, "s%2Freg-01", "registration"));
    oracle_base64(device_key, 32, want);
    CHECK(gw_table_export_derived(table, policy, "reg-01", 6, text, sizeof text) == GW_OK);
    CHECK(memcmp(text, want, sizeof text) == 0);
    CHECK(gw_table_export_derived(table, policy, "reg-01", 6, text, sizeof text - 1) == GW_ERR_SPACE);
    CHECK(gw_table_export_derived(table, 99, "reg-01", 6, text, sizeof text) == GW_ERR_HANDLE && text[0] == 0);
    CHECK(gw_table_derive(table, policy, "", 0, "a", 1, "", 0, &derived) == GW_ERR_ARGUMENT);
    CHECK(gw_table_derive(table, 99, "x", 1, "a", 1, "", 0, &derived) == GW_ERR_HANDLE);
    CHECK(gw_table_share(table, 99, "a", 1, "", 0, &derived) == GW_ERR_HANDLE);
    static char long_text[GW_AUDIENCE_MAX + 1];
    memset(long_text, 'a', sizeof long_text);
    CHECK(gw_table_share(table, policy, long_text, sizeof long_text, "", 0, &derived) == GW_ERR_ARGUMENT);
    CHECK(gw_table_share(table, policy, "a", 1, long_text, GW_POLICY_MAX + 1, &derived) == GW_ERR_ARGUMENT);
    gw_table_free(table);
}

static void replacing(void) {
    uint32_t handle;
    uint8_t other[64];
    char text[96];
    chance_bytes(other, sizeof other);
    oracle_base64(other, sizeof other, text);
    gw_table *table = table_with(raw, sizeof raw, audience, "", &handle);
    CHECK(gw_table_replace(table, handle, (const uint8_t *)"AAAA!AAA", 8) == GW_ERR_KEY_TEXT);
    CHECK(same_token(table, handle, raw, 32, audience, ""));
    CHECK(gw_table_replace(table, handle, (const uint8_t *)text, strlen(text)) == GW_OK);
    CHECK(same_token(table, handle, other, 64, audience, ""));
    gw_table_free(table);
}

/* A child gets an error from every function that would touch a key, and never a token. */
static void a_child_may_not_sign(void) {
    uint32_t handle;
    gw_table *table = table_with(raw, sizeof raw, audience, "", &handle);
    pid_t child = fork();
    if (child == 0) {
        char out[2048];
        gw_claims claims;
        uint32_t other;
        uint8_t text[GW_DERIVED_TEXT];
        int refused = sign_one(table, handle, out, sizeof out) == GW_ERR_FORKED && out[0] == 0 &&
                      gw_verify(table, handle, "x", 1, &claims) == GW_ERR_FORKED &&
                      add(table, raw, 32, &other) == GW_ERR_FORKED && gw_table_remove(table, handle) == GW_ERR_FORKED &&
                      gw_table_reserve(table, 9) == GW_ERR_FORKED &&
                      gw_table_replace(table, handle, text, 4) == GW_ERR_FORKED &&
                      gw_table_share(table, handle, "a", 1, "", 0, &other) == GW_ERR_FORKED &&
                      gw_table_derive(table, handle, "a", 1, "a", 1, "", 0, &other) == GW_ERR_FORKED &&
                      gw_table_export_derived(table, handle, "a", 1, text, sizeof text) == GW_ERR_FORKED;
        gw_table_free(table);
        _exit(refused ? 0 : 1);
    }
    int status = -1;
    CHECK(child > 0 && waitpid(child, &status, 0) == child && status == 0);
    CHECK(same_token(table, handle, raw, 32, audience, ""));
    gw_table_free(table);
}

int main(void) {
    uint32_t handle;
    int rc;
    gw_table *early = gw_table_new(1, &rc);
    CHECK(add(early, raw, 32, &handle) == GW_ERR_ENGINE); /* before gw_init */
    gw_table_free(early);
    CHECK(gw_init() == GW_OK);
    key_lengths();
    growth_keeps_every_key();
    a_removed_handle_never_comes_back();
    a_used_up_slot_is_retired();
    sharing_and_deriving();
    replacing();
    a_child_may_not_sign();
    return check_report("table");
}
