/* Target functions: gw_table_add gw_base64_decode gw_key_init
 *
 * The input is key text. It is refused exactly when the oracle cannot decode it to 16 to 64 bytes, and a key that is
 * taken signs like the oracle's. */
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    uint8_t raw[4096];
    uint32_t handle, offsets[2];
    size_t failed;
    int rc;
    if (size > 4096)
        return 0;
    choose_engine(size ? data[0] : 0);
    gw_table *table = gw_table_new(1, &rc);
    MUST(table);
    int len = oracle_unbase64(data, size, raw);
    rc = gw_table_add(table, data, size, "a%2Fb", 5, "p", 1, &handle);
    MUST((rc == GW_OK) == (len >= GW_KEY_MIN && len <= GW_KEY_MAX));
    MUST(rc == GW_OK || rc == GW_ERR_KEY_TEXT || rc == GW_ERR_KEY_LENGTH);
    if (rc == GW_OK) {
        char want[512];
        size_t want_len = oracle_token(raw, (size_t)len, "a%2Fb", "p", size, want, sizeof want);
        size_t room = gw_table_arena(table, 1);
        char *out = malloc(room);
        MUST(out && gw_sign(table, &handle, 1, size, out, room, offsets, &failed) == GW_OK);
        MUST(offsets[1] == want_len + 1 && memcmp(out, want, want_len) == 0);
        free(out);
    }
    gw_table_free(table);
    return 0;
}
