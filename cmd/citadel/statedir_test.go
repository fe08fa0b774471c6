package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spf13/pflag"

	"citadel/ca"
	"citadel/ca/authn"
	"citadel/ca/caclient"
	"citadel/ca/catest"
	"citadel/ca/statedir"
	"citadel/ca/trust"
	"citadel/cmd/internal/daemon"
)

// site is a citadel without Kubernetes: the real command, on a directory.
type site struct {
	dir, address, monitor string
	cmd                   *exec.Cmd
	log                   *output
	ended                 chan error
}

// patience bounds each wait for something that surely comes.
const patience = 30 * time.Second

// startSite returns when citadel is ready.
func startSite(t *testing.T, dir string, flags ...string) *site {
	t.Helper()
	s := launchSite(t, dir, flags...)
	s.within(t, func() error {
		_, err := s.page("/readyz")
		if err == nil {
			var conn net.Conn
			if conn, err = net.Dial("tcp", s.address); err == nil {
				conn.Close()
			}
		}
		return err
	})
	return s
}

func launchSite(t *testing.T, dir string, flags ...string) *site {
	t.Helper()
	api, monitoring := freePort(t), freePort(t)
	s := &site{dir: dir, address: "127.0.0.1:" + api, monitor: "http://127.0.0.1:" + monitoring, log: &output{}, ended: make(chan error, 1)}
	s.cmd = exec.CommandContext(t.Context(), "citadel", // TestMain put it into the path
		append([]string{"--state-dir", dir, "--grpc-port", api, "--monitoring-port", monitoring}, flags...)...)
	s.cmd.Stdout, s.cmd.Stderr = s.log, s.log
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { s.ended <- s.cmd.Wait(); close(s.ended) }()
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("citadel said\n%s", s.log)
		}
	})
	return s
}

// freePort looks below the ports that the kernel gives to connections.
func freePort(t *testing.T) string {
	t.Helper()
	for range 100 {
		port := strconv.Itoa(20000 + rand.IntN(12000))
		if l, err := net.Listen("tcp", ":"+port); err == nil {
			l.Close()
			return port
		}
	}
	t.Fatal("no port is free")
	return ""
}

// within tries until there is no error.
func (s *site) within(t *testing.T, try func() error) {
	t.Helper()
	limit := time.After(patience)
	for {
		err := try()
		if err == nil {
			return
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case end := <-s.ended:
			t.Fatalf("citadel ended: %v\n%s", end, s.log)
		case <-limit:
			t.Fatal(err)
		}
	}
}

func (s *site) page(path string) (string, error) {
	resp, err := http.Get(s.monitor + path)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", resp.Status, text)
	}
	return string(text), err
}

func (s *site) stop(t *testing.T) {
	t.Helper()
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := <-s.ended; err != nil {
		t.Errorf("ended with %v", err)
	}
}

func (s *site) kill(t *testing.T) {
	t.Helper()
	if err := s.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-s.ended
}

// tool opens the directory as citadelctl does beside citadel.
func (s *site) tool(t *testing.T) *statedir.Dir {
	t.Helper()
	d, err := statedir.Beside(s.dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

// fingerprint is that of the root, as a person carries it to a host.
func (s *site) fingerprint(t *testing.T) string {
	t.Helper()
	roots, err := s.tool(t).Roots()
	if err != nil {
		t.Fatal(err)
	}
	return caclient.Fingerprint(roots[0])
}

// joinToken makes a token of one use, and returns its ID and bearer text.
func (s *site) joinToken(t *testing.T) (id, bearer string) {
	t.Helper()
	token, bearer, err := authn.NewJoinToken(time.Now(), "vm", "web", time.Hour, 1)
	if err = errors.Join(err, s.tool(t).JoinTokens().Create(t.Context(), token)); err != nil {
		t.Fatal(err)
	}
	return token.ID, bearer
}

// sign asks once, for a key of that name.
func (s *site) sign(t *testing.T, cfg caclient.Config, key string) (caclient.Issued, error) {
	t.Helper()
	cfg.Address = s.address
	client, err := caclient.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	return client.Sign(ctx, catest.CSR(t, catest.Key(t, trust.ECDSAP256, key)), time.Hour)
}

// pair is what a host has after it was issued a certificate for a key.
func pair(t *testing.T, issued caclient.Issued, key string) *tls.Certificate {
	t.Helper()
	pair := &tls.Certificate{PrivateKey: catest.Key(t, trust.ECDSAP256, key)}
	for _, cert := range issued.Chain {
		pair.Certificate = append(pair.Certificate, cert.Raw)
	}
	return pair
}

// TestSiteWithoutKubernetes: a host joins by fingerprint and token, whatever the
// flag says of names (compatibility 5.1), citadel is started anew, and the host
// renews with what it got: the root is the same.
func TestSiteWithoutKubernetes(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "state")
	s := startSite(t, dir, "--trust-domain", "example.org", "--grpc-host-identities", "ca.example.org")
	id, bearer := s.joinToken(t)
	join := caclient.Config{Fingerprints: []string{s.fingerprint(t)}, Token: bearer}
	issued, err := s.sign(t, join, "host")
	if err != nil || issued.Chain[0].URIs[0].String() != "spiffe://example.org/ns/vm/sa/web" {
		t.Fatalf("%v, %v", issued.Chain, err)
	}
	if _, err := s.sign(t, join, "another host"); err == nil || !strings.Contains(err.Error(), "join token "+id+" has been used (1 of 1)") {
		t.Errorf("used twice: %v", err)
	}
	for page, want := range map[string]string{"/healthz": "", "/readyz": "", "/metrics": "citadel_server_success_cert_issuance_count 1\n", "/version": ""} {
		if text, err := s.page(page); err != nil || !strings.Contains(text, want) {
			t.Errorf("%s: %v, %s", page, err, text)
		}
	}
	s.stop(t)

	s = startSite(t, dir, "--trust-domain", "example.org")
	renewed, err := s.sign(t, caclient.Config{Roots: issued.Roots, Certificate: pair(t, issued, "host")}, "host's next")
	if err != nil || renewed.Chain[0].URIs[0].String() != "spiffe://example.org/ns/vm/sa/web" || !trust.SameRoots(renewed.Roots, issued.Roots) {
		t.Fatalf("%v, %v", renewed.Chain, err)
	}
	// The use was counted; the host whose answer was lost may ask again.
	if _, err := s.sign(t, join, "another host"); err == nil || !strings.Contains(err.Error(), "has been used") {
		t.Errorf("used twice: %v", err)
	}
	if _, err := s.sign(t, join, "host"); err != nil {
		t.Errorf("asked again: %v", err)
	}
	info, err := os.Stat(filepath.Join(dir, statedir.AuditLog))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the audit log: %v, %v", info, err)
	}
	text, err := os.ReadFile(filepath.Join(dir, statedir.AuditLog))
	if err != nil || strings.Contains(string(text), bearer) || strings.Contains(s.log.String(), bearer) {
		t.Errorf("the secret is told, or %v", err)
	}
	methods := map[string]int{}
	for line := range bytes.Lines(text) {
		var r ca.AuditRecord
		if err := json.Unmarshal(line, &r); err != nil {
			t.Errorf("%q: %v", line, err)
		}
		if r.Stage == ca.AuditSigned {
			methods[r.Method]++
		}
	}
	if methods["join token"] != 2 || methods["client certificate"] != 1 {
		t.Errorf("issued by %v", methods)
	}
	s.stop(t)
}

// TestBansAndRevocationsCountBesideCitadel: what a tool changes counts within
// 5 s, or at once.
func TestBansAndRevocationsCountBesideCitadel(t *testing.T) {
	t.Parallel()
	s := startSite(t, filepath.Join(t.TempDir(), "state"))
	id, bearer := s.joinToken(t)
	join := caclient.Config{Fingerprints: []string{s.fingerprint(t)}, Token: bearer}
	issued, err := s.sign(t, join, "host")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.tool(t).JoinTokens().Revoke(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if _, err := s.sign(t, join, "host"); err == nil || !strings.Contains(err.Error(), "is not known here, or was revoked") {
		t.Errorf("revoked: %v", err)
	}
	whom := issued.Chain[0].URIs[0].String()
	if err := s.tool(t).EditBans(t.Context(), func(l ca.BanList) error { l[whom] = ca.Ban{Reason: "stolen"}; return nil }); err != nil {
		t.Fatal(err)
	}
	banned := time.Now()
	s.within(t, func() error {
		_, err := s.sign(t, caclient.Config{Roots: issued.Roots, Certificate: pair(t, issued, "host")}, "host's next")
		if err == nil || !strings.Contains(err.Error(), "is banned (stolen)") {
			return fmt.Errorf("banned: %v", err)
		}
		return nil
	})
	if took := time.Since(banned); took > bansEvery+5*time.Second {
		t.Errorf("the ban counted after %s", took)
	}
	// A list that is damaged lifts no ban.
	if err := os.WriteFile(filepath.Join(s.dir, "bans.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.within(t, func() error {
		if !strings.Contains(s.log.String(), "bans.json is damaged") {
			return errors.New("the damage is not told")
		}
		return nil
	})
	if _, err := s.sign(t, caclient.Config{Roots: issued.Roots, Certificate: pair(t, issued, "host")}, "host's next"); err == nil || !strings.Contains(err.Error(), "is banned (stolen)") {
		t.Errorf("banned: %v", err)
	}
	s.stop(t)
}

// TestOneCitadelForADirectory: a second ends with a message that names the
// first; after the first was killed there is room, and the same root.
func TestOneCitadelForADirectory(t *testing.T) {
	t.Parallel()
	s := startSite(t, filepath.Join(t.TempDir(), "state"))
	was := s.fingerprint(t)
	second := launchSite(t, s.dir)
	err := <-second.ended
	exit, ok := errors.AsType[*exec.ExitError](err)
	if want := fmt.Sprintf("--state-dir: %s is in use by another citadel (process %d): stop that one", s.dir, s.cmd.Process.Pid); !ok ||
		exit.ExitCode() != daemon.ExitFailure || !strings.Contains(second.log.String(), want) {
		t.Errorf("%v: %s", err, second.log)
	}
	s.kill(t)
	third := startSite(t, s.dir)
	if now := third.fingerprint(t); now != was {
		t.Error("another root")
	}
	third.stop(t)
}

// TestFirstStartsTogether: of several that start where there is no directory yet
// one serves, and there is one root.
func TestFirstStartsTogether(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "state")
	const starts = 4
	ends := make(chan *site, starts)
	for range starts {
		s := launchSite(t, dir)
		go func() { <-s.ended; ends <- s }()
	}
	for range starts - 1 {
		if s := <-ends; !strings.Contains(s.log.String(), dir+" is in use by another citadel") {
			t.Errorf("one ended otherwise: %s", s.log)
		}
	}
	select {
	case s := <-ends:
		t.Errorf("the last one ended too: %s", s.log)
	default:
	}
	d, err := statedir.Beside(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	limit := time.After(patience)
	for {
		if roots, err := d.Roots(); err == nil && len(roots) == 1 && d.HoldsRoot(roots[0]) == nil {
			return
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-limit:
			t.Fatal("there is not one root")
		}
	}
}

// TestParallelJoinsAtADirectory: one token, many hosts, one of them joins.
func TestParallelJoinsAtADirectory(t *testing.T) {
	t.Parallel()
	s := startSite(t, filepath.Join(t.TempDir(), "state"), "--grpc-caller-rate=0")
	_, bearer := s.joinToken(t)
	join := caclient.Config{Fingerprints: []string{s.fingerprint(t)}, Token: bearer}
	const hosts = 16
	won := make(chan bool, hosts)
	for i := range hosts {
		key := fmt.Sprint("host ", i)
		catest.Key(t, trust.ECDSAP256, key)
		go func() {
			_, err := s.sign(t, join, key)
			if err != nil && !strings.Contains(err.Error(), "has been used (1 of 1)") {
				t.Error(err)
			}
			won <- err == nil
		}()
	}
	winners := 0
	for range hosts {
		if <-won {
			winners++
		}
	}
	if winners != 1 {
		t.Errorf("%d joined", winners)
	}
	s.stop(t)
}

// TestOperatorsCAAtADirectory: with the files of flags no root is made.
func TestOperatorsCAAtADirectory(t *testing.T) {
	t.Parallel()
	files, _, issuing := operatorsCA(t, time.Now(), "issuing")
	s := startSite(t, filepath.Join(t.TempDir(), "state"), append(files, "--audit-log=-")...)
	_, bearer := s.joinToken(t)
	roots := issuing.Signer(t, time.Now()).Roots()
	issued, err := s.sign(t, caclient.Config{Fingerprints: []string{caclient.Fingerprint(roots[0])}, Token: bearer}, "host")
	if err != nil || !trust.SameRoots(issued.Roots, roots) {
		t.Errorf("%v", err)
	}
	for _, name := range []string{"ca-cert.pem", "ca-key.pem", statedir.AuditLog} {
		if _, err := os.Stat(filepath.Join(s.dir, name)); err == nil {
			t.Errorf("%s was made", name)
		}
	}
	if !strings.Contains(s.log.String(), `"method":"join token"`) {
		t.Error("no audit records on standard output")
	}
	s.stop(t)
}

// TestNothingOfAClusterWithoutOne: no client, no controller, and no proofs that
// an API server would have to check.
func TestNothingOfAClusterWithoutOne(t *testing.T) {
	for want, flags := range map[string][]string{
		"client certificate, join token":             {"--server-only"},
		"client certificate, join token, OIDC token": {"--oidc-issuer=https://issuer.example.org"},
	} {
		dir := filepath.Join(t.TempDir(), "state")
		c, err := configureIn(t, append(flags, "--state-dir", dir)...)
		if err != nil {
			t.Fatal(err)
		}
		if c.client != nil || !c.serverOnly || c.auditLog != filepath.Join(dir, "audit.log") || len(c.advice()) > 0 {
			t.Errorf("client %v, server only %v, audit log %s, advice %v", c.client, c.serverOnly, c.auditLog, c.advice())
		}
		proofs, err := newProcess(c, quiet(), &auditStream{}).newProofs(stores{})
		if err != nil {
			t.Fatal(err)
		}
		var kinds []string
		for _, proof := range proofs.chain {
			kinds = append(kinds, proof.Kind())
		}
		if got := strings.Join(kinds, ", "); got != want || proofs.mayImpersonate != nil {
			t.Errorf("proofs are %s, want %s", got, want)
		}
	}
}

// configureIn reads flags as the command does, without a kubeconfig.
func configureIn(t *testing.T, args ...string) (*config, error) {
	t.Helper()
	flags := daemon.NewFlags("CITADEL_")
	o := newOptions(flags)
	set := pflag.NewFlagSet("citadel", pflag.ContinueOnError)
	flags.AddTo(set)
	if err := set.Parse(args); err != nil {
		t.Fatal(err)
	}
	return o.validate(set)
}

// TestFlagsOfAClusterAreRefused: all but those of this list are the same with a
// directory.
func TestFlagsOfAClusterAreRefused(t *testing.T) {
	for _, name := range append(slices.Clone(inCluster), "server-only") {
		flag := allFlags().Lookup(name)
		if flag == nil {
			t.Errorf("--%s is no flag", name)
			continue
		}
		value := flag.DefValue
		if value == "" {
			value = "a/b"
		}
		_, err := configureIn(t, "--state-dir", filepath.Join(t.TempDir(), "state"), "--"+name+"="+value)
		if err == nil || !strings.Contains(err.Error(), "--"+name+": contradicts --state-dir") {
			t.Errorf("--%s=%s: %v", name, value, err)
		}
	}
}

// TestLostRootIsTold, for as long as it is lost.
func TestLostRootIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var lost atomic.Bool
		var said output
		p := newProcess(&config{options: &options{}}, slog.New(slog.NewTextHandler(&said, nil)), &auditStream{})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go p.watchKept(ctx, kept{place: "/state", holds: func(context.Context) error {
			if lost.Load() {
				return errors.New("gone")
			}
			return nil
		}})
		time.Sleep(time.Second)
		for _, want := range []float64{1, 0, 1} {
			lost.Store(want == 0)
			time.Sleep(keptEvery)
			synctest.Wait()
			if values, _ := scrape(t, p.metrics); values["citadel_ca_secret_in_sync"] != want {
				t.Errorf("in sync %v, want %v", values["citadel_ca_secret_in_sync"], want)
			}
		}
		if strings.Count(said.String(), "level=ERROR") != 1 || !strings.Contains(said.String(), "place=/state err=gone") {
			t.Errorf("it says %s", said.String())
		}
	})
}

// TestRootThatWillNotDo stops the start, with the file's name.
func TestRootThatWillNotDo(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "state")
	startSite(t, dir).stop(t)
	if err := os.Remove(filepath.Join(dir, "ca-key.pem")); err != nil {
		t.Fatal(err)
	}
	s := launchSite(t, dir)
	if err := <-s.ended; err == nil || !strings.Contains(s.log.String(), "ca-key.pem is not: restore it from a backup") {
		t.Errorf("%v: %s", err, s.log)
	}
	if _, err := os.Stat(filepath.Join(dir, "ca-key.pem")); err == nil {
		t.Error("a second root was made")
	}
}
