package policy

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
)

// UnknownKey is a key of a mesh config, and the known one that is most like it;
// empty when none is.
type UnknownKey struct{ Key, Like string }

// Warning says what to do about the key.
func (k UnknownKey) Warning() Warning {
	text := fmt.Sprintf("the mesh config has a key %q that is not known, and decides nothing", k.Key)
	if k.Like != "" {
		text += fmt.Sprintf(": is %q meant?", k.Like)
	}
	return Warning{"mesh-config-unknown-key", text}
}

// The most unknown keys that are told, and how long a key is compared at all.
const (
	maxUnknown = 10
	maxCompare = 64
)

// mistyped is how many letters a key may differ by from one that decides, and be
// taken for it.
const mistyped = 2

// unknownKey notes a key of a live mesh config, and tells of which key that
// decides it is a mistyped form; empty for none.
func (s *strict) unknownKey(fields map[string]reflect.StructField, key string) string {
	deciding := func(name string) bool { return fields[name].Name != "_" }
	if like := nearest(fields, deciding, key, mistyped); like != "" {
		return like
	}
	if len(s.unknown) < maxUnknown {
		every := func(string) bool { return true }
		s.unknown = append(s.unknown, UnknownKey{key, nearest(fields, every, key, len(key)/3)})
	}
	return ""
}

// nearest is the name that differs least from a key, and by limit letters at
// most. Case, dashes and underscores do not count.
func nearest(fields map[string]reflect.StructField, among func(string) bool, key string, limit int) (best string) {
	if len(key) > maxCompare {
		return ""
	}
	key = plainKey(key)
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		if plain := plainKey(name); among(name) && max(len(plain)-len(key), len(key)-len(plain)) <= limit {
			if d := distance(plain, key); d <= limit {
				best, limit = name, d-1
			}
		}
	}
	return best
}

func plainKey(name string) string {
	return strings.ToLower(strings.NewReplacer("_", "", "-", "", " ", "").Replace(name))
}

// distance is how many letters must be put in, left out or changed to make one
// text of another.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
