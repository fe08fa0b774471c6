package dns

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

type known map[string]service

func (k known) find(namespace, name string) (service, bool) {
	s, ok := k[name+"."+namespace]
	return s, ok
}

func addresses(texts ...string) (all []netip.Addr) {
	for _, text := range texts {
		all = append(all, netip.MustParseAddr(text))
	}
	return all
}

var some = known{
	"httpbin.foo":  {address: netip.MustParseAddr("10.96.1.2")},
	"six.foo":      {address: netip.MustParseAddr("fd00::1")},
	"headless.foo": {ready: addresses("10.244.0.2", "10.244.0.3"), hosts: map[string][]netip.Addr{"a": addresses("10.244.0.2")}},
	"empty.foo":    {},
	"out.foo":      {external: "example.org"},
}

// TestServer asks as programs do, by Go's own resolver, over UDP and TCP.
func TestServer(t *testing.T) {
	address := start(t)
	for _, network := range []string{"udp", "tcp"} {
		resolver := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, address)
		}}
		for name, want := range map[string]string{
			"httpbin.foo.svc.cluster.local.":        "10.96.1.2",
			"HTTPBIN.foo.SVC.cluster.local.":        "10.96.1.2",
			"six.foo.svc.cluster.local.":            "fd00::1",
			"headless.foo.svc.cluster.local.":       "10.244.0.2 10.244.0.3",
			"a.headless.foo.svc.cluster.local.":     "10.244.0.2",
			"b.headless.foo.svc.cluster.local.":     "",
			"a.httpbin.foo.svc.cluster.local.":      "",
			"a.b.httpbin.foo.svc.cluster.local.":    "",
			"httpbin.bar.svc.cluster.local.":        "",
			"foo.svc.cluster.local.":                "",
			"httpbin.foo.cluster.local.":            "",
			"example.org.":                          "",
			"empty.foo.svc.cluster.local.":          "",
			strings.Repeat("x", 63) + ".foo.svc.x.": "",
		} {
			got, err := resolver.LookupHost(t.Context(), name)
			slices.Sort(got)
			if strings.Join(got, " ") != want || (err != nil) != (want == "") {
				t.Errorf("%s by %s: %q, error %v; want %q", name, network, got, err, want)
			}
		}
		if target, err := resolver.LookupCNAME(t.Context(), "out.foo.svc.cluster.local."); target != "" && target != "example.org." {
			t.Errorf("out.foo is %q, error %v", target, err)
		}
	}
}

// busy cannot take the first connection.
type busy struct {
	net.Listener
	asked bool
}

func (b *busy) Accept() (net.Conn, error) {
	if !b.asked {
		b.asked = true
		return nil, syscall.EMFILE
	}
	return b.Listener.Accept()
}

func start(t *testing.T) (address string) {
	t.Helper()
	packets, listener, err := listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		serve(ctx, some, packets, &busy{Listener: listener}, "cluster.local.")
	}()
	t.Cleanup(func() { stop(); <-ended })
	return listener.Addr().String()
}

// TestNoData: a name that exists without an address of the kind is no error.
func TestNoData(t *testing.T) {
	for name, code := range map[string]dnsmessage.RCode{"httpbin.foo": dnsmessage.RCodeSuccess, "nobody.foo": dnsmessage.RCodeNameError} {
		q := dnsmessage.Question{Name: dnsmessage.MustNewName(name + ".svc.cluster.local."), Type: dnsmessage.TypeAAAA, Class: dnsmessage.ClassINET}
		if records, got := answer(some, "cluster.local.", q); len(records) > 0 || got != code {
			t.Errorf("%s: %v, %v", name, records, got)
		}
	}
}

func FuzzReply(f *testing.F) {
	q := dnsmessage.Question{Name: dnsmessage.MustNewName("headless.foo.svc.cluster.local."), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}
	good := dnsmessage.Message{Header: dnsmessage.Header{ID: 7}, Questions: []dnsmessage.Question{q}}
	text, err := good.Pack()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add(text[:13])
	f.Fuzz(func(t *testing.T, message []byte) {
		if got := reply(some, "cluster.local.", message, udpLimit); len(got) > udpLimit {
			t.Errorf("%d bytes", len(got))
		}
	})
}
