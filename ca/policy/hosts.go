package policy

import (
	"maps"
	"slices"
	"strings"
)

// hosted is a value of a hostIndex.
type hosted interface{ pattern() string }

// hostIndex finds values by host: those of the very host, then those of
// wildcards that end like it, the longest first. It does not change; with makes
// a new one.
type hostIndex[T hosted] struct {
	exact    map[string][]T
	wildcard map[string][]T // by what follows the asterisk
	lengths  []int          // of the keys of wildcard, the longest first
}

// with returns the index without some values and with others; values of one
// host stand in the order of compare.
func (x hostIndex[T]) with(gone, come []T, compare func(a, b T) int) hostIndex[T] {
	x.exact, x.wildcard = clone(x.exact), clone(x.wildcard)
	dirty := map[string]bool{}
	for _, v := range gone {
		table, key := x.place(v)
		table[key] = slices.DeleteFunc(slices.Clone(table[key]), func(other T) bool { return any(other) == any(v) })
		dirty[v.pattern()] = true
	}
	for _, v := range come {
		table, key := x.place(v)
		table[key] = append(slices.Clip(table[key]), v)
		dirty[v.pattern()] = true
	}
	for pattern := range dirty {
		table, key := x.exact, pattern
		if suffix, is := strings.CutPrefix(pattern, "*"); is {
			table, key = x.wildcard, suffix
		}
		if len(table[key]) == 0 {
			delete(table, key)
		} else {
			slices.SortFunc(table[key], compare)
		}
	}
	x.lengths = nil
	for suffix := range maps.Keys(x.wildcard) {
		x.lengths = append(x.lengths, len(suffix))
	}
	slices.SortFunc(x.lengths, func(a, b int) int { return b - a })
	x.lengths = slices.Compact(x.lengths)
	return x
}

func (x hostIndex[T]) place(v T) (table map[string][]T, key string) {
	if suffix, is := strings.CutPrefix(v.pattern(), "*"); is {
		return x.wildcard, suffix
	}
	return x.exact, v.pattern()
}

// find returns the values of the i-th most specific pattern that matches host,
// and false when i is beyond the last place where there could be any. Between,
// there may be none.
func (x *hostIndex[T]) find(host string, i int) ([]T, bool) {
	if i == 0 {
		return x.exact[host], true
	}
	if i > len(x.lengths) {
		return nil, false
	}
	if n := x.lengths[i-1]; n <= len(host) {
		return x.wildcard[host[len(host)-n:]], true
	}
	return nil, true
}
