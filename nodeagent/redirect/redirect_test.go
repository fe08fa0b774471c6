package redirect

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

// example has something of everything.
func example(t *testing.T) Settings {
	t.Helper()
	s := Settings{OutboundPort: 15001, InboundPort: 15006, MonitoringPort: 15016, ExcludeUIDs: []uint32{998, 1337}, ExcludeGIDs: []uint32{7},
		ExcludeOutboundPorts: []Ports{{53, 53}, {9000, 9010}}, InboundPorts: []Ports{{8000, 8000}, {9000, 9010}}, ExcludeInboundPorts: []Ports{{9005, 9005}}}
	var err, err2 error
	s.IncludeCIDRs, err = ParseCIDRs("*")
	s.ExcludeCIDRs, err2 = ParseCIDRs("10.0.0.0/8, fd00::/8,192.0.2.1,2001:db8::1")
	if err := errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}
	return s
}

// TestPlan compares the rules of settings with testdata/*.rules.
func TestPlan(t *testing.T) {
	everything := example(t)
	out, in, all := everything, everything, everything
	out.InboundPort, out.MonitoringPort, out.ExcludeUIDs = 0, 0, nil
	in.OutboundPort = 0
	all.InboundPorts, all.ExcludeInboundPorts = everyPort, []Ports{{22, 22}}
	for name, table := range map[string]Table{
		"everything": Plan(everything, Both), "ipv4": Plan(everything, IPv4), "outbound": Plan(out, Both), "inbound": Plan(in, Both), "all-ports": Plan(all, Both),
	} {
		file := filepath.Join("testdata", name+".rules")
		want, err := os.ReadFile(file)
		if err != nil {
			t.Error(err)
		}
		if diff := cmp.Diff(string(want), table.String()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", file, diff)
		}
	}
}

// TestEveryRuleHasItsOwnMeaning: no two different rules are the same to the
// kernel, and none is without an effect.
func TestEveryRuleHasItsOwnMeaning(t *testing.T) {
	seen := map[string]string{}
	table := Both.kernel()
	for _, c := range Plan(example(t), Both).Chains {
		for _, r := range c.Rules {
			k := r.kernel(table, &nftables.Chain{Name: c.Name})
			print, err := fingerprint(k)
			if err != nil {
				t.Fatal(err)
			}
			if other, same := seen[print]; same && other != r.String() {
				t.Errorf("%s is the same as %s", r, other)
			}
			if seen[print] = r.String(); len(k.Exprs) == 0 || len(r.Comment) > 127 {
				t.Errorf("%s: %d expressions, comment of %d bytes", r, len(k.Exprs), len(r.Comment))
			}
			for _, m := range r.When {
				if len(m.expressions()) < 2 {
					t.Errorf("%s: %s matches everything", r, m)
				}
			}
		}
	}
}

func TestParse(t *testing.T) {
	lookup := func(name string) (string, error) {
		if name == "istio-agent" {
			return "998", nil
		}
		return "", fmt.Errorf("user: unknown user %s", name)
	}
	kinds := map[string]func(string) (string, error){
		"cidrs": func(s string) (string, error) { v, err := ParseCIDRs(s); return fmt.Sprint(v), err },
		"ports": func(s string) (string, error) { v, err := ParsePorts(s); return fmt.Sprint(v), err },
		"ids":   func(s string) (string, error) { v, err := ParseIDs(s, lookup); return fmt.Sprint(v), err },
	}
	for _, c := range []struct{ kind, text, want, wrong string }{
		{"cidrs", "*", "[0.0.0.0/0 ::/0]", ""},
		{"cidrs", " ", "[]", ""},
		{"cidrs", "fd00::/8, 10.0.0.0/8,10.0.0.0/8,1.2.3.4,::1", "[1.2.3.4/32 10.0.0.0/8 ::1/128 fd00::/8]", ""},
		{"cidrs", "10.1.2.3/8", "", `"10.1.2.3/8" is an address within a network: is 10.0.0.0/8 meant, or 10.1.2.3?`},
		{"cidrs", "10.0.0.0/33", "", `"10.0.0.0/33" is no network, as 10.0.0.0/8`},
		{"cidrs", "example.org", "", "is no network"},
		{"cidrs", "fe80::1%eth0", "", "is no network"},
		{"cidrs", "::ffff:10.0.0.1", "", "is no network"},
		{"cidrs", "::ffff:10.0.0.0/104", "", "is no network"},
		{"cidrs", "*,10.0.0.0/8", "", `"*" is no network`},
		{"cidrs", "10.0.0.0/8,", "", "nothing stands between two commas"},
		{"ports", "*", "[1-65535]", ""},
		{"ports", "", "[]", ""},
		{"ports", "9000-9010,80,80,1-65535", "[1-65535 80 9000-9010]", ""},
		{"ports", "0", "", `"0" is no port, as 80, and no range of ports, as 8000-8010`},
		{"ports", "65536", "", "is no port"},
		{"ports", "90-80", "", "is no port"},
		{"ports", "0-80", "", "is no port"},
		{"ports", "80-", "", "is no port"},
		{"ports", "-80", "", "is no port"},
		{"ports", "http", "", "is no port"},
		{"ports", "80,,81", "", "nothing stands between two commas"},
		{"ids", "1337,istio-agent,0,998", "[0 998 1337]", ""},
		{"ids", "nobody-here", "", "user: unknown user nobody-here"},
		{"ids", "4294967295", "", `"4294967295" is no id: a number from 0 to 4294967294`},
		{"ids", "-1", "", "unknown user -1"},
		{"ids", "1a", "", "is no id"},
	} {
		got, err := kinds[c.kind](c.text)
		switch {
		case c.wrong == "" && (err != nil || got != c.want):
			t.Errorf("%s %q: %s, %v", c.kind, c.text, got, err)
		case c.wrong != "" && (err == nil || !strings.Contains(err.Error(), c.wrong)):
			t.Errorf("%s %q: %s, %v, not %q", c.kind, c.text, got, err, c.wrong)
		}
	}
}

func TestCheck(t *testing.T) {
	for want, change := range map[string]func(*Settings){
		"": func(*Settings) {},
		"--outbound-port: is 0, and so is --inbound-port": func(s *Settings) { s.OutboundPort, s.InboundPort = 0, 0 },
		"--outbound-port: is 0, and --inbound-ports":      func(s *Settings) { s.OutboundPort, s.InboundPorts = 0, nil },
		"--inbound-ports: names ports, and --inbound":     func(s *Settings) { s.InboundPort = 0 },
		"--inbound-port: is --outbound-port":              func(s *Settings) { s.InboundPort = s.OutboundPort },
		"--monitoring-port: is --outbound-port or":        func(s *Settings) { s.MonitoringPort = s.InboundPort },
		"--exclude-uids: is empty, and so is":             func(s *Settings) { s.ExcludeUIDs, s.ExcludeGIDs = nil, nil },
		"--include-cidrs: is empty":                       func(s *Settings) { s.IncludeCIDRs = nil },
	} {
		s := example(t)
		change(&s)
		problems := s.Check()
		if want == "" && len(problems) != 0 || want != "" && (len(problems) != 1 || !strings.HasPrefix(problems[0].Error(), want)) {
			t.Errorf("%q: %v", want, problems)
		}
	}
	if len((Settings{}).Check()) == 0 {
		t.Error("the zero value captures something")
	}
}

// TestNotes: what a table says of itself is what it was made from.
func TestNotes(t *testing.T) {
	long := example(t)
	for i := range 1000 {
		long.ExcludeCIDRs = append(long.ExcludeCIDRs, netip.PrefixFrom(netip.AddrFrom4([4]byte{203, byte(i >> 8), byte(i), 0}), 24))
	}
	long.ExcludeCIDRs, _ = ParseCIDRs(strings.Join(words(long.ExcludeCIDRs[4:]), ","))
	for _, s := range []Settings{{}, example(t), long} {
		lines := s.lines()
		for _, line := range lines {
			if len(line) > lineMost || strings.Contains(line, `"`) {
				t.Errorf("nft would not take it back: %s", line)
			}
		}
		got, err := readLines(lines)
		if err != nil {
			t.Error(err)
		}
		if diff := cmp.Diff(s, got, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
			t.Error(diff)
		}
	}
	for _, wrong := range []string{"", "outbound-port", "outbound-port=x", "exclude-uids=root", "inbound-ports=0", "color=blue", "include-cidrs=x"} {
		if s, err := readLines([]string{"outbound-port=1", "inbound-port=2", "monitoring-port=3", wrong}); err == nil {
			t.Errorf("%q: %+v", wrong, s)
		}
	}
}

func TestDescribe(t *testing.T) {
	var b bytes.Buffer
	example(t).Describe(&b, func(id uint32) string { return map[uint32]string{998: "istio-agent"}[id] })
	Settings{InboundPort: 15006}.Describe(&b, nil)
	want := `Outbound: TCP connections that programs of this host open, to any address, go to the agent's port 15001.
  but not what this host says to itself
  but not of users 998 (istio-agent), 1337
  but not of groups 7
  but not to addresses 10.0.0.0/8, 192.0.2.1/32, 2001:db8::1/128, fd00::/8
  but not to ports 53, 9000-9010
Inbound: TCP connections that come to ports 8000, 9000-9010 of this host from outside go to the agent's port 15006.
  but not to the agent's own ports 15001, 15006, 15016
  but not to ports 9005
Outbound: nothing is captured.
Inbound: nothing is captured.
`
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Error(diff)
	}
}

// TestExplain: each answer of a kernel that a person can do something about.
func TestExplain(t *testing.T) {
	for errno, want := range map[unix.Errno]string{
		unix.EPERM: "CAP_NET_ADMIN", unix.EACCES: "CAP_NET_ADMIN", unix.EPROTONOSUPPORT: "no nf_tables", unix.EAFNOSUPPORT: "RestrictAddressFamilies",
		unix.ENOENT: "no NAT for nf_tables", unix.EOPNOTSUPP: "Linux 5.8",
	} {
		if err := explain(fmt.Errorf("conn.Receive: %w", errno)); !errors.Is(err, errno) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v", errno, err)
		}
	}
	if err := explain(unix.ENOBUFS); err != unix.ENOBUFS || explain(nil) != nil {
		t.Error(err)
	}
}

// FuzzNotes: whatever stands in a table, it is read or refused; what is read
// reads the same when it is written again.
func FuzzNotes(f *testing.F) {
	f.Add("outbound-port=15001\ninclude-cidrs=0.0.0.0/0,::/0\nexclude-uids=1337\ninbound-port=15006\ninbound-ports=80,9000-9010\nmonitoring-port=15016")
	f.Add("outbound-port=1\ninbound-port=2\nmonitoring-port=0\nexclude-cidrs=10.0.0.0/8\nexclude-cidrs=fd00::/8")
	f.Add("inbound-ports=\n=\n,")
	f.Fuzz(func(t *testing.T, text string) {
		s, err := readLines(strings.Split(text, "\n"))
		if err != nil {
			return
		}
		again, err := readLines(s.lines())
		if err != nil || fmt.Sprint(s) != fmt.Sprint(again) {
			t.Fatalf("%q: %v, then %v, %v", text, s, again, err)
		}
		_ = Plan(s, Both).String()
	})
}
