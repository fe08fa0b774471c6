package capture

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"citadel/nodeagent/redirect"
)

// applyIPv4 installs what a kernel without IPv6 gets.
func (h *host) applyIPv4(inbound string) {
	h.t.Helper()
	settings, problem := redirect.Settings{OutboundPort: 15001, InboundPort: 15006, ExcludeUIDs: []uint32{agentUID}}, error(nil)
	if settings.IncludeCIDRs, problem = redirect.ParseCIDRs("*"); problem == nil {
		settings.InboundPorts, problem = redirect.ParsePorts(inbound)
	}
	if problem == nil {
		problem = h.in(0, 0, func() error { return redirect.Apply(context.Background(), redirect.Plan(settings, redirect.IPv4)) })
	}
	if problem != nil {
		h.t.Fatal(problem)
	}
}

// TestIdempotent: twice is once, and another install leaves nothing of the first.
func TestIdempotent(t *testing.T) {
	here := newHost(t, "here")
	first := []string{"--inbound-ports=8000,9000-9010", "--exclude-cidrs=10.0.0.0/8,fd00::/8", "--exclude-gids=7"}
	here.install(first...)
	rules := here.rules()
	here.install(first...)
	if again := here.rules(); again != rules || !strings.Contains(rules, "redirect to :15001") {
		t.Errorf("%s\nafter:\n%s", rules, again)
	}
	here.install("--inbound-port=0", "--outbound-port=15101")
	if other := here.rules(); strings.Contains(other, "15001") || strings.Contains(other, "9000") || !strings.Contains(other, "redirect to :15101") {
		t.Error(other)
	}
	here.install(first...)
	if again := here.rules(); again != rules {
		t.Errorf("%s\nafter others:\n%s", rules, again)
	}
	for _, want := range []string{"Nothing is captured any more.\n", "Nothing was captured.\n"} {
		if said := here.run(agent, "redirect", "remove"); said != want {
			t.Error(said)
		}
	}
	if left := here.rules(); left != "" {
		t.Error(left)
	}
}

// TestOthersRules stay, whatever we do.
func TestOthersRules(t *testing.T) {
	here := newHost(t, "here")
	const theirs = "table ip nat { chain PREROUTING { type nat hook prerouting priority dstnat; tcp dport 80 redirect to :8080; }; }; " +
		"table inet filter { chain input { type filter hook input priority filter; tcp dport 23 drop; }; }; table inet citadel_of_somebody { }; table ip6 citadel { }"
	here.run("nft", theirs)
	before := here.rules()
	here.install("--inbound-ports=*")
	both := here.rules()
	if !strings.HasPrefix(both, before) || both == before {
		t.Errorf("%s\nafter:\n%s", before, both)
	}
	here.run(agent, "redirect", "remove")
	if after := here.rules(); after != before {
		t.Errorf("%s\nafter:\n%s", before, after)
	}
	if said := here.run(agent, "redirect", "remove"); said != "Nothing was captured.\n" {
		t.Error(said)
	}
	if said, err := here.attempt(agent, "redirect", "show"); err == nil {
		t.Error(said)
	}
}

// TestDrift: show tells who changed what, and install mends it. What nft saves
// and restores is no change.
func TestDrift(t *testing.T) {
	here := newHost(t, "here")
	show := func() (string, error) { return here.attempt(agent, "redirect", "show") }
	if said, err := show(); err == nil || said != "node_agent: nothing is installed: node_agent redirect install\n" {
		t.Error(said, err)
	}
	here.install("--inbound-ports=*", "--exclude-cidrs=192.0.2.0/24,198.18.0.0/15,203.0.113.1,2001:db8::/61,2001:db8:0:8::1")
	saved := here.rules()
	for change, want := range map[string]string{
		"nft add rule inet citadel output accept":                                   "chain output has a rule that is somebody else's, handle ",
		"nft insert rule inet citadel output tcp dport 443 accept":                  "chain output has a rule that is somebody else's, handle ",
		"nft flush chain inet citadel input":                                        "chain input has lost its rule: to port 15001: refuse (no way out for others)",
		"nft flush chain inet citadel output; nft delete chain inet citadel output": "chain output is gone",
		"nft add chain inet citadel more":                                           "chain more is somebody else's",
		"nft flush chain inet citadel settings":                                     "chain settings is not as it was installed",
		`nft delete rule inet citadel settings handle $(nft -a list table inet citadel | sed -n 's/.*exclude-uids=.*handle //p')`: "chain output has a rule that is somebody else's, handle ",
		`nft add rule inet citadel settings return comment '"color=blue"'`:                                                        "chain settings is not as it was installed (color: is no setting that this version knows)",
		"nft add table inet citadel '{ flags dormant; }'":                                                                         "the table has flags: it may be dormant, and do nothing",
		`nft insert rule inet citadel output meta l4proto tcp meta nfproto ipv4 redirect to :15001 comment '"include-cidrs"'; nft delete rule inet citadel output handle $(nft -a list table inet citadel | sed -n 's/.*ipv4 redirect.*handle //p' | tail -n 1)`: "chain output has its rules in another order",
		"nft chain inet citadel input '{ policy drop; }'": "chain input is of another hook, priority or policy",
	} {
		here.install("--inbound-ports=*", "--exclude-cidrs=192.0.2.0/24,198.18.0.0/15,203.0.113.1,2001:db8::/61,2001:db8:0:8::1")
		here.run("sh", "-ec", change)
		said, err := show()
		if err == nil || !strings.Contains(said, "\nChanged:  "+want) || !strings.Contains(said, "node_agent: the rules are not as they were installed: node_agent redirect install mends it") {
			t.Errorf("%s: %v\n%s", change, err, said)
		}
		if said, err := here.attempt(agent, "redirect", "show", "-o", "json"); err == nil || !strings.Contains(said, `"drift":["`) {
			t.Errorf("%s: %v\n%s", change, err, said)
		}
	}
	here.install("--inbound-ports=*", "--exclude-cidrs=192.0.2.0/24,198.18.0.0/15,203.0.113.1,2001:db8::/61,2001:db8:0:8::1")
	if rules := here.rules(); rules != saved {
		t.Errorf("%s\nmended:\n%s", saved, rules)
	}
	here.run("nft", "delete", "chain", "inet", "citadel", "resets")
	if said, err := show(); err != nil || !strings.Contains(said, "\nWithout:  chain resets, ") {
		t.Errorf("without a chain that may be missing: %v\n%s", err, said)
	}
	here.install("--inbound-ports=*", "--exclude-cidrs=192.0.2.0/24,198.18.0.0/15,203.0.113.1,2001:db8::/61,2001:db8:0:8::1")
	here.run("sh", "-ec", "nft list ruleset >/dev/shm/$0; nft flush ruleset; nft -f /dev/shm/$0; rm /dev/shm/$0", fmt.Sprintf("citadel-capture-%d", rand.Uint64()))
	if said, err := show(); err != nil || strings.Contains(said, "Changed") || strings.Contains(said, "Without") {
		t.Errorf("restored: %v\n%s", err, said)
	}
}

// TestLongLists: as long as they may be.
func TestLongLists(t *testing.T) {
	here, there := neighbours(t)
	var networks, numbers []string
	for i := range 1000 {
		networks = append(networks, fmt.Sprintf("10.%d.%d.0/24", i/250, i%250), fmt.Sprintf("fd99:%x::/48", i+1))
		numbers = append(numbers, fmt.Sprint(20000+2*i))
	}
	ports := strings.Join(numbers, ",")
	here.install("--include-cidrs="+strings.Join(networks[:999], ",")+",10.99.0.0/24", "--exclude-cidrs="+strings.Join(networks[1000:], ","),
		"--inbound-ports="+ports, "--exclude-outbound-ports="+ports, "--exclude-inbound-ports="+ports, "--exclude-uids="+ports, "--exclude-gids="+ports)
	if said := here.run(agent, "redirect", "show"); strings.Contains(said, "Changed") || !strings.Contains(said, "fd99:3e8::/48") {
		t.Error(said)
	}
	here.listen("127.0.0.1:15001", originals("agent"))
	there.listen("0.0.0.0:21998", says("there"))
	here.expect(t, expectation{someUID, 0, "10.99.0.2:8000", "agent 10.99.0.2:8000 <nil>"}, expectation{someUID, 0, "10.99.0.2:21998", "there"})
	if said, err := here.attempt(agent, "redirect", "install", "--inbound-ports=1,"+ports); err == nil || !strings.Contains(said, "--inbound-ports: has 1001 entries, and may have 1000") {
		t.Error(said, err)
	}
}

// TestNoGap: while others are put in their place again and again, no connection
// meets none.
func TestNoGap(t *testing.T) {
	here, there := neighbours(t)
	here.listen("127.0.0.1:15001", says("agent"))
	there.listen("0.0.0.0:8000", says("there"))
	here.install()
	var calls sync.WaitGroup
	stop := make(chan struct{})
	called := 0
	calls.Go(func() {
		for ; ; called++ {
			select {
			case <-stop:
				return
			default:
				if got := here.call(someUID, someGID, "10.99.0.2:8000"); got != "agent" {
					t.Errorf("call %d: %s", called, got)
					return
				}
			}
		}
	})
	for i := range 40 {
		here.install(fmt.Sprintf("--inbound-ports=%d", 8000+i), fmt.Sprintf("--exclude-gids=%d", i+1))
	}
	close(stop)
	calls.Wait()
	if t.Logf("%d calls", called); called < 100 {
		t.Errorf("%d calls were made", called)
	}
}

// TestKilled: an install that is killed at any moment has done all or nothing.
func TestKilled(t *testing.T) {
	here := newHost(t, "here")
	variants := [][]string{{"--inbound-ports=8000"}, {"--outbound-port=15101", "--exclude-cidrs=10.0.0.0/8"}}
	whole := map[string]string{"": "none"}
	for i, flags := range variants {
		here.install(flags...)
		whole[here.rules()] = fmt.Sprint("variant ", i)
	}
	seen := map[string]int{}
	for i := range 60 {
		if i%4 < 2 {
			here.run(agent, "redirect", "remove")
		}
		flags := variants[i%2]
		if err := here.in(0, 0, func() error {
			cmd := exec.Command(agent, append([]string{"redirect", "install"}, flags...)...)
			if err := cmd.Start(); err != nil {
				return err
			}
			timer := time.AfterFunc(time.Duration(rand.IntN(25))*time.Millisecond, func() { _ = cmd.Process.Kill() })
			defer timer.Stop()
			_ = cmd.Wait() // that it was killed is meant
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		rules := here.rules()
		if whole[rules] == "" {
			t.Fatalf("a part of it:\n%s", rules)
		}
		seen[whole[rules]]++
	}
	if t.Log(seen); len(seen) != 3 {
		t.Errorf("%v: the kills came all too early or too late", seen)
	}
}

// TestOpenConnections: those that were open before rules came live on, in both
// directions, and whoever would go on from one of them to a service that is
// captured comes to nothing.
func TestOpenConnections(t *testing.T) {
	here, there := neighbours(t)
	here.listen("127.0.0.1:15001", originals("agent"))
	here.listen("0.0.0.0:15006", originals("agent"))
	echo := func(c *net.TCPConn) {
		lines := bufio.NewReader(c)
		for {
			line, err := lines.ReadString('\n')
			if err != nil {
				return
			}
			if line == "vanish\n" {
				vanish(t, c)
				return
			}
			fmt.Fprint(c, line)
		}
	}
	here.listen("0.0.0.0:8000", echo)
	there.listen("0.0.0.0:8000", echo)
	dial := func(h *host, from, to string) (c net.Conn, err error) {
		local, err := net.ResolveTCPAddr("tcp", from)
		if err != nil {
			return nil, err
		}
		err = h.in(0, 0, func() error {
			c, err = (&net.Dialer{Timeout: patience, LocalAddr: local}).Dial("tcp", to)
			return err
		})
		return c, err
	}
	out, err := dial(here, "10.99.0.1:40000", "10.99.0.2:8000")
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	in, err := dial(there, "10.99.0.2:40000", "10.99.0.1:8000")
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	says := func(c net.Conn, text string) string {
		fmt.Fprintln(c, text)
		return heard(c)
	}
	here.install("--inbound-ports=8000")
	if a, b := says(out, "hello"), says(in, "hello"); a != "hello" || b != "hello" {
		t.Errorf("after install: %q, %q", a, b)
	}
	here.install("--inbound-ports=8000", "--exclude-gids=1")
	if a, b := says(out, "again"), says(in, "again"); a != "again" || b != "again" {
		t.Errorf("after another install: %q, %q", a, b)
	}
	fmt.Fprintln(in, "vanish") // both ends, without a word that conntrack could hear
	vanish(t, in.(*net.TCPConn))
	deadline := time.Now().Add(patience)
	for here.run("ss", "-Htn", "state", "established", "sport", "=", ":8000") != "" && time.Now().Before(deadline) {
		time.Sleep(10 * time.Millisecond)
	}
	again, err := dial(there, "10.99.0.2:40000", "10.99.0.1:8000")
	if err == nil {
		t.Errorf("came around the agent: %s", says(again, "plain"))
		again.Close()
	} else if got := reason(err); got != "connection refused" {
		t.Errorf("refused by %s", got)
	}
}

// vanish closes a connection without telling the other end.
func vanish(t *testing.T, c *net.TCPConn) {
	raw, err := c.SyscallConn()
	if err == nil {
		controlErr := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_REPAIR, 1) })
		if err == nil {
			err = controlErr
		}
	}
	if err != nil {
		t.Errorf("vanish: %v", err)
	}
	c.Close()
}

// TestNotAllowed: who lacks the capability hears which, and who gives it.
func TestNotAllowed(t *testing.T) {
	here := newHost(t, "here")
	for _, verb := range []string{"install", "remove", "show"} {
		said, err := here.attempt("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", agent, "redirect", verb)
		exit, is := err.(*exec.ExitError)
		if !is || exit.ExitCode() != 1 || !strings.Contains(said, "rules: ") || !strings.Contains(said, "operation not permitted") ||
			!strings.Contains(said, "CAP_NET_ADMIN: be root") || !strings.Contains(said, "AmbientCapabilities=CAP_NET_ADMIN") || !strings.Contains(said, "add: [NET_ADMIN]") {
			t.Errorf("%s: %v: %s", verb, err, said)
		}
	}
	said := here.run("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=+net_admin", "--ambient-caps=+net_admin", agent, "redirect", "install")
	if !strings.Contains(said, "go to the agent's port 15001") {
		t.Error(said)
	}
}

// TestCapturedConnections live on when others rules come, and end when there are
// none any more.
func TestCapturedConnections(t *testing.T) {
	here, there := neighbours(t)
	here.listen("127.0.0.1:15001", func(c *net.TCPConn) {
		for lines := bufio.NewReader(c); ; {
			line, err := lines.ReadString('\n')
			if err != nil {
				return
			}
			fmt.Fprint(c, line)
		}
	})
	there.listen("0.0.0.0:8000", says("there"))
	here.install()
	c, err := here.dial(someUID, someGID, "10.99.0.2:8000")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	here.install("--exclude-cidrs=10.99.0.2")
	fmt.Fprintln(c, "hello")
	if got := heard(c); got != "hello" {
		t.Errorf("after another install: %s", got)
	}
	here.run(agent, "redirect", "remove")
	fmt.Fprintln(c, "hello")
	if got := heard(c); got != "connection reset by peer" {
		t.Errorf("after remove: %s", got)
	}
}
