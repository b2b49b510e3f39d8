/* The oracle itself, held to published answers: FIPS 180-4 examples and RFC 4231. */
#include "check.h"

static void hex(const uint8_t *bytes, size_t n, char *out) {
    for (size_t i = 0; i < n; i++)
        sprintf(out + 2 * i, "%02x", bytes[i]);
}

static void digest_is(const char *message, const char *want) {
    uint8_t digest[32];
    char got[65];
    oracle_sha256((const uint8_t *)message, strlen(message), digest);
    hex(digest, 32, got);
    CHECK(strcmp(got, want) == 0);
}

int main(void) {
    digest_is("", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    digest_is("abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    digest_is("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
              "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");

    uint8_t key[131], mac[32];
    char got[65];
    memset(key, 0xaa, sizeof key); /* RFC 4231 section 4.7 */
    const char *data = "Test Using Larger Than Block-Size Key - Hash Key First";
    oracle_hmac(key, sizeof key, (const uint8_t *)data, strlen(data), mac);
    hex(mac, 32, got);
    CHECK(strcmp(got, "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54") == 0);

    /* Microsoft Learn, "Symmetric key attestation" (concepts-symmetric-key-attestation): group key to device key. */
    const char *group = "8isrFI1sGsIlvvFSSFRiMfCNzv21fjbE/+ah/lSh3lF8e2YG1Te7w1KpZhJFFXJrqYKi9yegxkqIChbqOS9Egw==";
    const char *id = "sn-007-888-abc-mac-a1-b2-c3-d4-e5-f6";
    uint8_t raw[66];
    char text[48];
    CHECK(oracle_unbase64((const uint8_t *)group, strlen(group), raw) == 64);
    oracle_hmac(raw, 64, (const uint8_t *)id, strlen(id), mac);
    oracle_base64(mac, 32, text);
    CHECK(strcmp(text, "Jsm0lyGpjaVYVP2g3FnmnmG9dI/9qU24wNoykUmermc=") == 0);

    char token[256];
    for (int i = 0; i < 32; i++)
        key[i] = (uint8_t)i;
    oracle_token(key, 32, "myhub.azure-devices.net%2Fdevices%2Fdev-01", "", 1767225600, token, sizeof token);
    CHECK(strcmp(token, "SharedAccessSignature sr=myhub.azure-devices.net%2Fdevices%2Fdev-01&sig="
                        "R01njJMIZFpc39KJTTZWhBDpf8L949d1IGbiV5C7MmE%3D&se=1767225600") == 0);
    return check_report("oracle");
}
