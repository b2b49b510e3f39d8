/* Target functions: gw_sign
 *
 * The control. It promises gw_sign one byte more room than there is for the signature's overrun; a rig that does not
 * report this reports nothing. */
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char key[] = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    uint32_t handle, offsets[2];
    size_t failed;
    int rc;
    (void)data;
    choose_engine(0);
    gw_table *table = gw_table_new(1, &rc);
    MUST(table && gw_table_add(table, (const uint8_t *)key, sizeof key - 1, "a", 1, "", 0, &handle) == GW_OK);
    char *out = malloc(40);
    MUST(out);
    rc = gw_sign(table, &handle, 1, size, out, gw_table_arena(table, 1), offsets, &failed);
    free(out);
    gw_table_free(table);
    return 0;
}
