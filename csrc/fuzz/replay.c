/* replay.c - runs a harness without libFuzzer: once per file named on the command line, and once on nothing. */
#include "fuzz.h"

int main(int argc, char **argv) {
    LLVMFuzzerTestOneInput((const uint8_t *)"", 0);
    for (int i = 1; i < argc; i++) {
        FILE *f = fopen(argv[i], "rb");
        uint8_t *data = malloc(65536);
        MUST(f && data);
        size_t size = fread(data, 1, 65536, f);
        fclose(f);
        /* A copy of exactly the file's size, so that a byte read behind it is seen. */
        uint8_t *exact = malloc(size ? size : 1);
        MUST(exact);
        memcpy(exact, data, size);
        LLVMFuzzerTestOneInput(exact, size);
        free(exact);
        free(data);
    }
    printf("%s: %d files\n", argv[0], argc - 1);
    return 0;
}
