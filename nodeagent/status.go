package nodeagent

import (
	"strings"
	"time"
	"unicode"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"citadel/ca/caclient"
	"citadel/ca/trust"
)

// Event is something that happened.
type Event struct {
	// What is a few words in the past tense.
	What string
	// By is the proof that a certificate was had with.
	By  string
	Err error
	// Status is that of now.
	Status Status
}

// Status is how a host is supplied.
type Status struct {
	ID        spiffeid.ID `json:"-"`
	Identity  string      `json:"identity"`
	Serial    string      `json:"serial,omitempty"`
	NotBefore time.Time   `json:"notBefore,omitzero"`
	NotAfter  time.Time   `json:"notAfter,omitzero"`
	Roots     int         `json:"roots"`
	CA        string      `json:"ca"`
	// RenewAt is when the certificate is due, and NextTry when the CA is asked
	// next: the same, but after a failure.
	RenewAt     time.Time `json:"renewAt,omitzero"`
	NextTry     time.Time `json:"nextTry,omitzero"`
	LastRenewal time.Time `json:"lastRenewal,omitzero"`
	RenewedBy   string    `json:"renewedBy,omitempty"`
	Renewals    int       `json:"renewals"`
	// Failures in a row, and what the last was; empty when all is well.
	Failures  int    `json:"failures"`
	LastError string `json:"lastError,omitempty"`
	// ReloadOwed: programs have not been made to read the files; and why not.
	ReloadOwed  bool   `json:"reloadOwed"`
	ReloadError string `json:"reloadError,omitempty"`
}

// Valid tells whether programs have a certificate that counts at now.
func (s Status) Valid(now time.Time) bool {
	return !s.NotAfter.IsZero() && !now.After(s.NotAfter) && !now.Before(s.NotBefore)
}

func (a *Agent) observe(e Event) {
	a.tell()
	e.Status = a.Status()
	a.set.Observe(e)
}

// tell brings the status, and what the watch goes by, up to date.
func (a *Agent) tell() {
	s := a.last
	now := wall()
	s.CA, s.Failures, s.ReloadOwed = a.address(), a.failures, a.owed
	s.NextTry = a.nextAsk(now)
	s.ID = a.want()
	if a.held != nil {
		leaf := a.held.SVID.Certificates[0]
		s.ID = a.held.SVID.ID
		s.Serial, s.NotBefore, s.NotAfter = leaf.SerialNumber.Text(16), leaf.NotBefore, leaf.NotAfter
		s.Roots, s.RenewAt = len(a.held.Roots.X509Authorities()), a.dueAt(now)
		cfg := &caclient.Config{Address: a.set.Address, ServerName: a.set.ServerName, Roots: a.held.Roots.X509Authorities()}
		if old := a.watched.Swap(cfg); old != nil && (old.Address != cfg.Address || !trust.SameRoots(old.Roots, cfg.Roots)) {
			select {
			case a.rewatch <- struct{}{}:
			default:
			}
		}
	}
	s.Identity = s.ID.String()
	a.status.Store(&s)
}

// address is the CA's: for a host that has nothing yet, where it tries to join.
func (a *Agent) address() string {
	if a.held == nil && a.dialled != "" {
		return a.dialled
	}
	return a.set.Address
}

// longestError is what a status tells of an error.
const longestError = 2000

// oneLine is a text that others had a part in, fit for a terminal and for a
// line of systemd's protocol, where what begins a line commands.
func oneLine(text string) string {
	text = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, text[:min(len(text), longestError)])
	return strings.Join(strings.Fields(text), " ")
}
