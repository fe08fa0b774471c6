package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"

	"citadel/ca/authn"
	"citadel/ca/caclient"
	"citadel/ca/statedir"
	"citadel/ca/trust"
	"citadel/integration/cluster"
)

const (
	// hostRounds is how many hosts join, each after one by hand.
	hostRounds = 15
	// idleHosts of them stay, and are looked at over idleTime.
	idleHosts = 3
	idleTime  = time.Minute
	// joinLimit bounds a join: more is no measurement.
	joinLimit = 10 * time.Second
)

// hosts measures what node_agent costs a host, beside a citadel without
// Kubernetes.
func (b *bench) hosts(ctx context.Context) (err error) {
	dir := filepath.Join(b.dir, "hosts")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	state := filepath.Join(dir, "citadel")
	c, err := cluster.StartCitadel(cluster.Run{Binary: filepath.Join(b.bin, "citadel"), Flags: []string{"--state-dir", state}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Stop()) }()
	ready, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := c.Ready(ready); err != nil {
		return err
	}
	progress("%d hosts join, in turns with as many by hand, and %d of them rest for %s", hostRounds, idleHosts, idleTime)
	var agents []*exec.Cmd
	defer func() {
		for _, agent := range agents {
			_ = agent.Process.Kill()
			_ = agent.Wait() // killed
		}
	}()
	var started, byHand []time.Duration
	for i := range hostRounds {
		took, err := joinByHand(ctx, state, c, filepath.Join(dir, fmt.Sprint("by-hand-", i)))
		if err != nil {
			return err
		}
		byHand = append(byHand, took)
		agent, took, err := b.startAgent(ctx, state, c, filepath.Join(dir, fmt.Sprint("host-", i)))
		if agent != nil {
			agents = append(agents, agent)
		}
		if err != nil {
			return err
		}
		started = append(started, took)
		if len(agents) > idleHosts {
			_ = agents[0].Process.Kill()
			_ = agents[0].Wait() // killed
			agents = agents[1:]
		}
	}
	slices.Sort(started)
	slices.Sort(byHand)
	typical, floor := started[hostRounds/2], byHand[hostRounds/2]
	b.add("node_agent, start to certificate on disk", fmt.Sprintf("%s, at most %s", tenth(typical), tenth(started[hostRounds-1])),
		tenth(floor)+" join and write by hand", fmt.Sprintf("%.1f", float64(typical)/float64(floor)), "200ms")
	return b.idleAgentsOn(ctx, agents)
}

func tenth(d time.Duration) string { return d.Round(100 * time.Microsecond).String() }

// idleAgentsOn takes the worst of agents that have nothing to do.
func (b *bench) idleAgentsOn(ctx context.Context, agents []*exec.Cmd) error {
	before := make([]time.Duration, len(agents))
	for i, agent := range agents {
		var err error
		if before[i], err = cpuTime(agent.Process.Pid); err != nil {
			return err
		}
	}
	select {
	case <-time.After(idleTime):
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	var used time.Duration
	var now, most int64
	for i, agent := range agents {
		after, err := cpuTime(agent.Process.Pid)
		if err != nil {
			return err
		}
		held, err := residentMemory(agent.Process.Pid, residentNow)
		if err != nil {
			return err
		}
		peak, err := residentMemory(agent.Process.Pid, residentMost)
		if err != nil {
			return err
		}
		used, now, most = max(used, after-before[i]), max(now, held), max(most, peak)
	}
	b.add("node_agent, resident memory", fmt.Sprintf("%.1f MiB, at most %.1f MiB", float64(now)/(1<<20), float64(most)/(1<<20)), "-", "-", "25 MiB")
	b.add(fmt.Sprintf("node_agent, processor time in %s of rest", idleTime), fmt.Sprintf("%s, %.2f %% of a core", used, 100*used.Seconds()/idleTime.Seconds()),
		fmt.Sprintf("%s is what the kernel counts in", clockTick), "-", "0.1 %")
	return nil
}

// invite makes a join token of one use.
func invite(ctx context.Context, state string, c *cluster.Citadel) (join caclient.Join, err error) {
	d, err := statedir.Beside(state)
	if err != nil {
		return join, err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	roots, err := d.Roots()
	if err != nil {
		return join, err
	}
	token, bearer, err := authn.NewJoinToken(time.Now(), "vm", "web", time.Hour, 1)
	if err == nil {
		err = d.JoinTokens().Create(ctx, token)
	}
	return caclient.Join{Address: apiAddress(c), Fingerprints: []string{caclient.Fingerprint(roots[0])}, Bearer: bearer}, err
}

// startAgent is how long an agent takes from its start to a certificate in a
// folder that is made for it. The process is returned where there is one, and
// dies with this one.
func (b *bench) startAgent(ctx context.Context, state string, c *cluster.Citadel, dir string) (*exec.Cmd, time.Duration, error) {
	join, err := invite(ctx, state, c)
	if err != nil {
		return nil, 0, err
	}
	port, err := cluster.FreePort()
	if err != nil {
		return nil, 0, err
	}
	in := func(name string) string { return filepath.Join(dir, name) }
	if err := errors.Join(os.MkdirAll(in("state"), 0o700), os.WriteFile(in("token"), []byte(join.Encode()), 0o600)); err != nil {
		return nil, 0, err
	}
	agent := exec.Command(filepath.Join(b.bin, "node_agent"), "--join-token-file", in("token"), "--state-dir", in("state"), "--control-socket", in("control"),
		"--monitoring-port", strconv.Itoa(port), "--key", in("key.pem"), "--cert-chain", in("cert-chain.pem"), "--root-cert", in("root-cert.pem"))
	agent.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	begin := time.Now()
	if err := agent.Start(); err != nil {
		return nil, 0, err
	}
	for time.Since(begin) < joinLimit {
		if _, err := os.Stat(in("cert-chain.pem")); err == nil {
			return agent, time.Since(begin), nil
		}
		select {
		case <-time.After(200 * time.Microsecond):
		case <-ctx.Done():
			return agent, 0, context.Cause(ctx)
		}
	}
	return agent, 0, fmt.Errorf("node_agent has no certificate after %s: run it with the flags %q", joinLimit, agent.Args[1:])
}

// joinByHand is how long the same takes this process, which runs already: a key,
// a request, a connection, and three files.
func joinByHand(ctx context.Context, state string, c *cluster.Citadel, dir string) (time.Duration, error) {
	join, err := invite(ctx, state, c)
	if err == nil {
		err = os.Mkdir(dir, 0o700)
	}
	if err != nil {
		return 0, err
	}
	begin := time.Now()
	key, csr, err := newCSR()
	if err != nil {
		return 0, err
	}
	client, err := caclient.New(caclient.Config{Address: join.Address, Fingerprints: join.Fingerprints, Token: join.Bearer})
	if err != nil {
		return 0, err
	}
	defer client.Close()
	issued, err := client.Sign(ctx, csr, time.Hour)
	if err != nil {
		return 0, err
	}
	pem, err := trust.MarshalKey(key)
	for name, text := range map[string][]byte{"key.pem": pem, "cert-chain.pem": trust.MarshalCertificates(issued.Chain), "root-cert.pem": trust.MarshalCertificates(issued.Roots)} {
		err = errors.Join(err, writeSynced(filepath.Join(dir, name), text))
	}
	return time.Since(begin), err
}

func writeSynced(path string, text []byte) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(text)
	return errors.Join(err, file.Sync(), file.Close())
}
