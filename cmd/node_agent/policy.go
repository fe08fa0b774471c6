package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"citadel/ca/caclient"
	"citadel/nodeagent"
	"citadel/nodeagent/certdir"
	"citadel/nodeagent/policycache"
)

// policyName is the file, beside the agent's other state, that holds what the CA
// said of mTLS policy last.
const policyName = "policy"

// longestPolicy is what that file may hold.
const longestPolicy = 512 << 20

// policyWatch keeps the policy of this host. Nil where --policy is off.
type policyWatch struct {
	*policycache.Cache
	p     *process
	again chan struct{}

	mu        sync.Mutex
	known     bool   // guarded by mu: the log knows of a policy
	last      string // guarded by mu: the error that was logged last
	unread    string // guarded by mu: kinds of which the log says that the CA does not hear of them
	notServed bool   // guarded by mu: the log knows that the CA serves none
}

// newPolicyWatch reads what was kept.
func (p *process) newPolicyWatch() *policyWatch {
	kept := state{p.cfg.stateDir}
	path := filepath.Join(kept.folder, policyName)
	cache, err := policycache.Open(p.identity(), func() ([]byte, error) { return readPolicy(path) },
		func(text []byte) error { return kept.write(policyName, text) })
	w := &policyWatch{Cache: cache, p: p, again: make(chan struct{}, 1)}
	if err != nil {
		p.log.Error("policy", "err", err, "file", path)
	}
	if s := cache.Status(time.Now()); s.Source == policycache.Disk {
		w.known = true
		p.log.Info("policy of the last run", "version", s.Version, "objects", s.Objects, "age", time.Since(s.Heard).Round(time.Second).String())
	} else {
		level := slog.LevelInfo
		if p.cfg.enforce != nil {
			level = slog.LevelWarn
		}
		p.log.Log(context.Background(), level, "there is no policy yet: until the CA sends one, this host's services are STRICT, and may call nobody")
	}
	return w
}

// identity is that of the certificate that the host has, be it expired; zero for
// none.
func (p *process) identity() spiffeid.ID {
	held, err := p.cfg.dir.Load()
	if err != nil {
		return spiffeid.ID{} // the agent tells why when it uses them
	}
	return held.SVID.ID
}

// readPolicy reads a file that only this agent may have written.
func readPolicy(path string) ([]byte, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	if err := ours(info, os.Geteuid()); err != nil {
		return nil, &fs.PathError{Op: "read", Path: path, Err: err}
	}
	return os.ReadFile(path)
}

// ours tells why a file may be another's than this user's or root's.
func ours(info fs.FileInfo, user int) error {
	owner := int(info.Sys().(*syscall.Stat_t).Uid)
	switch {
	case !info.Mode().IsRegular():
		return errors.New("is no regular file")
	case owner != user && owner != 0:
		return fmt.Errorf("belongs to user %d, and this agent is user %d", owner, user)
	case info.Mode().Perm()&0o022 != 0:
		return fmt.Errorf("others may write it (mode %#o)", info.Mode().Perm())
	case info.Size() > longestPolicy:
		return fmt.Errorf("is larger than %d bytes", longestPolicy)
	}
	return nil
}

// run keeps it as the CA says.
func (w *policyWatch) run(ctx context.Context) {
	w.Run(ctx, policycache.Watch{Config: w.config, Policy: watchPolicy, Again: w.again, Tell: w.tell})
}

// config proves who asks by the certificate of the files.
func (w *policyWatch) config() (caclient.Config, bool) {
	held, err := w.p.cfg.dir.Load()
	if err != nil || !w.p.agent.Status().Valid(time.Now()) {
		return caclient.Config{}, false
	}
	return caclient.Config{Address: w.p.agent.Status().CA, ServerName: w.p.cfg.serverName, Roots: held.Roots.X509Authorities(), Certificate: certificateOf(held)}, true
}

func certificateOf(held certdir.Set) *tls.Certificate {
	cert := &tls.Certificate{PrivateKey: held.SVID.PrivateKey, Leaf: held.SVID.Certificates[0]}
	for _, c := range held.SVID.Certificates {
		cert.Certificate = append(cert.Certificate, c.Raw)
	}
	return cert
}

// watchPolicy asks on a connection of its own, with the proof of its time.
func watchPolicy(ctx context.Context, cfg caclient.Config, held caclient.PolicyHeld, told func(caclient.PolicyUpdate) error) error {
	client, err := caclient.New(cfg)
	if err != nil {
		return err
	}
	defer client.Close()
	return client.WatchPolicy(ctx, held, told)
}

// rewatch uses another certificate, or other roots, from now on.
func (w *policyWatch) rewatch() {
	if w == nil {
		return
	}
	select {
	case w.again <- struct{}{}:
	default:
	}
}

// tell logs the first policy, and what is wrong, once.
func (w *policyWatch) tell(err error) {
	s := w.Status(time.Now())
	w.mu.Lock()
	defer w.mu.Unlock()
	if err == nil {
		if !w.known || w.last != "" {
			w.p.log.Info("policy from the CA", "version", s.Version, "generation", s.Generation, "objects", s.Objects)
		}
		w.known, w.last, w.notServed = true, "", false
		w.tellUnread(strings.Join(s.Unread, ", "))
		w.p.log.Debug("policy", "version", s.Version, "objects", s.Objects)
		return
	}
	if policycache.NotServed(err) {
		if !w.notServed {
			w.p.log.Info("the CA serves no policy (citadel --policy)", "source", s.Source, "version", s.Version)
		}
		w.last, w.notServed = "", true
		return
	}
	if err.Error() == w.last {
		return
	}
	w.last = err.Error()
	if s.Source == policycache.None {
		w.p.log.Warn("there is no policy: this host's services are STRICT, and may call nobody", "err", err)
		return
	}
	if policycache.NotKept(err) {
		w.p.log.Warn("policy counts, and is not kept", "err", err)
		return
	}
	w.p.log.Warn("policy stays as it was", "err", err, "age", time.Since(s.Heard).Round(time.Second).String())
}

// tellUnread logs which kinds the CA does not hear of, when they are others. The
// caller holds mu.
func (w *policyWatch) tellUnread(kinds string) {
	switch {
	case kinds == w.unread:
	case kinds == "":
		w.p.log.Info("the CA hears of all that decides about mTLS again")
	default:
		w.p.log.Warn("the CA does not hear of all that decides about mTLS: policy may be old", "unread", kinds)
	}
	w.unread = kinds
}

// status is what node_agent status shows.
type status struct {
	nodeagent.Status
	// Policy is absent where --policy is off.
	Policy *policycache.Status `json:"policy,omitempty"`
	// Enforcement is absent without key enforce of the configuration file.
	Enforcement *enforcementStatus `json:"enforcement,omitempty"`
}

func (p *process) status() status {
	s := status{Status: p.agent.Status()}
	if p.policy != nil {
		of := p.policy.Status(time.Now())
		s.Policy = &of
	}
	if p.enforcing != nil {
		s.Enforcement = p.enforcing.status()
	}
	return s
}

// policyLine is one line about the policy, for people.
func policyLine(s *policycache.Status, now time.Time) string {
	switch {
	case s.Source == policycache.None && s.NotServed:
		return "the CA serves no policy"
	case s.Source == policycache.None:
		return "none: STRICT, and nobody to call"
	}
	line := fmt.Sprintf("%s, %s, %d objects, ", s.Version, s.Generation, s.Objects)
	if s.Watching && len(s.Unread) > 0 {
		return line + "from the CA, which is watched, and does not hear of " + strings.Join(s.Unread, ", ") + ": it may be old"
	}
	if s.Watching {
		return line + "from the CA, which is watched"
	}
	from := map[policycache.Source]string{policycache.CA: "from the CA", policycache.Disk: "from the file of the last run"}[s.Source]
	line += fmt.Sprintf("%s, as of %s ago", from, now.Sub(s.Heard).Round(time.Second))
	if s.NotServed {
		line += "; the CA serves no policy now"
	}
	return line
}
