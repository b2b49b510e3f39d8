/* table.c - filing keys: slots, handles, growth. See gw_sas.h.
 *
 * A handle is a slot's number and how often that slot was used before, so a handle that was removed never names
 * another device's key. A slot whose count is used up is retired. */
#include <stdlib.h>
#include <string.h>

#include "internal.h"

static const char prefix[] = "SharedAccessSignature sr=";
static const char sig_field[] = "&sig=";
static const char skn_field[] = "&skn=";
enum { FIELD_LEN = 5 };

static void link_free(gw_table *table, uint32_t from, uint32_t to) {
    for (uint32_t i = from; i < to; i++)
        table->slots[i].next_free = i + 1;
}

gw_table *gw_table_new(uint32_t capacity, int *rc) {
    *rc = GW_ERR_ARGUMENT;
    if (capacity == 0 || capacity > GW_SLOTS_MAX)
        return NULL;
    *rc = GW_ERR_MEMORY;
    gw_table *table = calloc(1, sizeof *table);
    if (!table)
        return NULL;
    table->slots = calloc(capacity, sizeof *table->slots);
    table->block = table->slots ? gw_block_new(capacity, &table->flags) : NULL;
    if (!table->block) {
        free(table->slots);
        free(table);
        return NULL;
    }
    table->capacity = capacity;
    link_free(table, 0, capacity);
    *rc = GW_OK;
    return table;
}

void gw_table_free(gw_table *table) {
    if (!table)
        return;
    gw_block_free(table->block, table->capacity);
    for (uint32_t i = 0; i < table->capacity; i++)
        free(table->slots[i].text);
    free(table->slots);
    free(table);
}

/* While both blocks are mapped their sum may be over the lock limit though the new one alone is not. So the lock is
 * tried once more when the old block is gone. */
int gw_table_reserve(gw_table *table, uint32_t capacity) {
    if (capacity > GW_SLOTS_MAX)
        return GW_ERR_ARGUMENT;
    if (!gw_block_alive(table->block))
        return GW_ERR_FORKED;
    if (capacity <= table->capacity)
        return GW_OK;
    gw_slot *slots = calloc(capacity, sizeof *slots);
    uint32_t flags = 0;
    gw_block *block = slots ? gw_block_new(capacity, &flags) : NULL;
    if (!block) {
        free(slots);
        return GW_ERR_MEMORY;
    }
    uint32_t old = table->capacity;
    memcpy(block->keys, table->block->keys, (size_t)old * sizeof(gw_key));
    memcpy(slots, table->slots, (size_t)old * sizeof *slots);
    gw_block_free(table->block, old);
    free(table->slots);
    gw_block_lock_again(block, capacity, &flags);
    table->block = block;
    table->slots = slots;
    table->capacity = capacity;
    table->flags = flags;
    link_free(table, old, capacity);
    /* The free list ended in `old`, which is now the first of the new slots. */
    return GW_OK;
}

uint32_t gw_table_capacity(const gw_table *table) {
    return table->capacity;
}

uint32_t gw_table_flags(const gw_table *table) {
    return table->flags;
}

const gw_slot *gw_table_slot(const gw_table *table, uint32_t handle) {
    uint32_t i = gw_slot_index(handle);
    if (i >= table->capacity)
        return NULL;
    const gw_slot *slot = &table->slots[i];
    return slot->text && slot->generation == handle >> SLOT_BITS ? slot : NULL;
}

static char *make_text(const char *audience, size_t audience_len, const char *policy, size_t policy_len) {
    size_t trailer = policy_len ? FIELD_LEN + policy_len : 0;
    char *text = calloc(1, PREFIX_LEN + audience_len + FIELD_LEN + trailer + COPY_PAD);
    if (!text)
        return NULL;
    char *p = text;
    memcpy(p, prefix, PREFIX_LEN);
    p += PREFIX_LEN;
    if (audience_len)
        memcpy(p, audience, audience_len);
    p += audience_len;
    memcpy(p, sig_field, FIELD_LEN);
    if (trailer) {
        memcpy(p + FIELD_LEN, skn_field, FIELD_LEN);
        memcpy(p + 2 * FIELD_LEN, policy, policy_len);
    }
    return text;
}

/* File an already made key. The key is the caller's to wipe. */
static int file(gw_table *table, const gw_key *key, const char *audience, size_t audience_len, const char *policy,
                size_t policy_len, uint32_t *handle) {
    if (audience_len > GW_AUDIENCE_MAX || policy_len > GW_POLICY_MAX)
        return GW_ERR_ARGUMENT;
    uint32_t i = table->free_head;
    if (i >= table->capacity)
        return GW_ERR_FULL;
    gw_slot *slot = &table->slots[i];
    slot->text = make_text(audience, audience_len, policy, policy_len);
    if (!slot->text)
        return GW_ERR_MEMORY;
    slot->audience_len = (uint16_t)audience_len;
    slot->trailer_len = (uint16_t)(policy_len ? FIELD_LEN + policy_len : 0);
    table->free_head = slot->next_free;
    table->block->keys[i] = *key;
    /* Every character of a signature may need escaping; "&se=" with 20 digits; '\n'. */
    size_t longest = PREFIX_LEN + audience_len + FIELD_LEN + 3 * SIG_CHARS + 24 + slot->trailer_len + 1;
    if (longest > table->token_max)
        table->token_max = longest;
    *handle = slot->generation << SLOT_BITS | i;
    return GW_OK;
}

static int decode_key(gw_key *key, const uint8_t *text, size_t text_len) {
    const gw_engine *engine = gw_engine_now();
    if (!engine)
        return GW_ERR_ENGINE;
    uint8_t raw[BASE64_BYTES];
    size_t raw_len;
    int rc = gw_base64_decode(raw, &raw_len, text, text_len);
    if (rc != GW_OK)
        return rc;
    if (raw_len < GW_KEY_MIN || raw_len > GW_KEY_MAX)
        rc = GW_ERR_KEY_LENGTH;
    else
        gw_key_init(engine, key, raw, raw_len);
    gw_wipe(raw, sizeof raw);
    return rc;
}

int gw_table_add(gw_table *table, const uint8_t *text, size_t text_len, const char *audience, size_t audience_len,
                 const char *policy, size_t policy_len, uint32_t *handle) {
    *handle = 0;
    if (!gw_block_alive(table->block))
        return GW_ERR_FORKED;
    gw_key key;
    int rc = decode_key(&key, text, text_len);
    if (rc == GW_OK)
        rc = file(table, &key, audience, audience_len, policy, policy_len, handle);
    gw_wipe(&key, sizeof key);
    return rc;
}

int gw_table_share(gw_table *table, uint32_t source, const char *audience, size_t audience_len, const char *policy,
                   size_t policy_len, uint32_t *handle) {
    *handle = 0;
    if (!gw_block_alive(table->block))
        return GW_ERR_FORKED;
    if (!gw_table_slot(table, source))
        return GW_ERR_HANDLE;
    return file(table, &table->block->keys[gw_slot_index(source)], audience, audience_len, policy, policy_len, handle);
}

/* HMAC(group key, id): the bytes of a device key. */
static int derive(const gw_table *table, uint32_t group, const char *id, size_t id_len, uint8_t raw[SHA_DIGEST]) {
    const gw_engine *engine = gw_engine_now();
    if (!engine)
        return GW_ERR_ENGINE;
    if (!gw_block_alive(table->block))
        return GW_ERR_FORKED;
    if (id_len == 0 || id_len > GW_ID_MAX)
        return GW_ERR_ARGUMENT;
    if (!gw_table_slot(table, group))
        return GW_ERR_HANDLE;
    gw_hmac(engine, &table->block->keys[gw_slot_index(group)], (const uint8_t *)id, id_len, raw);
    return GW_OK;
}

int gw_table_derive(gw_table *table, uint32_t group, const char *id, size_t id_len, const char *audience,
                    size_t audience_len, const char *policy, size_t policy_len, uint32_t *handle) {
    *handle = 0;
    uint8_t raw[SHA_DIGEST];
    gw_key key;
    int rc = derive(table, group, id, id_len, raw);
    if (rc == GW_OK) {
        gw_key_init(gw_engine_now(), &key, raw, sizeof raw);
        rc = file(table, &key, audience, audience_len, policy, policy_len, handle);
    }
    gw_wipe(raw, sizeof raw);
    gw_wipe(&key, sizeof key);
    return rc;
}

int gw_table_export_derived(const gw_table *table, uint32_t group, const char *id, size_t id_len, uint8_t *out,
                            size_t out_size) {
    if (out_size != GW_DERIVED_TEXT)
        return GW_ERR_SPACE;
    uint8_t raw[SHA_DIGEST];
    int rc = derive(table, group, id, id_len, raw);
    if (rc == GW_OK) {
        uint32_t words[8];
        char text[48];
        for (size_t i = 0; i < 8; i++)
            words[i] = (uint32_t)raw[4 * i] << 24 | (uint32_t)raw[4 * i + 1] << 16 | (uint32_t)raw[4 * i + 2] << 8 |
                       raw[4 * i + 3];
        (void)gw_base64_portable(text, words);
        memcpy(out, text, GW_DERIVED_TEXT);
        gw_wipe(words, sizeof words);
        gw_wipe(text, sizeof text);
    } else {
        memset(out, 0, out_size);
    }
    gw_wipe(raw, sizeof raw);
    gw_wipe_stack();
    return rc;
}

int gw_table_replace(gw_table *table, uint32_t handle, const uint8_t *text, size_t text_len) {
    if (!gw_block_alive(table->block))
        return GW_ERR_FORKED;
    if (!gw_table_slot(table, handle))
        return GW_ERR_HANDLE;
    gw_key key;
    int rc = decode_key(&key, text, text_len);
    if (rc == GW_OK)
        table->block->keys[gw_slot_index(handle)] = key;
    gw_wipe(&key, sizeof key);
    return rc;
}

int gw_table_remove(gw_table *table, uint32_t handle) {
    if (!gw_block_alive(table->block))
        return GW_ERR_FORKED;
    if (!gw_table_slot(table, handle))
        return GW_ERR_HANDLE;
    uint32_t i = gw_slot_index(handle);
    gw_slot *slot = &table->slots[i];
    gw_wipe(&table->block->keys[i], sizeof(gw_key));
    free(slot->text);
    slot->text = NULL;
    if (slot->generation == GENERATION_MAX)
        return GW_OK; /* retired: nothing points at it any more */
    slot->generation++;
    slot->next_free = table->free_head;
    table->free_head = i;
    return GW_OK;
}
