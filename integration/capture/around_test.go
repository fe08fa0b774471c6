package capture

import (
	"bufio"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"
)

// TestAround: the kernel asks NAT once for as long as it remembers a connection, and
// that is seconds after one was reset. Who has its port next is neither led around the
// agent nor, of the agent's own connections, back to it.
func TestAround(t *testing.T) {
	for _, f := range families {
		t.Run(f.name, func(t *testing.T) {
			here, there := neighbours(t)
			here.listen(net.JoinHostPort(f.loopback, "15001"), func(c *net.TCPConn) {
				line, _ := bufio.NewReader(c).ReadString('\n')
				fmt.Fprint(c, "agent heard ", line)
				_ = c.SetLinger(0)
			})
			there.listen("[::]:8000", func(c *net.TCPConn) {
				line, _ := bufio.NewReader(c).ReadString('\n')
				fmt.Fprint(c, "server heard ", line)
				_ = c.SetLinger(0)
			})
			here.install()
			to := net.JoinHostPort(f.there, "8000")
			for port, c := range map[int]struct{ first, second int }{40001: {agentUID, someUID}, 40002: {someUID, agentUID}} {
				who := map[int]string{agentUID: "server heard secret", someUID: "agent heard secret"}
				from := netip.AddrPortFrom(netip.MustParseAddr(f.here), uint16(port))
				if got := here.tell(c.first, from, to, "secret"); got != who[c.first] {
					t.Errorf("user %d: %q", c.first, got)
				}
				got := here.tell(c.second, from, to, "secret")
				for end := time.Now().Add(8 * time.Second); got == "connection refused" && time.Now().Before(end); got = here.tell(c.second, from, to, "secret") {
					<-time.After(1500 * time.Millisecond) // for the kernel to forget, which by itself takes it ten
				}
				if got != who[c.second] {
					t.Errorf("user %d, after user %d with the same port: %q", c.second, c.first, got)
				}
				if got := here.tell(c.second, netip.AddrPortFrom(from.Addr(), from.Port()+1000), to, "secret"); got != who[c.second] {
					t.Errorf("user %d, with another port: %q", c.second, got)
				}
			}
		})
	}
}
