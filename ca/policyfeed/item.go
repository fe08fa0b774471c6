package policyfeed

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"slices"
	"sync"

	"citadel/ca/policy"
)

// Item is an object, and its text as the wire has it.
type Item struct {
	Object policy.Object

	once sync.Once
	text []byte
	sum  [sha256.Size]byte
}

// listSize is how much text ParseItems reads at a time: reading begins with work
// that does not depend on how much there is.
const listSize = 1 << 20

// ParseItems reads objects, one of each text, which must be JSON. One that cannot
// be read makes all of them an error.
func ParseItems(texts [][]byte) (items []*Item, err error) {
	for len(texts) > 0 {
		list, n := []byte(`{"apiVersion":"v1","kind":"List","items":[`), 0
		for n < len(texts) && (n == 0 || len(list) < listSize) {
			if !json.Valid(texts[n]) { // a text must not reach into the next
				return nil, fmt.Errorf("object %d is no JSON", len(items)+n+1)
			}
			if n > 0 {
				list = append(list, ',')
			}
			list, n = append(list, texts[n]...), n+1
		}
		objects, err := policy.Decode("", append(list, "]}"...))
		if err == nil && len(objects) != n {
			err = fmt.Errorf("%d texts are %d objects", n, len(objects))
		}
		if err != nil {
			return nil, err
		}
		for i, o := range objects {
			items = append(items, newItem(o, texts[i]))
		}
		texts = texts[n:]
	}
	return items, nil
}

func newItem(o policy.Object, text []byte) *Item {
	i := &Item{Object: o}
	i.once.Do(func() { i.text, i.sum = text, sha256.Sum256(text) })
	return i
}

// Text is the object as policy.Decode reads it. It is made once, for all that
// ask. The bytes are not the caller's to change.
func (i *Item) Text() []byte {
	i.once.Do(func() {
		text, err := policy.Encode(i.Object)
		if err != nil { // no object of this package's types does
			text = fmt.Appendf(nil, "%q", err)
		}
		i.text, i.sum = text, sha256.Sum256(text)
	})
	return i.text
}

// Buckets is into how many parts what a caller holds is divided, and DigestSize
// how long the digest of one is, in bytes.
const (
	Buckets    = 1024
	DigestSize = 16
)

// Bucket is the part that an object belongs to, by its name.
func Bucket(ref policy.Ref) uint32 {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s/%s/%s", ref.Kind, ref.Namespace, ref.Name))
	return uint32(binary.BigEndian.Uint16(sum[:])) % Buckets
}

// Digests is what WatchPolicyRequest says of objects that are held.
func Digests(items []*Item) []byte {
	var sums [Buckets][][]byte
	for _, item := range items {
		item.Text()
		b := Bucket(item.Object.Ref())
		sums[b] = append(sums[b], item.sum[:])
	}
	all := make([]byte, Buckets*DigestSize)
	for b := range sums {
		if len(sums[b]) == 0 {
			continue
		}
		slices.SortFunc(sums[b], bytes.Compare)
		sum := sha256.Sum256(bytes.Join(sums[b], nil))
		copy(all[b*DigestSize:], sum[:DigestSize])
	}
	return all
}

// Differing tells which buckets two digests differ in. A digest of another
// length differs in all.
func Differing(a, b []byte) (differ []uint32) {
	whole := len(a) == Buckets*DigestSize && len(b) == len(a)
	for i := range uint32(Buckets) {
		at := int(i) * DigestSize
		if !whole || !bytes.Equal(a[at:at+DigestSize], b[at:at+DigestSize]) {
			differ = append(differ, i)
		}
	}
	return differ
}
