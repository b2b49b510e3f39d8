/* bench.c - what the signer costs in C alone, beside the floor its hash instructions set.
 *
 * One round per line read from standard input, one line of JSON per round: nanoseconds, for each engine, of a
 * compression with one stream and with two (the floor), of a token in a batch in filing order and in random order,
 * and of a token signed alone. The devices have keys of their own; a message of theirs takes the number of
 * compressions that "compressions" says. */
#define _POSIX_C_SOURCE 200809L
#include <time.h>

#include "check.h"

enum { DEVICES = 10000, CHUNK = 2048, BLOCKS = 16 };

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static double floor_of(const gw_engine *engine, int streams) {
    static uint8_t blocks[2][BLOCKS * 64];
    uint32_t a[8] = {1}, b[8] = {2};
    enum { CALLS = 4000 };
    double start = now();
    for (int i = 0; i < CALLS; i++) {
        if (streams == 2)
            engine->compress2(a, blocks[0], b, blocks[1], BLOCKS);
        else
            engine->compress(a, blocks[0], BLOCKS);
        blocks[0][i % 64] = (uint8_t)a[0];
    }
    return (now() - start) / CALLS / BLOCKS / streams;
}

static double batches(const gw_table *table, const uint32_t *handles, char *out, size_t room, uint32_t *offsets) {
    size_t failed;
    double start = now();
    for (size_t i = 0; i < DEVICES; i += CHUNK) {
        size_t n = DEVICES - i < CHUNK ? DEVICES - i : CHUNK;
        if (gw_sign(table, handles + i, n, 1767225600, out, room, offsets, &failed) != GW_OK)
            abort();
    }
    return (now() - start) / DEVICES;
}

static double singly(const gw_table *table, const uint32_t *handles, char *out, size_t room, uint32_t *offsets) {
    size_t failed;
    double start = now();
    for (size_t i = 0; i < DEVICES; i++)
        if (gw_sign(table, handles + i, 1, 1767225600, out, room, offsets, &failed) != GW_OK)
            abort();
    return (now() - start) / DEVICES;
}

int main(void) {
    static uint32_t in_order[DEVICES], random_order[DEVICES], offsets[CHUNK + 1];
    int rc;
    if (gw_init() != GW_OK)
        return 1;
    gw_table *table = gw_table_new(DEVICES, &rc);
    for (size_t i = 0; i < DEVICES; i++) {
        uint8_t raw[32];
        char text[64], audience[96];
        chance_bytes(raw, sizeof raw);
        oracle_base64(raw, sizeof raw, text);
        int len = sprintf(audience, "contoso-hub.azure-devices.net%%2Fdevices%%2Fdevice-%06zu", i);
        if (gw_table_add(table, (const uint8_t *)text, strlen(text), audience, (size_t)len, "", 0, &in_order[i]) != GW_OK)
            return 1;
        random_order[i] = in_order[i];
    }
    for (size_t i = DEVICES - 1; i > 0; i--) {
        size_t j = (size_t)(chance() % (i + 1));
        uint32_t swap = random_order[i];
        random_order[i] = random_order[j];
        random_order[j] = swap;
    }
    size_t room = gw_table_arena(table, CHUNK);
    char *out = malloc(room), line[16];
    if (!out)
        return 1;
    while (fgets(line, sizeof line, stdin)) {
        const char *comma = "";
        printf("{\"devices\": %d, \"compressions\": 3, \"engines\": {", DEVICES);
        for (uint32_t i = 0; gw_engine_list(i); i++) {
            if (gw_engine_force_for_testing(gw_engine_list(i)) != GW_OK)
                continue;
            const gw_engine *engine = gw_engine_now();
            printf("%s\"%s\": {\"compression_1\": %.2f, \"compression_2\": %.2f, ", comma, engine->name,
                   floor_of(engine, 1), floor_of(engine, 2));
            printf("\"token\": %.2f, ", batches(table, in_order, out, room, offsets));
            printf("\"token_random\": %.2f, ", batches(table, random_order, out, room, offsets));
            printf("\"token_alone\": %.2f}", singly(table, in_order, out, room, offsets));
            comma = ", ";
        }
        printf("}}\n");
        fflush(stdout);
    }
    free(out);
    gw_table_free(table);
    return 0;
}
