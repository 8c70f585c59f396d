package mlflow

import (
	"fmt"
	"strings"
)

// The tags that publishing puts on a version. Anybody who may write to the registry may change them.
const (
	digestTag   = "modelgate.digest"
	contractTag = "modelgate.contract"
	maxDigest   = 128     // bytes; a digest has 64
	maxContract = 8 << 10 // bytes; publishing leaves out the tag of a larger one, which is in the bundle too
)

type tag struct {
	Key   string `json:"key"`
	Value string `json:"value"`
}

// declared is the digest that the version's files are said to have.
func (mv modelVersion) declared() string { return strings.ToLower(mv.tag(digestTag, maxDigest)) }

// contract is what the model is said to be like.
func (mv modelVersion) contract() string { return mv.tag(contractTag, maxContract) }

// tag is a tag's value. Of one that can't be used it says why: that equals no digest and is no contract, so the version is refused, and
// whoever looks sees the reason. The version's neighbours in a list stay readable.
func (mv modelVersion) tag(key string, most int) string {
	value, found := "", false
	for _, t := range mv.Tags {
		if t.Key != key {
			continue
		}
		if found {
			return fmt.Sprintf("(the tag %s is there twice)", key)
		}
		value, found = strings.TrimSpace(t.Value), true
	}
	if len(value) > most {
		return fmt.Sprintf("(the tag %s has %d bytes, at most %d are read)", key, len(value), most)
	}
	return value
}
