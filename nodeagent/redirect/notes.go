package redirect

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// Settings are kept in the table that they make, as comments of a chain that no
// packet comes to: what is installed can be told, and held against, without a
// file that could say something else.

// lineMost is the length of a comment that nft takes back from its own listing.
const lineMost = 120

// noted is a rule for each line of the settings.
func (s Settings) noted() []Rule {
	var rules []Rule
	for _, line := range s.lines() {
		rules = append(rules, Rule{Comment: line})
	}
	return rules
}

// lines are the settings as NAME=VALUE. A list that is long has several lines.
func (s Settings) lines() []string {
	var lines []string
	number := func(name string, n uint16) { lines = append(lines, name+"="+strconv.Itoa(int(n))) }
	number("outbound-port", s.OutboundPort)
	lines = append(lines, broken("include-cidrs", s.IncludeCIDRs)...)
	lines = append(lines, broken("exclude-cidrs", s.ExcludeCIDRs)...)
	lines = append(lines, broken("exclude-outbound-ports", s.ExcludeOutboundPorts)...)
	lines = append(lines, broken("exclude-uids", s.ExcludeUIDs)...)
	lines = append(lines, broken("exclude-gids", s.ExcludeGIDs)...)
	number("inbound-port", s.InboundPort)
	lines = append(lines, broken("inbound-ports", s.InboundPorts)...)
	lines = append(lines, broken("exclude-inbound-ports", s.ExcludeInboundPorts)...)
	number("monitoring-port", s.MonitoringPort)
	return lines
}

// broken is a list in as many lines as it takes; none for an empty one.
func broken[T any](name string, list []T) []string {
	var lines []string
	for _, one := range list {
		word := fmt.Sprint(one)
		if last := len(lines) - 1; last >= 0 && len(lines[last])+1+len(word) <= lineMost {
			lines[last] += "," + word
		} else {
			lines = append(lines, name+"="+word)
		}
	}
	return lines
}

// readLines is the opposite of lines.
func readLines(lines []string) (Settings, error) {
	values := map[string]string{}
	for _, line := range lines {
		name, value, ok := strings.Cut(line, "=")
		if !ok {
			return Settings{}, fmt.Errorf("%q is no setting", line)
		}
		if before, more := values[name]; more {
			value = before + "," + value
		}
		values[name] = value
	}
	r := reader{values: values}
	s := Settings{
		OutboundPort: r.port("outbound-port"), InboundPort: r.port("inbound-port"), MonitoringPort: r.port("monitoring-port"),
		IncludeCIDRs: read(&r, "include-cidrs", ParseCIDRs), ExcludeCIDRs: read(&r, "exclude-cidrs", ParseCIDRs),
		ExcludeOutboundPorts: read(&r, "exclude-outbound-ports", ParsePorts),
		ExcludeUIDs:          read(&r, "exclude-uids", parseNumbers), ExcludeGIDs: read(&r, "exclude-gids", parseNumbers),
		InboundPorts: read(&r, "inbound-ports", ParsePorts), ExcludeInboundPorts: read(&r, "exclude-inbound-ports", ParsePorts),
	}
	for name := range r.values {
		r.fail(name, fmt.Errorf("is no setting that this version knows"))
	}
	return s, r.err
}

// reader takes settings out of values, and keeps the first error.
type reader struct {
	values map[string]string
	err    error
}

func (r *reader) fail(name string, err error) {
	if r.err == nil && err != nil {
		r.err = fmt.Errorf("%s: %w", name, err)
	}
}

func (r *reader) port(name string) uint16 {
	n, err := strconv.ParseUint(r.values[name], 10, 16)
	r.fail(name, err)
	delete(r.values, name)
	return uint16(n)
}

func read[T netip.Prefix | Ports | uint32](r *reader, name string, parse func(string) ([]T, error)) []T {
	all, err := parse(r.values[name])
	r.fail(name, err)
	delete(r.values, name)
	return all
}

func parseNumbers(text string) ([]uint32, error) {
	return ParseIDs(text, func(name string) (string, error) { return "", fmt.Errorf("%q is no number", name) })
}
