package ca

import (
	"errors"
	"fmt"
	"math/big"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// Bans are the identities and the certificates to which nothing more is
// issued. What they hold already is good until its end. The zero Bans ban
// nobody, for ever.
type Bans struct {
	// Until is how long they are to be gone by: after that, who is banned is not
	// known, and nothing is issued. Zero: for ever.
	Until time.Time

	identities map[spiffeid.ID]string
	serials    map[string]string // by hexadecimal serial number
}

// NewBans makes bans of texts, each the reason by whom it bans: a SPIFFE ID, or
// a certificate's serial number in hexadecimal, colons between its bytes or
// not.
func NewBans(reasons map[string]string) (Bans, error) {
	b := Bans{identities: map[spiffeid.ID]string{}, serials: map[string]string{}}
	var wrong []error
	for whom, why := range reasons {
		id, idErr := spiffeid.FromString(whom)
		serial, isNumber := new(big.Int).SetString(strings.ReplaceAll(whom, ":", ""), 16)
		switch {
		case idErr == nil:
			b.identities[id] = why
		case isNumber && serial.Sign() > 0:
			b.serials[serial.Text(16)] = why
		default:
			wrong = append(wrong, fmt.Errorf("ban of %q: it is neither a SPIFFE ID (%w) nor a hexadecimal serial number", whom, idErr))
		}
	}
	return b, errors.Join(wrong...)
}

// check refuses a caller that is banned.
func (b *Bans) check(c Caller) error {
	if b == nil {
		return nil
	}
	whom := "identity " + c.id.String()
	why, banned := b.identities[c.id]
	if !banned && c.serial != nil {
		whom = "the certificate of serial number " + c.Certificate()
		why, banned = b.serials[c.Certificate()]
	}
	if !banned {
		return nil
	}
	reason := whom + " is banned"
	if why != "" {
		reason += " (" + why + ")"
	}
	return &Error{Class: Denied, Reason: reason}
}

// known refuses everybody once the bans are too old.
func (b *Bans) known(now time.Time) error {
	if b == nil || b.Until.IsZero() || now.Before(b.Until) {
		return nil
	}
	return &Error{Class: CANotReady, Reason: "Istio CA is not ready", Cause: ErrBansUnknown}
}

// ErrBansUnknown says that the bans have not been read for too long.
var ErrBansUnknown = errors.New("the list of bans has not been read for too long, so who is banned is not known")

// SetBans replaces the bans; it counts from the next request on.
func (a *Authority) SetBans(b Bans) { a.bans.Store(&b) }
