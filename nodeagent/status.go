package nodeagent

import (
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"citadel/ca/caclient"
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
	Failures   int    `json:"failures"`
	LastError  string `json:"lastError,omitempty"`
	ReloadOwed bool   `json:"reloadOwed"`
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
	s.CA, s.Failures, s.ReloadOwed = a.set.Address, a.failures, a.owed
	s.NextTry = a.nextAsk(now)
	s.ID = a.want()
	s.Identity = s.ID.String()
	if a.held != nil {
		leaf := a.held.SVID.Certificates[0]
		s.Serial, s.NotBefore, s.NotAfter = leaf.SerialNumber.Text(16), leaf.NotBefore, leaf.NotAfter
		s.Roots, s.RenewAt = len(a.held.Roots.X509Authorities()), a.dueAt()
		a.watched.Store(&caclient.Config{Address: a.set.Address, ServerName: a.set.ServerName, Roots: a.held.Roots.X509Authorities()})
	}
	a.status.Store(&s)
}
