package policycache

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"citadel/ca/policy"
	"citadel/ca/policyfeed"
)

// kept is what the file holds: a line about it, the objects, each after its
// length, and a line with the SHA-256 sum of all before. Half a file is none.
type kept struct {
	generation policy.Generation
	version    string
	of         string // the SPIFFE ID whom the CA told it
	updated    time.Time
	items      map[policy.Ref]*policyfeed.Item
}

// header is the first line.
type header struct {
	Format     int       `json:"format"`
	Generation string    `json:"generation"`
	Version    string    `json:"version"`
	Of         string    `json:"of"`
	Updated    time.Time `json:"updated"`
	Objects    int       `json:"objects"`
}

const format = 2

// text is the file.
func (k kept) text() []byte {
	var b bytes.Buffer
	first, _ := json.Marshal(header{format, k.generation.String(), k.version, k.of, k.updated.UTC(), len(k.items)}) // of texts and numbers: it cannot fail
	b.Write(append(first, '\n'))
	items := make([]*policyfeed.Item, 0, len(k.items))
	for _, item := range k.items {
		items = append(items, item)
	}
	slices.SortFunc(items, func(a, b *policyfeed.Item) int { return cmp.Compare(a.Object.Ref().String(), b.Object.Ref().String()) })
	for _, item := range items {
		fmt.Fprintf(&b, "%d %s\n", len(item.Text()), item.Text())
	}
	return append(b.Bytes(), sumOf(b.Bytes())...)
}

func sumOf(text []byte) string {
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:]) + "\n"
}

// sumLength is that of the last line.
const sumLength = 2*sha256.Size + 1

var errDamaged = errors.New("the file is damaged")

// parse reads the file.
func parse(text []byte) (kept, error) {
	if len(text) < sumLength || sumOf(text[:len(text)-sumLength]) != string(text[len(text)-sumLength:]) {
		return kept{}, errDamaged
	}
	first, rest, _ := bytes.Cut(text[:len(text)-sumLength], []byte("\n"))
	var h header
	if err := json.Unmarshal(first, &h); err != nil {
		return kept{}, fmt.Errorf("%w: %w", errDamaged, err)
	}
	if h.Format != format {
		return kept{}, fmt.Errorf("its format is %d, and this agent reads %d", h.Format, format)
	}
	g, err := policy.ParseGeneration(h.Generation)
	if err != nil || g == policy.Auto {
		return kept{}, errDamaged
	}
	k := kept{g, h.Version, h.Of, h.Updated, map[policy.Ref]*policyfeed.Item{}}
	var texts [][]byte
	for len(rest) > 0 {
		var text []byte
		if text, rest, err = next(rest); err != nil {
			return kept{}, err
		}
		texts = append(texts, text)
	}
	items, err := policyfeed.ParseItems(texts)
	if err != nil {
		return kept{}, errors.Join(errDamaged, err)
	}
	for _, item := range items {
		k.items[item.Object.Ref()] = item
	}
	if len(k.items) != h.Objects {
		return kept{}, errDamaged
	}
	return k, nil
}

// next reads one object: its length, a space, the text and a line break.
func next(rest []byte) (text, more []byte, err error) {
	number, after, _ := bytes.Cut(rest, []byte(" "))
	n, err := strconv.Atoi(string(number))
	if err != nil || n < 0 || n >= len(after) || after[n] != '\n' {
		return nil, nil, errDamaged
	}
	return after[:n:n], after[n+1:], nil
}
