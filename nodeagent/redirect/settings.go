package redirect

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// The ports that an agent listens on unless it is told others.
const (
	DefaultOutboundPort   = 15001
	DefaultInboundPort    = 15006
	DefaultMonitoringPort = 15016
)

// Settings say which connections are captured, and by which ports of the agent.
// The zero value captures none, and Check refuses it.
type Settings struct {
	OutboundPort         uint16         // takes connections that programs of this host open; 0: none
	IncludeCIDRs         []netip.Prefix // only to these destinations
	ExcludeCIDRs         []netip.Prefix // of these, not to those
	ExcludeOutboundPorts []Ports        // nor to these ports
	ExcludeUIDs          []uint32       // nor of sockets of these users, the agent's own above all
	ExcludeGIDs          []uint32       // nor of these groups

	InboundPort         uint16  // takes connections that come to this host from outside; 0: none
	InboundPorts        []Ports // only to these ports
	ExcludeInboundPorts []Ports // of these, not to those
	MonitoringPort      uint16  // the agent's own, never captured; 0: it has none
}

// Ports are those from First to Last.
type Ports struct{ First, Last uint16 }

// String is "80" or "8000-8010".
func (p Ports) String() string {
	if p.First == p.Last {
		return strconv.Itoa(int(p.First))
	}
	return fmt.Sprintf("%d-%d", p.First, p.Last)
}

// most is how many entries a list may have: each is a rule of its own, which
// every new connection is held against.
const most = 1000

// everywhere is what "*" stands for among addresses, everyPort among ports.
var (
	everywhere = []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}
	everyPort  = []Ports{{1, 65535}}
)

// ParseCIDRs reads a list like "10.0.0.0/8,2001:db8::1", or "*" for all
// addresses. It returns each network once, in order.
func ParseCIDRs(text string) ([]netip.Prefix, error) {
	if text == "*" {
		return slices.Clone(everywhere), nil
	}
	return list(text, parseCIDR, netip.Prefix.Compare)
}

func parseCIDR(word string) (netip.Prefix, error) {
	if address, err := netip.ParseAddr(word); err == nil && address.Zone() == "" && !address.Is4In6() {
		return netip.PrefixFrom(address, address.BitLen()), nil
	}
	prefix, err := netip.ParsePrefix(word)
	switch {
	case err != nil || prefix.Addr().Is4In6():
		return netip.Prefix{}, fmt.Errorf("%q is no network, as 10.0.0.0/8 or 2001:db8::/32", word)
	case prefix != prefix.Masked():
		return netip.Prefix{}, fmt.Errorf("%q is an address within a network: is %s meant, or %s?", word, prefix.Masked(), prefix.Addr())
	}
	return prefix, nil
}

// ParsePorts reads a list like "80,8000-8010", or "*" for all ports.
func ParsePorts(text string) ([]Ports, error) {
	if text == "*" {
		return slices.Clone(everyPort), nil
	}
	return list(text, parsePorts, func(a, b Ports) int { return cmp.Or(cmp.Compare(a.First, b.First), cmp.Compare(a.Last, b.Last)) })
}

func parsePorts(word string) (Ports, error) {
	first, last, ranged := strings.Cut(word, "-")
	if !ranged {
		last = first
	}
	a, err := strconv.ParseUint(first, 10, 16)
	b, err2 := strconv.ParseUint(last, 10, 16)
	if err != nil || err2 != nil || a == 0 || b < a {
		return Ports{}, fmt.Errorf("%q is no port, as 80, and no range of ports, as 8000-8010", word)
	}
	return Ports{uint16(a), uint16(b)}, nil
}

// ParseIDs reads a list of ids, or of names that lookup knows the ids of. One
// that is a number is never looked up.
func ParseIDs(text string, lookup func(name string) (string, error)) ([]uint32, error) {
	return list(text, func(word string) (uint32, error) {
		id, err := parseID(word)
		if err == nil || word[0] >= '0' && word[0] <= '9' {
			return id, err
		}
		found, err := lookup(word)
		if err != nil {
			return 0, err
		}
		return parseID(found)
	}, cmp.Compare[uint32])
}

// parseID refuses the greatest number, which the kernel takes for none.
func parseID(word string) (uint32, error) {
	id, err := strconv.ParseUint(word, 10, 32)
	if err != nil || id == 1<<32-1 {
		return 0, fmt.Errorf("%q is no id: a number from 0 to 4294967294", word)
	}
	return uint32(id), nil
}

// list reads what is between commas, sorted, each once.
func list[T comparable](text string, parse func(string) (T, error), compare func(a, b T) int) ([]T, error) {
	if strings.TrimSpace(text) == "" {
		return nil, nil
	}
	var all []T
	for word := range strings.SplitSeq(text, ",") {
		word = strings.TrimSpace(word)
		if word == "" {
			return nil, errors.New("nothing stands between two commas, or beside one")
		}
		one, err := parse(word)
		if err != nil {
			return nil, err
		}
		all = append(all, one)
	}
	slices.SortFunc(all, compare)
	if all = slices.Compact(all); len(all) > most {
		return nil, fmt.Errorf("has %d entries, and may have %d: use larger networks or ranges", len(all), most)
	}
	return all, nil
}

// Check tells what is wrong with settings as a whole. Each problem begins with
// the name of the flag that could mend it.
func (s Settings) Check() []error {
	var problems []error
	problem := func(flag, text string) { problems = append(problems, fmt.Errorf("--%s: %s", flag, text)) }
	switch {
	case s.OutboundPort == 0 && s.InboundPort == 0:
		problem("outbound-port", "is 0, and so is --inbound-port: nothing would be captured; node_agent redirect remove takes rules away")
	case s.OutboundPort == 0 && len(s.InboundPorts) == 0:
		problem("outbound-port", "is 0, and --inbound-ports names none: nothing would be captured; node_agent redirect remove takes rules away")
	case s.InboundPort == 0 && len(s.InboundPorts) > 0:
		problem("inbound-ports", "names ports, and --inbound-port is 0: none of them would be captured")
	}
	if s.OutboundPort != 0 && s.OutboundPort == s.InboundPort {
		problem("inbound-port", "is --outbound-port: the agent could not tell who comes from who leaves")
	}
	if s.MonitoringPort != 0 && (s.MonitoringPort == s.OutboundPort || s.MonitoringPort == s.InboundPort) {
		problem("monitoring-port", "is --outbound-port or --inbound-port")
	}
	if s.OutboundPort != 0 && len(s.ExcludeUIDs)+len(s.ExcludeGIDs) == 0 {
		problem("exclude-uids", "is empty, and so is --exclude-gids: the agent's own connections would come back to it, without end")
	}
	if s.OutboundPort != 0 && len(s.IncludeCIDRs) == 0 {
		problem("include-cidrs", "is empty: no outbound connection would be captured; say so with --outbound-port=0, or * for all")
	}
	return problems
}
