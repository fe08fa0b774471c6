package main

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"citadel/nodeagent/enforce"
)

// enforceKey reads the value of key enforce out of a text.
func enforceKey(t *testing.T, text string) (*enforcement, []error) {
	t.Helper()
	var document yaml.Node
	if err := yaml.Unmarshal([]byte(text), &document); err != nil {
		t.Fatal(err)
	}
	return parseEnforce("f", document.Content[0])
}

// TestEnforceKey: all that can be said.
func TestEnforceKey(t *testing.T) {
	got, problems := enforceKey(t, `
capture: {outbound: "[::]:15001", inbound: "[::]:15006"}
inbound:
- {listen: "0.0.0.0:8443", app: "localhost:8080", service: "httpbin.default:8000", proxyProtocol: true}
- {listen: ":8444", app: "127.0.0.1:8081"}
outbound:
- {listen: "127.0.0.1:9000", to: "HTTPbin.default:8000"}
- {listen: "[::1]:9001", to: "203.0.113.9:80"}
socks: 127.0.0.1:1080
httpProxy: 127.0.0.1:15080
unknownDestinations: deny
addresses: [203.0.113.7, "2001:db8::7"]
healthChecks:
- {from: [10.0.0.0/8, 192.0.2.1, "2001:db8::/32"], port: 8443, path: /healthz}
- {from: [10.1.2.3/8], port: 9999}
limits: {connections: 7, handshakesPerSecond: 8, header: 9s, serverFirst: 10ms, dial: 11s, drain: 0s}
accessLog: "-"
`)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	for i, line := range []int{2, 2, 4, 5, 7, 8, 9, 10} {
		if !strings.HasPrefix(got.listeners[i].key, "configuration file f, line "+string(rune('0'+line%10))) && line < 10 {
			t.Errorf("%s, want line %d", got.listeners[i].key, line)
		}
		got.listeners[i].key = ""
	}
	at := netip.MustParseAddrPort
	want := &enforcement{
		listeners: []listening{
			{way: wayCaptureOutbound, at: at("[::]:15001")}, {way: wayCaptureInbound, at: at("[::]:15006")},
			{way: wayInbound, at: at("0.0.0.0:8443"), app: "localhost:8080", service: enforce.Target{Host: "httpbin.default", Port: 8000}, proxyProtocol: true},
			{way: wayInbound, at: at("[::]:8444"), app: "127.0.0.1:8081"},
			{way: wayOutbound, at: at("127.0.0.1:9000"), to: enforce.Target{Host: "httpbin.default", Port: 8000}},
			{way: wayOutbound, at: at("[::1]:9001"), to: enforce.Target{Addr: netip.MustParseAddr("203.0.113.9"), Port: 80}},
			{way: waySOCKS, at: at("127.0.0.1:1080")}, {way: wayHTTPProxy, at: at("127.0.0.1:15080")},
		},
		denyUnknown: true,
		addresses:   []netip.Addr{netip.MustParseAddr("203.0.113.7"), netip.MustParseAddr("2001:db8::7")},
		healthChecks: []enforce.HealthCheck{
			{From: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("192.0.2.1/32"), netip.MustParsePrefix("2001:db8::/32")}, Port: 8443, Path: "/healthz"},
			{From: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}, Port: 9999}},
		limits:    enforce.Limits{Connections: 7, HandshakesPerSecond: 8, Header: 9 * time.Second, ServerFirst: 10 * time.Millisecond, Dial: 11 * time.Second},
		accessLog: "-",
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%+v\nwant %+v", got, want)
	}
}

// TestEnforceDefaults: what is not said.
func TestEnforceDefaults(t *testing.T) {
	got, problems := enforceKey(t, "socks: 127.0.0.1:1080")
	limits := enforce.DefaultLimits
	limits.Connections = 0
	if len(problems) > 0 || got.limits != limits || got.denyUnknown || got.accessLog != "" {
		t.Errorf("%+v, %v", got, problems)
	}
	if got, problems := enforceKey(t, "socks: 0.0.0.0:1080\nlendIdentity: true"); len(problems) > 0 || len(got.listeners) != 1 {
		t.Errorf("%+v, %v", got, problems)
	}
}

// TestEnforceProblems: each is told, with its line and its name.
func TestEnforceProblems(t *testing.T) {
	const good = "socks: 127.0.0.1:1080\n"
	for text, want := range map[string][]string{
		"~":         {"line 1: enforce: must hold some of: accessLog, addresses, capture, "},
		"[a]":       {"line 1: enforce: must hold some of"},
		"{}":        {"line 1: enforce: names no listener: say capture, inbound, outbound, socks or httpProxy"},
		"sock: x":   {`line 1: enforce: there is no "sock": there are accessLog, `},
		good + good: {"line 2: enforce.socks: stands there twice"},
		"socks: 1080\nhttpProxy: localhost:80\ncapture: {inbound: 127.0.0.1, outbound: [1], both: 1}": {
			`line 1: enforce.socks: "1080" is no address to listen on: write IP:PORT`, `line 2: enforce.httpProxy: "localhost:80" is no address`,
			`line 3: enforce.capture.inbound: "127.0.0.1" is no address`, `line 3: enforce.capture.outbound: what stands there is no address`, `line 3: enforce.capture: there is no "both": there are inbound, outbound`},
		"socks: 127.0.0.1:99999":                                                             {`"127.0.0.1:99999" is no address`},
		"socks: '[::ffff:127.0.0.1]:80'":                                                     {"is no address to listen on"},
		"socks: &a 127.0.0.1:1\nhttpProxy: *a":                                               {"line 2: enforce.httpProxy: an alias, which is not followed, is no address"},
		"<<: {socks: 127.0.0.1:1}":                                                           {`there is no "<<"`},
		"socks: 0.0.0.0:1080":                                                                {"line 1: enforce.socks: all who reach 0.0.0.0:1080 could act as this host: listen on 127.0.0.1 or [::1], or say lendIdentity: true"},
		"httpProxy: ':1080'":                                                                 {"enforce.httpProxy: all who reach [::]:1080 could act as this host"},
		"outbound: [{listen: '10.0.0.1:1', to: 'a:1'}]":                                      {"enforce.outbound[0]: all who reach 10.0.0.1:1 could act as this host"},
		"socks: 127.0.0.1:1\nlendIdentity: maybe":                                            {`line 2: enforce.lendIdentity: "maybe": use false or true`},
		"socks: 127.0.0.1:1\nhttpProxy: 127.0.0.1:1":                                         {"line 2: enforce.httpProxy: 127.0.0.1:1 is listened on by configuration file f, line 1: enforce.socks too"},
		"inbound: {}":                                                                        {"line 1: enforce.inbound: must be a list"},
		"inbound: [{}]":                                                                      {"enforce.inbound[0]: listen is missing", "enforce.inbound[0]: app is missing"},
		"inbound: [x]":                                                                       {"enforce.inbound[0]: must hold some of: app, listen, proxyProtocol, service"},
		"inbound: [{listen: '1.2.3.4:1', app: '1.2.3.4:1'}]":                                 {"enforce.inbound[0]: app 1.2.3.4:1 is where it listens itself"},
		"inbound: [{listen: '1.2.3.4:1', app: 8080}]":                                        {`enforce.inbound[0].app: "8080" is not of the form HOST:PORT`},
		"inbound: [{listen: '1.2.3.4:1', app: [a]}]":                                         {"enforce.inbound[0].app: must be HOST:PORT"},
		"inbound: [{listen: '1.2.3.4:1', app: 'a:0'}]":                                       {"enforce.inbound[0].app: port 0 of a"},
		"inbound: [{listen: '1.2.3.4:1', app: 'a b:1'}]":                                     {`enforce.inbound[0].app: "a b" is no name of a host`},
		"inbound: [{listen: '1.2.3.4:1', app: 'a:1', service: '1.1.1.1:1'}]":                 {"enforce.inbound[0]: service 1.1.1.1:1 is an address: name a service"},
		"outbound: [{listen: '127.0.0.1:1'}]":                                                {"enforce.outbound[0]: to is missing"},
		"outbound: [{listen: '127.0.0.1:1', to: '127.0.0.1:1'}]":                             {"enforce.outbound[0]: to 127.0.0.1:1 is where it listens itself"},
		good + "unknownDestinations: refuse":                                                 {`line 2: enforce.unknownDestinations: "refuse": use allow or deny`},
		good + "addresses: 1.2.3.4":                                                          {"enforce.addresses: must be a list"},
		good + "addresses: [1.2.3.0/24, 'fe80::1%eth0']":                                     {`enforce.addresses[0]: "1.2.3.0/24" is no IP address`, `enforce.addresses[1]: "fe80::1%eth0" is no IP address`},
		"capture: {inbound: ':1'}\nhealthChecks: [{port: 0, path: x}]":                       {`enforce.healthChecks[0].port: "0" is no number from 1 to 65535`, `enforce.healthChecks[0].path: "x" does not begin with /`, "enforce.healthChecks[0]: from is missing"},
		"capture: {inbound: ':1'}\nhealthChecks: [{from: [1.1.1.1], port: 1, path: '/a b'}]": {`enforce.healthChecks[0].path: "/a b" is no path that a request could ask for`},
		"capture: {inbound: ':1'}\nhealthChecks: [{from: [], port: 1}]":                      {"enforce.healthChecks[0]: from lists nobody"},
		"capture: {inbound: ':1'}\nhealthChecks: [{from: [all], port: 1}]":                   {`enforce.healthChecks[0].from[0]: "all" is neither a network`},
		good + "healthChecks: [{from: [1.2.3.4], port: 80}]":                                 {"enforce: healthChecks names port 80, where nobody comes"},
		good + "limits: {connections: 0, handshakesPerSecond: many, header: 0s, serverFirst: 5, dial: 2h, drain: -1s, memory: 1}": {
			`enforce.limits.connections: "0" is no number from 1 to 1000000`, `enforce.limits.handshakesPerSecond: "many" is no number`, `enforce.limits.header: "0s" is no time from 1ms to 1h0m0s, as 500ms or 10s`,
			`enforce.limits.serverFirst: "5" is no time`, `enforce.limits.dial: "2h" is no time`, `enforce.limits.drain: "-1s" is no time from 0s`, `enforce.limits: there is no "memory"`},
		good + "accessLog:":       {"line 2: enforce.accessLog: must be a text, and not empty"},
		good + "accessLog: [a]":   {"enforce.accessLog: must be a text"},
		good + "accessLog: true":  {"enforce.accessLog: must be a text"},
		good + "accessLog: -1":    {"enforce.accessLog: must be a text"},
		good + "{a: b}: c":        {`enforce: there is no "": there are`},
		good + "!!binary aGk=: c": {`enforce: there is no "aGk="`},
	} {
		got, problems := enforceKey(t, text)
		var told []string
		for _, p := range problems {
			told = append(told, p.Error())
		}
		all := strings.Join(told, "\n")
		if got != nil || len(told) != len(want) {
			t.Errorf("%q: %d problems, want %d:\n%s", text, len(told), len(want), all)
		}
		for _, w := range want {
			if !strings.Contains(all, w) {
				t.Errorf("%q: got\n%s\nwant %s", text, all, w)
			}
		}
		for _, p := range told {
			if !strings.HasPrefix(p, "configuration file f, line ") {
				t.Errorf("%q: %s", text, p)
			}
		}
	}
}

// FuzzEnforceKey: whatever stands there is a whole configuration, or problems.
func FuzzEnforceKey(f *testing.F) {
	f.Add("socks: 127.0.0.1:1080\nlimits: {connections: 5, header: 1s}")
	f.Add("inbound: [{listen: ':1', app: 'a:1', service: 'b.c:2', proxyProtocol: true}]\nhealthChecks: [{from: [10.0.0.0/8], port: 1, path: /x}]")
	f.Add("capture: {outbound: '[::]:15001'}\noutbound: [{listen: '127.0.0.1:9', to: 'a:1'}]\naddresses: [1.2.3.4]\naccessLog: '-'")
	f.Add("a: &a [*a]\n? {x: y}\n: z")
	f.Fuzz(func(t *testing.T, text string) {
		var document yaml.Node
		if yaml.Unmarshal([]byte(text), &document) != nil || len(document.Content) == 0 {
			return
		}
		got, problems := parseEnforce("f", document.Content[0])
		if (got == nil) != (len(problems) > 0) {
			t.Fatalf("%+v, %v", got, problems)
		}
		for _, p := range problems {
			if strings.Contains(p.Error(), "\n") {
				t.Errorf("a problem of more than one line: %q", p)
			}
		}
		if got == nil {
			return
		}
		if got.limits.Connections < 0 || got.limits.HandshakesPerSecond < 1 || min(got.limits.Header, got.limits.Dial, got.limits.ServerFirst) <= 0 || len(got.listeners) == 0 {
			t.Errorf("%+v", got)
		}
		for _, l := range got.listeners {
			if !l.at.IsValid() || (l.app == "") == (l.way == wayInbound) || (l.to == enforce.Target{}) == (l.way == wayOutbound) {
				t.Errorf("%+v", l)
			}
		}
		for _, h := range got.healthChecks {
			if len(h.From) == 0 || h.Port == 0 {
				t.Errorf("%+v", h)
			}
		}
	})
}
