package hf

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"math"
)

// A map of characters is the size of a trie in bytes, the trie, whose keys are pieces of texts, and what stands for them, each with a
// zero byte at its end.
const (
	maxTrie = 1 << 18 // units of four bytes; XLM-R's has 44,800
	maxKey  = 5       // bytes: the library looks up characters, and groups of them shorter than six bytes
)

// A unit is a place in the trie.
type unit uint32

func (u unit) label() uint32  { return uint32(u) & (1<<31 | 0xff) }
func (u unit) offset() uint32 { return uint32(u) >> 10 << (uint32(u) & (1 << 9) >> 6) }
func (u unit) leaf() bool     { return u>>8&1 == 1 }
func (u unit) value() uint32  { return uint32(u) & math.MaxInt32 }

// mapped is by how much a map of characters lengthens a text at most: what stands for a key, over the key.
func mapped(charsmap string) (float64, error) {
	data, err := base64.StdEncoding.DecodeString(charsmap)
	if err != nil {
		return 0, fmt.Errorf("its map of characters: %w", err)
	}
	if len(data) == 0 {
		return 1, nil
	}
	if len(data) < 4 {
		return 0, fmt.Errorf("its map of characters has %d bytes, which is too short", len(data))
	}
	units := uint64(binary.LittleEndian.Uint32(data)) / 4
	if data = data[4:]; units == 0 || units > maxTrie || units*4 > uint64(len(data)) {
		return 0, fmt.Errorf("its map of characters has a trie of %d units in %d bytes; at most %d can be checked", units, len(data), maxTrie)
	}
	trie := make([]unit, units)
	for i := range trie {
		trie[i] = unit(binary.LittleEndian.Uint32(data[i*4:]))
	}
	return lengthens(trie, lengths(data[units*4:])), nil
}

// lengths are, for each place in texts, the bytes from there to the next zero.
func lengths(texts []byte) []int {
	n := make([]int, len(texts)+1)
	for i := len(texts) - 1; i >= 0; i-- {
		if texts[i] != 0 {
			n[i] = n[i+1] + 1
		}
	}
	return n
}

// lengthens walks the keys of a trie, the short ones first, so that each place is seen where its key is shortest.
func lengthens(trie []unit, texts []int) float64 {
	most := 1.0
	seen := make([]bool, len(trie))
	level := []uint32{trie[0].offset()}
	for key := 1; key <= maxKey; key++ {
		var next []uint32
		for _, from := range level {
			for c := uint32(1); c < 256; c++ {
				at := from ^ c
				if at >= uint32(len(trie)) || trie[at].label() != c {
					continue
				}
				to := at ^ trie[at].offset()
				if to >= uint32(len(trie)) {
					continue
				}
				if v := trie[to].value(); trie[at].leaf() && v < uint32(len(texts)) {
					most = max(most, float64(texts[v])/float64(key))
				}
				if !seen[to] {
					seen[to] = true
					next = append(next, to)
				}
			}
		}
		level = next
	}
	return most
}
