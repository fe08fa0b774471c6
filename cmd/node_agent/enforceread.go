package main

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"citadel/nodeagent/enforce"
)

// reader takes values out of YAML, strictly, and collects what is wrong with
// them.
type reader struct {
	file     string
	problems []error
}

// field is a value, and its name from the top, as enforce.inbound[0].listen.
type field struct {
	*yaml.Node
	name string
}

// at is where a field stands, for messages.
func (f field) at(file string) string {
	return fmt.Sprintf("configuration file %s, line %d: %s", file, f.Line, f.name)
}

func (r *reader) report(format string, args ...any) {
	r.problems = append(r.problems, fmt.Errorf(format, args...))
}

func (r *reader) problem(f field, format string, args ...any) {
	r.report("%s: "+format, append([]any{f.at(r.file)}, args...)...)
}

// mapping hands each value to whom its key belongs to, and tells which keys were
// there.
func (r *reader) mapping(f field, fields map[string]func(field)) map[string]bool {
	given := map[string]bool{}
	if f.Kind != yaml.MappingNode {
		r.problem(f, "must hold some of: %s", strings.Join(slices.Sorted(maps.Keys(fields)), ", "))
		return given
	}
	for i := 0; i+1 < len(f.Content); i += 2 {
		key := f.Content[i].Value
		value := field{f.Content[i+1], f.name + "." + key}
		read := fields[key]
		switch {
		case read == nil:
			value.Node = f.Content[i] // its line
			value.name = f.name
			r.problem(value, "there is no %.100q: there are %s", key, strings.Join(slices.Sorted(maps.Keys(fields)), ", "))
		case given[key]:
			r.problem(value, "stands there twice")
		default:
			given[key] = true
			read(value)
		}
	}
	return given
}

func (r *reader) required(f field, given map[string]bool, keys ...string) {
	if f.Kind != yaml.MappingNode {
		return // told already
	}
	for _, key := range keys {
		if !given[key] {
			r.problem(f, "%s is missing", key)
		}
	}
}

func (r *reader) list(f field, each func(field)) {
	if f.Kind != yaml.SequenceNode {
		r.problem(f, "must be a list")
		return
	}
	for i, node := range f.Content {
		each(field{node, fmt.Sprintf("%s[%d]", f.name, i)})
	}
}

// text is a value as it is written; empty after a problem.
func (r *reader) text(f field) string {
	if f.Kind != yaml.ScalarNode || f.ShortTag() != "!!str" || f.Value == "" {
		r.problem(f, "must be a text, and not empty")
		return ""
	}
	return f.Value
}

func (r *reader) truth(f field) bool { return r.choice(f, "false", "true") == "true" }

func (r *reader) choice(f field, words ...string) string {
	if f.Kind == yaml.ScalarNode && slices.Contains(words, f.Value) {
		return f.Value
	}
	r.problem(f, "%s: use %s", quoted(f), strings.Join(words, " or "))
	return ""
}

func (r *reader) number(f field, least, most int) int {
	n, err := strconv.Atoi(f.Value)
	if f.Kind != yaml.ScalarNode || err != nil || n < least || n > most {
		r.problem(f, "%s is no number from %d to %d", quoted(f), least, most)
		return least
	}
	return n
}

func (r *reader) duration(f field, least, most time.Duration) time.Duration {
	d, err := time.ParseDuration(f.Value)
	if f.Kind != yaml.ScalarNode || err != nil || d < least || d > most {
		r.problem(f, "%s is no time from %s to %s, as 500ms or 10s", quoted(f), least, most)
		return least
	}
	return d
}

// listen is an address of this host, or all of them, and a port; the zero value
// after a problem.
func (r *reader) listen(f field) netip.AddrPort {
	text := f.Value
	if strings.HasPrefix(text, ":") {
		text = "[::]" + text
	}
	at, err := netip.ParseAddrPort(text)
	if f.Kind != yaml.ScalarNode || err != nil || at.Addr().Is4In6() {
		r.problem(f, "%s is no address to listen on: write IP:PORT, as 127.0.0.1:1080 or [::]:15001", quoted(f))
		return netip.AddrPort{}
	}
	return at
}

func (r *reader) target(f field) enforce.Target {
	if f.Kind != yaml.ScalarNode {
		r.problem(f, "must be HOST:PORT")
		return enforce.Target{}
	}
	to, err := enforce.ParseTarget(f.Value)
	if err != nil {
		r.problem(f, "%w", err)
	}
	return to
}

func (r *reader) address(f field) netip.Addr {
	addr, err := netip.ParseAddr(f.Value)
	if f.Kind != yaml.ScalarNode || err != nil || addr.Zone() != "" {
		r.problem(f, "%s is no IP address", quoted(f))
		return netip.Addr{}
	}
	return addr.Unmap()
}

// prefix is a network, or one address.
func (r *reader) prefix(f field) netip.Prefix {
	if f.Kind == yaml.ScalarNode {
		if addr, err := netip.ParseAddr(f.Value); err == nil && addr.Zone() == "" {
			return netip.PrefixFrom(addr.Unmap(), addr.Unmap().BitLen())
		}
		if p, err := netip.ParsePrefix(f.Value); err == nil && !p.Addr().Is4In6() {
			return p.Masked()
		}
	}
	r.problem(f, "%s is neither a network, as 10.0.0.0/8, nor an IP address", quoted(f))
	return netip.Prefix{}
}

// quoted is a value for messages.
func quoted(f field) string {
	switch f.Kind {
	case yaml.ScalarNode:
		return fmt.Sprintf("%.100q", f.Value)
	case yaml.AliasNode:
		return "an alias, which is not followed,"
	}
	return "what stands there"
}
