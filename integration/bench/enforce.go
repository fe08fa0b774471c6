package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"syscall"
	"time"
)

// What proxies are asked for: by so many clients, in so many turns each.
const (
	enforceRounds = 10
	openers       = 32 // that open one connection after the other
)

// The proxies that are compared.
const (
	ours    = "node_agent"
	haproxy = "HAProxy"
	bareGo  = "barest Go pair"
)

var contenders = []string{ours, haproxy, bareGo}

// enforcement measures what it costs to have connections carried by two agents
// that enforce policy, beside two HAProxys and the barest two proxies in Go. All
// have ECDSA P-256 certificates of one root, and no TLS session is resumed.
func (b *bench) enforcement(ctx context.Context) error {
	rig, err := newEnforceRig(filepath.Join(b.dir, "enforce"))
	if err != nil {
		return err
	}
	defer rig.close()
	for _, measure := range []func(context.Context, *enforceRig) error{b.bulk, b.opening, b.added, b.lookUps, b.resting} {
		if err := errors.Join(measure(ctx, rig), rig.stopAll()); err != nil {
			return err
		}
	}
	return nil
}

// result is what a pair did in its turns.
type result struct {
	series
	cpu time.Duration // that both proxies have used
}

// each is the processor time for one of what was done.
func (r *result) each() time.Duration { return r.cpu / time.Duration(len(r.took)) }

// turns has the contenders do something in turns.
func turns(rig *enforceRig, w wire, do func(p *pair) ([]time.Duration, error)) (map[string]*result, error) {
	pairs, err := rig.startAll(w)
	if err != nil {
		return nil, err
	}
	results := map[string]*result{ours: {}, haproxy: {}, bareGo: {}}
	for range enforceRounds {
		for _, name := range contenders {
			if err := results[name].take(func() ([]time.Duration, error) { return do(pairs[name]) }); err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
		}
	}
	for _, name := range contenders {
		if results[name].cpu, err = pairs[name].cpu(); err != nil {
			return nil, err
		}
	}
	return results, rig.stopAll()
}

// beat tells how node_agent did beside the others, at a rate times unit.
func (b *bench) beat(what string, results map[string]*result, unit float64, goals map[string]string) {
	said := func(name string) string {
		return fmt.Sprintf("%.0f, CPU %s each", results[name].rate()*unit, time.Duration(float64(results[name].each())/unit).Round(time.Microsecond))
	}
	for _, other := range []string{haproxy, bareGo} {
		b.add(what, said(ours), said(other)+" "+other, results[ours].beside(results[other].series), goals[other])
	}
}

// bulk is what an application sends as fast as it is taken.
func (b *bench) bulk(_ context.Context, rig *enforceRig) error {
	progress("bulk through two proxies, over mTLS and plain")
	mtls, plain := map[string]string{haproxy: "at least 1.4", bareGo: "at least 0.9"}, map[string]string{haproxy: "at least 1", bareGo: "at least 0.9"}
	for _, kind := range []struct {
		what        string
		wire        wire
		connections int
		goals       map[string]string
	}{
		{"over mTLS", wire{mtls: true}, 1, mtls},
		{"over mTLS", wire{mtls: true}, 4, mtls},
		{"over mTLS", wire{mtls: true}, 32, mtls},
		{"in plain text", wire{}, 4, plain},
	} {
		results, err := turns(rig, kind.wire, func(p *pair) ([]time.Duration, error) { return stream(p.address, kind.connections) })
		if err != nil {
			return err
		}
		b.beat(fmt.Sprintf("bulk through two agents %s, connections: %d, MB/s", kind.what, kind.connections), results, chunk/1e6, kind.goals)
	}
	return nil
}

// opening is how many connections are opened, used once and closed in a second.
func (b *bench) opening(_ context.Context, rig *enforceRig) error {
	progress("new connections through two proxies, by %d clients", openers)
	results, err := turns(rig, wire{mtls: true}, func(p *pair) ([]time.Duration, error) { return open(p.address) })
	if err != nil {
		return err
	}
	b.beat("new mTLS connections through two agents, a second", results, 1, map[string]string{haproxy: "at least 1.2", bareGo: "at least 0.9"})
	return nil
}

// added is how much later an answer comes than from the application itself.
func (b *bench) added(_ context.Context, rig *enforceRig) error {
	progress("requests on a warm connection through two proxies, and without them")
	pairs, err := rig.startAll(wire{mtls: true})
	if err != nil {
		return err
	}
	var half, most = map[string][]float64{}, map[string][]float64{} // of each turn, in µs
	for range enforceRounds {
		direct, err := request(rig.app)
		if err != nil {
			return err
		}
		for _, name := range contenders {
			took, err := request(pairs[name].address)
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			half[name] = append(half[name], micros(percentile(took, 50)-percentile(direct, 50)))
			most[name] = append(most[name], micros(percentile(took, 99)-percentile(direct, 99)))
		}
	}
	said := func(name string) string {
		return fmt.Sprintf("p50 %.0fµs, p99 %.0fµs", middle(half[name]), middle(most[name]))
	}
	for _, other := range []string{haproxy, bareGo} {
		b.add("added to a request by two agents over mTLS", said(ours), said(other)+" "+other,
			fmt.Sprintf("%.2f", middle(half[ours])/middle(half[other])), "p50 below 60µs, p99 below 1ms")
	}
	return nil
}

func percentile(took []time.Duration, percent int) time.Duration {
	sorted := slices.Sorted(slices.Values(took))
	return sorted[len(sorted)*percent/100]
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

// manyServices are those of the policy whose look-ups must not show.
const manyServices = 10_000

// lookUps profiles both agents while they open connections, each to another of
// many services: for the first time, and when all have been called before.
func (b *bench) lookUps(_ context.Context, rig *enforceRig) error {
	progress("profiles of new connections, to %d services in turn", manyServices)
	for _, before := range []struct {
		what        string
		connections int
		goal        string
	}{{"first", 0, "-"}, {"further", manyServices, "below 1 %"}} {
		p, err := rig.start(ours, wire{mtls: true, services: manyServices, profile: true})
		if err != nil {
			return err
		}
		one, err := hold(p.address, 1) // so that both have started
		closeConns(one)
		if err := errors.Join(err, openAll(p.address, before.connections)); err != nil {
			return err
		}
		if err := p.startProfile(); err != nil {
			return err
		}
		if err := openAll(p.address, manyServices); err != nil {
			return err
		}
		if err := rig.stopAll(); err != nil { // which writes the profiles
			return err
		}
		for _, one := range []*proxy{p.out, p.in} {
			share, samples, err := one.lookUps()
			if err != nil {
				return err
			}
			b.add(fmt.Sprintf("policy look-ups in a profile, %s connections to %d services, %s", before.what, manyServices, one.direction),
				fmt.Sprintf("%.1f %%", 100*share), fmt.Sprintf("%d samples", samples), "-", before.goal)
		}
	}
	return nil
}

// openAll opens at least so many connections.
func openAll(address string, n int) error {
	for n > 0 {
		took, err := open(address)
		if err != nil {
			return err
		}
		n -= len(took)
	}
	return nil
}

// resting is what the proxies hold for connections on which nothing happens: one
// pair after the other, for a process may not open files enough for all.
func (b *bench) resting(ctx context.Context, rig *enforceRig) error {
	n, err := affordable(b.agents)
	if err != nil {
		return err
	}
	progress("%d connections through each pair, which rest for %s, exchange %d bytes each, and rest again", n, restFor, exchanged)
	fresh, used := map[string]map[string]float64{}, map[string]map[string]float64{}
	for _, name := range contenders {
		p, err := rig.start(name, wire{mtls: true})
		if err != nil {
			return err
		}
		if fresh[name], used[name], err = rested(ctx, p, n); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if err := rig.stopAll(); err != nil {
			return err
		}
	}
	for _, direction := range []string{outbound, inbound} {
		for _, kind := range []struct {
			what string
			each map[string]map[string]float64
		}{{"", fresh}, {fmt.Sprintf(" that have exchanged %d bytes", exchanged), used}} {
			mine := kind.each[ours][direction]
			for _, other := range []string{haproxy, bareGo} {
				b.add(fmt.Sprintf("memory for each of %d idle mTLS connections%s, %s", n, kind.what, direction), fmt.Sprintf("%.1f KiB", mine),
					fmt.Sprintf("%.1f KiB %s", kind.each[other][direction], other), fmt.Sprintf("%.2f", mine/kind.each[other][direction]), "below 40 KiB")
			}
		}
	}
	return nil
}

// affordable is how many connections a process can carry of those that are wished
// for: each takes two files.
func affordable(wished int) (int, error) {
	if allowFiles(uint64(2*wished)+spareFiles) == nil {
		return wished, nil
	}
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 0, err
	}
	if limit.Cur <= 2*spareFiles {
		return 0, fmt.Errorf("only %d files may be open at once: raise the limit (ulimit -Hn)", limit.Cur)
	}
	return int(limit.Cur-spareFiles) / 2, nil
}

// rested is by how much each side of a pair has grown, in KiB, for each of n
// connections that have had a rest: after one request, and after a larger exchange.
func rested(ctx context.Context, p *pair, n int) (fresh, used map[string]float64, err error) {
	first, err := hold(p.address, 1) // so that what all connections share is there
	defer closeConns(first)
	if err != nil {
		return nil, nil, err
	}
	before, err := p.resident()
	if err != nil {
		return nil, nil, err
	}
	conns, err := hold(p.address, n)
	defer closeConns(conns)
	if err != nil {
		return nil, nil, err
	}
	if fresh, err = p.grown(ctx, before, n); err != nil {
		return nil, nil, err
	}
	for _, c := range conns {
		if err := exchange(c); err != nil {
			return nil, nil, err
		}
	}
	used, err = p.grown(ctx, before, n)
	return fresh, used, err
}

// grown is what was added to the memory of before, for each of n, after a rest.
func (p *pair) grown(ctx context.Context, before map[string]int64, n int) (map[string]float64, error) {
	select {
	case <-time.After(restFor):
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	after, err := p.resident()
	each := map[string]float64{}
	for direction := range after {
		each[direction] = float64(after[direction]-before[direction]) / float64(n) / (1 << 10)
	}
	return each, err
}
