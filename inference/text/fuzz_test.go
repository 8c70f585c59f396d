package text_test

import (
	"os"
	"path/filepath"
	"testing"

	"modelgate/inference/text"
)

// wordLevel is a tokenizer of five words that frames a text as BERT does.
const wordLevel = `{"version":"1.0","truncation":null,"padding":null,"added_tokens":[` +
	`{"id":0,"content":"[PAD]","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true},` +
	`{"id":1,"content":"[CLS]","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true},` +
	`{"id":2,"content":"[SEP]","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true}],` +
	`"normalizer":null,"pre_tokenizer":{"type":"Whitespace"},"post_processor":{"type":"BertProcessing","sep":["[SEP]",2],"cls":["[CLS]",1]},"decoder":null,` +
	`"model":{"type":"WordLevel","vocab":{"[PAD]":0,"[CLS]":1,"[SEP]":2,"[UNK]":3,"good":4,"bad":5,"movie":6},"unk_token":"[UNK]"}}`

// FuzzConfigs: whatever the files beside a tokenizer say, texts become ids that the model has weights for, as many as it has positions for; or the
// bundle is refused.
func FuzzConfigs(f *testing.F) {
	for _, s := range []struct{ tokenizer, special, model string }{
		{`{"model_max_length": 5, "truncation_side": "left", "pad_token": "[PAD]"}`, `{"pad_token": {"content": "[PAD]"}}`, `{"model_type": "bert", "vocab_size": 7, "max_position_embeddings": 8, "pad_token_id": 0}`},
		{`{"model_max_length": 1e30, "padding_side": "left", "split_special_tokens": true}`, `{}`, `{"model_type": "roberta", "vocab_size": 7, "max_position_embeddings": 8, "pad_token_id": 1}`},
		{`{"tokenizer_class": "PhobertTokenizer", "unk_token": "[UNK]"}`, `{}`, `{"vocab_size": 5}`},
		{`{"pad_token_type_id": -1, "added_tokens_decoder": {"0": {"content": "[PAD]"}}}`, `{"additional_special_tokens": ["[CLS]"]}`, `{"max_position_embeddings": -5, "pad_token_id": 9223372036854775807}`},
		{`{"model_max_length": 2.5}`, `{"pad_token": 5}`, `{"vocab_size": 0}`},
		{`{"model_max_length": -1}`, `[]`, `{"vocab_size": 1e3}`},
		{`{"truncation_side": "up"}`, `null`, `{"vocab_size": 6, "model_type": "xmod", "max_position_embeddings": 1}`},
	} {
		f.Add([]byte(s.tokenizer), []byte(s.special), []byte(s.model), "good movie </s> [SEP] bad")
	}
	dir := f.TempDir()
	write := func(t testing.TB, name string, content []byte) {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(f, "tokenizer.json", []byte(wordLevel))
	f.Fuzz(func(t *testing.T, tokenizer, special, model []byte, input string) {
		write(t, "tokenizer_config.json", tokenizer)
		write(t, "special_tokens_map.json", special)
		write(t, "config.json", model)
		e, err := text.Open(dir, text.Options{MaxBytes: 1000})
		if err != nil {
			if len(err.Error())-len(dir) > 2000 {
				t.Errorf("an error of %d bytes: %.300v", len(err.Error()), err)
			}
			return
		}
		defer func() {
			if err := e.Close(); err != nil {
				t.Error(err)
			}
		}()
		if e.PadID() < 0 || e.MaxLength() < 0 {
			t.Errorf("padding is %d, the length %d", e.PadID(), e.MaxLength())
		}
		got, err := e.Encode(input)
		if err != nil {
			return
		}
		if len(got.Mask) != len(got.IDs) || len(got.TypeIDs) != len(got.IDs) || e.MaxLength() > 0 && len(got.IDs) > e.MaxLength() {
			t.Errorf("%d ids, at most %d: %+v", len(got.IDs), e.MaxLength(), got)
		}
		for _, id := range got.IDs {
			if id < 0 || id > 6 {
				t.Errorf("id %d", id)
			}
		}
	})
}
