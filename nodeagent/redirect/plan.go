package redirect

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Family is which packets a table sees.
type Family int

// The families of Internet protocols.
const (
	Both Family = iota // IPv4 and IPv6
	IPv4               // for kernels without IPv6, which know no table of both
)

// String is the family as nft names it.
func (f Family) String() string {
	if f == IPv4 {
		return "ip"
	}
	return "inet"
}

// Table is what is installed: rules as data, which tests compare and Apply
// hands to the kernel.
type Table struct {
	Family Family
	Chains []Chain
}

// Chain is a list of rules, of which the first whose matches all hold decides.
// Where none does, the packet goes on.
type Chain struct {
	Name     string
	Hook     Hook
	Rules    []Rule
	Optional bool // it may be missing: not every kernel has what it needs
}

// Hook is where packets come into a chain.
type Hook int

// The hooks. NAT at Output and Prerouting is asked about the first packet of a
// connection alone.
const (
	Nowhere    Hook = iota // no packet comes; the chain is there to be read
	Output                 // NAT of what this host sends
	Prerouting             // NAT of what comes
	Input                  // filter of what comes to this host, after NAT
	Leaving                // filter of what this host sends, after NAT
	Tracked                // filter of what this host sends, once its connection is known
)

// Rule does something with packets that match.
type Rule struct {
	When    []Match // all of them
	Do      Action
	Comment string // why, for who lists rules; at most 127 bytes
}

// Match is one condition on a packet. Of Prefix, Ports and ID it has what its
// Field is compared with.
type Match struct {
	Field  Field
	Not    bool // for fields without a value: it does not hold
	Prefix netip.Prefix
	Ports  Ports
	ID     uint32
}

// Field is what a Match looks at.
type Field int

// The fields.
const (
	_               Field = iota
	TCP                   // the packet is TCP
	Opens                 // it opens a connection: SYN alone of SYN, ACK, RST, FIN
	ByLoopback            // it leaves by a loopback interface
	FromLoopback          // it came by one
	ForThisHost           // its destination is an address of this host's
	Redirected            // another destination was given to its connection
	Destination           // the destination is in Prefix
	DestinationPort       // its port is one of Ports
	UID                   // the socket is of the user with ID
	GID                   // the socket is of the group with ID
)

// Action is what a rule does.
type Action struct {
	Verb Verb
	Port uint16 // of ToAgent and ToAgentHere
}

// Verb is the kind of an Action.
type Verb int

// The verbs.
const (
	Leave       Verb = iota // let the packet go on as it is
	ToAgent                 // to Port at the loopback address
	ToAgentHere             // to Port at the address that the packet is for
	Refuse                  // answer with a reset
	ForgetSoon              // have the connection forgotten a second after it was reset, and go on
)

// Plan is the table that settings, which Check approves of, amount to.
func Plan(s Settings, f Family) Table {
	t := Table{Family: f, Chains: []Chain{{Name: "settings", Rules: s.noted()}}}
	if s.OutboundPort != 0 {
		t.Chains = append(t.Chains, Chain{Name: "output", Hook: Output, Rules: s.outbound(f)},
			Chain{Name: "leaving", Hook: Leaving, Rules: s.guardOut(f)}, Chain{Name: "resets", Hook: Tracked, Rules: s.forgetful(f), Optional: true})
	}
	if s.InboundPort != 0 {
		t.Chains = append(t.Chains, Chain{Name: "prerouting", Hook: Prerouting, Rules: s.inbound()})
	}
	return Table{t.Family, append(t.Chains, Chain{Name: "input", Hook: Input, Rules: s.guard()})}
}

// notOurs begins a chain: only who opens a TCP connection is looked at. Those
// that are open when rules are installed are not known to NAT, which takes their
// next packet for a first one; without this it would send them astray.
func notOurs() []Rule {
	return []Rule{
		{[]Match{{Field: TCP, Not: true}}, Action{}, "TCP alone is captured"},
		{[]Match{{Field: Opens, Not: true}}, Action{}, "open connections stay as they are"},
	}
}

func (s Settings) outbound(f Family) []Rule {
	return append(notOurs(), s.opened(f, s.IncludeCIDRs, Action{ToAgent, s.OutboundPort}, "include-cidrs")...)
}

// guardOut looks at what leaves after NAT, which is asked once for each source port
// and destination for as long as the kernel remembers a connection of these: ten
// seconds after one that was reset, or as forgetful has it. A program that gets the
// port of a connection of the agent's own would go around the agent, and the agent's
// own back to it.
func (s Settings) guardOut(f Family) []Rule {
	rules := notOurs()
	back := func(who Match) {
		for _, p := range loopback {
			if f.sees(p) {
				port := Match{Field: DestinationPort, Ports: Ports{s.OutboundPort, s.OutboundPort}}
				rules = append(rules, Rule{[]Match{who, {Field: Redirected}, {Field: Destination, Prefix: p}, port}, Action{Verb: Refuse}, "what is excluded does not come back"})
			}
		}
	}
	for _, id := range s.ExcludeUIDs {
		back(Match{Field: UID, ID: id})
	}
	for _, id := range s.ExcludeGIDs {
		back(Match{Field: GID, ID: id})
	}
	rules = append(rules, Rule{[]Match{{Field: Redirected}}, Action{}, "captured connections"})
	return append(rules, s.opened(f, halved(s.IncludeCIDRs), Action{Verb: Refuse}, "nobody leaves around the agent")...)
}

// loopback is where NAT leads what is captured.
var loopback = []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32"), netip.MustParsePrefix("::1/128")}

// forgetful keeps short the time in which guardOut must refuse.
func (s Settings) forgetful(f Family) []Rule {
	s.ExcludeUIDs, s.ExcludeGIDs = nil, nil // whose ports others have next
	return append(notOurs(), s.opened(f, s.IncludeCIDRs, Action{Verb: ForgetSoon}, "its port may have a new connection soon")...)
}

// halved has two halves for all addresses of a family: nft does not list a family
// alone before a refusal, and would restore another rule.
func halved(all []netip.Prefix) (parts []netip.Prefix) {
	for _, p := range all {
		if p.Bits() > 0 {
			parts = append(parts, p)
			continue
		}
		upper := p.Addr().AsSlice()
		upper[0] = 0x80
		addr, _ := netip.AddrFromSlice(upper)
		parts = append(parts, netip.PrefixFrom(p.Addr(), 1), netip.PrefixFrom(addr, 1))
	}
	return parts
}

// opened does something with connections that are to be captured: those within some
// networks.
func (s Settings) opened(f Family, within []netip.Prefix, do Action, why string) []Rule {
	rules := []Rule{{[]Match{{Field: ByLoopback}}, Action{}, "this host's talk with itself"}}
	if f.sees(ofTheLink) {
		rules = append(rules, Rule{[]Match{{Field: Destination, Prefix: ofTheLink}}, Action{}, "addresses of the link"})
	}
	for _, id := range s.ExcludeUIDs {
		rules = append(rules, Rule{[]Match{{Field: UID, ID: id}}, Action{}, "exclude-uids"})
	}
	for _, id := range s.ExcludeGIDs {
		rules = append(rules, Rule{[]Match{{Field: GID, ID: id}}, Action{}, "exclude-gids"})
	}
	for _, p := range s.ExcludeOutboundPorts {
		rules = append(rules, Rule{[]Match{{Field: DestinationPort, Ports: p}}, Action{}, "exclude-outbound-ports"})
	}
	for _, p := range s.ExcludeCIDRs {
		if f.sees(p) {
			rules = append(rules, Rule{[]Match{{Field: Destination, Prefix: p}}, Action{}, "exclude-cidrs"})
		}
	}
	for _, p := range within {
		when := []Match{{Field: TCP}, {Field: Destination, Prefix: p}}
		if do.Verb == Refuse { // in the order of nft, which is to restore what it lists
			slices.Reverse(when)
		}
		if f.sees(p) {
			rules = append(rules, Rule{when, do, why})
		}
	}
	return rules
}

// ofTheLink are addresses of IPv6 that mean nothing beyond one interface: such a
// connection cannot be led to another.
var ofTheLink = netip.MustParsePrefix("fe80::/10")

func (f Family) sees(p netip.Prefix) bool { return f == Both || p.Addr().Is4() }

func (s Settings) inbound() []Rule {
	rules := append(notOurs(), fromOutside...)
	for _, port := range s.own() {
		rules = append(rules, Rule{[]Match{{Field: DestinationPort, Ports: Ports{port, port}}}, Action{}, "the agent's own"})
	}
	return append(rules, s.captured(Action{ToAgentHere, s.InboundPort}, "inbound-ports")...)
}

// fromOutside leaves alone what does not come to this host from another.
var fromOutside = []Rule{
	{[]Match{{Field: FromLoopback}}, Action{}, "this host's talk with itself"},
	{[]Match{{Field: ForThisHost, Not: true}}, Action{}, "what is passed on to others"},
}

// captured does something with what comes to the ports that are captured.
func (s Settings) captured(do Action, why string) (rules []Rule) {
	for _, p := range s.ExcludeInboundPorts {
		rules = append(rules, Rule{[]Match{{Field: DestinationPort, Ports: p}}, Action{}, "exclude-inbound-ports"})
	}
	for _, p := range s.InboundPorts {
		when := Match{Field: DestinationPort, Ports: p}
		if p == everyPort[0] {
			when = Match{Field: TCP}
		}
		rules = append(rules, Rule{[]Match{when}, do, why})
	}
	return rules
}

// own are the ports of the agent itself.
func (s Settings) own() (ports []uint16) {
	for _, port := range []uint16{s.OutboundPort, s.InboundPort, s.MonitoringPort} {
		if port != 0 {
			ports = append(ports, port)
		}
	}
	return ports
}

// guard looks at what comes after NAT. It keeps outsiders from the ports where
// captured connections are awaited, and from services that they should have
// reached through these: a packet that opens nothing has NAT leave its connection
// alone for good, and an attacker who sends one first, so that no answer ends it,
// could go on with one that does.
func (s Settings) guard() []Rule {
	rules := append(notOurs(), fromOutside...)
	one := func(port uint16) Match { return Match{Field: DestinationPort, Ports: Ports{port, port}} }
	if s.OutboundPort != 0 {
		rules = append(rules, Rule{[]Match{one(s.OutboundPort)}, Action{Verb: Refuse}, "no way out for others"})
	}
	if s.InboundPort != 0 {
		rules = append(rules, Rule{[]Match{one(s.InboundPort), {Field: Redirected}}, Action{}, "captured connections"},
			Rule{[]Match{one(s.InboundPort)}, Action{Verb: Refuse}, "nobody connects to it directly"})
		if s.MonitoringPort != 0 {
			rules = append(rules, Rule{[]Match{one(s.MonitoringPort)}, Action{}, "the agent's own"})
		}
		rules = append(rules, s.captured(Action{Verb: Refuse}, "nobody comes around the agent")...)
	}
	return rules
}

// String is the match in nft's words, more or less.
func (m Match) String() string {
	not := ""
	if m.Not {
		not = "not "
	}
	switch m.Field {
	case Destination:
		return "to " + m.Prefix.String()
	case DestinationPort:
		if m.Ports.First != m.Ports.Last {
			return "to ports " + m.Ports.String()
		}
		return "to port " + m.Ports.String()
	case UID, GID:
		return fmt.Sprintf("of %s %d", map[Field]string{UID: "user", GID: "group"}[m.Field], m.ID)
	default:
		return not + map[Field]string{TCP: "tcp", Opens: "opens a connection", ByLoopback: "by loopback", FromLoopback: "from loopback",
			ForThisHost: "for this host", Redirected: "redirected"}[m.Field]
	}
}

// String is the action in words.
func (a Action) String() string {
	switch a.Verb {
	case ToAgent:
		return fmt.Sprintf("to the agent's port %d at loopback", a.Port)
	case ToAgentHere:
		return fmt.Sprintf("to the agent's port %d", a.Port)
	case Refuse:
		return "refuse"
	case ForgetSoon:
		return "forget soon after a reset"
	default:
		return "leave"
	}
}

// String is the rule in one line.
func (r Rule) String() string {
	var words []string
	for _, m := range r.When {
		words = append(words, m.String())
	}
	return fmt.Sprintf("%s: %s (%s)", strings.Join(words, ", "), r.Do, r.Comment)
}

// String is the table, a rule a line.
func (t Table) String() string {
	var b strings.Builder
	for _, c := range t.Chains {
		fmt.Fprintf(&b, "%s\n", c.Name)
		for _, r := range c.Rules {
			fmt.Fprintf(&b, "  %s\n", r)
		}
	}
	return b.String()
}
