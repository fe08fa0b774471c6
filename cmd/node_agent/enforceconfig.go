package main

import (
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"citadel/nodeagent/enforce"
)

// enforcement is what key enforce of the configuration file says, checked: which
// connections the agent carries, and how.
type enforcement struct {
	listeners    []listening
	denyUnknown  bool
	addresses    []netip.Addr
	healthChecks []enforce.HealthCheck
	limits       enforce.Limits // Connections is 0 where the files that may be open decide
	accessLog    string         // a file, accessToLog, or empty for none
}

// accessToLog in place of a file is the agent's own log.
const accessToLog = "-"

// way is how connections come in by a listener.
type way string

// The ways, by the words of status.
const (
	wayInbound         way = "inbound"
	wayOutbound        way = "outbound"
	waySOCKS           way = "socks"
	wayHTTPProxy       way = "http-proxy"
	wayCaptureInbound  way = "capture-inbound"
	wayCaptureOutbound way = "capture-outbound"
)

// listening is one listener.
type listening struct {
	way way
	at  netip.AddrPort
	key string // where the file says so, for messages

	app           string         // of wayInbound
	service       enforce.Target // of wayInbound; zero where policy is to find it
	proxyProtocol bool           // of wayInbound
	to            enforce.Target // of wayOutbound
}

// enforceLimits are what limits may be.
const (
	mostConnections = 1_000_000
	mostHandshakes  = 1_000_000
	longestLimit    = time.Hour
)

// readEnforce takes the key of the configuration file.
func (o *options) readEnforce(file string, value *yaml.Node) {
	read, problems := parseEnforce(file, value)
	for _, problem := range problems {
		o.flags.Report(problem)
	}
	o.enforces, o.enforce = true, read
}

// parseEnforce reads what stands under the key. It is pure: the listeners are
// opened, and the log is, later. All problems are told, each with its line.
func parseEnforce(file string, value *yaml.Node) (*enforcement, []error) {
	e := &enforcement{limits: enforce.DefaultLimits}
	e.limits.Connections = 0
	r := &reader{file: file}
	lend := false
	r.mapping(field{value, "enforce"}, map[string]func(field){
		"capture":   func(f field) { e.readCapture(r, f) },
		"inbound":   func(f field) { r.list(f, func(f field) { e.readInbound(r, f) }) },
		"outbound":  func(f field) { r.list(f, func(f field) { e.readOutbound(r, f) }) },
		"socks":     func(f field) { e.listen(listening{way: waySOCKS, at: r.listen(f), key: f.at(file)}) },
		"httpProxy": func(f field) { e.listen(listening{way: wayHTTPProxy, at: r.listen(f), key: f.at(file)}) },
		"unknownDestinations": func(f field) {
			e.denyUnknown = r.choice(f, "allow", "deny") == "deny"
		},
		"addresses":    func(f field) { r.list(f, func(f field) { e.addresses = append(e.addresses, r.address(f)) }) },
		"healthChecks": func(f field) { r.list(f, func(f field) { e.healthChecks = append(e.healthChecks, r.healthCheck(f)) }) },
		"limits":       func(f field) { r.limits(f, &e.limits) },
		"accessLog":    func(f field) { e.accessLog = r.text(f) },
		"lendIdentity": func(f field) { lend = r.truth(f) },
	})
	e.checkListeners(r, value, lend)
	if len(r.problems) > 0 {
		return nil, r.problems
	}
	return e, nil
}

func (e *enforcement) readCapture(r *reader, f field) {
	r.mapping(f, map[string]func(field){
		"inbound":  func(f field) { e.listen(listening{way: wayCaptureInbound, at: r.listen(f), key: f.at(r.file)}) },
		"outbound": func(f field) { e.listen(listening{way: wayCaptureOutbound, at: r.listen(f), key: f.at(r.file)}) },
	})
}

func (e *enforcement) readInbound(r *reader, f field) {
	l := listening{way: wayInbound, key: f.at(r.file)}
	given := r.mapping(f, map[string]func(field){
		"listen":        func(f field) { l.at = r.listen(f) },
		"app":           func(f field) { l.app = r.target(f).String() },
		"service":       func(f field) { l.service = r.target(f) },
		"proxyProtocol": func(f field) { l.proxyProtocol = r.truth(f) },
	})
	r.required(f, given, "listen", "app")
	if l.at.IsValid() && l.app == l.at.String() {
		r.problem(f, "app %s is where it listens itself: the application must listen elsewhere", l.app)
	}
	if l.service.Addr.IsValid() {
		r.problem(f, "service %s is an address: name a service, as httpbin.default:8000", l.service)
	}
	e.listen(l)
}

func (e *enforcement) readOutbound(r *reader, f field) {
	l := listening{way: wayOutbound, key: f.at(r.file)}
	given := r.mapping(f, map[string]func(field){
		"listen": func(f field) { l.at = r.listen(f) },
		"to":     func(f field) { l.to = r.target(f) },
	})
	r.required(f, given, "listen", "to")
	if l.at.IsValid() && l.to.String() == l.at.String() {
		r.problem(f, "to %s is where it listens itself", l.to)
	}
	e.listen(l)
}

func (e *enforcement) listen(l listening) { e.listeners = append(e.listeners, l) }

// checkListeners looks at all of them together.
func (e *enforcement) checkListeners(r *reader, value *yaml.Node, lend bool) {
	top := field{value, "enforce"}
	if len(e.listeners) == 0 && len(r.problems) == 0 {
		r.problem(top, "names no listener: say capture, inbound, outbound, socks or httpProxy")
	}
	e.checkHealthChecks(r, top)
	seen := map[netip.AddrPort]string{}
	for _, l := range e.listeners {
		if !l.at.IsValid() {
			continue // told already
		}
		if before, has := seen[l.at]; has && l.at.Port() != 0 {
			r.report("%s: %s is listened on by %s too", l.key, l.at, before)
		}
		seen[l.at] = l.key
		lends := l.way == waySOCKS || l.way == wayHTTPProxy || l.way == wayOutbound
		if lends && !l.at.Addr().IsLoopback() && !lend {
			r.report("%s: all who reach %s could act as this host: listen on 127.0.0.1 or [::1], or say lendIdentity: true", l.key, l.at)
		}
	}
}

// checkHealthChecks wants each to be for a port at which somebody could come.
func (e *enforcement) checkHealthChecks(r *reader, top field) {
	served := func(port uint16) bool {
		return slices.ContainsFunc(e.listeners, func(l listening) bool {
			return l.way == wayCaptureInbound || l.way == wayInbound && l.at.Port() == port
		})
	}
	for _, h := range e.healthChecks {
		if len(r.problems) == 0 && !served(h.Port) {
			r.problem(top, "healthChecks names port %d, where nobody comes: it is the port of an inbound listener, or any with capture.inbound", h.Port)
		}
	}
}

func (r *reader) healthCheck(f field) (h enforce.HealthCheck) {
	given := r.mapping(f, map[string]func(field){
		"from": func(f field) { r.list(f, func(f field) { h.From = append(h.From, r.prefix(f)) }) },
		"port": func(f field) { h.Port = uint16(r.number(f, 1, 65535)) },
		"path": func(f field) {
			if h.Path = r.text(f); h.Path == "" || h.Path[0] != '/' {
				r.problem(f, "%q does not begin with /: for a check that only connects leave path out", h.Path)
			} else if _, err := url.ParseRequestURI(h.Path); err != nil || strings.ContainsAny(h.Path, " #") {
				r.problem(f, "%q is no path that a request could ask for", h.Path)
			}
		},
	})
	r.required(f, given, "from", "port")
	if given["from"] && len(h.From) == 0 {
		r.problem(f, "from lists nobody: name the addresses of who checks")
	}
	return h
}

func (r *reader) limits(f field, to *enforce.Limits) {
	duration := func(to *time.Duration) func(field) {
		return func(f field) { *to = r.duration(f, time.Millisecond, longestLimit) }
	}
	r.mapping(f, map[string]func(field){
		"connections":         func(f field) { to.Connections = r.number(f, 1, mostConnections) },
		"handshakesPerSecond": func(f field) { to.HandshakesPerSecond = r.number(f, 1, mostHandshakes) },
		"header":              duration(&to.Header),
		"serverFirst":         duration(&to.ServerFirst),
		"dial":                duration(&to.Dial),
		"drain":               func(f field) { to.Drain = r.duration(f, 0, longestLimit) },
	})
}

// String is how messages call a listener.
func (l listening) String() string {
	switch l.way {
	case wayInbound:
		return fmt.Sprintf("%s for the application at %s", l.way, l.app)
	case wayOutbound:
		return fmt.Sprintf("%s to %s", l.way, l.to)
	}
	return string(l.way)
}
