// The C ABI of the crate in tokenizers/. Its lib.rs documents every call and says who owns what.
#ifndef MODELGATE_TOKENIZERS_H
#define MODELGATE_TOKENIZERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct mg_tokenizer mg_tokenizer;

typedef struct {
  uint64_t vocab_size, max_id, added, truncation_length;
  bool has_truncation, truncation_left, has_padding, padding_left;
  uint32_t pad_id, pad_type_id;
} mg_info;

typedef struct {
  uint8_t *data;
  size_t len;
} mg_buffer;

typedef struct {
  uint32_t *data;  // len ids, len type ids, len mask values; NULL if there are none
  size_t len;
  bool truncated;
} mg_encoding;

typedef struct {
  size_t max_length;
  bool add_special, special_as_text, truncate_left;
} mg_options;

enum { MG_OK, MG_FAILED, MG_INVALID_UTF8, MG_MAX_LENGTH_TOO_SMALL };

mg_tokenizer *mg_new(const uint8_t *data, size_t len, mg_buffer *error);
void mg_free(mg_tokenizer *t);
mg_info mg_describe(const mg_tokenizer *t);
bool mg_pad_token(const mg_tokenizer *t, mg_buffer *out);
int32_t mg_encode(const mg_tokenizer *t, const uint8_t *text, size_t len, mg_options o, mg_encoding *out, mg_buffer *error);
int64_t mg_token_id(const mg_tokenizer *t, const uint8_t *token, size_t len);
bool mg_id_token(const mg_tokenizer *t, uint32_t id, mg_buffer *out);
void mg_buffer_free(mg_buffer b);
void mg_encoding_free(mg_encoding e);
uint64_t mg_sources(void);

#endif
