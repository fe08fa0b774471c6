// Package redirect has the kernel hand connections to the agent that were meant
// for somebody else: those that programs of this host open, and those that come
// to its services from outside. Programs do not notice. Settings say which, Plan
// makes rules of them, as data, and Install gives them to nftables as one
// transaction; Original tells the agent where a connection was meant for.
//
// What a host says to itself, by loopback or by an address of its own, is never
// captured, nor is what it says to addresses of the link (fe80::/10), which loopback
// cannot stand in for, nor what it passes on for others, nor UDP. Connections of the
// kernel itself (NFS) are captured like those of a program, for they have no
// owner who could be excluded: exclude their port or address.
//
// It touches one table, "citadel", of nftables alone, and refuses to know of
// anybody else's. It decides nothing about a connection but who gets it.
package redirect

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/userdata"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Install puts the rules of settings, which Check approves of, in the place of
// those that are there: packets meet the old ones until they meet the new. It
// returns what it has installed.
func Install(ctx context.Context, s Settings) (Table, error) {
	t := Plan(s, families())
	return t, Apply(ctx, t)
}

// families is what this kernel has. One without IPv6 has no table of both. Where
// nothing can be seen it is taken for one of both: an error is better than half.
func families() Family {
	const seen = "/proc/self/net" // also in a sandbox that shows processes alone
	_, noNetwork := os.Stat(seen)
	if _, err := os.Stat(seen + "/if_inet6"); noNetwork == nil && errors.Is(err, os.ErrNotExist) {
		return IPv4
	}
	return Both
}

// Apply makes a table the installed one, in one transaction: all of it, or
// nothing, also if the process dies. Chains that are optional are left out where the
// kernel does not take them.
func Apply(ctx context.Context, t Table) error {
	err := apply(ctx, t)
	required := slices.DeleteFunc(slices.Clone(t.Chains), func(c Chain) bool { return c.Optional })
	lacks := slices.ContainsFunc([]unix.Errno{unix.ENOENT, unix.EOPNOTSUPP, unix.EPROTONOSUPPORT, unix.ENOPROTOOPT, unix.EINVAL}, func(no unix.Errno) bool { return errors.Is(err, no) })
	if lacks && len(required) < len(t.Chains) {
		return apply(ctx, Table{t.Family, required})
	}
	return err
}

func apply(ctx context.Context, t Table) error {
	conn, err := dial(ctx)
	if err != nil {
		return fmt.Errorf("install rules: %w", err)
	}
	defer conn.CloseLasting()
	table := t.Family.kernel()
	conn.AddTable(table) // so that there is one to delete
	conn.DelTable(table)
	conn.AddTable(table)
	for _, c := range t.Chains {
		chain := conn.AddChain(c.kernel(table))
		if c.Hook == Tracked {
			conn.AddObj(soon(table))
		}
		for _, r := range c.Rules {
			conn.AddRule(r.kernel(table, chain))
		}
	}
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("install rules: %w", explain(err))
	}
	return nil
}

// Remove takes our table away, and tells whether there was one.
func Remove(ctx context.Context) (bool, error) {
	conn, err := dial(ctx)
	if err != nil {
		return false, fmt.Errorf("remove rules: %w", err)
	}
	defer conn.CloseLasting()
	found := false
	for _, f := range []Family{Both, IPv4} {
		is, err := there(conn, f)
		if err != nil {
			return false, fmt.Errorf("remove rules: %w", explain(err))
		}
		if is == nil {
			continue
		}
		found = true
		conn.DelTable(f.kernel())
		if err := conn.Flush(); err != nil && !errors.Is(err, unix.ENOENT) { // somebody else was faster
			return false, fmt.Errorf("remove rules: %w", explain(err))
		}
	}
	return found, nil
}

// Installed is what stands in the kernel.
type Installed struct {
	Settings Settings
	Family   Family
	// Drift is how the table differs from what Install made of the settings: one
	// text for each difference.
	Drift []string
	// Lacks are the chains that are left out: this kernel may not take them.
	Lacks []string
}

// Read tells what is installed; nil if nothing is.
func Read(ctx context.Context) (*Installed, error) {
	conn, err := dial(ctx)
	if err != nil {
		return nil, fmt.Errorf("read rules: %w", err)
	}
	defer conn.CloseLasting()
	for _, f := range []Family{Both, IPv4} {
		table, err := there(conn, f)
		if err == nil && table != nil {
			var found *Installed
			if found, err = compare(conn, table, f); err == nil {
				return found, nil
			}
		}
		if err != nil {
			return nil, fmt.Errorf("read rules: %w", explain(err))
		}
	}
	return nil, nil
}

// there is our table of a family; nil if there is none.
func there(conn *nftables.Conn, f Family) (*nftables.Table, error) {
	want := f.kernel()
	tables, err := conn.ListTablesOfFamily(want.Family)
	if err != nil {
		if f == Both && families() == IPv4 { // the kernel knows no such family
			return nil, nil
		}
		return nil, err
	}
	for _, t := range tables {
		if t.Name == want.Name {
			t.Family = want.Family
			return t, nil
		}
	}
	return nil, nil
}

// noted are the comments of rules.
func notes(rules []*nftables.Rule) (lines []string) {
	for _, r := range rules {
		line, _ := userdata.GetString(r.UserData, userdata.TypeComment)
		lines = append(lines, line)
	}
	return lines
}

// answerLimit is what the kernel may take, which answers at once unless it is
// at war with somebody who changes rules all the time.
const answerLimit = 30 * time.Second

// dial opens the way to nftables, in this network namespace.
func dial(ctx context.Context) (*nftables.Conn, error) {
	end, ok := ctx.Deadline()
	if latest := time.Now().Add(answerLimit); !ok || end.After(latest) {
		end = latest
	}
	const room = 16 << 20 // for the longest lists: a transaction is one message, and has an answer for each part
	conn, err := nftables.New(nftables.AsLasting(), nftables.WithSockOptions(func(c *netlink.Conn) error {
		return errors.Join(c.SetDeadline(end), c.SetWriteBuffer(room), c.SetReadBuffer(room))
	}))
	return conn, explain(err)
}

// explain says what a person can do about an answer of the kernel's.
func explain(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return fmt.Errorf("%w: nftables want the capability CAP_NET_ADMIN: be root, or in a unit have AmbientCapabilities=CAP_NET_ADMIN and no PrivateUsers=, or in a pod runAsUser: 0 and capabilities: {add: [NET_ADMIN]}", err)
	case errors.Is(err, unix.EPROTONOSUPPORT), errors.Is(err, unix.EAFNOSUPPORT):
		return fmt.Errorf("%w: the kernel has no nf_tables (modprobe nf_tables), or the sandbox lets nobody use netlink (RestrictAddressFamilies=AF_NETLINK)", err)
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.EOPNOTSUPP):
		return fmt.Errorf("%w: the kernel has no NAT for nf_tables: it takes Linux 5.8 or newer, with CONFIG_NFT_NAT, NFT_REDIR, NFT_FIB_INET and NFT_REJECT", err)
	default:
		return err
	}
}

// compare holds a table against the settings that are noted in it.
func compare(conn *nftables.Conn, table *nftables.Table, f Family) (*Installed, error) {
	all, err := conn.ListChainsOfTableFamily(table.Family)
	if err != nil {
		return nil, err
	}
	chains, rules := map[string]*nftables.Chain{}, map[string][]*nftables.Rule{}
	for _, c := range all {
		if c.Table.Name != table.Name {
			continue
		}
		chains[c.Name] = c
		if rules[c.Name], err = conn.GetRules(table, c); err != nil {
			return nil, err
		}
	}
	found := &Installed{Family: f}
	if found.Settings, err = readLines(notes(rules["settings"])); err != nil || len(rules["settings"]) == 0 {
		found.Drift = []string{fmt.Sprintf("chain settings is not as it was installed (%v): what the table should be cannot be told", err)}
		return found, nil
	}
	if table.Flags != 0 {
		found.Drift = append(found.Drift, "the table has flags: it may be dormant, and do nothing")
	}
	for _, want := range Plan(found.Settings, f).Chains {
		has, is := chains[want.Name]
		delete(chains, want.Name)
		if !is && want.Optional {
			found.Lacks = append(found.Lacks, want.Name)
			continue
		}
		if !is {
			found.Drift = append(found.Drift, "chain "+want.Name+" is gone")
			continue
		}
		if !sameHook(has, want.kernel(table)) {
			found.Drift = append(found.Drift, "chain "+want.Name+" is of another hook, priority or policy")
		}
		drift, err := want.drift(table, rules[want.Name])
		if err != nil {
			return nil, err
		}
		found.Drift = append(found.Drift, drift...)
	}
	for name := range chains {
		found.Drift = append(found.Drift, "chain "+name+" is somebody else's")
	}
	slices.Sort(found.Drift)
	return found, nil
}

func sameHook(a, b *nftables.Chain) bool {
	return a.Type == b.Type && equal(a.Hooknum, b.Hooknum) && equal(a.Priority, b.Priority) && equal(a.Policy, b.Policy)
}

func equal[T comparable](a, b *T) bool { return a == b || a != nil && b != nil && *a == *b }

// drift is how the rules of a chain differ from those that it should have.
func (c Chain) drift(table *nftables.Table, has []*nftables.Rule) ([]string, error) {
	var drift []string
	missing, order := map[string][]Rule{}, []string{}
	for _, r := range c.Rules {
		print, err := fingerprint(r.kernel(table, nil))
		if err != nil {
			return nil, err
		}
		missing[print] = append(missing[print], r)
		order = append(order, print)
	}
	var seen []string
	for _, r := range has {
		print, err := fingerprint(r)
		if err != nil {
			return nil, err
		}
		seen = append(seen, print)
		if left := missing[print]; len(left) > 0 {
			missing[print] = left[1:]
		} else {
			drift = append(drift, fmt.Sprintf("chain %s has a rule that is somebody else's, handle %d", c.Name, r.Handle))
		}
	}
	for _, left := range missing {
		for _, r := range left {
			drift = append(drift, fmt.Sprintf("chain %s has lost its rule: %s", c.Name, r))
		}
	}
	if len(drift) == 0 && !slices.Equal(seen, order) {
		drift = append(drift, "chain "+c.Name+" has its rules in another order")
	}
	return drift, nil
}
