package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"citadel/nodeagent/enforce"
)

// connectionLog tells of connections: each in the access log, if there is one,
// and those that were refused in the agent's own. There, those that are alike are
// told once in a while with their number, so that a scanner fills no disk.
type connectionLog struct {
	log    *slog.Logger
	access accessLog

	mu    sync.Mutex
	alike map[likeness]*similar // guarded by mu
}

// likeness is what refusals of one line have in common.
type likeness struct {
	direction enforce.Direction
	reason    enforce.Reason // empty for health checks
	service   string
	from      netip.Addr
	by, cause string
}

type similar struct {
	told   time.Time // when there was a line
	more   int       // that came since
	newest enforce.Event
}

const (
	refusalsApart = 10 * time.Second // between two lines of refusals that are alike
	checksApart   = 10 * time.Minute // and of health checks
	mostAlike     = 200              // kinds that are told apart
)

func (k likeness) apart() time.Duration {
	if k.reason == enforce.ReasonNone {
		return checksApart
	}
	return refusalsApart
}

// refused tells whether a connection failed for a reason that somebody can mend:
// that one side goes is the way of connections, unless policy has it go.
func refused(e *enforce.Event) bool {
	switch e.Reason {
	case enforce.ReasonNone, enforce.PeerReset, enforce.Stopped:
		return e.Fix != ""
	}
	return true
}

// observe notes a connection; service is its label in metrics.
func (l *connectionLog) observe(now time.Time, service string, e enforce.Event) {
	l.access.tell(&e)
	key := likeness{e.Direction, e.Reason, service, e.Remote.Addr(), e.By, causeOf(e.Err)}
	if check := e.Way == enforce.WayHealth && e.Reason == enforce.ReasonNone; !refused(&e) && !check {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.alike[key] == nil && len(l.alike) >= mostAlike {
		key = likeness{direction: e.Direction, reason: e.Reason} // of nobody in particular
	}
	before := l.alike[key]
	switch {
	case before == nil && l.alike == nil:
		l.alike = map[likeness]*similar{key: {told: now}}
	case before == nil:
		l.alike[key] = &similar{told: now}
	case now.Sub(before.told) < key.apart():
		before.more++
		before.newest = e
		return
	default:
		l.say(&e, before.more)
		*before = similar{told: now}
		return
	}
	l.say(&e, 0)
}

// causeOf is an error without its numbers, which are of one connection or moment.
func causeOf(err error) string {
	if err == nil {
		return ""
	}
	return strings.Map(func(r rune) rune {
		if '0' <= r && r <= '9' {
			return -1
		}
		return r
	}, err.Error())
}

// flush tells of what was held back, and forgets what is over.
func (l *connectionLog) flush(now time.Time, all bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for key, s := range l.alike {
		if now.Sub(s.told) < key.apart() && !all {
			continue
		}
		if s.more == 0 {
			delete(l.alike, key)
			continue
		}
		l.say(&s.newest, s.more-1)
		*s = similar{told: now}
	}
}

// run tells of what was held back until ctx ends.
func (l *connectionLog) run(ctx context.Context) {
	ticker := time.NewTicker(refusalsApart)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			l.flush(time.Now(), true)
			return
		case now := <-ticker.C:
			l.flush(now, false)
		}
	}
}

// say writes one line; alike is how many more there were of its kind.
func (l *connectionLog) say(e *enforce.Event, alike int) {
	attrs := attrsOf(e)
	if fix := cmp.Or(e.Fix, fixOf(e)); fix != "" {
		attrs = append(attrs, "fix", fix)
	}
	if alike > 0 {
		attrs = append(attrs, "alsoAlike", alike)
	}
	switch {
	case e.Way == enforce.WayHealth && e.Reason == enforce.ReasonNone:
		l.log.Info("health check let in without a certificate", attrs...)
	case e.Way == enforce.WayHealth:
		l.log.Warn("health check failed", attrs...)
	default:
		l.log.Warn("connection refused", attrs...)
	}
}

// fixOf is what mends a refusal that no policy is the cause of.
func fixOf(e *enforce.Event) string {
	switch e.Reason {
	case enforce.TooMany:
		if errors.Is(e.Err, syscall.EMFILE) || errors.Is(e.Err, syscall.ENFILE) {
			return "allow the agent more files (LimitNOFILE= of its unit), or lower enforce.limits.connections"
		}
		return "see who has so many open: ss -tn; or raise enforce.limits.connections, and LimitNOFILE= of the agent's unit where its files are the limit"
	case enforce.TooFast:
		return "raise enforce.limits.handshakesPerSecond if so many are meant to come"
	case enforce.Slow:
		return "raise enforce.limits.header or dial if whoever is slow is meant to be"
	case enforce.UnknownHost:
		return "declare the destination by a ServiceEntry, or set enforce.unknownDestinations to allow"
	case enforce.UntrustedPeer:
		return "on both hosts, node_agent status tells the roots, and until when the certificate is valid"
	case enforce.NoPolicy:
		return fmt.Sprintf("node_agent status tells why there is none; if what the agent itself opens is captured, too, have the redirect leave out its user: node_agent redirect install --exclude-uids %d", os.Getuid())
	case enforce.BadConfiguration:
		return "mend the rule, or the files that it names: they are read for each connection"
	case enforce.NoCertificate:
		return "node_agent status tells why there is none"
	}
	return ""
}

// attrsOf are what there is to say of a connection.
func attrsOf(e *enforce.Event) []any {
	attrs := []any{"direction", string(e.Direction), "remote", e.Remote.String()}
	text := func(key, value string) {
		if value != "" {
			attrs = append(attrs, key, value)
		}
	}
	address := func(key string, value netip.AddrPort) {
		if value.IsValid() {
			attrs = append(attrs, key, value.String())
		}
	}
	address("local", e.Local)
	text("service", e.Service)
	address("upstream", e.Upstream)
	text("mode", e.Mode)
	text("by", e.By)
	text("way", string(e.Way))
	if !e.Peer.IsZero() {
		text("peer", e.Peer.String())
	}
	text("reason", string(e.Reason))
	if e.Err != nil {
		attrs = append(attrs, "err", e.Err.Error())
	}
	return attrs
}

func accessAttrs(e *enforce.Event) []any {
	attrs := append(attrsOf(e), "in", e.In, "out", e.Out, "duration", e.Duration.String())
	if e.Handshake > 0 {
		attrs = append(attrs, "handshake", e.Handshake.String())
	}
	return attrs
}

// toldWriter tells the first error of writing, and again after one that worked.
type toldWriter struct {
	to   io.Writer
	tell func(error)

	mu     sync.Mutex
	failed bool // guarded by mu
}

// Write is of io.Writer.
func (w *toldWriter) Write(b []byte) (int, error) {
	n, err := w.to.Write(b)
	w.mu.Lock()
	defer w.mu.Unlock()
	if err != nil && !w.failed {
		w.tell(err)
	}
	w.failed = err != nil
	return n, err
}
