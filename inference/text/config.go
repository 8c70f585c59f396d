package text

import (
	"cmp"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"

	"modelgate/inference/text/hf"
)

// configs is what the configuration files of a bundle say about its tokenizer. Where a file or key isn't there, transformers'
// defaults hold.
type configs struct {
	tokenizer tokenizerConfig
	special   specialTokens // special_tokens_map.json, which older checkpoints have
	model     modelConfig
}

type tokenizerConfig struct {
	specialTokens
	Class              string           `json:"tokenizer_class"`
	MaxLength          float64          `json:"model_max_length"` // without a limit transformers writes 1e30
	TruncationSide     string           `json:"truncation_side"`
	PaddingSide        string           `json:"padding_side"`
	PadTypeID          *int64           `json:"pad_token_type_id"`
	SplitSpecialTokens bool             `json:"split_special_tokens"`
	Added              map[string]token `json:"added_tokens_decoder"`
}

type specialTokens struct {
	Pad   token   `json:"pad_token"`
	Unk   token   `json:"unk_token"`
	Bos   token   `json:"bos_token"`
	Eos   token   `json:"eos_token"`
	Sep   token   `json:"sep_token"`
	Cls   token   `json:"cls_token"`
	Mask  token   `json:"mask_token"`
	Extra []token `json:"additional_special_tokens"`
}

type modelConfig struct {
	Type      string `json:"model_type"`
	VocabSize *int64 `json:"vocab_size"`
	Positions *int64 `json:"max_position_embeddings"`
	PadID     *int64 `json:"pad_token_id"`
	Types     int64  `json:"type_vocab_size"`
}

// token is a token as the configuration files have it: its text, or an object with its text as "content".
type token string

func (t *token) UnmarshalJSON(data []byte) error {
	var object struct{ Content string }
	if err := json.Unmarshal(data, &object); err == nil {
		*t = token(object.Content)
		return nil
	}
	return json.Unmarshal(data, (*string)(t))
}

func readConfigs(dir, modelDir string) (c configs, err error) {
	if err = readJSON(dir, tokenizerConfigFile, &c.tokenizer); err != nil {
		return c, err
	}
	if err = readJSON(dir, specialTokensFile, &c.special); err != nil {
		return c, err
	}
	return c, readJSON(modelDir, modelConfigFile, &c.model)
}

// checkTokens refuses a bundle whose configuration names tokens that the tokenizer hasn't. Python would give them new ids
// behind the vocabulary, and ours would split them.
func (c configs) checkTokens(t *hf.Tokenizer) error {
	check := func(file string, tokens ...token) error {
		for _, tok := range tokens {
			if _, ok := t.TokenID(string(tok)); tok != "" && !ok {
				return fmt.Errorf("%s names the token %.80q, which %s doesn't have; save both again: tokenizer.save_pretrained(folder)",
					file, string(tok), tokenizerFile)
			}
		}
		return nil
	}
	if err := check(tokenizerConfigFile, c.tokenizer.all()...); err != nil {
		return err
	}
	for _, tok := range c.tokenizer.Added {
		if err := check(tokenizerConfigFile, tok); err != nil {
			return err
		}
	}
	return check(specialTokensFile, c.special.all()...)
}

func (s specialTokens) all() []token {
	return append([]token{s.Pad, s.Unk, s.Bos, s.Eos, s.Sep, s.Cls, s.Mask}, s.Extra...)
}

const vocabSize = "vocab_size in " + modelConfigFile

// idRange compares the tokenizer's ids with the rows of the model's embedding: those that config.json says, and those that the graph has.
func (c configs) idRange(t *hf.Tokenizer, rows int64) (idRange, error) {
	// PhoBERT's merges make pieces that its vocabulary hasn't. They have ids behind it in tokenizer.json, and are unknown.
	phobert := strings.HasPrefix(c.tokenizer.Class, "Phobert")
	r := idRange{replace: phobert}
	switch size := c.model.VocabSize; {
	case size == nil && phobert:
		return r, fmt.Errorf("%s doesn't say vocab_size, which a PhoBERT tokenizer needs", modelConfigFile)
	case size != nil && *size <= 0:
		return r, fmt.Errorf("%s: vocab_size %d is not positive", modelConfigFile, *size)
	case size != nil:
		r.end, r.from = *size, vocabSize
	}
	r = r.within(rows)
	if phobert {
		var ok bool
		if r.unknown, ok = t.TokenID(c.unknownToken()); !ok || r.unknown >= r.end {
			return r, fmt.Errorf("%s has no token %s below %d (%s)", tokenizerFile, c.unknownToken(), r.end, r.from)
		}
		return r, nil
	}
	if id := t.MaxID(); id >= r.end && r.end > 0 {
		tok, _ := t.Token(id)
		return r, fmt.Errorf("%s has the token %.80q with id %d, but the model has weights for %d tokens (%s): "+
			"these two don't belong together", tokenizerFile, tok, id, r.end, r.from)
	}
	return r, nil
}

// typeRange is idRange of type ids. Models whose configuration says 0 have none, and ignore them.
func (c configs) typeRange(rows int64) idRange {
	r := idRange{}
	if c.model.Types > 0 {
		r = idRange{end: c.model.Types, from: "type_vocab_size in " + modelConfigFile}
	}
	return r.within(rows)
}

func (c configs) unknownToken() string {
	if c.tokenizer.Unk != "" {
		return string(c.tokenizer.Unk)
	}
	return "<unk>"
}

func (c configs) encodeOptions(info hf.Info, o Options) (hf.EncodeOptions, error) {
	length, err := c.maxLength(info, o.MaxLength)
	if err != nil {
		return hf.EncodeOptions{}, err
	}
	left, err := isLeft("truncation_side", c.tokenizer.TruncationSide, info.Truncation != nil && info.Truncation.Left)
	return hf.EncodeOptions{
		MaxLength:     length,
		TruncateLeft:  left,
		SpecialAsText: o.SpecialAsText || c.tokenizer.SplitSpecialTokens,
	}, err
}

// maxLength is the override, or what the tokenizer was made for, within the positions of the model.
func (c configs) maxLength(info hf.Info, override int) (int, error) {
	length, positions := override, c.positions()
	if override > positions {
		return 0, fmt.Errorf("max length %d is more than the %d positions of the model (max_position_embeddings in %s)",
			override, positions, modelConfigFile)
	}
	if length == 0 {
		length = positions
		switch said := c.tokenizer.MaxLength; {
		case said < 0 || said != math.Trunc(said):
			return 0, fmt.Errorf("%s: model_max_length %v is not a length", tokenizerConfigFile, said)
		case said > 0 && said < float64(positions):
			length = int(said)
		case said == 0 && info.Truncation != nil:
			length = min(length, info.Truncation.MaxLength)
		}
	}
	if length == math.MaxInt32 {
		return 0, nil
	}
	if length <= info.SpecialTokens {
		return 0, fmt.Errorf("max length %d leaves no room for text: %d special tokens are put around it", length, info.SpecialTokens)
	}
	return length, nil
}

// positions is how many tokens the model has positions for; MaxInt32 where it doesn't say.
func (c configs) positions() int {
	if c.model.Positions == nil || *c.model.Positions <= 0 || *c.model.Positions > math.MaxInt32 {
		return math.MaxInt32
	}
	n := int(*c.model.Positions)
	if !slices.Contains(countFromPad[:], c.model.Type) {
		return n
	}
	pad := 1
	if c.model.PadID != nil {
		pad = int(min(max(*c.model.PadID, 0), math.MaxInt32))
	}
	return max(n-pad-1, 0)
}

// countFromPad are the model types whose first position is pad_token_id + 1, so that 514 positions are for 512 tokens.
var countFromPad = [...]string{
	"camembert", "data2vec-text", "esm", "ibert", "lilt", "longformer", "luke", "mluke", "mpnet", "roberta",
	"roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl", "xmod",
}

func (c configs) padding(t *hf.Tokenizer, ids idRange) (padding, error) {
	var p padding
	block := t.Info().Padding
	if block != nil {
		p = padding{id: block.ID, typeID: block.TypeID}
	}
	left, err := isLeft("padding_side", c.tokenizer.PaddingSide, block != nil && block.Left)
	if err != nil {
		return p, err
	}
	p.left = left
	if c.tokenizer.PadTypeID != nil {
		p.typeID = *c.tokenizer.PadTypeID
	}
	if id, ok := c.padID(t); ok {
		p.id = id
	}
	if p.id < 0 || ids.end > 0 && p.id >= ids.end {
		return p, fmt.Errorf("the padding id %d is outside of the model's vocabulary (%s)", p.id, cmp.Or(ids.from, vocabSize))
	}
	return p, nil
}

// padID finds the padding token where transformers does, in its order; without one a token with the usual name.
func (c configs) padID(t *hf.Tokenizer) (int64, bool) {
	for _, tok := range []token{c.tokenizer.Pad, c.special.Pad} {
		if id, ok := t.TokenID(string(tok)); tok != "" && ok {
			return id, true
		}
	}
	if t.Info().Padding != nil {
		return 0, false
	}
	if c.model.PadID != nil {
		return *c.model.PadID, true
	}
	for _, name := range [...]string{"<pad>", "[PAD]"} {
		if id, ok := t.TokenID(name); ok {
			return id, true
		}
	}
	return 0, false
}

// isLeft reads a side. What tokenizer_config.json says goes before what tokenizer.json says.
func isLeft(key, side string, otherwise bool) (bool, error) {
	switch side {
	case "":
		return otherwise, nil
	case "left", "right":
		return side == "left", nil
	}
	return false, fmt.Errorf("%s: %s is %.80q; it is left or right", tokenizerConfigFile, key, side)
}
