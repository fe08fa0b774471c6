package enforce

import (
	"context"
	"net"
	"net/netip"
	"syscall"
	"testing"
)

// TestPortOfAnother: a program whose connection a redirect gave the port of one of the
// agent's own, to the same destination, is served; one of the agent's own is not.
func TestPortOfAnother(t *testing.T) {
	for _, host := range []string{"127.0.0.1", "::1"} {
		for name, c := range map[string]struct {
			control func(network, address string, raw syscall.RawConn) error
			want    Reason
		}{
			"a program":   {nil, ReasonNone},
			"the agent's": {func(network, _ string, raw syscall.RawConn) error { mark(network, raw); return nil }, Loop},
		} {
			t.Run(host+" "+name, func(t *testing.T) {
				r := newRig(t)
				r.say(netip.MustParseAddrPort("10.0.0.1:80"), "")
				e, app := r.enforcer("sleep"), r.app(echo)
				var plain net.ListenConfig // as the agent's listeners are
				plain.SetMultipathTCP(false)
				l, err := plain.Listen(t.Context(), "tcp", net.JoinHostPort(host, "0"))
				if err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithCancel(context.Background())
				ended := make(chan error, 1)
				front := Redirected(func(*net.TCPConn) (netip.AddrPort, error) { return app, nil })
				go func() { ended <- e.Outbound(ctx, l, front) }()
				t.Cleanup(func() { cancel(); <-ended })
				before, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
				if err != nil {
					t.Fatal(err)
				}
				from := addrPort(before.Addr())
				before.Close()
				e.dialled.Store(ends{from, app}, nil) // as if the agent had opened it
				waitFor(t, func() bool { _, known := e.port(addrPort(l.Addr())); return known })
				conn, err := (&net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(from), Control: c.control}).Dial("tcp", l.Addr().String())
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				if heard := ask(conn, "hello"); (heard == "hello") != (c.want == ReasonNone) {
					t.Errorf("heard %q", heard)
				}
				if v := r.event(); v.Reason != c.want {
					t.Errorf("%+v", v)
				}
			})
		}
	}
}
